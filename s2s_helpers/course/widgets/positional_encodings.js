const SIZE = { width: 300, height: 190 };

/** PE(pos, 2i) = sin(pos / 10000^(2i/width)), PE(pos, 2i+1) = cos of the same; rows are positions. */
function encodings(positions, width) {
  return Array.from({ length: positions }, (_, pos) => Array.from({ length: width }, (_, d) => {
    const angle = pos / 10000 ** ((d - (d % 2)) / width);
    return d % 2 ? Math.cos(angle) : Math.sin(angle);
  }));
}

const wavelength = (d, width) => 2 * Math.PI * 10000 ** ((d - (d % 2)) / width);

/** The dot product of two rows so far apart: Σ cos(distance / 10000^(2i/width)). */
function alike(distance, width) {
  let sum = 0;
  for (let i = 0; i < width; i += 2) sum += Math.cos(distance / 10000 ** (i / width));
  return sum;
}

/** Paint the table: orange above 0, blue below, the paler the nearer to 0. */
function paint(canvas, table) {
  const rows = table.length, columns = table[0].length;
  Object.assign(canvas, { width: columns, height: rows });
  const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
  table.flat().forEach((value, k) => image.data.set(
    [...(value > 0 ? [224, 110, 20] : [20, 125, 200]), Math.abs(value) * 255], 4 * k));
  pen.putImageData(image, 0, 0);
}

function render({ model, el }) {
  const short = (value) => (Math.abs(value) < 100 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));
  const [width, widthNow, drawWidth] = slider(model, "width", "width d", { min: 4, max: 256, step: 2 });
  const [count, countNow, drawCount] = slider(model, "positions", "number of positions", { min: 10, max: 200, step: 1 });
  const [row, rowNow, drawRow] = slider(model, "position", "position", { min: 0, step: 1 });
  const [column, columnNow, drawColumn] = slider(model, "dimension", "dimension", { min: 0, step: 1 });
  const [second, secondNow, drawSecond] = slider(model, "other", "compared with position", { min: 0, step: 1 });
  const now = () => {
    const [d, n] = [model.get("width"), model.get("positions")];
    return { d, n, p: Math.min(model.get("position"), n - 1), c: Math.min(model.get("dimension"), d - 1),
      q: Math.min(model.get("other"), n - 1) };
  };

  // The table: a canvas below, axes and the chosen row and column above it.
  const map = chart("the table of encodings", { ...SIZE, x: "dimension", y: "position" });
  const picture = html("canvas", { class: "s2s-map", style: `left:${map.left}px;top:${map.top}px;` +
    `width:${SIZE.width}px;height:${SIZE.height}px` });
  const mark = { fill: "none", stroke: "currentColor", "stroke-width": 1.5 };
  const rowMark = svg("rect", { x: map.left, width: SIZE.width, ...mark });
  const columnMark = svg("rect", { y: map.top, height: SIZE.height, ...mark });
  map.element.append(rowMark, columnMark);

  const wave = chart("one dimension at every position", { ...SIZE, x: "position", y: "value" });
  const waves = chart("the wavelength of every dimension", { ...SIZE, x: "dimension", y: "wavelength", log: true });
  const likeness = chart("dot products with every position", { ...SIZE, x: "position", y: "dot product" });
  const line = (colour) => svg("path", { fill: "none", stroke: `var(--s2s-${colour})`, "stroke-width": 2 });
  const dot = (colour) => svg("circle", { r: 6, fill: `var(--s2s-${colour})` });
  const [waveLine, waveDot, lengths, lengthDot] = [line("blue"), dot("orange"), line("blue"), dot("orange")];
  const [dots, self, them] = [line("blue"), dot("orange"), dot("green")];
  wave.element.append(waveLine, waveDot);
  waves.element.append(lengths, lengthDot);
  likeness.element.append(dots, self, them);

  // The mouse moves the choice in the browser; the kernel hears of it when the mouse has left.
  const follow = (plot, choose) => {
    plot.element.addEventListener("pointermove", (event) => {
      for (const [trait, [value, size]] of Object.entries(choose(event)))
        model.set(trait, Math.min(Math.max(Math.floor(value), 0), size - 1));
    });
    plot.element.addEventListener("pointerleave", () => model.save_changes());
    plot.element.classList.add("s2s-follows");
  };
  follow(map, (event) => ({ dimension: [map.x(event), now().d],
    position: [(event.clientY - picture.getBoundingClientRect().top) / SIZE.height * now().n, now().n] }));
  follow(wave, (event) => ({ position: [wave.x(event) + 0.5, now().n] }));
  follow(waves, (event) => ({ dimension: [waves.x(event) + 0.5, now().d] }));
  follow(likeness, (event) => ({ other: [likeness.x(event) + 0.5, now().n] }));

  const titles = ["", "", "", ""].map((text) => html("b", {}, text));
  const panel = (title, ...children) => html("div", { class: "s2s-panel" }, title, ...children);
  const told = html("p", { class: "s2s-sum", "aria-live": "polite" });
  frame(model, el, "Positional encodings",
    html("div", { class: "s2s-row" }, width, widthNow, count, countNow),
    html("p", { class: "s2s-note" }, "Move the mouse over a picture, or use the sliders, and see what changes in the others."),
    html("div", { class: "s2s-row" }, row, rowNow, column, columnNow, second, secondNow),
    html("div", { class: "s2s-panels" },
      panel(titles[0], html("div", { class: "s2s-under" }, picture, map.element)), panel(titles[1], wave.element),
      panel(titles[2], waves.element), panel(titles[3], likeness.element)), told);

  let painted = "";
  return drawOn(model, ["width", "positions", "position", "dimension", "other"], () => {
    const { d, n, p, c, q } = now();
    for (const [control, most] of [[row, n - 1], [column, d - 1], [second, n - 1]])
      control.querySelector("input").max = most;
    for (const draw of [drawWidth, drawCount, drawRow, drawColumn, drawSecond]) draw();
    const all = Array.from({ length: n }, (_, pos) => pos);
    if (painted !== (painted = `${n} ${d}`)) {
      paint(picture, encodings(n, d));
      map.span([0, d], [n, 0]);
      wave.span([0, n - 1], [-1, 1]);
      waves.span([0, d - 1], [1, 100000]);
      likeness.span([0, n - 1], [Math.min(0, ...all.map((k) => alike(k, d))), d / 2]);
      lengths.setAttribute("d", waves.path(Array.from({ length: d }, (_, k) => [k, wavelength(k, d)])));
    }
    const value = (pos) => Math[c % 2 ? "cos" : "sin"](pos * 2 * Math.PI / wavelength(c, d));
    const put = (circle, [x, y]) => { circle.setAttribute("cx", x); circle.setAttribute("cy", y); };
    rowMark.setAttribute("y", map.top + p / n * SIZE.height);
    rowMark.setAttribute("height", Math.max(SIZE.height / n, 3));
    columnMark.setAttribute("x", map.left + c / d * SIZE.width);
    columnMark.setAttribute("width", Math.max(SIZE.width / d, 3));
    // Finer than the positions, so that short waves look like waves.
    const fine = Array.from({ length: 10 * (n - 1) + 1 }, (_, k) => k / 10);
    waveLine.setAttribute("d", wave.path(fine.map((pos) => [pos, value(pos)])));
    put(waveDot, wave.at(p, value(p)));
    put(lengthDot, waves.at(c, wavelength(c, d)));
    dots.setAttribute("d", likeness.path(all.map((pos) => [pos, alike(pos - p, d)])));
    put(self, likeness.at(p, d / 2));
    put(them, likeness.at(q, alike(q - p, d)));
    titles[0].textContent = "The table: blue below 0, orange above";
    titles[1].textContent = `Dimension ${c}: a ${c % 2 ? "cosine" : "sine"}, ${short(wavelength(c, d))} positions long`;
    titles[2].textContent = "Each pair of dimensions has a longer wave (in positions)";
    titles[3].textContent = `Position ${p} · every position (green: ${q})`;
    told.textContent = `PE(${p}, ${c}) = ${c % 2 ? "cos" : "sin"}(${p} / 10000^(${c - (c % 2)}/${d})) = ` +
      `${value(p).toFixed(4)}.  Positions ${p} and ${q}, ${Math.abs(p - q)} apart: dot product ` +
      `${alike(p - q, d).toFixed(2)} of ${d / 2} at most.`;
  });
}

export default { render };
