function render({ model, el }) {
  const get = (name) => model.get(name), size = () => get("columns").length;
  const feed = (place, own) => get("own").map((was, k) => (k === place ? own : was));
  const all = (own) => put(model, { own: get("own").map(() => own), at: size() });
  const button = (text, onclick) => html("button", { onclick }, text);
  const step = (own) => () => {
    if (reached() === get("at")) put(model, { own: feed(get("at") - 1, own), at: get("at") + 1 });
  };
  const back = button("◀ Back", () => put(model, { at: get("at") - 1 }));
  const gold = button("", step(false)), self = button("", step(true));
  const reset = button("Reset", () => put(model, { own: get("own").map(() => false), at: 1 }));

  const names = get("names").map((name) => [name, name]);
  const [models, drawModel] = choice(model, "model", "model", names);
  const [pairs, drawPair] = choice(model, "pair", "sentence", get("pairs").map(([text], k) => [k, text]));
  pairs.querySelector("select").classList.add("s2s-wide");

  const table = html("table", { class: "s2s-forcing" });
  const told = html("p", { class: "s2s-sum", "aria-live": "polite" });
  const best = html("div", { class: "s2s-best" });
  const curve = chart("probability of the gold word at every position",
    { width: 330, height: 130, x: "position", y: "p(gold word)" });
  const line = (colour, width, dashes) => svg("path", { fill: "none", stroke: colour, "stroke-width": width, "stroke-dasharray": dashes });
  const [golden, selfish, mixed] = [line("var(--s2s-blue)", 2), line("var(--s2s-orange)", 2, "6 4"), line("currentColor", 3, "2 4")];
  curve.element.append(golden, selfish, mixed);
  const key = (sample, text) => html("span", {}, html("b", { class: sample }, sample === "s2s-dots" ? "···· " : sample === "s2s-o" ? "- - " : "— "), text);
  frame(model, el, "Teacher forcing",
    html("div", { class: "s2s-row" }, names.length > 1 ? models : null, pairs),
    html("p", { class: "s2s-note" }, "What shall the next step read, the gold word or what the model has just said? " +
      "A click on a fed word changes it afterwards."),
    html("div", { class: "s2s-row" }, back, gold, self, reset, button("All gold", () => all(false)), button("All own", () => all(true))),
    html("div", { class: "s2s-scroll" }, table), told,
    html("div", { class: "s2s-panels" },
      html("div", {}, html("div", { class: "s2s-row" }, key("s2s-g", "all gold"), key("s2s-o", "all own"), key("s2s-dots", "as fed")), curve.element), best));

  // A position under the mouse or the focus shows its distribution; else the last one.
  let looked = null, shown = 0;
  const right = (columns) => columns.filter((column) => column.right).length;
  const drawBest = () => {
    const known = reached(), place = Math.min(looked ?? get("at") - 1, known - 1), column = get("columns")[place];
    best.replaceChildren(html("b", {}, `Position ${place + 1}: after “${column.fed}” it expects`),
      ...column.best.map(([word, p]) => html("div", { class: "s2s-guess" }, html("span", {}, word + (word === column.gold ? " (gold)" : "")),
        html("span", { class: word === column.gold ? "s2s-level s2s-is-gold" : "s2s-level", style: `width:${Math.max(1, 160 * p)}px` }), p.toFixed(2))));
  };
  // Columns after a changed choice are the kernel's to give.
  const reached = () => {
    const own = get("own"), feeding = get("feeding"), changed = own.findIndex((choice, k) => choice !== feeding[k]);
    return Math.min(get("at"), changed < 0 ? size() : changed + 1);
  };
  const look = (place) => { looked = place; drawBest(); };
  const row = (title, cells) => html("tr", {}, html("th", { scope: "row" }, title), ...cells);
  const draw = () => {
    drawModel();
    drawPair();
    const columns = get("columns"), own = get("own"), at = get("at"), known = reached();
    const moved = shown !== (shown = at);
    if (moved) looked = null;
    const focus = el.contains(document.activeElement) ? document.activeElement.dataset.place : undefined;
    const cell = (k, attributes, ...children) => html("td", { ...attributes, onpointermove: () => k < reached() && look(k) }, ...children);
    const toggles = columns.slice(1, at).map((column, k) => html("button", { "data-place": k,
      class: own[k] ? "s2s-fed-own" : "s2s-fed-gold", "aria-label": `position ${k + 2} reads ${own[k] ? "the model's own word" : "the gold word"}; change`,
      onfocus: () => look(k + 1), onclick: () => put(model, { own: feed(k, !own[k]) }) },
    k + 1 < known ? column.fed : "…", html("small", {}, own[k] ? "own" : "gold")));
    arrows(toggles, toggles.length);
    table.replaceChildren(
      row("position", columns.map((_, k) => cell(k, {}, String(k + 1)))),
      row("gold", columns.map((column, k) => cell(k, {}, column.gold))),
      row("fed", columns.map((column, k) => cell(k, {}, k >= at ? "" : k ? toggles[k - 1] : column.fed))),
      row("said", columns.map(({ said, right, p }, k) => cell(k, { class: k >= known ? "" : right ? "s2s-right" : "s2s-wrong" },
        ...(k >= at ? [""] : k >= known ? ["…"] : [`${right ? "✓" : "✗"} ${said}`, html("small", {}, p.toFixed(2))])))),
      row("p(gold)", columns.map(({ p_gold }, k) => cell(k, {}, k < known ? p_gold.toFixed(2) : ""))));
    const now = table.rows[0].cells[at], scroller = table.parentElement;
    if (moved) scroller.scrollLeft = now.offsetLeft + now.offsetWidth - scroller.clientWidth;
    if (focus !== undefined) toggles[focus]?.focus();
    const end = at >= size(), last = columns[at - 1];
    back.disabled = at <= 1;
    gold.disabled = self.disabled = end;
    // Not disabled while the kernel steps: the focus would be lost.
    for (const one of [gold, self]) one.setAttribute("aria-disabled", known < at);
    gold.textContent = end ? "Feed gold ▶" : `Feed gold “${last.gold}” ▶`;
    self.textContent = end ? "Feed own ▶" : `Feed own “${known < at ? "…" : last.said}” ▶`;
    curve.span([1, Math.max(size(), 2)], [0, 1]);
    const path = (list) => curve.path(list.map((column, k) => [k + 1, column.p_gold]));
    golden.setAttribute("d", path(get("all_gold")));
    selfish.setAttribute("d", path(get("all_own")));
    mixed.setAttribute("d", path(columns.slice(0, known)));
    told.textContent = `Right so far: ${right(columns.slice(0, known))} of ${known}.  The whole sentence, ` +
      `${size()} words: all gold ${right(get("all_gold"))} right, all own ${right(get("all_own"))} right.`;
    drawBest();
  };
  return drawOn(model, ["model", "pair", "own", "at", "columns", "feeding", "all_gold", "all_own"], () => {
    if (size()) draw();
  });
}

export default { render };
