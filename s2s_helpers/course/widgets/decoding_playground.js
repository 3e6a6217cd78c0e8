const LINE = 26, WORD = 110, LONG = 300, NUMBER = 60, STRIP = 560;
const TITLES = { greedy: "greedy", beam: "beam", temperature: "temperature", top_k: "top-k", top_p: "top-p" };
const HOW = {
  greedy: "Greedy takes the likeliest word.",
  beam: "Beam search takes the sentence with the best score; a word of it need not be the likeliest one.",
  temperature: "Temperature: q is p to the power 1/T, made to sum to 1.",
  top_k: "Top-k: only the k likeliest words stay; q is their p, made to sum to 1.",
  top_p: "Top-p: the fewest words that hold this share of p stay; q is their p, made to sum to 1.",
};
const share = (p) => (p >= 0.0095 ? p.toFixed(2) : p < 1e-6 ? "0" : p.toExponential(0));
const minus = (number) => number.toFixed(2).replace("-", "−");

/** What the words that have no bar hold of q. */
const tail = (q) => Math.max(0, 1 - q.reduce((a, b) => a + b));

function render({ model, el }) {
  const [sentence, drawSentence] = sentenceBox(model, () => model.get("source"));
  const two = (value) => value.toFixed(2);
  const sliders = {
    beam: slider(model, "beam_size", "k", { min: 1, max: 10, step: 1 }),
    temperature: slider(model, "temperature", "T", { min: 0.05, max: 3, step: 0.05 }, two),
    top_k: slider(model, "top_k", "k", { min: 1, max: 50, step: 1 }),
    top_p: slider(model, "top_p", "p", { min: 0.05, max: 1, step: 0.01 }, two),
  };
  for (const [name, [control]] of Object.entries(sliders)) {
    control.lastChild.setAttribute("aria-label", `${TITLES[name]}: ${control.firstChild.textContent}`);
  }
  const seed = html("span", { class: "s2s-value" });
  const again = html("button", { onclick: () => put(model, { seed: model.get("seed") + 1 }) }, "new sample");

  const lines = Object.keys(TITLES).map((name) => {
    const words = html("div", { class: "s2s-words", role: "group", "aria-label": `words of ${TITLES[name]}` });
    const log_p = html("span", { class: "s2s-value" });
    const [control, value] = sliders[name] ?? [];
    const row = html("div", { class: "s2s-decoder" },
      html("div", {}, html("b", {}, TITLES[name]), " ", log_p,
        control && html("div", { class: "s2s-row" }, control, value)), words);
    return { name, words, log_p, row, buttons: [] };
  });
  const title = html("p", { class: "s2s-story", "aria-live": "polite" });
  const bars = svg("svg", { role: "img" });
  const strip = svg("svg", { width: STRIP + 20, height: 62, role: "img" });
  const luck = html("p", { class: "s2s-detail" });
  frame(model, el, "Decoding playground",
    sentence,
    html("div", { class: "s2s-row" }, again, seed,
      html("span", { class: "s2s-note" }, "Click a word to see what it was taken from. Underlined: where a row leaves greedy's way.")),
    ...lines.map(({ row }) => row), title, html("div", { class: "s2s-scroll" }, bars),
    html("div", { class: "s2s-scroll" }, strip), luck);

  /** The buttons of the words, made anew only where the words are others. */
  function drawRows() {
    const rows = model.get("rows"), greedy = rows[0].words;
    lines.forEach((line, at) => {
      const { words, log_p } = rows[at], text = words.join(" ");
      line.log_p.textContent = `log p ${minus(log_p)}`;
      const leaves = at ? words.findIndex((word, place) => word !== greedy[place]) : -1;
      if (line.text !== text) {
        line.text = text;
        line.buttons = words.map((word, place) => html("button", { class: "s2s-token",
          onclick: () => put(model, { selected: [at, place] }) }, word));
        arrows(line.buttons, line.buttons.length, false);
        line.words.replaceChildren(...line.buttons);
      }
      line.buttons.forEach((button, place) => button.classList.toggle("s2s-leaves", place === leaves));
    });
    const [at, place] = model.get("selected");
    lines.forEach(({ buttons }, row) => buttons.forEach((button, word) =>
      button.setAttribute("aria-pressed", row === at && word === place)));
  }

  function drawBars() {
    const [at, place] = model.get("selected"), row = model.get("rows")[at], step = row.steps[place];
    const { words, p, q, rank, others, rest, kept, kept_p } = step, name = row.name;
    const chosen = Math.min(rank, 10), wide = Math.max(...p, ...(q ?? [])), x = WORD + 16;
    const to = (value) => (value / wide) * LONG;
    title.replaceChildren(html("b", {}, `${TITLES[name]}, word ${place + 1}`),
      `, after “${["<sos>", ...row.words.slice(0, place)].join(" ")}”. ${HOW[name]} ` +
      (q ? `Here ${kept} of ${others + words.length} words stay, ${share(kept_p)} of p. ` : "") +
      `Written: “${row.words[place]}”, rank ${rank + 1}.`);
    const drawn = words.map((word, k) => {
      const y = 24 + k * LINE, cut = q && q[k] === 0;
      return svg("g", { class: `s2s-choice${cut ? " s2s-cut" : ""}${k === chosen ? " s2s-taken" : ""}` },
        svg("text", { x: WORD, y: y + 17, "text-anchor": "end" }, `${k === chosen ? "▶ " : ""}${word}`),
        svg("rect", { x, y: y + 3, width: Math.max(to(p[k]), 1), height: q ? 9 : 18, class: "s2s-p" }),
        q && svg("rect", { x, y: y + 13, width: Math.max(to(q[k]), cut ? 0 : 1), height: 9, class: "s2s-q" }),
        svg("text", { x: x + LONG + 12, y: y + 17 }, share(p[k])),
        q && svg("text", { x: x + LONG + 12 + NUMBER, y: y + 17 }, cut ? "✕ cut" : share(q[k])));
    });
    const end = 24 + words.length * LINE;
    bars.setAttribute("width", x + LONG + 2 * NUMBER + 30);
    bars.setAttribute("height", end + 26);
    bars.setAttribute("aria-label", words.map((word, k) =>
      `${word} p ${share(p[k])}${q ? (q[k] ? ` q ${share(q[k])}` : " cut") : ""}`).join(", "));
    const head = (at, text, kind) => svg("text", { x: at, y: 16, class: kind }, text);
    bars.replaceChildren(head(x + LONG + 12, "p", "s2s-p"), q ? head(x + LONG + 12 + NUMBER, "q", "s2s-q") : "",
      head(x, q ? "p: the model's; q: what is drawn from" : "p: the model's"), ...drawn,
      others ? svg("text", { x, y: end + 17 }, `and ${others} other words, together p ${share(rest)}` +
        (q ? `, q ${share(tail(q))}` : "")) : "");
  }

  /** Where the random number fell: q laid end to end from 0 to 1. */
  function drawStrip() {
    const [at, place] = model.get("selected"), { words, q, luck: number, rank } = model.get("rows")[at].steps[place];
    strip.style.display = luck.style.display = q ? "" : "none";
    if (!q) return;
    let from = 0;
    const parts = words.slice(0, 10).map((word, k) => {
      const x = 10 + from * STRIP, width = q[k] * STRIP;
      from += q[k];
      return svg("g", {}, svg("rect", { x, y: 18, width, height: 24, class: `s2s-part${k === rank ? " s2s-hit" : ""}` }),
        width > 9 * word.length + 6 ? svg("text", { x: x + width / 2, y: 35, "text-anchor": "middle" }, word) : null);
    });
    if (1 - from > 0.15) {
      parts.push(svg("text", { x: 10 + (1 + from) / 2 * STRIP, y: 35, "text-anchor": "middle" }, "others"));
    }
    const x = 10 + number * STRIP;
    strip.setAttribute("aria-label", `q from 0 to 1; the number ${number.toFixed(3)} fell on ${words[Math.min(rank, 10)]}`);
    strip.replaceChildren(svg("rect", { x: 10, y: 18, width: STRIP, height: 24, class: "s2s-part" }), ...parts,
      svg("path", { d: `M${x},14v32`, class: "s2s-luck" }), svg("text", { x, y: 60, "text-anchor": "middle" }, `▲ ${number.toFixed(2)}`),
      svg("text", { x: 10, y: 12 }, "0"), svg("text", { x: 10 + STRIP, y: 12, "text-anchor": "end" }, "1"));
    luck.textContent = `The words of q, end to end. The random number ${number.toFixed(3)} fell on “${words[Math.min(rank, 10)]}”. ` +
      "All three samples draw with the same numbers.";
  }

  return drawOn(model, ["rows", "selected", "source", "sentence", "seed", "beam_size", "temperature", "top_k", "top_p"], () => {
    drawSentence();
    for (const [, , draw] of Object.values(sliders)) draw();
    seed.textContent = `seed ${model.get("seed")}`;
    drawRows();
    drawBars();
    drawStrip();
  });
}

export default { render };
