/** Bengio et al. 2015, section 2.4; each gives the share of gold words at step i. */
const linear = (i, c, minimum) => Math.max(minimum, 1 - c * i);
const exponential = (i, k) => k ** i;
const inverseSigmoid = (i, k) => k / (k + Math.exp(Math.min(i / k, 700)));

function render({ model, el }) {
  const get = (name) => model.get(name);
  const [c, cNow, drawC] = slider(model, "c", "slope c", { min: 0, max: 0.02, step: 0.0001 }, (v) => v.toFixed(4));
  const [least, leastNow, drawLeast] = slider(model, "minimum", "least ε", { min: 0, max: 1, step: 0.01 }, (v) => v.toFixed(2));
  const [k, kNow, drawK] = slider(model, "k", "k", { min: 0.95, max: 0.9999, step: 0.0001 }, (v) => v.toFixed(4));
  const [s, sNow, drawS] = slider(model, "sigmoid_k", "k", { min: 1, max: 200, step: 1 });
  const [steps, stepsNow, drawSteps] = slider(model, "steps", "steps", { min: 50, max: 2000, step: 50 });
  const [step, stepNow, drawStep] = slider(model, "step", "step i", { min: 0, step: 1 });
  for (const [control, name] of [[k, "k of the exponential"], [s, "k of the inverse sigmoid"]])
    control.querySelector("input").setAttribute("aria-label", name);

  const curve = chart("share of gold words by step", { width: 460, height: 190, x: "optimiser step i", y: "share of gold words" });
  const line = (colour, dashes) => svg("path", { fill: "none", "stroke-width": 2.5, stroke: `var(--s2s-${colour})`, "stroke-dasharray": dashes });
  const lines = [line("blue"), line("orange", "8 4"), line("green", "8 3 2 3")];
  const now = svg("path", { stroke: "currentColor" });
  curve.element.append(now, ...lines);
  curve.element.classList.add("s2s-follows");
  curve.element.addEventListener("pointermove", (event) =>
    model.set("step", Math.min(Math.max(Math.round(curve.x(event)), 0), get("steps"))));
  curve.element.addEventListener("pointerleave", () => model.save_changes());

  const shares = ["s2s-g", "s2s-o", "s2s-n"].map((name) => html("b", { class: name }));
  const told = html("p", { class: "s2s-sum", "aria-live": "polite" }, ...shares);
  const name = (text, sample) => html("span", { class: "s2s-name" }, html("b", { class: sample }, text));
  frame(model, el, "Forcing schedules",
    html("div", { class: "s2s-row" }, name("— linear: max(ε, 1 - c i)", "s2s-g"), c, cNow, least, leastNow),
    html("div", { class: "s2s-row" }, name("- - exponential: k^i", "s2s-o"), k, kNow),
    html("div", { class: "s2s-row" }, name("-·- inverse sigmoid: k / (k + e^(i/k))", "s2s-n"), s, sNow),
    html("div", { class: "s2s-row" }, steps, stepsNow, step, stepNow),
    html("div", { class: "s2s-scroll" }, curve.element), told);

  return drawOn(model, ["c", "minimum", "k", "sigmoid_k", "steps", "step"], () => {
    step.querySelector("input").max = get("steps");
    for (const draw of [drawC, drawLeast, drawK, drawS, drawSteps, drawStep]) draw();
    const functions = [(i) => linear(i, get("c"), get("minimum")), (i) => exponential(i, get("k")),
      (i) => inverseSigmoid(i, get("sigmoid_k"))];
    const most = get("steps"), i = Math.min(get("step"), most);
    curve.span([0, most], [0, 1]);
    const places = Array.from({ length: 251 }, (_, n) => n * most / 250);
    lines.forEach((line, n) => line.setAttribute("d", curve.path(places.map((x) => [x, functions[n](x)]))));
    now.setAttribute("d", curve.path([[i, 0], [i, 1]]));
    ["Linear", "exponential", "inverse sigmoid"].forEach((name, n) => {
      shares[n].textContent = `${name} ${functions[n](i).toFixed(2)}${n < 2 ? ",  " : ""}`;
    });
    told.firstChild.nodeType === 3 ? told.firstChild.data = `Gold words at step ${i}: `
      : told.prepend(`Gold words at step ${i}: `);
  });
}

export default { render };
