// A history that stays in this browser, and only if the user asks for it.

import { make } from "./dom.js";

const MOST = 50;
const KEY = `history ${new URL(document.baseURI).pathname}`; // apps under several paths of one host keep their own
const keep = document.getElementById("keep");
const list = document.getElementById("entries");
const status = document.getElementById("history-status");

/** Connect the view; `again` is called with an entry whose input is to be used again. */
export function startHistory(again) {
  try {
    keep.checked = localStorage.getItem(KEY) !== null;
  } catch {
    keep.disabled = true;
    status.textContent = "This browser does not let the page keep anything.";
  }
  keep.addEventListener("change", () => {
    if (keep.checked) save([]);
    else localStorage.removeItem(KEY);
    draw(again);
    status.textContent = keep.checked ? "The history is on." : "The history is off, and deleted.";
  });
  document.getElementById("clear").addEventListener("click", () => {
    if (keep.checked) save([]);
    draw(again);
    status.textContent = "The history is cleared.";
  });
  draw(again);
  return (entry) => {
    if (!keep.checked) return;
    save([{ time: new Date().toISOString(), ...entry }, ...load()].slice(0, MOST));
    draw(again);
  };
}

function load() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return []; // off, or written by something else
  }
}

function save(entries) {
  try {
    localStorage.setItem(KEY, JSON.stringify(entries));
  } catch {
    if (entries.length > 1) save(entries.slice(0, -1)); // full: the oldest goes
    else status.textContent = "This browser has no room for the history.";
  }
}

function draw(again) {
  const entries = keep.checked ? load() : [];
  status.textContent = entries.length || !keep.checked ? "" : "The history is empty.";
  list.replaceChildren(...entries.map((entry) => {
    const use = make("button", { type: "button", textContent: "Use again" });
    use.addEventListener("click", () => again(entry));
    const answers = entry.results.map(({ model, text }) => make("p", {}, make("strong", {}, `${model}: `), text));
    const time = make("time", { dateTime: entry.time }, new Date(entry.time).toLocaleString());
    return make("li", {}, make("p", { className: "hint" }, time), make("p", {}, Object.values(entry.input).join("\n")), ...answers, use);
  }));
}
