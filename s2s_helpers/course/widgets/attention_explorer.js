const KINDS = [["cross", "cross: translation looks at source"], ["encoder", "encoder: source at itself"],
  ["decoder", "decoder: translation at its past"]];
const VERBS = { target: "looks at", source: "is looked at by" };
const FORCED = ["forced", "other_forced"];
const LEAST = 0.005; // weights that would round to 0 %
const NUMBER = 0.02; // weights whose number stands in its cell

/** How strongly a weight is drawn: small ones more than in proportion, so that they are seen. */
const strength = (share) => (share ** 0.7).toFixed(3);

const percent = (share) => (share < LEAST ? "<1%" : `${Math.round(100 * share)}%`);

/** What measures the width of a word before it is on the page. */
function ruler(size) {
  const family = getComputedStyle(document.body).getPropertyValue("--jp-ui-font-family");
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `bold ${size}px ${family || "system-ui, sans-serif"}`;
  return (text) => pen.measureText(text).width;
}

/** A pane's weights as rows: of a layer and a head (from 1), or the mean where they are null. As
 *  `Reading.matrix`: null where there is no such attention. */
function matrixOf(pane, kind, layer, head) {
  const bytes = pane.weights[kind];
  if (!bytes) return null;
  const [rows, columns] = pane.tokens[kind].map((tokens) => tokens.length);
  const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const among = (count, wanted) => wanted == null || count === 1 ? [...Array(count).keys()]
    : wanted <= count ? [wanted - 1] : [];
  const [layers, heads] = pane.size;
  const blocks = among(layers, layer).flatMap((l) => among(heads, head).map((h) => l * heads + h));
  if (!blocks.length) return null;
  return Array.from({ length: rows }, (_, row) => Float32Array.from({ length: columns }, (_, column) =>
    blocks.reduce((sum, block) => sum + all[(block * rows + row) * columns + column], 0) / blocks.length));
}

/** A token that can be hovered, focused and clicked; `lit` is its ground, lit by its weight. */
function word(token, size, width, anchor, transform) {
  const x = { start: -4, end: -width - 4 }[anchor];
  const lit = svg("rect", { x, y: -size, width: width + 8, height: 1.4 * size, rx: 3, class: "s2s-lit", "fill-opacity": 0 });
  const element = svg("g", { class: "s2s-word", role: "button", "aria-label": token, transform }, lit,
    svg("text", { "text-anchor": anchor }, token));
  return { element, lit };
}

/** A matrix: a row for each token that looks, a column for each that is looked at. */
function matrixPicture(rows, columns, size, measure) {
  const unit = Math.round(1.5 * size), wide = Math.max(...columns.map(measure));
  const left = Math.max(...rows.map(measure)) + 14, top = 0.72 * wide + size, slant = 0.7 * wide;
  const width = columns.length * unit, height = rows.length * unit;
  const words = {
    target: rows.map((token, row) => word(token, size, measure(token), "end",
      `translate(${left - 8},${top + (row + 0.5) * unit + 0.35 * size})`)),
    source: columns.map((token, column) => word(token, size, measure(token), "start",
      `translate(${left + (column + 0.6) * unit},${top - 0.5 * size}) rotate(-45)`)),
  };
  const marks = rows.map((_, row) => columns.map((_, column) => svg("rect", { width: unit - 1,
    height: unit - 1, x: left + column * unit, y: top + row * unit, fill: "var(--s2s-blue)" })));
  const gold = svg("g", { class: "s2s-gold" });
  const veils = [0, 1].map(() => svg("rect", { fill: "var(--s2s-paper)", "fill-opacity": 0.8 }));
  const numbers = Array.from({ length: Math.max(rows.length, columns.length) },
    () => svg("text", { class: "s2s-number", "text-anchor": "middle" }));
  const ground = svg("rect", { x: left - 1, y: top - 1, width: width + 1, height: height + 1, class: "s2s-ground" });
  const picture = svg("svg", { width: left + width + slant + 6, height: top + height + 6 }, ground,
    svg("g", { class: "s2s-marks" }, ...marks.flat()), gold, ...veils, ...numbers);
  return {
    picture, words, gold,
    weigh: (weights) => marks.forEach((line, row) => line.forEach((mark, column) =>
      mark.setAttribute("fill-opacity", weights ? strength(weights[row][column]) : 0))),
    link: (column, row) => ["s2s-halo", ""].map((name) => svg("rect", { class: name, width: unit - 5,
      height: unit - 5, x: left + column * unit + 2, y: top + row * unit + 2 })),
    /** The row that the mouse is in, as a word that looks. */
    under: (event) => {
      const box = picture.getBoundingClientRect();
      const row = Math.floor((event.clientY - box.top - top) / unit);
      const inside = event.clientX - box.left >= left && event.clientX - box.left < left + width;
      return inside && row >= 0 && row < rows.length ? ["target", row] : null;
    },
    light: (side, position, line) => {
      const across = side === "target";
      const before = position * unit, after = ((across ? rows : columns).length - position - 1) * unit;
      veils.forEach((veil, second) => {
        const start = second ? before + unit : 0, length = side ? (second ? after : before) : 0;
        veil.setAttribute("x", left + (across ? 0 : start));
        veil.setAttribute("y", top + (across ? start : 0));
        veil.setAttribute("width", across ? width : length);
        veil.setAttribute("height", across ? length : height);
      });
      numbers.forEach((number, place) => {
        const share = line?.[place] ?? 0;
        number.textContent = share >= NUMBER ? Math.round(100 * share) : "";
        number.setAttribute("x", left + ((across ? place : position) + 0.5) * unit);
        number.setAttribute("y", top + ((across ? position : place) + 0.5) * unit + 0.26 * size);
      });
    },
  };
}

/** Lines from each token that looks, on the right, to those it looks at, on the left. */
function linesPicture(rows, columns, size, measure) {
  const unit = Math.round(1.75 * size), edge = 3.2 * size;
  const left = edge + Math.max(...columns.map(measure)) + 10, right = left + 11 * size;
  const end = right + Math.max(...rows.map(measure)) + 16;
  const level = (place) => (place + 0.5) * unit + 4;
  const place = (side, number) => `translate(${side === "target" ? right + 8 : left - 8},${level(number) + 0.35 * size})`;
  const words = {
    target: rows.map((token, row) => word(token, size, measure(token), "start", place("target", row))),
    source: columns.map((token, column) => word(token, size, measure(token), "end", place("source", column))),
  };
  const path = (row, column) => ({ x1: left, y1: level(column), x2: right, y2: level(row) });
  const marks = rows.map((_, row) => columns.map((_, column) => svg("line", path(row, column))));
  const lines = marks.map((line) => svg("g", {}, ...line));
  const numbers = {};
  for (const side of ["target", "source"]) numbers[side] = words[side].map((_, number) => svg("text", {
    class: "s2s-number", "text-anchor": side === "target" ? "start" : "end", y: level(number) + 0.3 * size,
    x: side === "target" ? end : edge - 8 }));
  const gold = svg("g", { class: "s2s-gold" });
  const height = Math.max(rows.length, columns.length) * unit + 8;
  const picture = svg("svg", { width: end + edge, height }, svg("g", { class: "s2s-marks s2s-strokes" },
    ...lines), gold, ...numbers.target, ...numbers.source);
  return {
    picture, words, gold, under: () => null,
    weigh: (weights) => marks.forEach((line, row) => line.forEach((mark, column) => {
      const share = weights ? weights[row][column] : 0;
      mark.setAttribute("stroke-opacity", share < LEAST ? 0 : strength(share));
      mark.setAttribute("stroke-width", (1 + 5 * share).toFixed(2));
    })),
    link: (column, row) => [svg("line", path(row, column))],
    light: (side, position, line) => {
      lines.forEach((each, row) => each.setAttribute("opacity", side === "target" && row !== position ? 0.05 : 1));
      marks.forEach((each) => each.forEach((mark, column) => mark.setAttribute("visibility",
        side === "source" && column !== position ? "hidden" : "inherit")));
      gold.setAttribute("opacity", side ? 0.3 : 1);
      for (const own of ["target", "source"]) numbers[own].forEach((number, place) => {
        const share = side && side !== own ? line?.[place] ?? 0 : 0;
        number.textContent = share >= LEAST ? percent(share) : "";
      });
    },
  };
}

/** What is drawn of one model. `hover` is told which word the mouse is on, or null. */
function paneOf(model, number, hover) {
  const title = html("p", { class: "s2s-title" }), said = html("p", { class: "s2s-said", "aria-live": "polite" });
  const note = html("p", { class: "s2s-note" }), chips = html("div", { class: "s2s-row s2s-chips", role: "group" });
  const back = html("button", {
    onclick: () => force(Math.max(...Object.keys(model.get(FORCED[number])).map(Number))),
  }, "take back the last choice");
  const scroll = html("div", { class: "s2s-scroll", onpointerleave: () => hover(null) });
  const element = html("div", { class: "s2s-pane" }, 
    html("div", { class: "s2s-row" }, title, back), note, said, chips, scroll);
  const pane = () => model.get("panes")[number];
  let drawn, weights, rows, columns;

  /** Write `token` at a position and go on from there; without it, or the best one: as the model likes. */
  const force = (position, token) => {
    const earlier = Object.entries(model.get(FORCED[number])).filter(([place]) => Number(place) < position);
    const best = pane().candidates[position][0][0];
    const own = token == null || token === best ? [] : [[position, token]];
    put(model, { [FORCED[number]]: Object.fromEntries([...earlier, ...own]) });
  };
  const second = (position) => {
    const [best, next] = pane().candidates[position] ?? [];
    if (next) force(position, rows[position] === best[0] ? next[0] : best[0]);
  };

  /** Draw tokens anew: another sentence, kind, view or size. The focus stays on its word. */
  const build = () => {
    const kind = model.get("kind"), size = model.get("size"), forced = model.get(FORCED[number]);
    const focused = document.activeElement?.closest(".s2s-word");
    const held = scroll.contains(focused) ? [focused.dataset.side, Number(focused.dataset.position)] : null;
    [rows, columns] = pane().tokens[kind];
    const labels = kind === "encoder" ? rows : rows.map((token, place) => (place in forced ? `◆ ${token}` : token));
    const shape = model.get("view") === "matrix" && pane().weights[kind] ? matrixPicture : linesPicture;
    drawn = shape(labels, columns, size, ruler(size));
    element.style.flexBasis = `${drawn.picture.getAttribute("width")}px`;
    drawn.picture.addEventListener("pointermove", (event) => {
      const own = event.target.closest(".s2s-word");
      hover(own ? [own.dataset.side, Number(own.dataset.position)] : drawn.under(event));
    });
    drawn.picture.addEventListener("keydown", (event) => { if (event.key === "Escape") put(model, { selected: [] }); });
    drawn.picture.addEventListener("click", (event) => { if (!event.target.closest(".s2s-word")) put(model, { selected: [] }); });
    for (const [side, name] of [["target", "words that look"], ["source", "words looked at"]]) {
      const elements = drawn.words[side].map(({ element: own }, position) => {
        own.dataset.side = side;
        own.dataset.position = position;
        own.addEventListener("focus", () => {
          hover(null); // a mouse at rest must not outdo the keys
          model.set("selected", [side, position]);
          setTimeout(() => model.save_changes()); // with what a click may force, in one message
        });
        const act = () => side === "target" && kind !== "encoder" && second(position);
        own.addEventListener("click", () => { own.focus({ preventScroll: true }); act(); });
        own.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          act();
        });
        return own;
      });
      arrows(elements);
      drawn.picture.append(svg("g", { role: "group", "aria-label": name }, ...elements));
    }
    scroll.replaceChildren(drawn.picture);
    if (held) drawn.words[held[0]][Math.min(held[1], drawn.words[held[0]].length - 1)].element.focus({ preventScroll: true });
    title.replaceChildren(html("b", {}, pane().name), " ", html("span", { class: "s2s-text" }, pane().text));
    back.hidden = !Object.keys(forced).length;
  };

  /** Another layer or head. */
  const weigh = () => {
    const kind = model.get("kind"), { unknown, gold, size } = pane();
    weights = matrixOf(pane(), kind, model.get("layer"), model.get("head"));
    drawn.weigh(weights);
    drawn.gold.replaceChildren(...(weights && model.get("gold") && kind === "cross"
      ? gold.flatMap(([column, row]) => drawn.link(column, row)) : []));
    const notes = [];
    if (unknown.length) notes.push(`Not in the vocabulary, so read as <unk>: ${unknown.join(" ")}.`);
    if (!size[0]) notes.push("This model has no attention: all it knows of the source is one vector. Its words can still be changed.");
    else if (!pane().weights[kind]) notes.push(`This model has no ${kind} ${kind === "cross" ? "" : "self-"}attention.`);
    else if (!weights) notes.push(`This model has only ${size[0]} layers of ${size[1]} heads.`);
    note.textContent = notes.join(" ");
  };

  /** Light up what belongs to a word, or nothing. */
  const light = ([side, position] = []) => {
    const other = side === "target" ? "source" : "target", own = side === "target" ? rows : columns;
    const there = side !== undefined && position < own.length;
    const line = there && weights ? (side === "target" ? weights[position] : weights.map((row) => row[position])) : null;
    drawn.light(there ? side : null, there ? position : 0, line);
    for (const each of ["target", "source"]) drawn.words[each].forEach(({ element: word, lit }, place) => {
      word.classList.toggle("s2s-chosen", there && each === side && place === position);
      lit.setAttribute("fill-opacity", each === other && line ? (0.55 * line[place]).toFixed(3) : 0);
    });
    const names = side === "target" ? columns : rows;
    const best = line ? [...line.keys()].sort((a, b) => line[b] - line[a]).slice(0, 3).filter((place) => line[place] >= LEAST) : [];
    said.textContent = !there ? "" : `“${own[position]}” ` + (line ? `${VERBS[side]} ` +
      best.map((place) => `“${names[place]}” ${percent(line[place])}`).join(", ") : "");
    const offers = there && side === "target" && model.get("kind") !== "encoder" ? pane().candidates[position] ?? [] : [];
    chips.setAttribute("aria-label", there ? `what could stand in the place of ${own[position]}` : "");
    chips.replaceChildren(...offers.map(([token, share]) => html("button", { class: "s2s-chip",
      "aria-pressed": token === rows[position] ? "true" : "false", style: `--s2s-share: ${percent(share)}`,
      onclick: () => force(position, token) }, `${token} ${percent(share)}`)));
  };
  return { element, build, weigh, light };
}

function render({ model, el }) {
  let hovered = null, built = [], weighed = [];
  const panes = model.get("panes").map((_, number) => paneOf(model, number, (word) => {
    if (String(word) === String(hovered)) return;
    hovered = word;
    light();
  }));
  const light = () => panes.forEach((pane) => pane.light(hovered ?? model.get("selected")));

  const sentences = model.get("sentences"), kinds = KINDS.filter(([kind]) => model.get("panes").some((p) => p.weights[kind]));
  const most = [0, 1].map((part) => Math.max(...model.get("panes").map((pane) => pane.size[part])));
  const numbers = (count, one) => [[null, `mean of ${count}`], ...Array.from({ length: count }, (_, i) => [i + 1, `${one} ${i + 1}`])];
  const controls = [
    ...(sentences.length > 1 ? [choice(model, "sentence", "sentence", sentences.map((text) => [text, text]))] : []),
    ...(sentences.length ? [field(model, "sentence", sentences.length > 1 ? "or type one" : "sentence")] : []),
  ];
  const looks = [
    choice(model, "view", "view", [["matrix", "matrix"], ["lines", "lines"]]),
    ...(kinds.length > 1 ? [choice(model, "kind", "attention", kinds)] : []),
    ...(most[0] > 1 ? [choice(model, "layer", "layer", numbers(most[0], "layer"))] : []),
    ...(most[1] > 1 ? [choice(model, "head", "head", numbers(most[1], "head"))] : []),
    tick(model, "gold", "gold alignment"),
  ];
  const reference = html("p", { class: "s2s-note" });
  const [slide, shown, drawSize] = slider(model, "size", "text size", { min: 8, max: 40, step: 1 });
  const root = frame(model, el, "Attention explorer",
    html("div", { class: "s2s-row" }, ...controls.map(([control]) => control)),
    html("div", { class: "s2s-row" }, ...looks.map(([control]) => control),
      html("span", { class: "s2s-control" }, slide, shown)),
    html("p", { class: "s2s-note" }, "Hover a word, or walk there with Tab and the arrow keys: what it looks at lights up. " +
      (sentences.length ? "Click a word of the translation (or press Enter on it): the model takes its second-best word there, and goes on from it." : "")),
    reference, html("div", { class: "s2s-panes" }, ...panes.map((pane) => pane.element)));
  root.classList.add("s2s-explorer");

  return drawOn(model, ["sentence", "forced", "other_forced", "kind", "layer", "head", "view", "gold", "selected", "size", "panes"], () => {
    for (const [, draw] of [...controls, ...looks]) draw();
    drawSize();
    const right = model.get("panes")[0].reference;
    reference.textContent = right && `Reference: ${right}`;
    const gold = model.get("kind") === "cross" && model.get("panes").some((pane) => pane.gold.length);
    looks.at(-1)[0].hidden = !gold;
    root.style.setProperty("--s2s-size", `${model.get("size")}px`);
    const now = ["panes", "kind", "view", "size"].map((trait) => model.get(trait));
    const changed = now.some((value, place) => value !== built[place]);
    const weights = ["layer", "head", "gold"].map((trait) => model.get(trait));
    if (changed) panes.forEach((pane) => pane.build());
    if (changed || String(weights) !== String(weighed)) panes.forEach((pane) => pane.weigh());
    [built, weighed] = [now, weights];
    light();
  });
}

export default { render };
