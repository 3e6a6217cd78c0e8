const CELL = 22, PATIENCE = 3000;

/** The attention as squares, a row for each target word; the darker, the more it looked there. */
function squares(source, target, weights) {
  const room = (words, share) => 14 + share * Math.max(...words.map((word) => word.length));
  const left = room(target, 8), top = room(source, 7);
  return svg("svg", { width: left + source.length * CELL + 40, height: top + target.length * CELL, role: "img",
    "aria-label": "attention of the example, a row for each target word" },
    ...source.map((word, k) => svg("text", {
      transform: `translate(${left + k * CELL + 15} ${top - 6}) rotate(-60)` }, word)),
    ...target.map((word, k) => svg("text", { x: left - 8, y: top + k * CELL + 16, "text-anchor": "end" }, word)),
    ...weights.flatMap((row, y) => row.map((weight, x) => svg("rect", {
      x: left + x * CELL, y: top + y * CELL, width: CELL - 1, height: CELL - 1,
      fill: "var(--s2s-blue)", "fill-opacity": 0.04 + 0.96 * weight },
      svg("title", {}, `${target[y]} looks at ${source[x]}: ${weight.toFixed(2)}`)))));
}

function render({ model, el }) {
  const size = { width: 300, height: 110, x: "step" };
  const loss = chart("loss by step", { ...size, y: "loss" });
  const rate = chart("learning rate by step", { ...size, y: "learning rate" });
  const line = (colour, dashes) => svg("path", { fill: "none", "stroke-width": 2,
    stroke: `var(--s2s-${colour})`, "stroke-dasharray": dashes });
  const [train, validation, marks, lr] = [line("blue"), line("orange", "5 4"), svg("g"), line("green")];
  loss.element.append(train, validation, marks);
  rate.element.append(lr);

  let asked = 0;
  const stop = html("button", { onclick: () => {
    asked = Date.now();
    model.send({ stop: true });
    draw();
    setTimeout(draw, PATIENCE + 50);
  } }, "Stop training");
  const progress = html("progress", { "aria-label": "progress of the training" });
  const told = html("span", { role: "status" });
  const hint = html("p", { class: "s2s-note", role: "status" });
  const source = html("span"), said = html("b"), wanted = html("span"), looks = html("div", { class: "s2s-scroll" });
  const example = html("div", { class: "s2s-example" }, html("p", {}, "Example: ", source),
    html("p", {}, "Now: ", said), wanted, looks);
  frame(model, el, "Live training",
    html("div", { class: "s2s-row" }, stop, progress, told), hint,
    html("div", { class: "s2s-panels" },
      html("div", {}, html("b", {}, "Loss: line training, squares validation"), loss.element),
      html("div", {}, html("b", {}, "Learning rate"), rate.element)), example);

  const traits = ["status", "told", "steps", "validations", "total", "translation", "tokens", "attention"];
  const draw = () => {
    const [status, steps, validations, total] = ["status", "steps", "validations", "total"].map((name) => model.get(name));
    const running = status === "running";
    if (!running) asked = 0;
    stop.disabled = !running || asked > 0;
    stop.textContent = asked ? "Stopping…" : "Stop training";
    hint.textContent = status === "waiting" ? "The training begins when its cell runs; this picture then moves." :
      asked && Date.now() - asked > PATIENCE ? "If nothing happens: this notebook hears of the click only after the " +
        "cell. Its own interrupt button (■) ends the training in the same way." : "";
    const last = steps.length ? steps.at(-1) : [0, 0, 0];
    progress.max = total;
    progress.value = last[0];
    told.textContent = model.get("told") + (running && steps.length ? `; loss ${last[1].toFixed(2)}, ` +
      `learning rate ${last[2].toPrecision(2)}` : "");
    const highest = (rows, place) => Math.max(...rows.map((row) => row[place]), 1e-9);
    loss.span([0, total], [0, steps.length ? Math.ceil(Math.max(highest(steps, 1), highest(validations, 1))) : 1]);
    train.setAttribute("d", loss.path(steps));
    validation.setAttribute("d", loss.path(validations));
    marks.replaceChildren(...validations.map(([x, y]) => {
      const [left, top] = loss.at(x, y);
      return svg("rect", { x: left - 4, y: top - 4, width: 8, height: 8, fill: "var(--s2s-orange)" });
    }));
    rate.span([0, total], [0, steps.length ? highest(steps, 2) : 1]);
    lr.setAttribute("d", rate.path(steps.map(([x, , y]) => [x, y])));
    source.textContent = model.get("source");
    said.textContent = model.get("translation") || "…";
    wanted.textContent = model.get("reference") ? `Reference: ${model.get("reference")}` : "";
    const attention = model.get("attention");
    if (attention.length) looks.replaceChildren(squares(model.get("source_tokens"), model.get("tokens"), attention));
    else looks.replaceChildren(...(steps.length ? [html("p", { class: "s2s-note" }, "This model has no attention to show.")] : []));
  };
  return drawOn(model, traits, draw);
}

export default { render };
