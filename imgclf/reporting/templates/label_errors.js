"use strict";
// The page's patch: every row of labels.patch.csv, whose column "label" the lists under the pictures fill in.
const { columns, rows, classes, file } = JSON.parse(document.getElementById("patch").textContent);
const label = columns.indexOf("label");
const saved = rows.map((row) => row[label]);
const decided = document.getElementById("decided");
const button = document.getElementById("download");

function field(text) {
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function patchText() {
  return [columns, ...rows].map((row) => row.map(field).join(",") + "\n").join("");
}

function changes() {
  return rows.filter((row, place) => row[label] !== saved[place]).length;
}

function tell() {
  const labels = rows.filter((row) => row[label] !== "").length;
  const open = changes();
  decided.textContent = `${labels} of ${rows.length} labels decided` + (open ? `, ${open} not saved yet` : "");
  button.disabled = !labels;
}

// A list holds the two likely answers; the other classes are added when it is first opened, as a page of many pictures of many classes
// would else hold millions of options.
function complete(select) {
  const there = new Set([...select.options].map((option) => option.value));
  const others = classes.filter((name) => !there.has(name)).map((name) => new Option(name, name));
  select.append(...others);
  select.dataset.complete = "";
}

for (const select of document.querySelectorAll("select[data-row]")) {
  for (const event of ["pointerdown", "focus"]) {
    select.addEventListener(event, () => "complete" in select.dataset || complete(select));
  }
  select.addEventListener("change", () => {
    rows[select.dataset.row][label] = select.value;
    select.closest(".card").classList.toggle("decided", select.value !== "");
    tell();
  });
  select.value = ""; // a browser that goes back to the page would bring old answers, which the rows don't hold
}

button.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([patchText()], { type: "text/csv;charset=utf-8" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  rows.forEach((row, place) => (saved[place] = row[label]));
  tell();
});

addEventListener("beforeunload", (event) => {
  if (changes()) event.preventDefault();
});

document.getElementById("save").hidden = false;
tell();
