"use strict";
// Cells of the confusion matrix, and pairs of classes, open the pictures of their mistakes in a dialog.
(() => {
  const dialog = document.getElementById("cell");
  if (!dialog) return;
  const { cells, pictures } = JSON.parse(document.getElementById("cell-data").textContent);
  const idsOf = new Map(cells.map(([truth, said, ids]) => [JSON.stringify([truth, said]), ids]));
  const title = document.getElementById("cell-title"), told = document.getElementById("cell-told"), list = document.getElementById("cell-pictures");
  const open = (truth, said, count) => {
    const ids = idsOf.get(JSON.stringify([truth, said]));
    title.textContent = `${truth} taken for ${said}`;
    told.textContent = ids.length < count ? `The ${ids.length} most confident of ${counted(count, "image")}.` : `${counted(count, "image")}, the most confident mistake first.`;
    list.replaceChildren(
      ...ids.map((id) => {
        const item = document.createElement("li"), image = document.createElement("img"), name = document.createElement("span");
        image.src = pictures[id].src;
        image.alt = `${truth} taken for ${said}: ${id}`;
        if (pictures[id].small) image.className = "small";
        name.className = "id";
        name.textContent = id;
        item.append(image, name);
        return item;
      }),
    );
    dialog.showModal();
  };
  for (const cell of document.querySelectorAll("[data-true]")) {
    const { true: truth, said } = cell.dataset, count = Number(cell.dataset.count);
    if (!idsOf.has(JSON.stringify([truth, said]))) continue;
    const button = document.createElement("button"), shown = cell.textContent;
    button.type = "button";
    button.append(...cell.childNodes);
    button.setAttribute("aria-label", `${shown} ${shown === "1" ? "image" : "images"} of ${truth} taken for ${said}: show pictures`);
    button.setAttribute("aria-haspopup", "dialog");
    button.addEventListener("click", () => open(truth, said, count));
    cell.append(button);
  }
  document.getElementById("cell-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
})();
