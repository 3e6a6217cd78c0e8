const HEIGHT = 180, PAD = 0, LEAST = 0.001, LONGEST = 12;
const CURVE = { left: 46, top: 10, width: 260, height: 180, most: 5 };

const entropy = (wanted, chosen) =>
  -wanted.reduce((sum, q, word) => sum + (q ? q * Math.log(chosen[word]) : 0), 0);

/** q'(k) = (1 - ε) δ(k, y) + ε / K */
const smoothed = (target, size, epsilon) =>
  Array.from({ length: size }, (_, k) => (k === target ? 1 - epsilon : 0) + epsilon / size);

/** The distribution with `share` at `word`; the others keep their proportions. */
function moved(row, word, share) {
  const value = Math.min(Math.max(share, LEAST), 1 - LEAST * (row.length - 1));
  const others = 1 - row[word];
  const next = row.map((p) => Math.max((p / others) * (1 - value), LEAST));
  next[word] = value;
  const sum = next.reduce((a, b) => a + b);
  return next.map((p) => p / sum);
}

function render({ model, el }) {
  const words = model.get("words"), targets = model.get("targets");
  const short = words.map((word) => (word.length > LONGEST ? `${word.slice(0, LONGEST - 1)}…` : word));
  const BAR = Math.max(64, 10 + 9 * Math.max(...short.map((word) => word.length)));
  const row = () => model.get("probabilities")[model.get("position")];
  const change = (word, share) => {
    const all = model.get("probabilities").slice();
    all[model.get("position")] = moved(row(), word, share);
    put(model, { probabilities: all });
  };

  // The sentence: a button a position, its loss below the word.
  const positions = targets.map((word, place) => html("button", {
    class: "s2s-position", onclick: () => put(model, { position: place }),
  }, html("b", {}, words[word]), html("br"), html("span")));
  arrows(positions, positions.length);

  // The bars: the target as an outline, the prediction as a column that can be dragged.
  const chart = svg("svg", { width: words.length * BAR, height: HEIGHT + 44, role: "group",
    "aria-label": "prediction and target of this position" });
  const bars = words.map((word, k) => {
    const x = k * BAR + 10;
    const column = svg("rect", { x, width: BAR - 20, fill: "var(--s2s-blue)" });
    const wanted = svg("path", { stroke: "var(--s2s-orange)", "stroke-width": 4 });
    const number = svg("text", { x: x + BAR / 2 - 10, "text-anchor": "middle" });
    const handle = svg("g", { class: "s2s-bar", tabindex: 0, role: "slider", "aria-label": word,
      "aria-valuemin": 0, "aria-valuemax": 1 },
      svg("rect", { x: x - 8, y: 0, width: BAR - 4, height: HEIGHT, fill: "transparent" }), column, wanted,
      number, svg("text", { x: x + BAR / 2 - 10, y: HEIGHT + 38, "text-anchor": "middle" }, short[k]));
    const drag = (event) => {
      const box = chart.getBoundingClientRect();
      change(k, 1 - (event.clientY - box.top) / HEIGHT);
    };
    handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); drag(event); });
    handle.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 0.05, ArrowRight: 0.05, ArrowDown: -0.05, ArrowLeft: -0.05 }[event.key];
      if (!step) return;
      event.preventDefault();
      change(k, row()[k] + step);
    });
    chart.append(handle);
    return { column, wanted, number, handle };
  });

  // The loss as p(y) moves, all other words in their present proportions.
  const line = svg("path", { fill: "none", stroke: "var(--s2s-blue)", "stroke-width": 2 });
  const now = svg("circle", { r: 6, fill: "var(--s2s-orange)" });
  const least = svg("path", { stroke: "var(--s2s-green)", "stroke-width": 2, "stroke-dasharray": "4 3" });
  const leastText = svg("text", { "text-anchor": "end", fill: "var(--s2s-green)" });
  const { left, top, width, height, most } = CURVE;
  const curve = svg("svg", { width: left + width + 12, height: top + height + 44, role: "img",
    "aria-label": "the loss by the probability of the right word" },
    svg("path", { d: `M${left},${top}V${top + height}H${left + width}`, fill: "none", stroke: "currentColor" }),
    ...[0, 1, 2, 3, 4, 5].map((nats) => svg("text", { x: left - 8, "text-anchor": "end",
      y: top + height * (1 - nats / most) + 5 }, String(nats))),
    ...[0, 0.5, 1].map((p) => svg("text", { x: left + p * width, y: top + height + 18, "text-anchor": "middle" }, String(p))),
    svg("text", { x: left + width / 2, y: top + height + 38, "text-anchor": "middle" }, "p of the right word"),
    svg("text", { x: 12, y: top + height / 2, "text-anchor": "middle",
      transform: `rotate(-90 12 ${top + height / 2})` }, "loss (nats)"), line, least, leastText, now);
  const at = (p, loss) => [left + p * width, top + height * (1 - Math.min(loss, most) / most)];

  const [epsilon, shown, drawEpsilon] = slider(model, "smoothing", "smoothing ε",
    { min: 0, max: 0.9, step: 0.01 }, (value) => value.toFixed(2));
  const [padding, drawPadding] = tick(model, "count_padding", "count padding in the mean (a mistake)");
  const sum = html("p", { class: "s2s-sum", "aria-live": "polite" });
  frame(model, el, "Label smoothing",
    html("div", { class: "s2s-row" }, epsilon, shown, padding),
    html("div", { class: "s2s-row", role: "group", "aria-label": "positions of the sentence" }, ...positions),
    html("p", { class: "s2s-note" }, "Drag a blue bar, or give it the arrow keys: p, what the model says. " +
      "Orange: q', what the loss wants."),
    html("div", { class: "s2s-row s2s-scroll" }, chart, curve), sum);

  return drawOn(model, ["smoothing", "position", "probabilities", "count_padding"], () => {
    drawEpsilon();
    drawPadding();
    const ε = model.get("smoothing"), all = model.get("probabilities"), position = model.get("position");
    const losses = targets.map((y, place) => entropy(smoothed(y, words.length, ε), all[place]));
    positions.forEach((button, place) => {
      const off = targets[place] === PAD && !model.get("count_padding");
      button.setAttribute("aria-pressed", place === position);
      button.classList.toggle("s2s-off", off);
      button.lastChild.textContent = off ? "not counted" : losses[place].toFixed(2);
    });
    const y = targets[position], wanted = smoothed(y, words.length, ε), chosen = all[position];
    bars.forEach(({ column, wanted: mark, number, handle }, k) => {
      const level = HEIGHT * (1 - wanted[k]), x = k * BAR;
      column.setAttribute("y", HEIGHT * (1 - chosen[k]));
      column.setAttribute("height", HEIGHT * chosen[k]);
      mark.setAttribute("d", `M${x + 4},${level}h${BAR - 8}`);
      number.setAttribute("y", HEIGHT + 18);
      number.textContent = chosen[k].toFixed(2);
      handle.setAttribute("aria-valuenow", chosen[k].toFixed(3));
    });
    const points = Array.from({ length: 199 }, (_, i) => (i + 1) / 200)
      .map((p) => [p, entropy(wanted, moved(chosen, y, p))]);
    line.setAttribute("d", "M" + points.map(([p, loss]) => at(p, loss).join(",")).join("L"));
    const [x, level] = at(chosen[y], losses[position]);
    now.setAttribute("cx", x);
    now.setAttribute("cy", level);
    const best = points.reduce((a, b) => (b[1] < a[1] ? b : a));
    const [bestX] = at(...best);
    least.setAttribute("d", `M${bestX},${top}V${top + height}`);
    leastText.setAttribute("x", bestX - 6);
    leastText.setAttribute("y", top + 14);
    leastText.textContent = `least at p = ${best[0].toFixed(2)}`;
    const counted = losses.filter((_, place) => targets[place] !== PAD || model.get("count_padding"));
    const total = counted.reduce((a, b) => a + b, 0);
    sum.textContent = `Loss of “${words[y]}”: ${losses[position].toFixed(3)}.  Mean of the sentence: ` +
      `${total.toFixed(2)} / ${counted.length} = ${(total / counted.length).toFixed(3)} nats a ` +
      (model.get("count_padding") ? "position." : "real token.");
  });
}

export default { render };
