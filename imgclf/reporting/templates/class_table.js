"use strict";
// The table of thousands of classes: it works out shares and intervals from counts, and shows the rows that are asked for, a hundred at
// a time.
(async () => {
  if (!document.getElementById("class-data")) return;
  const data = await unpackedJson("class-data");
  const input = document.getElementById("class-query"), table = document.getElementById("class-table");
  const body = table.tBodies[0], told = document.getElementById("class-told"), more = document.getElementById("class-more");
  const PAGE = 100, Z2 = 1.959963984540054 ** 2;
  const lower = data.name.map((name) => name.toLowerCase());
  const share = (of, in_) => of.map((n, i) => (in_[i] ? n / in_[i] : null));
  const recall = share(data.right, data.support);
  const precision = data.said.map((n, i) => (n && data.support[i] ? data.right[i] / n : null));
  const f1 = data.support.map((n, i) => (n ? (2 * data.right[i]) / (n + data.said[i]) : null));
  const wilson = (i) => {
    const n = data.support[i], p = recall[i];
    const centre = (p + Z2 / (2 * n)) / (1 + Z2 / n), half = Math.sqrt(Z2 * ((p * (1 - p)) / n + Z2 / (4 * n * n))) / (1 + Z2 / n);
    return [p === 0 ? 0 : centre - half, p === 1 ? 1 : centre + half];
  };
  const columns = [data.name, data.trained, data.support, recall, null, precision, f1, data.times];
  const cell = (row, text, kind) => { const made = row.insertCell(); made.textContent = text; made.className = kind; };
  let order = [...lower.keys()], shown = PAGE;

  const show = () => {
    const query = input.value.trim().toLowerCase();
    const found = order.filter((i) => lower[i].includes(query));
    body.replaceChildren();
    for (const i of found.slice(0, shown)) {
      const row = body.insertRow(), head = document.createElement("th");
      head.scope = "row"; head.className = "name"; head.textContent = data.name[i]; row.append(head);
      cell(row, data.trained[i].toLocaleString("en"), "n"); cell(row, data.support[i].toLocaleString("en"), "n");
      cell(row, percentOf(recall[i]), "n");
      const bounds = data.support[i] ? wilson(i) : null;
      cell(row, bounds ? `${(100 * bounds[0]).toFixed(1)}–${(100 * bounds[1]).toFixed(1)}\u00a0%` : "–", "n muted");
      cell(row, percentOf(precision[i]), "n"); cell(row, percentOf(f1[i]), "n");
      cell(row, data.taken[i] < 0 ? "–" : `${data.name[data.taken[i]]} (${data.times[i]})`, "name");
    }
    const classes = counted(found.length, "class", "classes");
    told.textContent = found.length > shown ? `${classes}; the first ${shown.toLocaleString("en")} are shown.` : `${classes}.`;
    more.hidden = found.length <= shown;
  };
  const sort = (column, way) => {
    order = [...lower.keys()].sort((a, b) => inOrder(columns[column][a], columns[column][b], way) || data.support[b] - data.support[a] || a - b);
    shown = PAGE;
    show();
  };
  input.addEventListener("input", () => ((shown = PAGE), show()));
  more.addEventListener("click", () => ((shown += PAGE), show()));
  sortableHeaders(table, (column, kind, way) => sort(column, way));
  sort(3, 1);
})();
