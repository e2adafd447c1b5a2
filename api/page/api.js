// SPDX-License-Identifier: Apache-2.0
/// The API of the varve that served this page: reading, changing, and what it tells by itself. Nothing else is asked.
import { read } from "./fields.js";
import { noteServerTime } from "./format.js";

const TOKEN = "varve-token";
const POLL_MILLISECONDS = 2000;

/// For sums over many rows, which change slowly.
export const SLOW_MILLISECONDS = 300_000;

const SILENCE_MILLISECONDS = 40_000; // the server speaks at least every 15 s
export const RUNNING = "/api/v1/backups?status=running&limit=200";

/// What went wrong, in the server's own words: text, cause and what to do.
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.error || `the server answered ${status}`);
    this.status = status;
    this.details = problem.details ?? "";
    this.hint = problem.hint ?? "";
  }
}

export const token = () => sessionStorage.getItem(TOKEN) ?? "";

export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
  known.clear();
}

function headers(more) {
  return token() ? { Authorization: `Bearer ${token()}`, ...more } : { ...more };
}

async function send(path, options) {
  try {
    return await fetch(path, { cache: "no-store", referrerPolicy: "no-referrer", ...options });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new ApiError(0, {
      error: "varve does not answer",
      details: String(failure.message ?? failure),
      hint: "Is `varve serve` running, and can this machine reach it? The page tries again by itself."
    });
  }
}

async function errorOf(answer) {
  try {
    return new ApiError(answer.status, read("Problem", await answer.json()));
  } catch {
    return new ApiError(answer.status, {});
  }
}

const known = new Map(); // path to { etag, value, at: when it came }, the newest KNOWN_MAX
const KNOWN_MAX = 64;

/// The document at `path`, which is of that schema. One that has not changed is not sent again.
/// One that is younger than `youngEnough` milliseconds is not even asked about.
export async function get(path, schema, { signal, youngEnough = 0 } = {}) {
  const before = known.get(path);
  if (before && performance.now() - before.at < youngEnough) return before.value;
  const answer = await send(path, { headers: headers(before?.etag && { "If-None-Match": before.etag }), signal });
  noteServerTime(answer.headers.get("Date"));
  if (answer.status === 304 && before) {
    before.at = performance.now();
    return before.value;
  }
  if (!answer.ok) throw await errorOf(answer);
  const value = read(schema, await answer.json());
  const etag = answer.headers.get("ETag");
  if (etag || youngEnough) {
    known.delete(path);
    known.set(path, { etag, value, at: performance.now() });
    if (known.size > KNOWN_MAX) known.delete(known.keys().next().value);
  }
  return value;
}

/// A change. It needs the token that the reader of the page has given.
export async function post(path, schema, body = {}) {
  const answer = await send(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: headers({ "Content-Type": "application/json" })
  });
  if (!answer.ok) throw await errorOf(answer);
  return read(schema, await answer.json());
}

/// What runs now, for as long as the page is open: told by the server where it can, else asked for every two seconds.
/// `onJobs` gets each BackupList, `onState` one of live, polling, refused, lost with what went wrong.
export function follow(onJobs, onState) {
  let stop = new AbortController();

  async function run(signal) {
    let streams = true;
    while (!signal.aborted) {
      if (streams) streams = await listen(signal, onJobs, onState);
      if (signal.aborted) return;
      await poll(signal, onJobs, onState);
      await pause(POLL_MILLISECONDS, signal);
    }
  }

  const begin = () => {
    stop.abort();
    stop = new AbortController();
    if (!document.hidden) run(stop.signal).catch(() => {});
  };
  document.addEventListener("visibilitychange", begin);
  begin();
  return begin; // to begin anew: with another token
}

/// Ends when the stream does. False when the server has none, so that asking for it again is of no use.
async function listen(signal, onJobs, onState) {
  const ended = new AbortController();
  const end = () => ended.abort();
  signal.addEventListener("abort", end);
  let watchdog = setTimeout(end, SILENCE_MILLISECONDS);
  try {
    const answer = await fetch("/api/v1/events", {
      headers: headers({ Accept: "text/event-stream" }),
      cache: "no-store",
      signal: ended.signal
    });
    const isStream = answer.headers.get("Content-Type")?.startsWith("text/event-stream");
    if (!answer.ok || !isStream) {
      await answer.body?.cancel();
      return answer.ok || answer.status >= 500;
    }
    noteServerTime(answer.headers.get("Date"));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const take = eventParser((name, data) => {
      if (name !== "jobs") return;
      onState("live");
      onJobs(read("BackupList", JSON.parse(data)));
    });
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      clearTimeout(watchdog);
      watchdog = setTimeout(end, SILENCE_MILLISECONDS);
      take(piece.value);
    }
  } catch {
    // the poll that follows says whether the server is there
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", end);
  }
  return true;
}

/// text/event-stream, piece by piece, as the HTML standard has it.
export function eventParser(onEvent) {
  let rest = "",
    name = "",
    data = [];
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line === "") {
        if (data.length) onEvent(name || "message", data.join("\n"));
        name = "";
        data = [];
      } else if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
  };
}

async function poll(signal, onJobs, onState) {
  try {
    onJobs(await get(RUNNING, "BackupList", { signal }));
    onState("polling");
  } catch (failure) {
    if (!signal.aborted) onState(failure.status === 401 || failure.status === 403 ? "refused" : "lost", failure);
  }
}

function pause(milliseconds, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
