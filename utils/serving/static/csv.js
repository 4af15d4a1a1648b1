// Csv files as RFC 4180 describes them: reading with errors that name the row, and writing that is safe to open.

const DELIMITERS = [",", ";", "\t"];

/** Decode the bytes of a file, or throw an Error that says which encoding to save it in. */
export function decode(bytes) {
  const advice = "save it as csv in UTF-8";
  const start = new Uint8Array(bytes.slice(0, 2));
  if (start[0] === 0x50 && start[1] === 0x4b) throw new Error(`The file is a spreadsheet or an archive: ${advice}.`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); // drops a byte order mark
    if (!text.includes("\0")) return text;
  } catch { /* told below */ }
  throw new Error(`The file is not text in UTF-8: ${advice}.`);
}

/**
 * Parse a csv text with a header, delimited by commas, semicolons or tabs, whichever its header has most of.
 * Row 1 is the first below the header. A line without any text is a row of empty cells; those at the end do not count.
 * Returns { header, rows } with a list of texts per row; throws an Error that names the row.
 */
export function parse(text) {
  const delimiter = guessDelimiter(text);
  const records = split(text, delimiter);
  while (records.length && isBlank(records.at(-1))) records.pop();
  if (!records.length) throw new Error("The file is empty: it needs a header and at least one row.");
  const [header, ...rows] = records;
  header.forEach((name, i) => {
    if (header.indexOf(name) !== i) throw new Error(`The header has the column \`${name}\` twice: rename one of them.`);
  });
  if (!rows.length) throw new Error("The file has a header alone: it needs at least one row.");
  const full = rows.map((row, i) => {
    if (isBlank(row)) return header.map(() => "");
    if (row.length === header.length) return row;
    throw new Error(`Row ${i + 1} has ${row.length} cells, but the header has ${header.length}: put quotation marks ` +
      "around cells with a delimiter in them.");
  });
  return { header, rows: full };
}

/** Write rows as csv. A cell that a spreadsheet would run as a formula gets an apostrophe in front. */
export function write(header, rows) {
  return [header, ...rows].map((row) => row.map(writeCell).join(",") + "\r\n").join("");
}

function writeCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/.test(text)) text = `'${text}`;
  return /[",;\t\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}

function isBlank(record) {
  return record.length === 1 && !record[0].trim();
}

function guessDelimiter(text) {
  const header = text.trimStart().split(/\r|\n/, 1)[0].replace(/"[^"]*"/g, "");
  const count = (delimiter) => header.split(delimiter).length;
  return DELIMITERS.reduce((best, own) => (count(own) > count(best) ? own : best));
}

function split(text, delimiter) {
  const records = [];
  let record = [], cell = "", quoted = false, wasQuoted = false;
  const endCell = () => { record.push(cell); cell = ""; wasQuoted = false; };
  const endRecord = () => { endCell(); records.push(record); record = []; };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') { cell += '"'; i++; }
      else quoted = false;
    } else if (c === '"' && !cell && !wasQuoted) quoted = wasQuoted = true;
    else if (c === delimiter) endCell();
    else if (c === "\n") endRecord();
    else if (c === "\r") { if (text[i + 1] !== "\n") endRecord(); }
    else if (wasQuoted && c.trim()) throw new Error(`${rowName(records)} has text after a closing quotation mark: write "" within a cell.`);
    else if (!wasQuoted) cell += c;
  }
  if (quoted) throw new Error(`${rowName(records)} opens a quotation mark that is never closed.`);
  if (cell || wasQuoted || record.length) endRecord();
  return records;
}

function rowName(records) {
  return records.length ? `Row ${records.length}` : "The header";
}
