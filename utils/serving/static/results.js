// Answers as rows of a table, and their download. The file is made in this browser.

import { write } from "./csv.js";

/** Return the values of an answer of the API that a table shows, by column. */
export function asRow(task, answer) {
  if (task === "qa") {
    const { response, finished, cut, confidence, safety_report: report } = answer;
    return { response, finished, cut, confidence, risk_level: report?.risk_level ?? null };
  }
  if (task === "summarization") {
    const { summary, finished, cut, hallucinations } = answer;
    return { summary, finished, cut, hallucinations: hallucinations ? hallucinations.map((h) => h.text).join("; ") : null };
  }
  return classRow(answer.results[0]);
}

/** Return the values of one result of `/classify`: of a path " > " joins the classes, of several labels "; ". */
export function classRow({ prediction, confidence, shown, abstained, cut }) {
  const isPath = shown !== undefined;
  const join = (values) => (Array.isArray(values) ? values.join(isPath ? " > " : "; ") : values);
  const unsure = isPath ? shown < prediction.length : (abstained ?? prediction.length === 0);
  return { prediction: join(prediction), confidence: join(confidence), needs_review: unsure, cut };
}

/** Put columns behind those of an input. A name that the input has already gets an underscore. */
export function addColumns(input, added) {
  const row = { ...input };
  for (let [name, value] of Object.entries(added)) {
    while (name in input) name += "_";
    row[name] = value;
  }
  return row;
}

/** Offer rows, given as objects with the same keys, as a csv file. */
export function downloadCsv(name, rows) {
  const header = Object.keys(rows[0]);
  download(name, "text/csv;charset=utf-8", write(header, rows.map((row) => header.map((key) => row[key]))));
}

export function downloadJson(name, value) {
  download(name, "application/json", JSON.stringify(value, null, 2));
}

function download(name, type, text) {
  const link = document.createElement("a");
  const bom = type.startsWith("text/csv") ? "\ufeff" : ""; // without it Excel does not read UTF-8
  link.href = URL.createObjectURL(new Blob([bom + text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
