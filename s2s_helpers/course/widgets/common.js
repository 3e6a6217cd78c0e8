// What every widget's module uses. All text goes through text nodes or attributes, never through
// innerHTML, so a sentence can hold any character and stays text.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: html("p", {class: "s2s-note"}, "text", child). */
function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

let labels = 0; // ids are one space for the whole page

/** A control with its label; the label says what it is to the eye and to a screen reader. */
function labelled(text, control) {
  control.id = `s2s-${++labels}-${Math.random().toString(36).slice(2)}`;
  return html("div", { class: "s2s-control" }, html("label", { for: control.id }, text), control);
}

/** A slider bound to a trait, with its value beside it. `show` makes the value a text. */
function slider(model, trait, text, { min, max, step }, show = String) {
  const input = html("input", { type: "range", min, max, step });
  const value = html("output", { class: "s2s-value" });
  const draw = () => {
    input.value = model.get(trait);
    value.textContent = show(model.get(trait));
    input.setAttribute("aria-valuetext", value.textContent);
  };
  input.addEventListener("input", () => put(model, { [trait]: Number(input.value) }));
  return [labelled(text, input), value, draw];
}

/** A choice bound to a trait; options are [value, text] pairs. */
function choice(model, trait, text, options) {
  const select = html("select", {
    onchange: () => put(model, { [trait]: options[select.selectedIndex][0] }),
  });
  select.append(...options.map(([, name]) => html("option", {}, name)));
  const draw = () => {
    select.selectedIndex = options.findIndex(([value]) => value === model.get(trait));
  };
  return [labelled(text, select), draw];
}

/** A tick box bound to a trait. */
function tick(model, trait, text) {
  const input = html("input", {
    type: "checkbox",
    onchange: () => put(model, { [trait]: input.checked }),
  });
  return [labelled(text, input), () => { input.checked = model.get(trait); }];
}

/** A text field bound to a trait; Enter, or leaving it, sends what was typed. What one is typing
 *  stays until the trait changes. */
function field(model, trait, text, attributes = {}) {
  let shown;
  const draw = () => { if (model.get(trait) !== shown) input.value = shown = model.get(trait); };
  const send = () => { if (input.value !== model.get(trait)) put(model, { [trait]: shown = input.value }); };
  const input = html("input", { type: "text", size: 48, autocomplete: "off", ...attributes,
    onkeydown: (event) => { if (event.key === "Enter") send(); }, onchange: send });
  return [labelled(text, input), draw];
}

/** A sentence to type, or to choose from the trait `sentences`; `tokens` gives what the model reads.
 *  Nothing where the trait `sentence` is null. */
function sentenceBox(model, tokens) {
  if (model.get("sentence") == null) return [null, () => {}];
  const [typed, draw] = field(model, "sentence", "sentence");
  const offered = model.get("sentences");
  const pick = html("select", { "aria-label": "choose a sentence", onchange: () => {
    if (pick.value) put(model, { sentence: pick.value });
    pick.selectedIndex = 0;
  } }, html("option", { value: "" }, "or choose …"), ...offered.map((text) => html("option", {}, text)));
  const reads = html("p", { class: "s2s-note" });
  return [html("div", {}, html("div", { class: "s2s-row" }, typed, offered.length ? pick : null), reads), () => {
    draw();
    reads.textContent = `read as: ${tokens().join(" ")}`;
  }];
}

/** Set traits and tell the kernel. */
function put(model, values) {
  for (const [trait, value] of Object.entries(values)) model.set(trait, value);
  model.save_changes();
}

/** Call `draw` now and whenever one of the traits changes, at most once a frame; returns what
 *  undoes it, which `render` hands back. */
function drawOn(model, traits, draw) {
  let asked = false;
  const later = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
  const events = traits.map((trait) => `change:${trait}`);
  for (const event of events) model.on(event, later);
  draw();
  return () => { for (const event of events) model.off(event, later); };
}

/** The frame of a widget: class, name for screen readers, and a line for what went wrong. The keys that
 *  move its controls are its own: JupyterLab would take the arrows of a slider for its cells. */
function frame(model, el, name, ...children) {
  const alert = html("p", { class: "s2s-message", role: "alert" });
  const root = html("section", { class: `s2s-widget s2s-${name.toLowerCase().replaceAll(" ", "-")}`,
    "aria-label": name,
    onkeydown: (event) => {
      const ours = event.key === " " || /^(Arrow|Page|Home|End|Enter)/.test(event.key);
      if (ours && !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey) event.stopPropagation();
    },
  }, ...children, alert);
  el.append(root);
  const tell = () => { alert.textContent = model.get("message"); };
  model.on("change:message", tell);
  tell();
  return root;
}

/** Let the arrow keys, Home and End move the focus among `elements`, of which one is in the tab
 *  order; `columns` makes them a grid. */
function arrows(elements, columns = 1, wide = columns === 1) {
  elements.forEach((element, place) => {
    element.setAttribute("tabindex", place ? -1 : 0);
    element.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: wide ? -1 : -columns,
        ArrowDown: wide ? 1 : columns, Home: -place, End: elements.length - 1 - place };
      const next = elements[place + moves[event.key]];
      if (!next) return;
      event.preventDefault();
      for (const other of elements) other.setAttribute("tabindex", other === next ? 0 : -1);
      next.focus();
    });
  });
}

/** Round numbers from `low` to `high`, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 },
    (_, i) => Number(((first + i) * step).toPrecision(6)));
}

/** A chart with named axes: its element, `span(x, y)` to say from where to where each axis goes,
 *  `at(x, y)` in pixels, `path(points)` for a line, `x(event)` for where the mouse is. Draw into
 *  `element`. With `log`, y goes by powers of ten. */
function chart(name, { width, height, x: xName, y: yName, log = false }) {
  const left = 66, top = 12, right = 14, below = 44, to = (y) => (log ? Math.log10(y) : y);
  const marks = svg("g"), middle = top + height / 2;
  const element = svg("svg", { width: left + width + right, height: top + height + below,
    role: "img", "aria-label": name }, marks,
    svg("path", { d: `M${left},${top}v${height}h${width}`, fill: "none", stroke: "currentColor" }),
    svg("text", { x: left + width / 2, y: top + height + 39, "text-anchor": "middle" }, xName),
    svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yName));
  let xs = [0, 1], ys = [0, 1], drawn = "";
  const at = (x, y) => [left + (x - xs[0]) / (xs[1] - xs[0]) * width,
    top + height * (1 - (to(y) - to(ys[0])) / (to(ys[1]) - to(ys[0])))];
  const span = (x, y) => {
    [xs, ys] = [x, y];
    if (drawn === (drawn = `${x} ${y}`)) return;
    const powers = log && ticks(to(y[0]), to(y[1]), 4).filter(Number.isInteger).map((k) => 10 ** k);
    const tick = (x, y, anchor, value) => svg("text", { x, y, "text-anchor": anchor }, value.toLocaleString("en"));
    marks.replaceChildren(
      ...ticks(...x, width / 70).map((v) => tick(at(v, ys[0])[0], top + height + 18, "middle", v)),
      ...(powers || ticks(...y, height / 36)).map((v) => tick(left - 7, at(xs[0], v)[1] + 5, "end", v)));
  };
  const path = (points) => points.map(([x, y], i) => (i ? "L" : "M") + at(x, y).map((v) => v.toFixed(1))).join("");
  const x = (event) => xs[0] + (event.clientX - element.getBoundingClientRect().left - left) / width * (xs[1] - xs[0]);
  return { element, span, at, path, x, left, top, width, height };
}
