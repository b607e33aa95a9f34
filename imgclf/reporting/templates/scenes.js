"use strict";
// Shows the scenes of one class, or of all.
const choice = document.getElementById("class");
const scenes = [...document.querySelectorAll(".scene")];
const shown = document.getElementById("shown");

function filter() {
  let count = 0;
  for (const scene of scenes) {
    scene.hidden = choice.value !== "" && scene.dataset.class !== choice.value;
    count += !scene.hidden;
  }
  shown.textContent = `${count} of ${scenes.length} scenes`;
}

choice.addEventListener("change", filter);
document.getElementById("filter").hidden = false;
choice.value = ""; // a browser that goes back to the page may bring an old choice
filter();
