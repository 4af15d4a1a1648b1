// The views of the page: one per task, each with the answers of its models side by side.

import { post, postForLines } from "./api.js";
import { startBatch } from "./batch.js";
import { make, makeTabs, tell } from "./dom.js";
import { startHistory } from "./history.js";
import { addColumns, asRow, downloadCsv, downloadJson } from "./results.js";

const config = JSON.parse(document.getElementById("config").textContent);
const CLASSIFIERS = ["classification", "hierarchical"];
const NUMBERS = ["age", "weight", "temperature", "max_length", "num_beams", "length_penalty"];
const PATIENT = ["age", "weight", "kidney", "medications", "allergies", "conditions"];
const SETTINGS = ["temperature", "max_length", "num_beams", "length_penalty"];
const SHOWN_CLASSES = 5;

const classifiers = config.models.filter(({ task }) => CLASSIFIERS.includes(task));
const used = [...document.querySelectorAll("main > section")].filter(({ id }) => (
  id === "history" || (id === "batch" ? classifiers.length : config.models.some(({ task }) => task === id))
));
const show = makeTabs(document.getElementById("tabs"), used);
const remember = startHistory(useAgain);
if (classifiers.length) startBatch(document.getElementById("batch"), classifiers, config.max_characters);
for (const section of used) if (section.id in config.examples) startTask(section);

// ----- One view

function startTask(section) {
  const task = section.id, form = section.querySelector("form");
  const models = config.models.filter((model) => model.task === task);
  addTexts(form, models);
  addExamples(form, models[0].parts.length ? [] : config.examples[task]);
  const chosen = addChoice(form, models);
  const stop = make("button", { type: "button", textContent: "Stop", className: "stop", hidden: true });
  form.querySelector("[type=submit]").after(" ", stop);
  const output = make("div", { className: "output" });
  section.append(output);
  let running = null;
  stop.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running?.abort(); // the last question counts
    output.replaceChildren(); // an older answer is none to this text
    if (!chosen().length) return tell(form, "No model is chosen: tick one.");
    const boxes = boxesOf(form, chosen());
    const empty = boxes.find((box) => !box.value.trim());
    if (empty) return tell(form, "The text is empty: enter a text.", empty);
    let more;
    try {
      more = task === "qa" ? readSettings(form) : {};
    } catch (error) {
      return tell(form, error.message, error.box);
    }
    tell(form, null);
    const own = running = new AbortController();
    stop.hidden = false;
    await compare(task, chosen(), boxes, more, output, own.signal);
    if (running === own) stop.hidden = true;
  });
}

function addTexts(form, models) {
  const holder = form.querySelector(".texts");
  if (!holder) return;
  for (const name of new Set(models.flatMap(columnsOf))) {
    const box = make("textarea", { name, rows: 4, maxLength: config.max_characters });
    holder.append(make("label", {}, `${name} `, box));
  }
}

/** Return the names of the texts that a classifier reads: its columns, if it reads several. */
function columnsOf({ parts }) {
  return parts.length ? parts : ["Text"];
}

/** Return the boxes of the texts that some models read. */
function boxesOf(form, models) {
  const boxes = [...form.querySelectorAll("textarea")];
  if (!form.querySelector(".texts")) return boxes;
  return boxes.filter(({ name }) => models.some((model) => columnsOf(model).includes(name)));
}

function addExamples(form, texts) {
  const holder = form.querySelector(".examples");
  holder.hidden = !texts.length;
  holder.append(make("span", { className: "hint" }, "Examples"));
  for (const text of texts) {
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      form.querySelector("textarea").value = text;
      form.querySelector("textarea").focus();
    });
    holder.append(button);
  }
}

/** Add a box to tick per model where there are several, and return a function that gives the chosen models. */
function addChoice(form, models) {
  if (models.length === 1) return () => models;
  const boxes = models.map(() => make("input", { type: "checkbox", checked: true }));
  const labels = models.map(({ name }, i) => make("label", { className: "check" }, boxes[i], ` ${name}`));
  const group = make("fieldset", {}, make("legend", {}, "Models, side by side"), ...labels);
  form.querySelector("[type=submit]").before(group);
  return () => models.filter((_, i) => boxes[i].checked);
}

function readSettings(form) {
  const values = {};
  for (const name of [...PATIENT, ...SETTINGS]) {
    const box = form.elements[name], text = box.value.trim();
    if (!text) continue;
    const isNumber = NUMBERS.includes(name) || (name === "kidney" && /^[\d.,]+$/.test(text));
    values[name] = isNumber ? Number(text.replace(",", ".")) : text;
    if (Number.isNaN(values[name])) {
      throw Object.assign(new Error(`\`${name}\` is no number: write digits, or leave it empty.`), { box });
    }
  }
  if (form.elements.pregnancy.checked) values.pregnancy = true;
  const pick = (names) => Object.fromEntries(names.filter((name) => name in values).map((name) => [name, values[name]]));
  const patient = pick([...PATIENT, "pregnancy"]);
  return { ...pick(SETTINGS), ...(Object.keys(patient).length ? { patient_context: patient } : {}) };
}

// ----- Answers

async function compare(task, models, boxes, more, output, signal) {
  const cards = models.map(({ name }) => make("article", { className: "card" }, make("h3", {}, name), make("p", {}, "Waiting …")));
  const summary = make("div", { className: models.length > 1 ? "" : "for-readers" });
  summary.setAttribute("role", "status");
  const grid = make("div", { className: "cards", ariaLive: "polite", ariaBusy: "true" }, ...cards); // read out once complete
  output.replaceChildren(make("h2", {}, models.length > 1 ? "Answers" : "Answer"), summary, grid);
  output.firstChild.scrollIntoView({ block: "nearest" });
  const input = Object.fromEntries(boxes.map((box) => [box.name, box.value]));
  const results = await Promise.all(models.map((model, i) => ask(task, model, input, more, cards[i], signal)));
  if (!output.contains(grid)) return; // a later question has taken its place
  grid.ariaBusy = "false";
  const answered = results.filter(({ answer }) => answer);
  summary.textContent = sayAtEnd(task, answered, models.length);
  if (!answered.length) return;
  addDownloads(output, task, input, more, answered);
  const texts = answered.map(({ model, answer }) => ({ model, text: Object.values(asRow(task, answer))[0] || "no label" }));
  remember({ task, input, results: texts });
}

async function ask(task, model, input, more, card, signal) {
  const head = card.firstChild;
  try {
    const { answer, html } = await answerOf(task, model, input, more, signal, (text) => {
      const note = make("p", { className: "hint" }, "Being written, not checked yet:");
      card.replaceChildren(head, note, make("div", { className: "text" }, text));
    });
    card.replaceChildren(head, ...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    return { model: model.name, answer };
  } catch (error) {
    const message = make("p", { className: "error" }, error.name === "AbortError" ? "Stopped." : error.message);
    message.setAttribute("role", "alert");
    card.replaceChildren(head, message);
    return { model: model.name, answer: null };
  }
}

async function answerOf(task, model, input, more, signal, onText) {
  const body = { model: model.name, ...more };
  if (CLASSIFIERS.includes(task)) {
    const text = model.parts.length ? Object.fromEntries(model.parts.map((name) => [name, input[name]])) : input.Text;
    return post("page/classify", { ...body, text, task, top_k: SHOWN_CLASSES }, signal);
  }
  if (task === "summarization") return post("page/summarize", { ...body, ...input }, signal);
  for await (const line of postForLines("page/generate", { ...body, ...input }, signal)) {
    if (line.detail) throw new Error(line.detail);
    if (line.answer) return line;
    onText(line.text);
  }
  throw new Error("The server ended the answer too early. Try again.");
}

function sayAtEnd(task, answered, asked) {
  if (!answered.length) return "There is no answer.";
  if (asked === 1) return "Answered.";
  if (answered.length < asked) return `${answered.length} of ${asked} models answered.`;
  if (!CLASSIFIERS.includes(task)) return "All models answered.";
  const found = new Set(answered.map(({ answer }) => JSON.stringify(answer.results[0].prediction)));
  return found.size === 1 ? "The models agree." : "The models differ.";
}

function addDownloads(output, task, input, more, answered) {
  const time = new Date().toISOString(), name = `${task}-${time.slice(0, 19).replaceAll(":", "-")}`;
  const csv = make("button", { type: "button" }, "Download csv"), json = make("button", { type: "button" }, "Download json");
  csv.addEventListener("click", () => (
    downloadCsv(`${name}.csv`, answered.map(({ model, answer }) => addColumns(input, { model, ...asRow(task, answer) })))
  ));
  json.addEventListener("click", () => downloadJson(`${name}.json`, { time, task, input: { ...input, ...more }, results: answered }));
  output.append(make("div", { className: "downloads" }, csv, json));
}

function useAgain({ task, input }) {
  if (!used.some(({ id }) => id === task)) return;
  show(task);
  const boxes = [...document.querySelectorAll(`#${task} textarea`)];
  for (const box of boxes) if (box.name in input) box.value = input[box.name];
  boxes[0].focus();
}
