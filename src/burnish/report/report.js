"use strict";
const films = JSON.parse(document.getElementById("films").textContent);
const number = new Intl.NumberFormat("en");
const percent = (p) => `${(100 * p).toFixed(1)}%`;
const heat = (p) => `h${Math.round(10 * p)}`;
const FRAME_MS = 650;

function make(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A film: one take for each row; the tokens stay, and their colour goes from look to look.
function player(holder, rows) {
  let take = 0, at = 0, timer = 0, chosen = -1;
  const play = make("button", "play", "Play"), slider = make("input"), when = make("output");
  const takes = make("div", "takes"), prompt = make("p", "context"), heats = make("div", "heats");
  const detail = make("p", "detail"), frames = make("div", "frames"), stage = make("div", "stage");
  play.type = "button";
  slider.type = "range";
  slider.min = 0;
  slider.setAttribute("aria-label", "look");
  takes.setAttribute("role", "group");
  takes.setAttribute("aria-label", "rows");
  frames.setAttribute("role", "group");
  frames.setAttribute("aria-label", "frames");
  const controls = make("div", "controls");
  controls.append(play, slider, when);
  if (rows.length > 1) controls.append(takes);
  stage.append(prompt, heats, detail);
  holder.replaceChildren(controls, stage, frames);
  rows.forEach((row, place) => {
    const button = make("button", "", `row ${place + 1}`);
    button.type = "button";
    button.addEventListener("click", () => { open(place); });
    takes.append(button);
  });

  function tell() {
    const row = rows[take];
    if (chosen < 0 || chosen >= row.tokens.length) { detail.textContent = "Point at a token for its figures."; return; }
    const rank = row.rank[chosen], group = row.group[chosen];
    const known = rank === null || rank === undefined ? "" : rank <= 1 ? " · the base's first choice" : ` · the base's choice no. ${number.format(rank)}`;
    detail.textContent = `“${row.tokens[chosen]}” ${percent(row.frames[at].p[chosen])} probable${known}${group ? ` · ${group}` : ""}`;
  }

  function show(place) {
    const row = rows[take], frame = row.frames[place];
    at = place;
    [...heats.children].forEach((token, k) => { token.className = `heat ${heat(frame.p[k])}`; });
    when.textContent = frame.step === 0 ? "before training" : `after update ${number.format(frame.step)}`;
    slider.value = place;
    [...frames.children].forEach((each, k) => { each.setAttribute("aria-pressed", String(k === place)); });
    const here = frames.children[place];
    frames.scrollLeft = here.offsetLeft - frames.offsetLeft - frames.clientWidth / 2 + here.clientWidth / 2;
    tell();
  }

  function open(place) {
    take = place;
    chosen = -1;
    const row = rows[take];
    prompt.textContent = row.prompt;
    heats.replaceChildren(...row.tokens.map((text, k) => {
      const token = make("span", "heat", text.replaceAll("\n", "⏎"));
      token.tabIndex = 0;
      for (const kind of ["pointerover", "focus", "click"]) token.addEventListener(kind, () => { chosen = k; tell(); });
      return token;
    }));
    frames.replaceChildren(...row.frames.map((frame, k) => {
      const button = make("button", "frame"), cells = make("span", "cells");
      button.type = "button";
      frame.p.forEach((p) => { cells.append(make("i", heat(p))); });
      button.append(cells, make("span", "", frame.step === 0 ? "before" : number.format(frame.step)));
      button.setAttribute("aria-label", frame.step === 0 ? "before training" : `after update ${frame.step}`);
      button.addEventListener("click", () => { stop(); show(k); });
      return button;
    }));
    [...takes.children].forEach((each, k) => { each.setAttribute("aria-pressed", String(k === place)); });
    slider.max = row.frames.length - 1;
    show(Math.min(at, row.frames.length - 1));
  }

  function stop() { clearInterval(timer); timer = 0; play.textContent = "Play"; }
  function step() {
    if (at + 1 >= rows[take].frames.length) stop();
    else show(at + 1);
  }
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (at + 1 >= rows[take].frames.length) show(0);
    play.textContent = "Pause";
    timer = setInterval(step, FRAME_MS);
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  open(0);
  show(rows[0].frames.length - 1);
}

for (const holder of document.querySelectorAll(".film")) {
  const film = films.find((each) => each.run === holder.dataset.run);
  if (film) player(holder, film.rows);
}

const scheme = document.getElementById("scheme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.scheme || (dark.matches ? "dark" : "light")) === "dark";
const name = () => { scheme.textContent = isDark() ? "Light" : "Dark"; };
scheme.hidden = false;
scheme.addEventListener("click", () => { document.documentElement.dataset.scheme = isDark() ? "light" : "dark"; name(); });
dark.addEventListener("change", name);
name();

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const [anchor, link] of links) anchor === entry.target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }
}, { rootMargin: "0px 0px -75% 0px" });
for (const part of document.querySelectorAll("main section")) seen.observe(part);
