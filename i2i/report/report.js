"use strict";

/** Format a number as the page does. */
function formatNumber(value) {
  if (value === null) return "–";
  const text = Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

/** The index of the entry of sorted `xs` nearest to x. */
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function element(parent, name, attributes) {
  const made = document.createElementNS(parent.namespaceURI, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  parent.appendChild(made);
}

/** Move a cursor over a chart by pointer, touch or arrow keys, and show the values there in the legend. */
function attachCursor(figure) {
  const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor"), button = figure.querySelector(".scale");
  const data = JSON.parse(figure.querySelector("script").textContent);
  const values = [...figure.querySelectorAll(".legend b")], at = figure.querySelector(".at");
  const [left, top, right, bottom] = data.box, [first, last] = data.x;
  const summary = svg.getAttribute("aria-label"), rest = values.map(b => b.textContent), restAt = at.textContent;
  const stops = [...new Set(data.curves.flatMap(curve => curve.x))].sort((a, b) => a - b);
  const across = x => left + (x - first) / (last - first) * (right - left);
  let stop = stops.length - 1;

  function up(value) {
    const view = figure.dataset.view, scale = view === "log" ? Math.log : Number, [low, high] = data.views[view];
    return bottom - (scale(value) - scale(low)) / (scale(high) - scale(low)) * (bottom - top);
  }

  function show(index) {
    stop = index;
    const x = stops[index], readings = [];
    cursor.replaceChildren();
    element(cursor, "path", {d: `M${across(x)} ${top}V${bottom}`});
    data.curves.forEach((curve, i) => {
      const k = nearest(curve.x, x), y = curve.y[k];
      if (y !== null) element(cursor, "circle", {cx: across(curve.x[k]), cy: up(y), r: 3.5, class: `c${i % 6 + 1}`});
      const interval = curve.low && curve.low[k] !== null && curve.high[k] !== null;
      values[i].textContent = formatNumber(y) + (interval ? ` (${formatNumber(curve.low[k])} to ${formatNumber(curve.high[k])})` : "");
      readings.push(`${curve.name} ${values[i].textContent}`);
    });
    const mark = data.marks.find(mark => mark[0] === x);
    at.textContent = `image ${formatNumber(x)}` + (mark ? `, ${mark[1]}` : "");
    svg.setAttribute("aria-valuenow", index);
    svg.setAttribute("aria-valuetext", `${at.textContent}: ${readings.join(", ")}`);
  }

  function leave() {
    cursor.replaceChildren();
    values.forEach((b, i) => { b.textContent = rest[i]; });
    at.textContent = restAt;
  }

  function point(event) {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    show(nearest(stops, first + (x - left) / (right - left) * (last - first)));
  }

  function key(event) {
    const far = Math.max(1, Math.round(stops.length / 20));
    const steps = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far, Home: -stops.length, End: stops.length};
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(Math.min(stops.length - 1, Math.max(0, stop + steps[event.key])));
  }

  const slider = {role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": stops.length - 1, "aria-valuenow": stop, "aria-valuetext": restAt};
  for (const name in slider) svg.setAttribute(name, slider[name]);
  svg.setAttribute("aria-label", summary);
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("keydown", key);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(stop); });
  svg.addEventListener("blur", leave);
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const log = figure.dataset.view !== "log";
      figure.dataset.view = log ? "log" : "linear";
      button.setAttribute("aria-pressed", log);
    });
  }
}

/** Show the sample sheet at the slider's position. */
function attachSlider(player) {
  const slider = document.getElementById("when");
  if (!slider) return;
  const sheets = JSON.parse(player.querySelector("script").textContent), image = player.querySelector("img");
  const shown = document.getElementById("shown");
  slider.parentElement.hidden = false;
  slider.value = slider.max;          // A reloaded page may remember another.
  slider.addEventListener("input", () => {
    const sheet = sheets[slider.value];
    image.src = sheet.src;
    image.width = sheet.width * sheet.zoom;
    image.height = sheet.height * sheet.zoom;
    image.alt = `samples at image ${sheet.images}`;
    shown.textContent = `image ${sheet.images}`;
    slider.setAttribute("aria-valuetext", `image ${sheet.images}`);
  });
}

document.querySelectorAll("figure.chart").forEach(attachCursor);
document.querySelectorAll("#player").forEach(attachSlider);
