"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const thumbnails = $("thumbnails").textContent.trim().split("\n");
  const count = data.ids.length;
  const GAP = 8, HEAD = 46, OVERSCAN = 600;
  const MARKS = [
    [4, "conflict", "!", "label conflict"],
    [1, "exact", "=", "exact copy"],
    [2, "near", "≈", "near duplicate"],
    [8, "across", "⇄", "copy across splits"],
  ];
  const SIZES = [[0, 64, "below 64"], [64, 128, "64 to 127"], [128, 256, "128 to 255"], [256, 512, "256 to 511"], [512, 1024, "512 to 1,023"], [1024, Infinity, "1,024 and more"]];
  const COLOURS = { train: "train", val: "val", test: "test", "": data.splits.length > 1 ? "other" : "train" };
  const number = (n) => n.toLocaleString("en");
  const size = (i) => `${number(data.width[i])} × ${number(data.height[i])}`;
  const bucket = data.ids.map((_, i) => SIZES.findIndex(([, to]) => Math.min(data.width[i], data.height[i]) < to));
  const texts = data.ids.map((id, i) => `${id}\n${data.classes[data.label[i]]}`.toLowerCase());
  const state = { class: new Set(), split: new Set(), size: new Set(), mark: new Set(), query: "", group: -1 };

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const picture = (i, alt) => {
    const image = element("img", Math.max(data.width[i], data.height[i]) <= data.exact ? "small" : "");
    image.alt = alt;
    image.decoding = "async";
    image.draggable = false;
    image.src = "data:image/webp;base64," + thumbnails[i];
    return image;
  };
  const marksOf = (i) => MARKS.filter(([bit]) => data.marks[i] & bit);
  const splitName = (i) => data.splits[data.split[i]];
  const describe = (i) =>
    [data.classes[data.label[i]], data.ids[i], size(i), splitName(i), ...marksOf(i).map((mark) => mark[3])].filter(Boolean).join(", ");

  // ---- facets: what each image is, one checkbox per value; an image must fit one ticked value of every facet ----

  const facets = [
    { key: "class", title: "Class", names: data.classes, has: (i, v) => data.label[i] === v, values: (i) => [data.label[i]], bars: true },
    { key: "split", title: "Split", names: data.splits.map((name) => name || "no split"), values: (i) => [data.split[i]] },
    { key: "mark", title: "Copies", names: MARKS.map((mark) => mark[3]), values: (i) => MARKS.flatMap(([bit], v) => (data.marks[i] & bit ? [v] : [])) },
    { key: "size", title: "Shorter side, pixels", names: SIZES.map((s) => s[2]), values: (i) => [bucket[i]] },
  ];
  const useful = (facet) => {
    facet.totals = facet.names.map(() => 0);
    for (let i = 0; i < count; i++) for (const v of facet.values(i)) facet.totals[v]++;
    return facet.key === "mark" ? facet.totals.some(Boolean) : facet.totals.filter(Boolean).length > 1;
  };
  const shownFacets = facets.filter(useful);
  for (const facet of shownFacets) {
    const set = element("fieldset"), box = element("div", "options");
    set.append(element("legend", "", facet.title), box);
    facet.rows = facet.names.map((name, v) => {
      if (!facet.totals[v]) return null;
      const label = element("label", "option"), tick = element("input"), text = element("span", "name"), n = element("span", "n");
      tick.type = "checkbox";
      if (facet.key === "mark") text.append(element("span", `glyph ${MARKS[v][1]}`, MARKS[v][2]));
      if (facet.key === "split") text.append(element("i", `key ${COLOURS[data.splits[v]]}`));
      text.append(name);
      label.title = name;
      label.append(tick, text, n);
      let track = null;
      if (facet.bars) label.append((track = element("span", "track")));
      tick.addEventListener("change", () => {
        tick.checked ? state[facet.key].add(v) : state[facet.key].delete(v);
        update();
      });
      box.append(label);
      return { label, tick, n, track };
    });
    $("facets").append(set);
  }

  // ---- filter and sort ----

  let order = [], shown = null;

  const filter = () => {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = shownFacets.map((facet) => facet.names.map(() => 0));
    const bars = data.classes.map(() => data.splits.map(() => 0));
    order = [];
    for (let i = 0; i < count; i++) {
      if (state.group >= 0 && data.group[i] !== state.group) continue;
      if (words.length && !words.every((word) => texts[i].includes(word))) continue;
      let failed = 0;
      const values = shownFacets.map((facet) => facet.values(i));
      shownFacets.forEach((facet, f) => {
        if (state[facet.key].size && !values[f].some((v) => state[facet.key].has(v))) failed |= 1 << f;
      });
      if (!failed) order.push(i);
      shownFacets.forEach((facet, f) => {
        if (failed & ~(1 << f)) return;
        for (const v of values[f]) counts[f][v]++;
        if (facet.bars) bars[data.label[i]][data.split[i]]++;
      });
    }
    shownFacets.forEach((facet, f) => {
      const largest = Math.max(1, ...facet.totals);
      facet.rows.forEach((row, v) => {
        if (!row) return;
        row.n.textContent = number(counts[f][v]);
        row.tick.checked = state[facet.key].has(v);
        row.label.classList.toggle("none", !counts[f][v]);
        if (!row.track) return;
        const parts = bars[v].map((n, s) => [n, COLOURS[data.splits[s]]]);
        parts.push([facet.totals[v] - counts[f][v], "rest"]);
        row.track.replaceChildren(
          ...parts.filter(([n]) => n).map(([n, name]) => {
            const part = element("i", name);
            part.style.width = `${(100 * n) / largest}%`;
            return part;
          }),
        );
      });
    });
  };

  const names = new Intl.Collator("en", { numeric: true });
  const area = (i) => data.width[i] * data.height[i];
  const aspect = (i) => data.width[i] / data.height[i];
  const sorts = {
    class: (a, b) => data.label[a] - data.label[b] || a - b,
    name: (a, b) => names.compare(data.ids[a], data.ids[b]),
    large: (a, b) => area(b) - area(a) || a - b,
    small: (a, b) => area(a) - area(b) || a - b,
    wide: (a, b) => aspect(b) - aspect(a) || a - b,
    tall: (a, b) => aspect(a) - aspect(b) || a - b,
    copies: (a, b) => (data.group[a] < 0) - (data.group[b] < 0) || data.group[a] - data.group[b] || a - b,
  };

  // ---- the grid: rows laid out by arithmetic, and only those near the window as elements ----

  const grid = $("grid"), live = new Map();
  let rows = [], rowOf = [], columns = 1, tile = 112, gridTop = 0, cursor = 0;

  const layout = () => {
    const width = grid.clientWidth, wanted = +$("zoom").value;
    columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
    tile = (width - GAP * (columns - 1)) / columns;
    rows = [];
    rowOf = new Array(order.length);
    let top = 0, at = 0;
    const byClass = $("sort").value === "class" && data.classes.length > 1;
    while (at < order.length) {
      let end = order.length;
      if (byClass) {
        const label = data.label[order[at]];
        end = at;
        while (end < order.length && data.label[order[end]] === label) end++;
        rows.push({ top, height: HEAD, label, n: end - at });
        top += HEAD;
      }
      while (at < end) {
        const to = Math.min(at + columns, end);
        for (let p = at; p < to; p++) rowOf[p] = rows.length;
        rows.push({ top, height: tile + GAP, from: at, to });
        top += tile + GAP;
        at = to;
      }
    }
    grid.style.height = `${top}px`;
    for (const made of live.values()) made.remove();
    live.clear();
    gridTop = grid.getBoundingClientRect().top + scrollY;
    render();
  };

  const rowAt = (y) => {
    let low = 0, high = rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      rows[middle].top <= y ? (low = middle) : (high = middle - 1);
    }
    return low;
  };

  const build = (row) => {
    const made = element("div", row.label === undefined ? "row" : "row head");
    made.style.top = `${row.top}px`;
    made.style.height = `${row.label === undefined ? tile : HEAD}px`;
    if (row.label !== undefined) {
      made.append(element("span", "name", data.classes[row.label]), element("span", "n", number(row.n)));
      return made;
    }
    for (let p = row.from; p < row.to; p++) {
      const i = order[p], button = element("button", "tile");
      button.type = "button";
      button.dataset.p = p;
      button.tabIndex = p === cursor ? 0 : -1;
      button.setAttribute("aria-label", describe(i));
      button.style.width = button.style.height = `${tile}px`;
      button.append(picture(i, ""));
      const marks = marksOf(i);
      if (marks.length) {
        const glyphs = element("span", "glyphs");
        for (const [, name, glyph] of marks) glyphs.append(element("span", `glyph ${name}`, glyph));
        button.append(glyphs);
      }
      made.append(button);
    }
    return made;
  };

  const render = () => {
    if (!rows.length) return;
    const first = rowAt(scrollY - gridTop - OVERSCAN), last = rowAt(scrollY - gridTop + innerHeight + OVERSCAN);
    for (const [r, made] of live) {
      if ((r < first || r > last) && !made.contains(document.activeElement)) {
        made.remove();
        live.delete(r);
      }
    }
    const fresh = document.createDocumentFragment();
    for (let r = first; r <= last; r++) {
      if (live.has(r)) continue;
      const made = build(rows[r]);
      live.set(r, made);
      fresh.append(made);
    }
    grid.append(fresh);
    if (!live.has(rowOf[cursor])) aim(firstVisible());
  };

  const firstVisible = () => {
    let r = rowAt(Math.max(0, scrollY - gridTop + $("toolbar").offsetHeight));
    while (r < rows.length - 1 && rows[r].from === undefined) r++;
    return rows[r].from ?? 0;
  };
  const tileAt = (p) => live.get(rowOf[p])?.children[p - rows[rowOf[p]].from];
  const aim = (p) => {
    const before = tileAt(cursor);
    if (before) before.tabIndex = -1;
    cursor = p;
    const now = tileAt(p);
    if (now) now.tabIndex = 0;
  };

  const update = () => {
    if (shown !== null) hidePreview();
    filter();
    order.sort(sorts[$("sort").value]);
    cursor = 0;
    const all = order.length === count;
    const told = element("span");
    told.append(element("strong", "", number(order.length)), all ? " images" : ` of ${number(count)} images`);
    $("shown").replaceChildren(told);
    $("clear").hidden = all && !state.query && state.group < 0 && !shownFacets.some((facet) => state[facet.key].size);
    $("nothing").hidden = order.length > 0;
    layout();
    const bar = $("toolbar").getBoundingClientRect();
    if (scrollY > gridTop) scrollTo(0, gridTop - bar.height - 8); // a new selection is seen from its start
    shown = order.length;
  };

  const clear = () => {
    for (const facet of shownFacets) state[facet.key].clear();
    state.query = $("search").value = "";
    state.group = -1;
    update();
  };

  // ---- hover enlarges ----

  const preview = $("preview");
  let waiting = 0;
  const facts = (i) => {
    const made = document.createDocumentFragment();
    const line = [size(i), splitName(i)].filter(Boolean).join(" · ");
    made.append(element("span", "name", data.classes[data.label[i]]), element("span", "", ` · ${line}`), element("span", "id", data.ids[i]));
    const marks = marksOf(i);
    if (marks.length) {
      const told = element("div", "marks");
      for (const [, name, glyph, text] of marks) {
        const span = element("span");
        span.append(element("span", `glyph ${name}`, glyph), `${text}  `);
        told.append(span);
      }
      made.append(told);
    }
    return made;
  };
  const showPreview = (button) => {
    const i = order[+button.dataset.p];
    preview.replaceChildren(picture(i, ""), facts(i));
    preview.hidden = false;
    const at = button.getBoundingClientRect(), own = preview.getBoundingClientRect();
    const right = at.right + 12, left = at.left - own.width - 12;
    preview.style.left = `${right + own.width < innerWidth - 8 ? right : Math.max(8, left)}px`;
    preview.style.top = `${Math.max(8, Math.min(at.top + at.height / 2 - own.height / 2, innerHeight - own.height - 8))}px`;
  };
  const hidePreview = () => {
    clearTimeout(waiting);
    preview.hidden = true;
  };
  grid.addEventListener("pointerover", (event) => {
    const button = event.target.closest(".tile");
    clearTimeout(waiting);
    if (!button || event.pointerType === "touch") return hidePreview();
    waiting = setTimeout(showPreview, preview.hidden ? 150 : 30, button);
  });
  grid.addEventListener("pointerleave", hidePreview);
  grid.addEventListener("focusin", (event) => {
    const button = event.target.closest(".tile");
    if (button && button.matches(":focus-visible")) showPreview(button);
  });
  grid.addEventListener("focusout", hidePreview);

  // ---- one image, and its copies ----

  const detail = $("detail");
  const open = (i) => {
    hidePreview();
    const both = element("div", "both"), text = element("div");
    const list = element("dl");
    const add = (term, ...said) => {
      const dd = element("dd");
      dd.append(...said);
      list.append(element("dt", "", term), dd);
    };
    add("class", element("span", "name", data.classes[data.label[i]]));
    add("size", `${size(i)} pixels`);
    if (splitName(i)) add("split", splitName(i));
    const marks = marksOf(i);
    if (marks.length) {
      add("found", ...marks.map(([, name, glyph, told]) => {
        const line = element("div");
        line.append(element("span", `glyph ${name}`, glyph), told);
        return line;
      }));
    }
    text.append(element("h2", "name", data.ids[i].split("/").pop()), list);
    const buttons = element("div", "buttons");
    const button = (name, act) => {
      const made = element("button", "", name);
      made.type = "button";
      made.addEventListener("click", act);
      buttons.append(made);
    };
    if (data.group[i] >= 0) {
      const copies = element("div", "copies");
      for (const other of data.groups[data.group[i]].rows.slice(0, 24)) {
        const made = element("button");
        made.type = "button";
        made.title = describe(other);
        made.setAttribute("aria-current", other === i);
        made.append(picture(other, ""), [data.classes[data.label[other]], splitName(other)].filter(Boolean).join(" · "));
        made.addEventListener("click", () => open(other));
        copies.append(made);
      }
      text.append(copies);
      button("Show these only", () => {
        detail.close();
        clear();
        state.group = data.group[i];
        update();
      });
    }
    const path = element("span", "id", data.ids[i]);
    text.append(path, buttons);
    button("Close", () => detail.close());
    both.append(picture(i, describe(i)), text);
    detail.replaceChildren(both);
    detail.dataset.i = i;
    if (!detail.open) detail.showModal();
  };
  detail.addEventListener("click", (event) => event.target === detail && detail.close());
  detail.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const p = order.indexOf(+detail.dataset.i) + step;
    if (p >= 0 && p < order.length) {
      aim(p);
      open(order[p]);
    }
  });
  detail.addEventListener("close", () => order.length && focusOn(cursor));

  // ---- keys ----

  const focusOn = (p) => {
    const row = rows[rowOf[p]], bar = $("toolbar").offsetHeight;
    const top = gridTop + row.top, bottom = top + row.height;
    if (top < scrollY + bar) scrollTo(0, top - bar - (row.from === 0 ? HEAD : 0));
    else if (bottom > scrollY + innerHeight) scrollTo(0, bottom - innerHeight + 8);
    aim(p);
    render();
    tileAt(p)?.focus({ preventScroll: true });
  };
  const vertical = (step) => {
    const column = cursor - rows[rowOf[cursor]].from;
    let r = rowOf[cursor] + step;
    while (r >= 0 && r < rows.length && rows[r].from === undefined) r += step;
    if (r < 0 || r >= rows.length) return cursor;
    return Math.min(rows[r].from + column, rows[r].to - 1);
  };
  grid.addEventListener("keydown", (event) => {
    if (!order.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(innerHeight / (tile + GAP)) - 1) * columns;
    const target = {
      ArrowLeft: () => cursor - 1,
      ArrowRight: () => cursor + 1,
      ArrowUp: () => vertical(-1),
      ArrowDown: () => vertical(1),
      PageUp: () => cursor - page,
      PageDown: () => cursor + page,
      Home: () => 0,
      End: () => order.length - 1,
    }[event.key];
    if (!target) return;
    event.preventDefault();
    focusOn(Math.max(0, Math.min(order.length - 1, target())));
  });
  grid.addEventListener("click", (event) => {
    const button = event.target.closest(".tile");
    if (!button) return;
    aim(+button.dataset.p);
    open(order[+button.dataset.p]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, dialog")) {
      event.preventDefault();
      $("search").focus();
    }
  });

  // ---- the rest ----

  let asked = false;
  addEventListener("scroll", () => {
    if (!preview.hidden && document.activeElement?.closest?.(".tile") === null) hidePreview();
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      render();
    });
  }, { passive: true });
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      state.query = $("search").value;
      update();
    }, 80);
  });
  $("sort").addEventListener("change", update);
  $("zoom").addEventListener("input", layout);
  $("clear").addEventListener("click", clear);
  const narrow = matchMedia("(max-width: 820px)");
  const fold = () => ($("filters").open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
  document.querySelector("main[hidden]").hidden = false;
  $("zoom").value = count <= 150 ? 144 : 112;
  let lastWidth = 0;
  new ResizeObserver(() => {
    if (grid.clientWidth !== lastWidth) {
      lastWidth = grid.clientWidth;
      layout();
    }
  }).observe(grid);
  new ResizeObserver(() => (gridTop = grid.getBoundingClientRect().top + scrollY)).observe(document.querySelector("header"));
  update();
  performance.mark("explore-ready");
})();
