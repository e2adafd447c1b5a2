// SPDX-License-Identifier: Apache-2.0
/// When a repository is full, by what the last days have stored. Pure.

const DAY_MILLISECONDS = 86_400_000;
const DAYS_MIN = 3;

/// The days of the API's BackupDays, oldest first, with those on which nothing was backed up, until `end` (milliseconds;
/// the last day with a backup when left out).
export function everyDay(days, end = -Infinity) {
  const known = new Map(days.map((each) => [each.date, each]));
  const all = [];
  if (!days.length) return all;
  for (let at = Date.parse(days[0].date); at <= Math.max(Date.parse(days.at(-1).date), end); at += DAY_MILLISECONDS) {
    const date = new Date(at).toISOString().slice(0, 10);
    all.push(known.get(date) ?? { date, backup_count: 0, bytes_received: 0, bytes_stored: 0, seconds: 0 });
  }
  return all;
}

/// The slope of the least-squares line through what is stored in all, day after day, in bytes a day. Nothing for less
/// than three days.
export function perDay(days) {
  const stored = everyDay(days),
    { length } = stored;
  if (length < DAYS_MIN) return undefined;
  let sum = 0;
  const sums = stored.map((each) => (sum += each.bytes_stored));
  const middle = (length - 1) / 2,
    mean = sums.reduce((total, each) => total + each, 0) / length;
  let above = 0,
    below = 0;
  sums.forEach((each, x) => {
    above += (x - middle) * (each - mean);
    below += (x - middle) ** 2;
  });
  return above / below;
}

/// Infinity when nothing is stored, nothing when that cannot be said yet.
export function daysUntilFull(days, availableBytes) {
  const slope = perDay(days);
  if (slope === undefined) return undefined;
  return slope <= 0 ? Infinity : availableBytes / slope;
}
