"use strict";
// Makes the headers of a table buttons that sort it. The first press sorts numbers from the largest and text from its beginning, the
// second the other way round; what has no value stays last.
function sortableHeaders(table, onSort) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!("sort" in head.dataset)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.dataset.sort === "text" ? "ascending" : "descending";
      const way = before === null ? first : before === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way);
      onSort(column, head.dataset.sort, way === "ascending" ? 1 : -1);
    });
  });
}

// Orders two values, of which either may be null or NaN, which come last in both directions.
function inOrder(a, b, way) {
  const none = (value) => value === null || Number.isNaN(value);
  if (none(a) || none(b)) return none(a) - none(b);
  return way * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column, kind) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent;
    return kind === "text" ? text : text === "" ? null : Number(text);
  };
  sortableHeaders(table, (column, kind, way) => {
    const rows = [...body.rows].map((row, place) => ({ row, place, value: value(row, column, kind) }));
    rows.sort((a, b) => inOrder(a.value, b.value, way) || a.place - b.place);
    body.append(...rows.map(({ row }) => row));
  });
}
