// A csv file, classified in requests of bounded size. Each row ends with a result or with the reason why it has none.

import { post } from "./api.js";
import { decode, parse } from "./csv.js";
import { make, tell } from "./dom.js";
import { addColumns, classRow, downloadCsv, downloadJson } from "./results.js";

const MOST_ROWS = 10_000;
const MOST_BYTES = 20_000_000; // of a file
const ROWS_PER_REQUEST = 16;
const BYTES_PER_REQUEST = 400_000; // the server refuses more than 1,000,000
const ATTEMPTS = 5; // while the server is busy
const LISTED = 100; // failed rows shown; the file has all

export function startBatch(section, models, maxCharacters) {
  const form = section.querySelector("form"), stop = form.querySelector(".stop");
  const { file, model: modelBox, column: columnBox } = form.elements;
  let table = null, running = null;
  modelBox.append(...models.map(({ name, task }) => make("option", { value: name }, `${name} (${task})`)));
  const model = () => models.find(({ name }) => name === modelBox.value);

  const offerColumns = () => {
    const parts = model().parts;
    columnBox.disabled = parts.length > 0;
    columnBox.replaceChildren(...(parts.length ? [parts.join(", ")] : (table?.header ?? [])).map((name) => (
      make("option", { value: name }, name || "(no name)")
    )));
    const expected = [model().column, "text"].find((name) => table?.header.includes(name));
    if (!parts.length && expected) columnBox.value = expected;
  };
  modelBox.addEventListener("change", offerColumns);
  offerColumns();

  const forget = () => {
    table = null;
    tell(form, null);
    section.querySelector(".progress").hidden = true;
    section.querySelector(".done").replaceChildren(); // of the file before
    document.getElementById("batch-file").textContent = "";
    offerColumns();
  };
  file.addEventListener("click", () => { // so that the same file, once it is mended, is a change
    file.value = "";
    forget();
  });
  file.addEventListener("change", async () => {
    forget();
    try {
      if (file.files.length) table = await readTable(file.files[0]);
    } catch (error) {
      tell(form, error.message, file);
    }
    offerColumns();
    if (!table) return;
    const count = `${table.rows.length.toLocaleString("en")} rows, ${table.header.length} columns.`;
    document.getElementById("batch-file").textContent = `${count} Row 1 is the first below the header.`;
  });
  stop.addEventListener("click", () => running?.abort());

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!file.files.length) return tell(form, "No file is chosen: choose a csv file.", file);
    const fault = form.querySelector(".error").textContent;
    if (!table) return tell(form, fault || "The file is still being read: try again in a moment.");
    let texts;
    try {
      texts = textsOf(table, model().parts.length ? model().parts : [columnBox.value], model().parts.length > 0, maxCharacters);
    } catch (error) {
      return tell(form, error.message, columnBox);
    }
    tell(form, null);
    running = new AbortController();
    const controls = [file, modelBox, columnBox, form.querySelector("[type=submit]")];
    controls.forEach((control) => { control.disabled = true; });
    stop.hidden = false;
    const asked = model(), progress = startProgress(section, texts.length);
    const results = await classifyAll(texts, asked, running.signal, progress);
    controls.forEach((control) => { control.disabled = false; });
    columnBox.disabled = asked.parts.length > 0;
    stop.hidden = true;
    showEnd(section.querySelector(".done"), asked, table, results);
  });
}

// ----- The file

async function readTable(file) {
  if (file.size > MOST_BYTES) {
    throw new Error(`The file has ${(file.size / 1e6).toFixed(1)} MB, and at most ${MOST_BYTES / 1e6} are read: split it, or use predict.py.`);
  }
  const table = parse(decode(await file.arrayBuffer()));
  if (table.rows.length > MOST_ROWS) {
    throw new Error(`The file has ${table.rows.length} rows, and at most ${MOST_ROWS} are read: split it, or use predict.py.`);
  }
  return table;
}

/** Return the input of each row, a text or an object of columns, or null for a row without text. */
function textsOf({ header, rows }, columns, asObject, maxCharacters) {
  const places = columns.map((name) => {
    if (header.includes(name)) return header.indexOf(name);
    throw new Error(`The file has no column \`${name}\`, which the model reads: its columns are ${header.join(", ")}.`);
  });
  return rows.map((row, i) => {
    const texts = places.map((place) => row[place]);
    texts.forEach((text, n) => {
      const length = [...text].length; // characters as the server counts them
      if (length <= maxCharacters) return;
      throw new Error(`Row ${i + 1}, column \`${columns[n]}\` has ${length} characters, and at most ${maxCharacters} are read: shorten it.`);
    });
    if (texts.some((text) => !text.trim())) return null;
    return asObject ? Object.fromEntries(columns.map((name, n) => [name, texts[n]])) : texts[0];
  });
}

// ----- The requests

/** Return a result of the API or { error } per row, in order. */
async function classifyAll(texts, model, signal, progress) {
  const results = texts.map((text) => (text === null ? { error: "the text is empty" } : null));
  progress(results);
  let ended = null; // why no further request is sent
  for (const places of requestsOf(texts)) {
    if (!ended) ended = await classifySome(places, texts, model, signal, results);
    progress(results);
    if (ended) break;
  }
  return results.map((result) => result ?? { error: ended });
}

/** Yield lists of places of rows, each for one request. */
function* requestsOf(texts) {
  const encoder = new TextEncoder();
  let places = [], bytes = 0;
  for (const [place, text] of texts.entries()) {
    if (text === null) continue;
    const own = encoder.encode(JSON.stringify(text)).length;
    if (places.length && (places.length === ROWS_PER_REQUEST || bytes + own > BYTES_PER_REQUEST)) {
      yield places;
      [places, bytes] = [[], 0];
    }
    places.push(place);
    bytes += own;
  }
  if (places.length) yield places;
}

/** Fill in the results of some rows. A request that is refused is sent row by row, so that only faulty rows fail.
 * Returns the reason why no further request makes sense, or null. */
async function classifySome(places, texts, { name, task }, signal, results) {
  const body = { model: name, task, top_k: 3, texts: places.map((place) => texts[place]) };
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await post("classify", body, signal);
      places.forEach((place, i) => { results[place] = answer.results[i]; });
      return null;
    } catch (error) {
      if (error.name === "AbortError") return "stopped before this row";
      if ([0, 401, 404].includes(error.status)) return error.message;
      const isBusy = [429, 503, 504].includes(error.status);
      if (isBusy && attempt < ATTEMPTS) {
        if (!(await pause(error.wait ?? 2 ** (attempt - 1), signal))) return "stopped before this row";
      } else if (places.length === 1 || error.status === 503) {
        for (const place of places) results[place] = { error: error.message };
        return null;
      } else break;
    }
  }
  for (const place of places) {
    const ended = await classifySome([place], texts, { name, task }, signal, results);
    if (ended) return ended;
  }
  return null;
}

/** Wait, and return whether nobody has stopped meanwhile. */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(true), 1000 * seconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(false); }, { once: true });
  });
}

// ----- What is shown

function startProgress(section, n) {
  const box = section.querySelector(".progress"), bar = box.querySelector("progress");
  section.querySelector(".done").replaceChildren();
  box.hidden = false;
  bar.max = n;
  return (results) => {
    const done = results.filter((result) => result).length, failed = results.filter((result) => result?.error).length;
    bar.value = done;
    box.querySelector(".counted").textContent = `${done} of ${n} rows, ${failed} failed`;
  };
}

function showEnd(output, model, { header, rows }, results) {
  const failed = results.flatMap((result, i) => (result.error ? [[i + 1, result.error]] : []));
  const counts = new Map();
  const table = rows.map((row, i) => {
    const input = Object.fromEntries(header.map((name, n) => [name, row[n]]));
    const { error = null, ...result } = results[i];
    const empty = { prediction: null, confidence: null, needs_review: null, cut: null };
    const found = error === null ? classRow(result) : empty;
    if (error === null) counts.set(found.prediction || "no label", (counts.get(found.prediction || "no label") ?? 0) + 1);
    return addColumns(input, { row: i + 1, model: model.name, ...found, error });
  });
  const csv = make("button", { type: "button" }, "Download csv"), json = make("button", { type: "button" }, "Download json");
  csv.addEventListener("click", () => downloadCsv("classified.csv", table));
  json.addEventListener("click", () => downloadJson("classified.json", rows.map((row, i) => (
    { row: i + 1, model: model.name, input: Object.fromEntries(header.map((name, n) => [name, row[n]])), ...results[i] }
  ))));
  output.replaceChildren(
    make("p", {}, make("strong", {}, `${results.length - failed.length} of ${results.length} rows are classified, ${failed.length} failed.`)),
    make("p", { className: "hint" }, "In the csv a cell that a spreadsheet would run as a formula begins with an apostrophe; the json has every text as it is."),
    make("div", { className: "downloads" }, csv, json),
    ...(counts.size ? [listOf(["Prediction", "Rows"], [...counts].sort((a, b) => b[1] - a[1]), "Predictions")] : []),
    ...(failed.length ? [listOf(["Failed row", "Reason"], failed.slice(0, LISTED), "Failed rows")] : []),
    ...(failed.length > LISTED ? [make("p", {}, `${failed.length - LISTED} more are in the files.`)] : []),
  );
}

function listOf(header, rows, title) {
  const line = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, String(cell))));
  return make("table", {}, make("caption", {}, title), make("thead", {}, line("th", header)), make("tbody", {}, ...rows.map((row) => line("td", row))));
}
