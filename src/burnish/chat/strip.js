"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
let shown = 0;

function element(text, classes) {
  const span = document.createElement("span");
  span.className = ["token", ...classes].join(" ");
  span.textContent = text;
  return span;
}

function describe(strip, at) {
  const kind = strip.stop[at] ? "stop token, graded" : strip.graded[at] ? "graded" : "context";
  return `position ${strip.position_ids[at]} · id ${strip.input_ids[at]} · ` +
    `${JSON.stringify(strip.tokens[at])} · weight ${strip.weight[at]} · ${kind}`;
}

function choose(span) {
  document.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
  span.classList.add("chosen");
  byId("detail").textContent = describe(data.strips[shown], Number(span.dataset.at));
}

function draw() {
  const holder = byId("strip");
  holder.replaceChildren();
  byId("place").textContent = data.strips.length ? `${shown + 1} / ${data.strips.length}` : "0 / 0";
  const strip = data.strips[shown];
  if (!strip) { holder.textContent = "No example was kept."; return; }
  const graded = strip.graded.reduce((sum, bit) => sum + bit, 0);
  const length = strip.input_ids.length;
  const turns = strip.turns.length ? ` · graded messages: ${strip.turns.join(", ")}` : "";
  byId("facts").textContent =
    `row ${strip.row}${turns} · ${length} tokens · ${Math.round((100 * graded) / length)}% of tokens teach`;
  strip.tokens.forEach((text, at) => {
    const classes = [];
    if (strip.graded[at]) classes.push("graded");
    if (strip.stop[at]) classes.push("stop");
    const span = element(text.replaceAll("\n", "⏎\n"), classes);
    span.dataset.at = at;
    span.tabIndex = -1;
    const strength = Math.max(25, Math.min(100, Math.round(100 * Math.abs(strip.weight[at]))));
    if (strip.graded[at]) span.style.setProperty("--strength", `${strength}%`);
    holder.append(span);
  });
  if (strip.cut) holder.append(element(`${strip.cut} graded tokens cut off`, ["cut"]));
  byId("detail").textContent = "Point at a token.";
}

function go(step) {
  const next = shown + step;
  if (next < 0 || next >= data.strips.length) return;
  shown = next;
  draw();
}

byId("strip").addEventListener("pointerover", (event) => {
  const span = event.target.closest("[data-at]");
  if (span) choose(span);
});
byId("previous").addEventListener("click", () => go(-1));
byId("next").addEventListener("click", () => go(1));
document.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") go(-1);
  if (event.key === "ArrowRight") go(1);
});
draw();
