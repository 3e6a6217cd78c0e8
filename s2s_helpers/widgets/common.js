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

/** A text field bound to a trait; Enter, or leaving it, sends what was typed. While it has the focus
 *  it keeps what one is typing. */
function field(model, trait, text, attributes = {}) {
  const draw = () => { if (document.activeElement !== input) input.value = model.get(trait); };
  const input = html("input", { type: "text", size: 48, autocomplete: "off", ...attributes,
    onchange: () => put(model, { [trait]: input.value }), onblur: () => setTimeout(draw) });
  return [labelled(text, input), draw];
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

/** The frame of a widget: class, name for screen readers, and a line for what went wrong. */
function frame(model, el, name, ...children) {
  const alert = html("p", { class: "s2s-message", role: "alert" });
  const root = html("section", { class: `s2s-widget s2s-${name.toLowerCase().replaceAll(" ", "-")}`,
    "aria-label": name }, ...children, alert);
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
