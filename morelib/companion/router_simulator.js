// Router simulator: Eqs. 5, 6 and 8 of the paper in plain JavaScript, no kernel and no network needed.
// One source, two uses: a classic <script> in the book (every element of class "router-simulator" becomes one)
// and, with one export line added by widgets.py, the front end of an anywidget in a notebook.
var RouterSimulator = (function () {
  "use strict";

  function softmax(logits) { // Eq. 5
    const top = Math.max(...logits), e = logits.map((z) => Math.exp(z - top)), sum = e.reduce((a, b) => a + b, 0);
    return e.map((x) => x / sum);
  }

  function selectTopK(gates, k, tau, noise) { // Eq. 8: the K largest of g + tau * eps, ties to the lower index
    const score = gates.map((g, i) => g + tau * noise[i]);
    return gates.map((_, i) => i).sort((a, b) => score[b] - score[a] || a - b).slice(0, k);
  }

  function normal(seed) { // standard normal numbers: mulberry32, then Box and Muller
    const uniform = function () {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  // A slice's logits: one part that all slices share (some experts are popular), one part of its own.
  function simulate({ experts, topK, tau, spread, seed, slices = 1000 }) {
    const draw = normal(seed), vector = () => Array.from({ length: experts }, draw), popular = vector();
    const load = new Array(experts).fill(0), meanGate = new Array(experts).fill(0);
    let first = null, changed = 0;
    for (let s = 0; s < slices; s++) {
      const own = vector(), gates = softmax(own.map((x, i) => spread * (popular[i] + x) / Math.SQRT2));
      const noise = vector(), selected = selectTopK(gates, topK, tau, noise);
      const clean = selectTopK(gates, topK, 0, noise);
      if (clean.some((i) => !selected.includes(i))) changed += 1;
      selected.forEach((i) => { load[i] += 1 / (slices * topK); });
      gates.forEach((g, i) => { meanGate[i] += g / slices; });
      if (s === 0) first = { gates, selected };
    }
    const effective = Math.exp(-load.reduce((h, p) => h + (p > 0 ? p * Math.log(p) : 0), 0));
    const aux = load.reduce((a, p, i) => a + p * meanGate[i], 0); // first term of Eq. 7, without alpha_1
    return { first, load, meanGate, effective, changed: changed / slices, aux };
  }

  function bars(title, heights, filled, marks, even, top) { // one bar chart as SVG text; `top` is the end of the scale
    const n = heights.length, step = 300 / n, y = (v) => 130 - (110 * v) / top, left = (i) => 20 + i * step;
    const bar = (h, i) => `<rect class="rs-bar${filled(i) ? " rs-on" : ""}" x="${left(i) + 4}" y="${y(h)}" width="${step - 8}" ` +
      `height="${130 - y(h)}"/><text x="${left(i + 0.5)}" y="146">${i + 1}</text>` +
      `<text x="${left(i + 0.5)}" y="${y(Math.max(h, marks[i] || 0)) - 4}">${h.toFixed(2)}</text>`;
    const mark = (m, i) => `<line class="rs-mark" x1="${left(i) + 2}" x2="${left(i + 1) - 2}" y1="${y(m)}" y2="${y(m)}"/>`;
    return `<figure><figcaption>${title}</figcaption><svg viewBox="0 0 340 152" role="img" aria-label="${title}">` +
      `<line class="rs-axis" x1="18" x2="322" y1="130" y2="130"/>` +
      `<line class="rs-even" x1="18" x2="322" y1="${y(even)}" y2="${y(even)}"/>` + heights.map(bar).join("") +
      marks.map(mark).join("") + "</svg></figure>";
  }

  function mount(element, start) {
    const state = Object.assign({ experts: 4, topK: 2, tau: 0.1, spread: 1, seed: 0 }, start);
    const controls = [["experts", "experts N", 2, 8, 1], ["topK", "active experts K", 1, 8, 1], ["tau", "noise τ", 0, 1, 0.01],
      ["spread", "spread of the logits", 0, 4, 0.1], ["seed", "seed", 0, 50, 1]];
    element.classList.add("router-simulator");
    element.innerHTML = `<div class="rs-controls">` + controls.map(([key, label, low, high, step]) =>
      `<label>${label}<output></output><input type="range" name="${key}" min="${low}" max="${high}" step="${step}" ` +
      `value="${state[key]}"></label>`).join("") + `</div><div class="rs-charts"></div><p class="rs-text" aria-live="polite"></p>`;
    const inputs = Array.from(element.querySelectorAll("input"));
    const draw = function () {
      inputs.forEach((input) => {
        if (input.name === "topK") input.max = state.experts; // the browser lowers a value above its maximum
        state[input.name] = Number(input.value);
        input.previousElementSibling.textContent = input.value;
      });
      const r = simulate(state), n = state.experts;
      element.querySelector(".rs-charts").innerHTML =
        bars("One slice: gates (filled: selected)", r.first.gates, (i) => r.first.selected.includes(i), [], 1 / n, 1) +
        bars("1,000 slices: load (red: mean gate)", r.load, () => true, r.meanGate, 1 / n, Math.max(1 / state.topK, ...r.meanGate));
      element.querySelector(".rs-text").innerHTML = `Used: <b>${r.effective.toFixed(2)}</b> of ${n} experts (exp of the load's ` +
        `entropy). Noise changed the selection of <b>${(100 * r.changed).toFixed(0)} %</b> of the slices. ` +
        `Auxiliary loss Σ p g = <b>${r.aux.toFixed(3)}</b>, an even load gives ${(1 / n).toFixed(3)}.`;
    };
    element.addEventListener("input", draw);
    draw();
  }

  if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll("div.router-simulator:empty").forEach((element) => mount(element, {})));
  return { softmax, selectTopK, simulate, mount };
})();
if (typeof module !== "undefined") module.exports = RouterSimulator;
