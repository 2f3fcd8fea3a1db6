// Talking to the server: the key, errors in the words of the API, streams as they come.

const KEY = "pocketlm.key";

/** What the server answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;  // seconds
  }
}

let askForKey = null;

/** Sets who asks the user for a key: an async function of a message that gives whether there is one. */
export function onMissingKey(ask) {
  askForKey = ask;
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY),
};

/**
 * The response to a request; `body` goes as JSON. Where the server wants a key the user is asked
 * for one, unless `quiet`, and the request is made again.
 * Throws ApiError for anything but success, AbortError where `signal` stopped it.
 */
export async function call(path, { method, body, signal, quiet = false } = {}) {
  for (;;) {
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const sent = key.get();
    if (sent) headers.Authorization = `Bearer ${sent}`;
    const response = await reach(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      body: body === undefined ? undefined : JSON.stringify(body),
      headers,
      signal,
    });
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After")) || 0;
    const error = new ApiError(response.status, await reason(response), wait);
    if (response.status !== 401 || quiet || !askForKey) throw error;
    // Another request may have got a key while this one was under way.
    if (key.get() === sent && !(await askForKey(error.message))) throw error;
  }
}

export const get = async (path, options) => (await call(path, options)).json();
export const post = async (path, body, options) => (await call(path, { ...options, body })).json();

async function reach(path, request) {
  try {
    return await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
}

/** The message of an error, whichever API's shape it has. */
async function reason(response) {
  const text = await response.text().catch(() => "");
  try {
    return errorText(JSON.parse(text).error) || `${response.status} ${response.statusText}`;
  } catch {
    return text.slice(0, 500) || `${response.status} ${response.statusText}`;
  }
}

/** An error object of OpenAI's or Anthropic's shape, or Ollama's plain text. */
export const errorText = (error) =>
  typeof error === "string" ? error : typeof error?.message === "string" ? error.message : "";

/** The lines of a response as they come. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The JSON of each server-sent event, up to "[DONE]". */
export async function* events(response) {
  for await (const line of lines(response)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") return;
    yield JSON.parse(data);
  }
}
