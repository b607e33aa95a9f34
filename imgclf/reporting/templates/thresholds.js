"use strict";
// Precision, recall and the share answered at a chosen threshold, of all classes or of one, and the curve of all thresholds.
(async () => {
  const part = document.getElementById("thresholds");
  if (!part) return;
  const names = await unpackedJson("class-names"), block = await unpacked("scores"), STEPS = 200;
  const own = new Uint32Array(block, 0, names.length), starts = [0];
  for (const n of own) starts.push(starts.at(-1) + n);
  const total = starts.at(-1);
  const said = new Uint32Array(block, 4 * names.length, total), reached = new Uint8Array(block, 4 * (names.length + total), total);
  const $ = (id) => document.getElementById(id);
  const slider = $("threshold"), choice = $("threshold-class"), svg = $("threshold-curve");

  // For every threshold: images that get this answer, those of them that are right, and images of the class that get any answer.
  const tables = (label) => {
    const made = { answered: new Uint32Array(STEPS + 2), right: new Uint32Array(STEPS + 2), any: new Uint32Array(STEPS + 2) };
    for (let truth = 0; truth < names.length; truth++)
      for (let i = starts[truth]; i < starts[truth + 1]; i++) {
        const mine = label < 0 || truth === label, told = label < 0 || said[i] === label;
        if (told) made.answered[reached[i]]++;
        if (told && said[i] === truth) made.right[reached[i]]++;
        if (mine) made.any[reached[i]]++;
      }
    for (const counts of Object.values(made)) for (let k = STEPS - 1; k >= 0; k--) counts[k] += counts[k + 1];
    return { ...made, images: label < 0 ? total : own[label] };
  };
  let label = -1, now = tables(-1);
  const at = (k) => ({
    precision: now.answered[k] ? now.right[k] / now.answered[k] : null,
    recall: now.images ? now.right[k] / now.images : null,
    share: now.images ? now.any[k] / now.images : null,
  });

  const LEFT = 46, RIGHT = 12, TOP = 10, BOTTOM = 40, WIDTH = 460, HEIGHT = 280;
  const made = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  let point, place;
  const draw = () => {
    const curve = [...Array(STEPS + 1).keys()].map(at).filter((row) => row.precision !== null && row.recall !== null);
    const floor = Math.min(0.9, Math.floor(10 * Math.min(...curve.map((row) => row.precision), 1)) / 10);
    place = (row) => [LEFT + (WIDTH - LEFT - RIGHT) * row.recall, TOP + ((HEIGHT - TOP - BOTTOM) * (1 - row.precision)) / (1 - floor)];
    const parts = [];
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      const [x] = place({ recall: tick, precision: 1 }), precision = floor + (1 - floor) * tick, [, y] = place({ recall: 0, precision });
      parts.push(made("line", { class: "axis", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), made("text", { x, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, `${100 * tick}`));
      parts.push(made("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }), made("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, `${+(100 * precision).toFixed(1)}`));
    }
    parts.push(made("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "recall, %"));
    parts.push(made("text", { x: 12, y: (HEIGHT - BOTTOM + TOP) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(HEIGHT - BOTTOM + TOP) / 2})` }, "precision, %"));
    parts.push(made("polyline", { class: "curve", points: curve.map((row) => place(row).map((v) => v.toFixed(1)).join(",")).join(" ") }));
    point = made("circle", { class: "point", r: 6 });
    svg.replaceChildren(...parts, point);
  };
  const show = () => {
    const k = Math.round(2 * slider.value), row = at(k), who = label < 0 ? "all classes" : names[label];
    $("threshold-value").textContent = `${k / 2}\u00a0%`;
    slider.setAttribute("aria-valuetext", `${k / 2} %`);
    const tell = (id, share, of, all) => {
      $(id).textContent = percentOf(share);
      $(id + "-of").textContent = `${of.toLocaleString("en")} of ${all.toLocaleString("en")}`;
    };
    tell("threshold-precision", row.precision, now.right[k], now.answered[k]);
    tell("threshold-recall", row.recall, now.right[k], now.images);
    tell("threshold-share", row.share, now.any[k], now.images);
    point.setAttribute("visibility", row.precision === null || row.recall === null ? "hidden" : "visible");
    if (row.precision !== null && row.recall !== null) [["cx", 0], ["cy", 1]].forEach(([name, axis]) => point.setAttribute(name, place(row)[axis]));
    $("threshold-of").textContent = who;
    svg.setAttribute("aria-label", `Precision over recall of ${who} for all thresholds; at ${k / 2} % precision ${percentOf(row.precision)}, recall ${percentOf(row.recall)}`);
  };
  const choose = (found) => ((label = found), (now = tables(found)), draw(), show());

  slider.addEventListener("input", show);
  for (const button of part.querySelectorAll("[data-precision]"))
    button.addEventListener("click", () => {
      const least = [...Array(STEPS + 1).keys()].find((k) => at(k).precision >= Number(button.dataset.precision));
      $("threshold-told").textContent = least === undefined ? "No threshold reaches this precision." : "";
      if (least !== undefined) ((slider.value = least / 2), show());
    });
  if (choice.tagName === "SELECT") {
    choice.append(...names.map((name, i) => new Option(name, i)));
    choice.value = "-1"; // a browser that goes back to the page may bring an old choice
    choice.addEventListener("change", () => choose(Number(choice.value)));
  } else {
    const places = new Map(names.map((name, i) => [name, i])), offered = $("threshold-names");
    choice.addEventListener("input", () => {
      const query = choice.value.trim().toLowerCase();
      offered.replaceChildren(...names.filter((name) => name.toLowerCase().includes(query)).slice(0, 30).map((name) => new Option(name)));
      if (!query) choose(-1);
      else if (places.has(choice.value.trim())) choose(places.get(choice.value.trim()));
    });
  }
  slider.value = 0;
  part.querySelector(".live").hidden = false;
  choose(-1);
})();
