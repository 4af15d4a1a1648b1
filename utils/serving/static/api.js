// Requests to the server that served this page. Nothing else is ever asked.

/** A request that got no answer. `status` is 0 if the server was not reached; `wait` is in seconds. */
export class Refused extends Error {
  constructor(status, message, wait = null) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

/** Send a JSON body and return the JSON of the answer. */
export async function post(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/** Send a JSON body and yield each line of JSON of the answer as it comes. */
export async function* postForLines(path, body, signal) {
  const reader = (await send(path, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

async function send(path, body, signal) {
  let response;
  try {
    const headers = { "Content-Type": "application/json" };
    response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const detail = await response.json().then((answer) => answer.detail, () => null);
  throw new Refused(response.status, explain(response.status, detail), Number(response.headers.get("Retry-After")) || null);
}

function explain(status, detail) {
  if (status === 401) return "The token is missing or wrong: reload the page and enter it as the password.";
  if (status === 413) return "The text is too long for one request: shorten it.";
  const first = Array.isArray(detail) ? detail[0] : null;
  if (first) return `${first.loc.slice(1).join(", ") || "request"}: ${first.msg}`;
  return typeof detail === "string" ? detail : `The server answered with status ${status}.`;
}
