const COLUMN = 122, ROW = 46, WIDE = 92, HIGH = 38, TOP = 24, LEFT = 60;
const MARKS = { kept: "✓", finished: "■", pruned: "✕" };

/** lp(Y) of Wu et al. 2016, equation 14. */
const penalty = (length, alpha) => ((5 + length) / 6) ** alpha;
const most = (numbers) => numbers.reduce((a, b) => Math.max(a, b), -Infinity);
const minus = (number) => number.toFixed(2).replace("-", "−");
const best = (candidates, fate) => most(candidates.filter((c) => c.fate === fate).map((c) => c.log_p));

/** After how many steps the search stops: at the limit, or as soon as no unfinished hypothesis can
 *  overtake the best finished one. Also the best score and what could still be reached, by step. */
function course({ steps, limit }, alpha) {
  let top = -Infinity;
  const told = [];
  for (const [at, candidates] of steps.entries()) {
    top = Math.max(top, best(candidates, "finished") / penalty(at + 1, alpha));
    const live = best(candidates, "kept");
    told.push({ top, live, reach: live / penalty(limit, alpha) });
    if (at + 1 === limit || top >= told[at].reach) break;
  }
  return told;
}

/** The places of a candidate and of those it comes from, the first word first: [[step, rank]]. */
function lineage(steps, step, rank) {
  const path = [];
  for (; step >= 0; rank = steps[step].at(rank).parent, step--) path.unshift([step, rank]);
  return path;
}

/** Such as "2 kept, 1 finished". */
const counts = (candidates) => Object.keys(MARKS)
  .map((fate) => [candidates.filter((c) => c.fate === fate).length, fate])
  .filter(([number]) => number).map(([number, fate]) => `${number} ${fate}`).join(", ");

const wordsOf = (steps, step, rank) => lineage(steps, step, rank).map(([s, r]) => steps[s][r].word);

function render({ model, el }) {
  const alpha = () => model.get("length_penalty"), search = () => model.get("search");
  const shown = () => Math.min(model.get("step"), course(search(), alpha()).length);
  const go = (step) => put(model, { step: Math.max(0, Math.min(step, search().steps.length)), selected: [] });

  const [sentence, drawSentence] = sentenceBox(model, () => search().source);
  const [width, k, drawWidth] = slider(model, "beam_size", "width k", { min: 1, max: 8, step: 1 });
  const [pen, a, drawPenalty] = slider(model, "length_penalty", "length penalty α",
    { min: 0, max: 1, step: 0.05 }, (value) => value.toFixed(2));
  const button = (text, name, act) => html("button", { "aria-label": name, title: name, onclick: act }, text);
  const buttons = [button("start", "to the start", () => go(0)), button("◀ back", "one step back", () => go(shown() - 1)),
    button("step ▶", "one step on", () => go(shown() + 1))];
  const [at, number, drawStep] = slider(model, "step", "step", { min: 0, step: 1 });
  const story = html("p", { class: "s2s-story", "aria-live": "polite" });
  const tree = svg("svg", { role: "group", "aria-label": "tree of hypotheses; arrow keys go from word to word" });
  const scroll = html("div", { class: "s2s-scroll" }, tree);
  const detail = html("p", { class: "s2s-detail", "aria-live": "polite" });
  const table = html("div", { class: "s2s-scroll" });
  frame(model, el, "Beam search tree",
    sentence,
    html("div", { class: "s2s-row" }, width, k, pen, a),
    html("div", { class: "s2s-row" }, ...buttons, at, number),
    story,
    html("p", { class: "s2s-row s2s-note" }, ...["✓ goes on", "✕ pruned", "■ finished", "★ best score so far",
      "g greedy's way", "below each word: log p up to it"].map((text) => html("span", {}, text))),
    scroll, detail, table);

  let nodes = new Map(), edges = new Map(); // by "step,rank"
  let columns = [], lit = [], drawn, seen; // drawn: the search in the tree; seen: its steps that show
  const key = (step, rank) => `${step},${rank}`;

  /** Light up a candidate's way from the start, and tell about it. */
  function light(step, rank) {
    const path = step == null ? [] : lineage(search().steps, step, rank);
    for (const element of lit) element.classList.remove("s2s-on");
    lit = path.flatMap(([s, r]) => [nodes, edges].map((part) => part.get(key(s, r))));
    for (const element of lit) element.classList.add("s2s-on");
    detail.textContent = step == null ? "Point at a word of the tree, or go there with Tab and the arrow keys."
      : tell(path);
  }

  function tell(path) {
    const { steps } = search(), k = model.get("beam_size"), [step, rank] = path.at(-1);
    const { log_p, fate, word } = steps[step][rank], length = step + 1, lp = penalty(length, alpha());
    const parts = path.map(([s, r], place) => {
      const before = place ? steps[s - 1][path[place - 1][1]].log_p : 0;
      return minus(steps[s][r].log_p - before);
    });
    const why = { kept: "Among the best unfinished ones, so it goes on.", finished: `Finished among the best ${k}.`,
      pruned: word === "<eos>" ? `Pruned: it ends, but is not among the best ${k} of its step.`
        : `Pruned: ${k} better unfinished ${k === 1 ? "one goes" : "ones go"} on.` }[fate];
    return `“${path.map(([s, r]) => steps[s][r].word).join(" ")}”:  log p = ${parts.join(" + ").replaceAll("+ −", "− ")}` +
      `${parts.length > 1 ? ` = ${minus(log_p)}` : ""},  p = ${Math.exp(log_p).toPrecision(2)};  score = log p / lp(${length}) = ` +
      `${minus(log_p)} / ${lp.toFixed(2)} = ${minus(log_p / lp)}.  ${MARKS[fate]} ${why}`;
  }

  const settled = () => {
    const [step, place] = model.get("selected");
    if (step <= shown()) light(step - 1, place - 1);
    else light();
  };

  /** All steps of a search, a group each; `reveal` shows the first ones. */
  function drawTree() {
    const { steps } = search(), greedy = search().greedy.words;
    nodes = new Map();
    edges = new Map();
    lit = [];
    let trail = 0, names = [""]; // greedy's place in the step before, and what its candidates wrote
    columns = steps.map((candidates, step) => {
      const x = LEFT + step * COLUMN + 14;
      const head = svg("text", { x: x + WIDE / 2, y: 14, "text-anchor": "middle", class: "s2s-head" }, `step ${step + 1}`);
      const ours = candidates.findIndex((c) => c.parent === trail && c.word === greedy[step]);
      trail = trail < 0 || ours < 0 ? -1 : ours;
      const written = candidates.map(({ parent, word }) => `${names[parent]} ${word}`.trim());
      names = written;
      const parts = candidates.map(({ parent, word, log_p, fate }, rank) => {
        const y = TOP + rank * ROW, from = TOP + parent * ROW + 19, start = step ? x - COLUMN + WIDE : LEFT - 6;
        const edge = svg("path", { class: `s2s-edge s2s-${fate}`,
          d: `M${start},${from}C${start + 12},${from} ${x - 12},${y + 19} ${x},${y + 19}` });
        const name = `${written[rank]}: log p ${minus(log_p)}, ${fate}`;
        const node = svg("g", { class: `s2s-node s2s-${fate}`, role: "button", tabindex: -1, "aria-label": name,
          "data-place": key(step, rank), transform: `translate(${x} ${y})` },
          svg("rect", { width: WIDE, height: HIGH, rx: 5 }),
          svg("text", { x: WIDE / 2, y: 16, "text-anchor": "middle" }, word.length > 10 ? `${word.slice(0, 9)}…` : word),
          svg("text", { x: WIDE / 2, y: 32, "text-anchor": "middle", class: "s2s-small" }, minus(log_p)),
          svg("text", { x: WIDE - 5, y: 32, "text-anchor": "end", class: "s2s-mark" }, MARKS[fate]),
          rank === trail ? svg("text", { x: 6, y: 32, class: "s2s-greedy" }, "g") : null);
        nodes.set(key(step, rank), node);
        edges.set(key(step, rank), edge);
        return [edge, node];
      });
      return svg("g", {}, head, ...parts.map(([edge]) => edge), ...parts.map(([, node]) => node));
    });
    tree.replaceChildren(svg("text", { x: 2, y: TOP + 24 }, "<sos>"), ...columns);
    tree.setAttribute("height", TOP + Math.max(1, ...steps.map((candidates) => candidates.length)) * ROW);
    tree.style.maxWidth = "none";
    rove(nodes.get("0,0"));
  }

  /** Show the first steps, with a star at the best finished hypothesis. */
  function reveal(step, winner) {
    if (drawn !== search()) drawTree();
    drawn = search();
    columns.forEach((column, at) => { column.style.display = at < step ? "" : "none"; });
    tree.setAttribute("width", LEFT + Math.max(step, 1) * COLUMN);
    for (const mark of tree.querySelectorAll(".s2s-finished .s2s-mark")) mark.textContent = MARKS.finished;
    if (winner) nodes.get(key(...winner)).querySelector(".s2s-mark").textContent = "★";
    if (step !== seen) scroll.scrollLeft = scroll.scrollWidth;
    seen = step;
  }

  // One listener for all words; whose event it is stands in the word's data-place.
  const listen = (type, act) => tree.addEventListener(type, (event) => {
    const node = event.target.closest("[data-place]");
    if (node) act(...node.dataset.place.split(",").map(Number), event, node);
  });
  listen("pointerover", (step, rank) => light(step, rank));
  listen("pointerout", () => settled());
  listen("focusin", (step, rank, event, node) => { rove(node); light(step, rank); });
  listen("focusout", () => settled());
  const select = (step, rank) => put(model, { selected: [step + 1, rank + 1] });
  listen("click", select);
  listen("keydown", (step, rank, event) => {
    const { steps } = search(), child = steps[step + 1]?.findIndex((c) => c.parent === rank);
    const goal = { ArrowUp: [step, rank - 1], ArrowDown: [step, rank + 1], ArrowLeft: [step - 1, steps[step][rank].parent],
      ArrowRight: [step + 1, child], Home: [0, 0], End: [shown() - 1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") select(step, rank);
    else if (event.key === "Escape") put(model, { selected: [] });
    else if (!goal) return;
    event.preventDefault();
    if (goal && goal[0] < shown()) nodes.get(key(...goal))?.focus();
  });

  const rove = (node) => nodes.forEach((other) => other.setAttribute("tabindex", other === node ? 0 : -1));

  function drawTable(rows, references) {
    const all = rows.length ? rows : references, byP = rows.map((row) => row.log_p).sort((a, b) => b - a);
    const cell = (text) => html("td", {}, text);
    const line = (row, name, first, second) => html("tr", {}, html("td", {}, name),
      html("td", {}, row.place ? html("button", { onclick: () => put(model, { selected: row.place }),
        title: "show its way in the tree" }, row.words.join(" ")) : row.words.join(" ")),
      cell(row.words.length), cell(minus(row.log_p)), cell(first),
      cell(`${minus(row.log_p)} / ${penalty(row.words.length, alpha()).toFixed(2)} = ${minus(row.score)}`), cell(second));
    const star = (place) => (place === 1 ? "★ 1" : place);
    table.replaceChildren(!all.length ? "" : html("table", { class: "s2s-table" },
      html("thead", {}, html("tr", {}, ...["", "sentence", "|Y|", "log p", "place",
        "score: log p / lp", "place"].map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...rows.map((row, place) => line(row, row.name, star(byP.indexOf(row.log_p) + 1), star(place + 1))),
        ...references.map((row) => line(row, row.name, "", "")))));
  }

  return drawOn(model, ["search", "step", "length_penalty", "selected", "sentence", "beam_size"], () => {
    drawSentence();
    drawWidth();
    drawPenalty();
    const { steps: whole, limit, greedy, every, vocabulary } = search();
    const told = course(search(), alpha()), stop = told.length, step = Math.min(model.get("step"), stop);
    const steps = whole.slice(0, step), k = model.get("beam_size");
    at.lastChild.max = stop;
    drawStep();
    number.textContent = `${step} of ${stop}`;
    buttons.forEach((one, place) => { one.disabled = place < 2 ? step === 0 : step === stop; });

    const scored = (words, log_p, more) =>
      ({ words, log_p, score: log_p / penalty(words.length, alpha()), ...more });
    const those = (fate, from, name) => steps.flatMap((candidates, s) => (s < from ? [] : candidates).map((c, r) =>
      [c.fate, () => scored(wordsOf(steps, s, r), c.log_p, { place: [s + 1, r + 1], name: `${name} ${s + 1}` })]))
      .filter(([found]) => found === fate).map(([, make]) => make()).sort((x, y) => y.score - x.score);
    let rows = those("finished", 0, "■ step");
    if (!rows.length && step === limit) rows = those("kept", step - 1, "cut at step");
    const references = [scored(greedy.words, greedy.log_p, { name: "greedy" })];
    if (every) {
      const all = every.map((one) => scored(one.words, one.log_p));
      const first = (by, name) => ({ ...all.reduce((x, y) => (y[by] > x[by] ? y : x)), name });
      references.push(first("log_p", `brute force, all ${all.length}: best log p`),
        first("score", `brute force, all ${all.length}: best score`));
    }

    const now = told[step - 1], last = steps.at(-1) ?? [];
    story.textContent = !step ? "Nothing is written yet. Press “step” to extend <sos> by one word."
      : `Step ${step}, the best ${last.length} candidates: ${counts(last)}. ` + (
          now.live === -Infinity ? "Nothing is left to extend: the search is over."
            : step === limit ? `${limit} words are the limit: the search is over.`
            : now.top === -Infinity ? "Nothing has finished yet, so the search goes on."
            : `Best finished score ${minus(now.top)}; an unfinished one can reach at most log p / lp(${limit}) = ` +
              `${minus(now.live)} / ${penalty(limit, alpha()).toFixed(2)} = ${minus(now.reach)}` +
              (step === stop ? ": nothing can overtake, the search stops." : ", so the search goes on."));
    reveal(step, rows[0]?.name.startsWith("■") && rows[0].place.map((place) => place - 1));
    drawTable(rows.slice(0, 8), references);
    if (!every) {
      const power = Math.round(limit * Math.log10(vocabulary));
      table.append(html("p", { class: "s2s-note" }, `No brute force here: ${vocabulary} words in up to ${limit} places ` +
        `make about 10^${power} sentences.`));
    }
    settled();
  });
}

export default { render };
