// One answer: the request to /v1/chat/completions and what comes back, as plain data.

import { ApiError, call, errorText, events } from "./api.js";

/** The request for the next answer of a conversation. */
export function request(chat) {
  const said = chat.messages
    .filter((one) => one.content && !(one.role === "assistant" && one.error))
    .map(({ role, content }) => ({ role, content }));
  const system = chat.system.trim();
  const { thinking, ...options } = chat.options;
  const body = {
    model: chat.model,
    messages: system ? [{ role: "system", content: system }, ...said] : said,
    stream: true,
    stream_options: { include_usage: true },
    ...options,
  };
  if (thinking) body.chat_template_kwargs = { enable_thinking: thinking === "on" };
  return body;
}

/**
 * Streams an answer into `message`: its content, its reasoning and, in the end, a note of what it
 * took. `changed` is called for every piece, `contextOf` tells how many tokens a model has room for.
 * Errors end up in the message, as the API words them.
 */
export async function stream(chat, message, signal, changed, contextOf) {
  const clock = { start: performance.now(), first: null, last: null };
  let usage = null;
  let ended = null;
  try {
    const response = await call("/v1/chat/completions", { body: request(chat), signal });
    for await (const chunk of events(response)) {
      if (chunk.error) throw new ApiError(200, errorText(chunk.error) || "The answer broke off.");
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      ended = choice.finish_reason ?? ended;
      const { content, reasoning_content: reasoning } = choice.delta ?? {};
      if (!content && !reasoning) continue;
      clock.last = performance.now();
      clock.first ??= clock.last;
      message.content += content ?? "";
      message.reasoning += reasoning ?? "";
      changed();
    }
    if (!ended) message.error = "The connection ended before the answer did.";
  } catch (error) {
    if (error.name === "AbortError") ended = "stopped";
    else message.error = error.message || String(error);
  }
  message.note = note(clock, usage, ended, contextOf(message.model));
}

/** Tokens, speed and time to the first token, in one line. */
function note(clock, usage, ended, context) {
  const parts = [];
  const seconds = (milliseconds) => (milliseconds / 1000).toFixed(milliseconds < 10000 ? 2 : 1);
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens;
    const room = context === null ? "" : ` of ${context.toLocaleString("en")}`;
    parts.push(`${usage.prompt_tokens} + ${usage.completion_tokens}${room} tokens`);
    const took = (clock.last - clock.first) / 1000;
    if (clock.first !== null && usage.completion_tokens > 1 && took > 0)
      parts.push(`${((usage.completion_tokens - 1) / took).toFixed(1)} tokens/s`);
    if (cached) parts.push(`${cached} from the cache`);
  }
  if (clock.first !== null) parts.push(`first after ${seconds(clock.first - clock.start)} s`);
  if (ended === "length") parts.push("cut off: the limit of tokens was reached");
  if (ended === "stopped") parts.push("stopped");
  return parts.join(" · ");
}
