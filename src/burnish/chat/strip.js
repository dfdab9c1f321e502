"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const CLASSES = ["context", "reply", "reasoning", "call", "own", "stop"];
const NAMES = ["context", "reply", "reasoning", "tool call", "template’s own", "stop token"];
const number = new Intl.NumberFormat("en");
let row = 0, view = 0, chosen = -1, folded = false;

function make(tag, classes, text) {
  const made = document.createElement(tag);
  made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (part, whole) => `${Math.round((100 * part) / Math.max(1, whole))}%`;
const taught = (shown) => shown.weight.reduce((sum, weight) => sum + (weight !== 0), 0);

// "a\n⟨202E⟩" as text, with the line's end and what is made visible told apart; nothing is ever read as HTML.
function spell(holder, text) {
  for (const part of text.split(/(\n|⟨[0-9A-F]{4,6}⟩|[␀-␟])/)) {
    if (part === "\n") holder.append(make("i", "end", "⏎"), "\n");
    else if (/^(⟨[0-9A-F]{4,6}⟩|[␀-␟])$/.test(part)) holder.append(make("i", "odd", part));
    else if (part) holder.append(part);
  }
}

function tokenOf(shown, at) {
  const kind = shown.kind[at], weight = shown.weight[at];
  const token = make("span", `token ${CLASSES[kind]}`);
  spell(token, shown.tokens[at]);
  token.dataset.at = at;
  token.tabIndex = -1;
  if (kind === 0 && at < shown.shared) token.classList.add("shared");
  if (kind !== 0 && Math.abs(weight) < 1) {
    token.style.setProperty("--strength", `${Math.max(30, Math.round(100 * Math.abs(weight)))}%`);
    token.classList.add("weak");
  }
  if (weight < 0) token.classList.add("negative");
  return token;
}

function tokensOf(shown) {
  const drawn = document.createDocumentFragment();
  let hidden = 0, before = 0;
  const tellHidden = () => { if (hidden) drawn.append(make("span", "note", `${number.format(hidden)} context`), "\n"); hidden = 0; };
  shown.tokens.forEach((_, at) => {
    const weight = shown.weight[at];
    if (folded && weight === 0) { hidden += 1; before = weight; return; }
    if (hidden && drawn.lastChild) drawn.append("\n");
    tellHidden();
    if (weight !== 0 && weight !== 1 && weight !== before) drawn.append(make("span", "note weight", `×${Number(weight.toPrecision(3))}`));
    before = weight;
    drawn.append(tokenOf(shown, at));
    if (!folded && at + 1 === shown.shared) {
      drawn.append(make("span", "note", `↑ ${number.format(shown.shared)} tokens shared with view ${view}`));
    }
  });
  tellHidden();
  if (shown.cut) drawn.append(" ", make("span", "note cut", `${number.format(shown.cut)} graded tokens cut off`));
  return drawn;
}

function choose(at, focus) {
  const shown = data.rows[row].views[view];
  const token = byId("strip").querySelector(`[data-at="${at}"]`);
  if (!token) return;
  for (const other of byId("strip").querySelectorAll(".chosen")) { other.classList.remove("chosen"); other.tabIndex = -1; }
  token.classList.add("chosen");
  token.tabIndex = 0;
  chosen = at;
  byId("text").replaceChildren();
  byId("text").append(shown.tokens[at].replaceAll("\n", "⏎"));
  const weight = shown.weight[at];
  const origin = shown.origin[at];
  byId("what").textContent = weight === 0 ? `context · ${origin}` : `graded · ${origin}`;
  byId("numbers").textContent = `id ${shown.ids[at]} · weight ${Number(weight.toPrecision(4))} · position ${at}`;
  if (focus) { token.focus({ preventScroll: true }); token.scrollIntoView({ block: "nearest" }); }
}

function bars(holder, counts, classes) {
  holder.replaceChildren();
  counts.forEach((count, kind) => {
    if (!count) return;
    const bar = make("span", classes[kind]);
    bar.style.setProperty("--count", count);
    holder.append(bar);
  });
}

function drawOverview() {
  bars(byId("bar"), [...data.by_kind.slice(1), data.by_kind[0]], [...CLASSES.slice(1), CLASSES[0]]);
  const anyCut = data.rows.reduce((sum, each) => sum + each.views.reduce((cut, one) => cut + one.cut, 0), 0);
  const entry = (classes, name, count) => {
    const item = make("li", "");
    item.append(make("i", classes), name, " ", make("b", "", number.format(count)));
    byId("legend").append(item);
  };
  [1, 2, 3, 4, 5, 0].forEach((kind) => { if (data.by_kind[kind]) entry(CLASSES[kind], NAMES[kind], data.by_kind[kind]); });
  if (anyCut) entry("cut", "cut off", anyCut);
  const map = byId("map");
  map.classList.toggle("many", data.rows.length > 60);
  data.rows.forEach((each, r) => {
    const group = make("span", "");
    each.views.forEach((one, v) => {
      const button = make("button", "");
      const graded = taught(one), length = one.ids.length;
      button.type = "button";
      button.tabIndex = -1;
      button.title = `${one.title}: ${percent(graded, length)} of ${number.format(length)} tokens`;
      button.setAttribute("aria-label", button.title);
      bars(button, [graded, length - graded], ["taught", "context"]);
      button.addEventListener("click", () => show(r, v));
      group.append(button);
    });
    map.append(group);
  });
}

function drawViews(views) {
  const holder = byId("views");
  holder.replaceChildren();
  if (views.length < 2) return;
  views.forEach((one, v) => {
    const button = make("button", "", String(v + 1));
    button.type = "button";
    button.title = one.title;
    button.setAttribute("aria-label", one.title);
    if (v === view) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => show(row, v));
    holder.append(button);
  });
}

function draw() {
  const each = data.rows[row];
  byId("place").textContent = data.rows.length ? `${row + 1} of ${data.rows.length}` : "0 of 0";
  byId("previous").disabled = row === 0;
  byId("next").disabled = row >= data.rows.length - 1;
  if (!each) { byId("strip").textContent = "No row was kept."; return; }
  const shown = each.views[view];
  const graded = taught(shown), length = shown.ids.length;
  byId("heading").textContent = shown.title;
  byId("origin").textContent = each.place;
  byId("figures").textContent = `${number.format(length)} tokens, ${percent(graded, length)} teach`;
  byId("fold").setAttribute("aria-pressed", String(folded));
  drawViews(each.views);
  byId("strip").replaceChildren(tokensOf(shown));
  const bar = [...byId("map").children].flatMap((group, r) => [...group.children].map((button, v) => [button, r === row && v === view]));
  for (const [button, here] of bar) here ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
  // What the reader came for: the first token that teaches words of the data, not the template's.
  const first = shown.kind.findIndex((kind) => kind !== 0 && CLASSES[kind] !== "own");
  choose(Math.max(0, first), false);
}

function show(r, v) {
  if (!data.rows[r] || !data.rows[r].views[v]) return false;
  row = r;
  view = v;
  draw();
  return true;
}

function step(by) {
  const drawn = [...byId("strip").querySelectorAll("[data-at]")].map((token) => Number(token.dataset.at));
  const next = drawn[drawn.indexOf(chosen) + by];
  if (next !== undefined) choose(next, true);
}

function fold() {
  const kept = chosen;
  folded = !folded;
  draw();
  choose(kept, false);
}

const KEYS = {
  ArrowLeft: () => show(row - 1, 0),
  ArrowRight: () => show(row + 1, 0),
  ArrowUp: () => show(row, view - 1),
  ArrowDown: () => show(row, view + 1),
  Home: () => show(0, 0),
  End: () => show(data.rows.length - 1, 0),
  g: () => { fold(); return true; },
  j: () => { step(1); return true; },
  k: () => { step(-1); return true; },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  // Where there is no other view, up and down scroll the page as they always do.
  if (KEYS[event.key]()) event.preventDefault();
});
for (const kind of ["pointerover", "click", "focusin"]) {
  byId("strip").addEventListener(kind, (event) => {
    const token = event.target.closest("[data-at]");
    if (token && Number(token.dataset.at) !== chosen) choose(Number(token.dataset.at), false);
  });
}
byId("previous").addEventListener("click", () => show(row - 1, 0));
byId("next").addEventListener("click", () => show(row + 1, 0));
byId("fold").addEventListener("click", fold);
// preview.html#3.2 opens the second view of the third row.
function follow() {
  const [r, v] = location.hash.slice(1).split(".").map(Number);
  return Boolean(r) && show(r - 1, (v || 1) - 1);
}
addEventListener("hashchange", follow);
drawOverview();
if (!follow()) draw();
