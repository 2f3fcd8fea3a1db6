// What the server is doing, asked for once a second while somebody looks at this tab.

import { get } from "./api.js";

const EVERY = 1000;
const KEPT = 121;  // two minutes

const listeners = new Set();
/** Samples, oldest first; null stands for a second in which nothing was heard. */
export const history = [];
let timer = null;
let before = null;

/** Calls `listener` after each sample with the newest, null where the server did not answer. */
export function listen(listener) {
  listeners.add(listener);
}

/** Starts asking; it pauses by itself while the tab is hidden. */
export function start() {
  document.addEventListener("visibilitychange", resume);
  resume();
}

function resume() {
  clearTimeout(timer);
  if (document.visibilityState === "visible") ask();
}

async function ask() {
  let now = null;
  let wait = EVERY;
  try {
    now = withRates(await get("/page/live", { quiet: true, signal: AbortSignal.timeout(5000) }));
  } catch (error) {
    if (error.status === 401) now = { denied: "a key is needed" };
    if (error.status === 403) now = { denied: "not with this key" };
    if (error.status === 429) now = { denied: "asked too often" };
    wait = Math.max(EVERY, 1000 * (error.retryAfter ?? 0));
    before = null;
  }
  history.push(now);
  if (history.length > KEPT) history.shift();
  for (const listener of listeners) listener(now);
  clearTimeout(timer);
  if (document.visibilityState === "visible") timer = setTimeout(ask, wait);
}

/** Tokens a second, from the counters of this sample and of the one before. */
function withRates(sample) {
  const seconds = before ? sample.time - before.time : 0;
  const rate = (name) => seconds > 0 && typeof sample[name] === "number"
    ? Math.max(0, sample[name] - before[name]) / seconds : null;
  const rates = { output_rate: rate("output_tokens"), prompt_rate: rate("prompt_tokens") };
  before = sample;
  return { ...sample, ...rates };
}
