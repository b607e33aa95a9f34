"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  if (!$("map-body")) return;
  const data = JSON.parse($("map-data").textContent);
  const thumbnails = $("map-thumbnails").textContent.trim().split("\n");
  const count = data.ids.length;
  // Paul Tol's "bright" scheme, which all kinds of colour vision tell apart; after six classes the shape changes.
  const COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];
  const SHAPES = 5;
  const MARGIN = 18;
  const number = (n) => n.toLocaleString("en");
  const wrong = data.label.map((label, i) => data.predicted[i] >= 0 && data.predicted[i] !== label);
  const state = { off: new Set(), splits: new Set(), wrong: false, pictures: false, at: -1, scale: 1, x: 0.5, y: 0.5 };
  const plane = $("plane"), pen = plane.getContext("2d");
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const visible = (i) => !state.off.has(data.label[i]) && !state.splits.has(data.split[i]) && (!state.wrong || wrong[i]);

  const shape = (pen, kind, x, y, r) => {
    pen.beginPath();
    if (kind === 0) pen.arc(x, y, r, 0, 7);
    else if (kind === 1) pen.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
    else if (kind === 4) {
      const t = 0.36 * r, e = 1.15 * r;
      for (const [a, b] of [[-t, -e], [t, -e], [t, -t], [e, -t], [e, t], [t, t], [t, e], [-t, e], [-t, t], [-e, t], [-e, -t], [-t, -t]]) pen.lineTo(x + a, y + b);
    } else {
      const corners = kind === 2 ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]];
      for (const [a, b] of corners) pen.lineTo(x + a * r, y + b * r);
    }
    pen.closePath();
  };
  const draw = (pen, label, x, y, r, ink) => {
    shape(pen, Math.floor(label / COLOURS.length) % SHAPES, x, y, r);
    pen.fillStyle = COLOURS[label % COLOURS.length];
    pen.fill();
    pen.lineWidth = 0.6;
    pen.strokeStyle = ink;
    pen.globalAlpha = 0.55;
    pen.stroke();
    pen.globalAlpha = 1;
  };

  // ---- the plane: a square of 0..1, seen around (x, y) at a scale ----

  let size = [0, 0];
  const edge = () => (Math.min(...size) - 2 * MARGIN) * state.scale;
  const span = [Math.max(...data.x, 1), Math.max(...data.y, 1)];
  const stretch = () => [Math.max(1, size[0] / size[1]), Math.max(1, size[1] / size[0])];
  const place = (i) => {
    const wide = stretch();
    return [
      size[0] / 2 + (data.x[i] / span[0] - state.x) * edge() * wide[0] * 0.98,
      size[1] / 2 + (data.y[i] / span[1] - state.y) * edge() * wide[1] * 0.98,
    ];
  };
  // Of few images the map shows the pictures themselves, in a frame of their class's colour.
  const PICTURED = 400;
  const pictures = count > PICTURED ? [] : thumbnails.map((thumbnail) => {
    const image = new Image();
    image.src = "data:image/webp;base64," + thumbnail;
    image.decode().then(() => redraw(), () => {});
    return image;
  });
  const half = () => Math.max(9, Math.min(20, 0.42 * Math.sqrt((size[0] * size[1]) / count))) * Math.min(2.2, Math.sqrt(state.scale));
  const drawPicture = (i, x, y, colours) => {
    const image = pictures[i], r = half(), large = Math.max(image.naturalWidth, image.naturalHeight) || 1;
    const w = (2 * r * image.naturalWidth) / large, h = (2 * r * image.naturalHeight) / large;
    pen.imageSmoothingEnabled = !data.exact[i];
    pen.fillStyle = colours.card;
    pen.fillRect(x - w / 2 - 3, y - h / 2 - 3, w + 6, h + 6);
    pen.drawImage(image, x - w / 2, y - h / 2, w, h);
    pen.lineWidth = 2;
    pen.strokeStyle = COLOURS[data.label[i] % COLOURS.length];
    pen.strokeRect(x - w / 2 - 1, y - h / 2 - 1, w + 2, h + 2);
    if (!wrong[i]) return;
    pen.setLineDash([4, 3]);
    pen.strokeStyle = colours.red;
    pen.strokeRect(x - w / 2 - 4, y - h / 2 - 4, w + 8, h + 8);
    pen.setLineDash([]);
  };
  const render = () => {
    const ratio = devicePixelRatio || 1, style = getComputedStyle(document.body);
    const ink = style.getPropertyValue("--ink"), red = style.getPropertyValue("--red"), card = style.getPropertyValue("--card");
    size = [plane.clientWidth, plane.clientHeight];
    plane.width = Math.round(size[0] * ratio);
    plane.height = Math.round(size[1] * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const r = Math.max(2.4, Math.min(5.5, 130 / Math.sqrt(count))) * Math.min(2, Math.sqrt(state.scale));
    let shown = 0;
    for (const ring of [false, true])
      for (let i = 0; i < count; i++) {
        if (!visible(i) || wrong[i] !== ring) continue;
        const [x, y] = place(i);
        shown++;
        if (x < -9 || y < -9 || x > size[0] + 9 || y > size[1] + 9) continue;
        if (state.pictures) { drawPicture(i, x, y, { card, red }); continue; }
        draw(pen, data.label[i], x, y, r, ink);
        if (!ring) continue;
        pen.beginPath();
        pen.arc(x, y, r + 3, 0, 7);
        pen.lineWidth = 1.8;
        pen.strokeStyle = red;
        pen.stroke();
      }
    if (state.at >= 0 && visible(state.at)) {
      const [x, y] = place(state.at);
      if (state.pictures) drawPicture(state.at, x, y, { card, red }); // on top of its neighbours
      for (const [width, colour] of [[5, card], [2.2, ink]]) {
        pen.beginPath();
        if (state.pictures) pen.rect(x - half() - 5, y - half() - 5, 2 * half() + 10, 2 * half() + 10);
        else pen.arc(x, y, r + 6, 0, 7);
        pen.lineWidth = width;
        pen.strokeStyle = colour;
        pen.stroke();
      }
    }
    $("shown").textContent = `${number(shown)} of ${number(count)} shown`;
  };
  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => ((waiting = false), render()));
  };

  // ---- the image that is pointed at ----

  const select = (i) => {
    if (i === state.at) return;
    state.at = i;
    redraw();
    if (i < 0) return;
    const image = element("img", data.exact[i] ? "small" : "");
    image.src = "data:image/webp;base64," + thumbnails[i];
    image.alt = `${data.classes[data.label[i]]}: ${data.ids[i]}`;
    const text = element("div"), list = element("dl");
    const rows = [["class", data.classes[data.label[i]], "name"]];
    if (data.predicted[i] >= 0) rows.push(["said", data.classes[data.predicted[i]], wrong[i] ? "name said" : "name"]);
    if (data.splits[data.split[i]]) rows.push(["split", data.splits[data.split[i]], ""]);
    for (const [term, value, name] of rows) list.append(element("dt", "", term), element("dd", name, value));
    text.append(list, element("span", "id", data.ids[i]));
    $("card").replaceChildren(image, text);
  };
  const nearest = (x, y, most, fits) => {
    let found = -1, least = most * most;
    for (let i = 0; i < count; i++) {
      if (!visible(i)) continue;
      const [px, py] = place(i), dx = px - x, dy = py - y;
      const cost = fits ? fits(i, dx, dy) : dx * dx + dy * dy;
      if (cost < least) [least, found] = [cost, i];
    }
    return found;
  };
  const step = (ux, uy) => {
    if (state.at < 0 || !visible(state.at)) return select(nearest(size[0] / 2, size[1] / 2, 1e9));
    const [x, y] = place(state.at);
    const next = nearest(x, y, 1e9, (i, dx, dy) => {
      const along = dx * ux + dy * uy, aside = Math.abs(dx * uy) + Math.abs(dy * ux);
      return i === state.at || along <= 0 || aside > 1.2 * along ? Infinity : along * along + 4 * aside * aside;
    });
    if (next < 0) return;
    select(next);
    const [nx, ny] = place(next);
    if (nx < MARGIN || ny < MARGIN || nx > size[0] - MARGIN || ny > size[1] - MARGIN) {
      state.x = data.x[next] / span[0];
      state.y = data.y[next] / span[1];
    }
  };
  const zoom = (factor, x = size[0] / 2, y = size[1] / 2) => {
    const wide = stretch(), before = edge();
    state.scale = Math.max(1, Math.min(40, state.scale * factor));
    const after = edge();
    state.x += ((x - size[0] / 2) * (1 / before - 1 / after)) / wide[0];
    state.y += ((y - size[1] / 2) * (1 / before - 1 / after)) / wide[1];
    if (state.scale === 1) state.x = state.y = 0.5;
    redraw();
  };
  const local = (event) => {
    const box = plane.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let drag = null;
  plane.addEventListener("pointerdown", (event) => {
    drag = [...local(event), state.x, state.y];
    select(nearest(...local(event), 24));
  });
  plane.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (drag && event.buttons && state.scale > 1) {
      const wide = stretch();
      state.x = drag[2] - (x - drag[0]) / edge() / wide[0];
      state.y = drag[3] - (y - drag[1]) / edge() / wide[1];
      return redraw();
    }
    const found = nearest(x, y, 16);
    if (found >= 0) select(found);
  });
  addEventListener("pointerup", () => (drag = null));
  plane.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== plane) return; // else the page scrolls
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...local(event));
  }, { passive: false });
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  plane.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys[event.key]) step(...keys[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else if (event.key === "Escape") select(-1);
    else return;
    event.preventDefault();
  });
  $("in").addEventListener("click", () => zoom(1.5));
  $("out").addEventListener("click", () => zoom(1 / 1.5));
  $("whole").addEventListener("click", () => zoom(0));
  const showPictures = (on) => {
    state.pictures = on;
    $("pictured").setAttribute("aria-pressed", String(on));
    redraw();
  };
  $("pictured").addEventListener("click", () => showPictures(!state.pictures));

  // ---- the legend, which filters ----

  const group = (title, rows, all) => {
    const set = element("fieldset"), box = element("div", "options"), ticks = [];
    set.append(element("legend", "", title), box);
    for (const { name, icon, n, tick, change } of rows) {
      const label = element("label", "option"), input = element("input");
      input.type = "checkbox";
      input.checked = tick;
      input.addEventListener("change", () => (change(input.checked), redraw()));
      ticks.push([input, change]);
      label.title = name;
      label.append(input, icon || element("span"), element("span", "name", name), element("span", "n", number(n)));
      box.append(label);
    }
    if (all) {
      const both = element("div", "both");
      for (const [text, on] of [["All", true], ["None", false]]) {
        const button = element("button", "", text);
        button.type = "button";
        button.addEventListener("click", () => {
          for (const [input, change] of ticks) change((input.checked = on));
          redraw();
        });
        both.append(button);
      }
      set.append(both);
    }
    $("filters").append(set);
  };
  const icon = (label) => {
    const made = element("canvas");
    made.width = made.height = 32;
    made.setAttribute("aria-hidden", "true");
    draw(made.getContext("2d"), label, 16, 16, 10, "#808080");
    return made;
  };
  const toggled = (set, value) => (on) => (on ? set.delete(value) : set.add(value));
  const tally = (values, length) => values.reduce((sums, v) => (sums[v]++, sums), new Array(length).fill(0));
  const perClass = tally(data.label, data.classes.length), perSplit = tally(data.split, data.splits.length);
  group("Classes", data.classes.map((name, v) => ({ name, icon: icon(v), n: perClass[v], tick: true, change: toggled(state.off, v) })).filter((row) => row.n), true);
  if (data.splits.length > 1)
    group("Splits", data.splits.map((name, v) => ({ name: name || "no split", n: perSplit[v], tick: true, change: toggled(state.splits, v) })));
  const mistakes = wrong.filter(Boolean).length;
  if (mistakes) group("Mistakes", [{ name: "only these", n: mistakes, tick: false, change: (on) => (state.wrong = on) }]);

  $("map-body").hidden = false;
  $("pictured").hidden = !pictures.length;
  showPictures(pictures.length > 0);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", render); // in the colours of paper, at once: a frame would come too late
  new ResizeObserver(redraw).observe(plane);
  render();
})();
