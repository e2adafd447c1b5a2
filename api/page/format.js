// SPDX-License-Identifier: Apache-2.0
/// Bytes, rates and times as people read them. All pure, but for the offset of the server's clock.

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Three digits: "512 bytes", "9.77 KiB", "1.23 GiB", "312 MiB".
export function bytes(count) {
  if (!Number.isFinite(count)) return "unknown";
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  if (unit === 0) return count === 1 ? "1 byte" : `${Math.round(count)} bytes`;
  return `${count < 10 ? count.toFixed(2) : count < 100 ? count.toFixed(1) : Math.round(count)} ${UNITS[unit]}`;
}

export const rate = (bytesPerSecond) => `${bytes(bytesPerSecond)}/s`;

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/// Of 0 to 1: "0 %", "<0.1 %", "3.4 %", "57 %".
export function share(part) {
  if (!Number.isFinite(part)) return "unknown";
  const percent = part * 100;
  if (percent === 0) return "0 %";
  if (percent < 0.1) return "<0.1 %";
  return `${percent < 10 ? percent.toFixed(1) : Math.min(100, Math.floor(percent))} %`;
}

const STEPS = [
  [86400, "d", 3600, "h"],
  [3600, "h", 60, "min"],
  [60, "min", 1, "s"]
];

/// Two parts at most: "45 s", "12 min", "5 h 20 min", "3 d 4 h"; of a long one the first only.
export function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  for (const [size, name, rest, restName] of STEPS) {
    if (seconds < size) continue;
    const whole = Math.floor(seconds / size),
      part = Math.floor((seconds % size) / rest);
    return part === 0 || whole >= 10 ? `${whole} ${name}` : `${whole} ${name} ${part} ${restName}`;
  }
  return `${seconds} s`;
}

let ahead = 0; // milliseconds that the server's clock is ahead of the browser's

export function noteServerTime(date) {
  const server = Date.parse(date ?? "");
  if (!Number.isNaN(server)) ahead = server - Date.now();
}

export const now = () => Date.now() + ahead;

/// Seconds since an RFC 3339 time; nothing without one.
export function ageOf(time) {
  const at = Date.parse(time ?? "");
  return Number.isNaN(at) ? undefined : Math.max(0, (now() - at) / 1000);
}

const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit"
});
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const moment = (time) => MOMENT.format(new Date(time));
export const day = (time) => DAY.format(new Date(time));

/// A <time> of the browser's own time zone, which says UTC when it is pointed at.
export function timeElement(time, text) {
  if (!time) return "never";
  const element = document.createElement("time");
  element.dateTime = time;
  element.title = `${time.replace("T", " ").replace("Z", "")} UTC`;
  element.textContent = text ?? moment(time);
  return element;
}

export function agoElement(time) {
  const age = ageOf(time);
  if (age === undefined) return "never";
  return timeElement(time, age < 60 ? "just now" : `${duration(age < 3600 ? age - (age % 60) : age)} ago`);
}

/// A word for a shell, quoted where it must be.
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
