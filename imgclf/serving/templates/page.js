"use strict";
// One request per picture, so that each is shown as soon as it is answered; three at a time, as the server's queue is for all.
const AT_ONCE = 3, TRIES = 5, UNLIKE = 0.05;
const byId = (id) => document.getElementById(id);
const state = { models: [], waiting: [], running: 0, token: "", count: 0 };

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function percent(share) {
  // As many digits as it needs not to read 0 % or 100 % where it is neither.
  for (let digits = 1; digits < 4; digits++) {
    const text = (100 * share).toFixed(digits);
    if ((Number(text) > 0 && Number(text) < 100) || share <= 0 || share >= 1) return text + "\u00a0%";
  }
  return share < 0.5 ? "< 0.001\u00a0%" : "> 99.999\u00a0%";
}

function listed(names, word) {
  return names.length < 2 ? names.join("") : names.slice(0, -1).join(", ") + " " + word + " " + names[names.length - 1];
}

function headers() {
  return state.token ? { Authorization: "Bearer " + state.token } : {};
}

function tell(sentence) {
  byId("problem").textContent = sentence;
  byId("problem").hidden = !sentence;
}

async function asked(path, options) {
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(path, { ...options, headers: headers() });
    if (answer.status === 401) byId("token").hidden = false;
    if (answer.status !== 503 || attempt === TRIES) return answer;
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((done) => setTimeout(done, 1000 * Math.min(seconds, 10)));
  }
}

async function content(answer) {
  try {
    return await answer.json();
  } catch {
    return { error: "The server answered " + answer.status + "." };
  }
}

function model() {
  return state.models.find((one) => one.name === byId("model").value);
}

async function loadModels() {
  try {
    const answer = await asked("models", {});
    if (!answer.ok) {
      if (answer.status !== 401) tell((await content(answer)).error);
      return;
    }
    state.models = await answer.json();
  } catch {
    tell("The server does not answer.");
    return;
  }
  tell("");
  byId("token").hidden = true;
  byId("model").replaceChildren(...state.models.map((one) => new Option(one.name)));
  byId("models").hidden = state.models.length < 2;
  describe();
}

function describe() {
  const { name, classes } = model();
  const few = classes.length > 6 ? classes.slice(0, 5).join(", ") + ", …" : classes.join(", ");
  byId("about").textContent = (state.models.length < 2 ? name + ": " : "") + classes.length + " classes (" + few + ")";
  byId("invitation").textContent = classes.length > 3 ? "Which of " + classes.length + " classes is your picture?" : listed(classes, "or") + "?";
  document.title = name + " · imgclf";
}

function add(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || /\.(hei[cf]|tiff?|jpe?g|png|webp|avif|bmp|gif)$/i.test(file.name));
  tell(pictures.length || !files.length ? "" : "That is no picture.");
  const first = byId("results").firstChild;  // the newest stand above, in the order in which they were given
  for (const file of pictures) {
    const parts = card(file);
    byId("results").insertBefore(parts.result, first);
    state.waiting.push([file, parts, byId("model").value]);
  }
  byId("drop").classList.toggle("small", byId("results").childElementCount > 0);
  byId("clear").hidden = !byId("results").childElementCount;
  next();
}

function next() {
  while (state.running < AT_ONCE && state.waiting.length) {
    state.running++;
    classify(...state.waiting.shift()).finally(() => { state.running--; next(); });
  }
}

function card(file) {
  const result = make("article", "result"), picture = make("div", "picture"), frame = make("div", "frame"), image = make("img", "shown");
  result.setAttribute("role", "listitem");
  const name = file.name || "pasted picture";
  image.alt = name;
  image.src = URL.createObjectURL(file);
  image.addEventListener("load", () => frame.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= 96));
  image.addEventListener("error", () => image.remove(), { once: true });  // such as HEIC, which browsers can't show
  frame.append(image);
  picture.append(frame, make("span", "name", name));
  const said = make("div", "said");
  said.append(make("p", "waiting", "Looking"));
  result.append(picture, said);
  return { result, picture, frame, image, said, name };
}

async function classify(file, parts, name) {
  const { said } = parts;
  const form = new FormData();
  form.append("image", file, parts.name);
  let answer, body;
  try {
    answer = await asked("models/" + encodeURIComponent(name) + "/predict?top_k=5", { method: "POST", body: form });
    body = await content(answer);
  } catch {
    body = { error: "The server does not answer." };
  }
  said.replaceChildren();
  if (!body.images) {
    failed(parts, body.error || "The server refused the picture.");
    return;
  }
  const found = body.images[0];
  if (found.reason) {
    failed(parts, "Can't be read (" + found.reason.replaceAll("_", " ") + ").");
    return;
  }
  show(parts, found, name);
  const about = state.models.find((one) => one.name === name);
  if (about && about.explains) await explain(form, parts, found, name);
}

function failed({ said, name }, sentence) {
  said.append(make("h2", "", "No answer"), make("p", "note bad", sentence));
  byId("status").textContent = name + ": " + sentence;
}

function show({ said, name }, found, modelName) {
  const unlike = found.none_of_these !== null && found.none_of_these <= UNLIKE;
  const sure = found.answer === found.predicted && (!found.set || found.set.length < 2) && !unlike;
  const heading = make("h2", "", sure ? found.predicted + " " : "Not sure");
  if (sure) heading.append(make("small", "", percent(found.probability)));
  said.append(heading);
  const alpha = (state.models.find((one) => one.name === modelName) || {}).conformal_alpha;
  if (found.set && alpha && (sure || found.set.length > 1)) {
    const share = percent(1 - alpha).replace(".0", "");
    const what = found.set.length < 2 ? "Alone in its set; such sets hold" : listed(found.set, "or") + ": such sets hold";
    const text = what + " the truth in " + share + " of cases.";
    said.append(make("p", found.set.length < 2 ? "sets muted" : "note", text));
  } else if (found.answer !== found.predicted) {
    said.append(make("p", "note", "The likeliest is " + found.predicted + ", below the threshold."));
  }
  if (unlike) {
    said.append(make("p", "note", "Unlike the training pictures (p = " + found.none_of_these.toFixed(3) + "): perhaps none of these classes."));
  }
  const bars = make("ol", "bars");
  bars.setAttribute("aria-label", "likeliest classes");
  for (const row of found.top) {
    const item = make("li", (found.set || [found.predicted]).includes(row.class) ? "in" : ""), track = make("span", "track"), bar = make("i");
    track.setAttribute("aria-hidden", "true");
    track.append(bar);
    item.append(make("span", "label", row.class), make("span", "value", percent(row.probability)), track);
    bars.append(item);
    requestAnimationFrame(() => { bar.style.width = Math.max(0.4, 100 * row.probability) + "%"; });
  }
  said.append(bars);
  byId("status").textContent = name + ": " + (sure ? found.predicted + ", " + percent(found.probability) : "not sure");
}

async function explain(form, parts, found, name) {
  const query = "?class=" + encodeURIComponent(found.predicted);
  let answer, body;
  try {
    answer = await asked("models/" + encodeURIComponent(name) + "/explain" + query, { method: "POST", body: form });
    body = await content(answer);
  } catch {
    return;  // the answer stands without it
  }
  if (!answer.ok || !Array.isArray(body)) return;
  const [why] = body;
  if (why.heat) look(parts, why);
  else if (!parts.image.isConnected) { parts.image.src = why.view; parts.frame.append(parts.image); }
  if (why.neighbours && why.neighbours.length) near(parts.said, why.neighbours);
}

function look({ picture, frame, image, name }, why) {
  const own = image.isConnected ? image.src : why.view, heat = make("img", "heat");
  heat.alt = "";
  heat.src = why.heat;
  const button = make("button", "toggle", "What it looked at"), key = make("p", "key");
  key.append(make("span", "", "for " + why.class), make("span", "against", "against it"));
  button.type = "button";
  function set(looked) {
    button.setAttribute("aria-pressed", String(looked));
    button.textContent = looked ? "The picture" : "What it looked at";
    frame.classList.toggle("looked", looked);
    image.src = looked ? why.view : own;
    image.alt = looked ? "what the classifier was shown of " + name + ", with the places that speak for " + why.class : name;
    if (looked) { frame.append(heat); button.after(key); } else { heat.remove(); key.remove(); }
    if (!image.isConnected) frame.prepend(image);
  }
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
  set(false);
  picture.append(button);
}

function near(said, neighbours) {
  const list = make("ul", "near");
  for (const one of neighbours) {
    const item = make("li");
    if (one.picture) {
      const image = make("img");
      image.src = one.picture;
      image.alt = "training picture of " + one.class;
      item.append(image);
    } else {
      const none = make("span", "none");
      none.setAttribute("aria-hidden", "true");
      item.append(none);
    }
    item.title = one.id;
    item.append(one.class, make("small", "", "similarity " + one.similarity.toFixed(2)));
    list.append(item);
  }
  said.append(make("h3", "", "Nearest training pictures"), list);
}

byId("choose").addEventListener("click", () => byId("files").click());
byId("photograph").addEventListener("click", () => byId("camera").click());
for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
}
byId("model").addEventListener("change", describe);
byId("clear").addEventListener("click", () => {
  state.waiting.length = 0;
  for (const image of document.querySelectorAll("img.shown")) URL.revokeObjectURL(image.src);
  byId("results").replaceChildren();
  byId("clear").hidden = true;
  byId("drop").classList.remove("small");
  byId("choose").focus();
});
byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = byId("secret").value;
  loadModels();
});
let depth = 0;
document.addEventListener("dragenter", (event) => { event.preventDefault(); depth++; byId("drop").classList.add("over"); });
document.addEventListener("dragleave", () => { depth--; if (depth <= 0) byId("drop").classList.remove("over"); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  byId("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) add(event.clipboardData.files); });
byId("photograph").classList.toggle("nowhere", !("ontouchstart" in window) && !navigator.maxTouchPoints);
loadModels();
