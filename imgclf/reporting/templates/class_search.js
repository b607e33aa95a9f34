"use strict";
(() => {
  const data = JSON.parse(document.getElementById("class-data").textContent);
  const input = document.getElementById("class-query"), order = document.getElementById("class-order");
  const body = document.getElementById("class-rows"), told = document.getElementById("class-told");
  const SHOWN = 100;
  const lower = data.name.map((name) => name.toLowerCase());
  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);
  const cell = (row, text, kind) => { const made = row.insertCell(); made.textContent = text; made.className = kind; };
  const last = (value) => (value === null ? Infinity : value);
  const orders = {
    worst: (a, b) => last(data.recall[a]) - last(data.recall[b]) || data.support[b] - data.support[a] || a - b,
    best: (a, b) => last(data.recall[a] === null ? null : -data.recall[a]) - last(data.recall[b] === null ? null : -data.recall[b]) || a - b,
    trained: (a, b) => data.trained[b] - data.trained[a] || a - b,
    name: (a, b) => a - b,
  };
  const show = () => {
    const query = input.value.trim().toLowerCase();
    const found = [...lower.keys()].filter((i) => lower[i].includes(query)).sort(orders[order.value]);
    body.replaceChildren();
    for (const i of found.slice(0, SHOWN)) {
      const row = body.insertRow(), head = document.createElement("th");
      head.scope = "row"; head.className = "name"; head.textContent = data.name[i]; row.append(head);
      cell(row, data.trained[i].toLocaleString("en"), "n"); cell(row, data.support[i].toLocaleString("en"), "n");
      cell(row, percent(data.recall[i]), "n");
      cell(row, data.low[i] === null ? "–" : `${(100 * data.low[i]).toFixed(1)}–${(100 * data.high[i]).toFixed(1)} %`, "n muted");
      cell(row, percent(data.precision[i]), "n"); cell(row, percent(data.f1[i]), "n");
      cell(row, data.taken[i] < 0 ? "–" : `${data.name[data.taken[i]]} (${data.times[i]})`, "name");
    }
    const classes = found.length === 1 ? "1 class" : `${found.length.toLocaleString("en")} classes`;
    told.textContent = found.length > SHOWN ? `${classes}; the first ${SHOWN} are shown.` : `${classes}.`;
  };
  input.addEventListener("input", show);
  order.addEventListener("change", show);
  show();
})();
