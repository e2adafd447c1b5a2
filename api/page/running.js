// SPDX-License-Identifier: Apache-2.0
/// What runs now: a row for each backup, which goes on in its place as the server tells more.
import { button, h, link, notice, replace, table } from "./dom.js";
import { ageOf, bytes, count, duration, rate } from "./format.js";
import { token } from "./api.js";
import { act } from "./act.js";
import { vmPath } from "./paths.js";

const SAMPLES_MAX = 60;
const histories = new Map(); // backup id to its last rates, for the line beside them

function noteRates(backups) {
  const running = new Set(backups.map((backup) => backup.backup_id));
  for (const id of histories.keys()) if (!running.has(id)) histories.delete(id);
  for (const backup of backups) {
    const rates = histories.get(backup.backup_id) ?? [];
    rates.push(backup.transfer_speed_bps);
    histories.set(backup.backup_id, rates.slice(-SAMPLES_MAX));
  }
}

/// The last rates as a small line; the figure beside it says the same.
function sparkline(rates) {
  const top = Math.max(...rates, 1),
    step = 72 / Math.max(rates.length - 1, 1);
  const points = rates.map((each, at) => `${(at * step).toFixed(1)},${(18 - (16 * each) / top).toFixed(1)}`);
  const namespace = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(namespace, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 72 20", class: "spark", "aria-hidden": "true" })) {
    picture.setAttribute(name, value);
  }
  const line = document.createElementNS(namespace, "polyline");
  line.setAttribute("points", points.join(" "));
  picture.append(line);
  return picture;
}

function progress(backup) {
  const percent = Math.min(backup.progress_percent, 100);
  return h(
    "div",
    { class: "progress" },
    h("progress", { max: 100, value: percent, "aria-label": `${backup.vm_name}: ${Math.floor(percent)} percent` }),
    h("span", { class: "figures" }, `${percent < 10 ? percent.toFixed(1) : Math.floor(percent)} %`)
  );
}

function timeLeft(backup) {
  return backup.seconds_left === undefined ? "" : `about ${duration(backup.seconds_left)} left`;
}

function speed(backup) {
  return h(
    "div",
    { class: "speed" },
    sparkline(histories.get(backup.backup_id) ?? [0]),
    h("span", { class: "figures" }, rate(backup.transfer_speed_bps))
  );
}

const cancel = (backup) =>
  button(
    "Cancel",
    () =>
      act({
        question: `Cancel the backup of ${backup.vm_name}? What has arrived is removed.`,
        yes: "Cancel the backup",
        path: `/api/v1/backups/${encodeURIComponent(backup.backup_id)}/cancel`,
        answer: "CancelledBackup",
        body: { reason: "cancelled on the page" },
        done: () => `The backup of ${backup.vm_name} was cancelled.`
      }),
    {
      class: "quiet bad",
      "data-focus": `cancel-${backup.backup_id}`,
      "aria-label": `Cancel the backup of ${backup.vm_name}`
    }
  );

const columns = () =>
  [
    {
      name: "VM",
      cell: (b) => [
        link(vmPath(b.vm_name), b.vm_name),
        h("span", { class: "below" }, `${b.backup_type}, ${b.current_phase}`)
      ]
    },
    {
      name: "Progress",
      cell: (b) => [
        progress(b),
        h(
          "span",
          { class: "below" },
          [duration(ageOf(b.started_at ?? b.created_at) ?? 0), timeLeft(b)].filter(Boolean).join(", ")
        )
      ]
    },
    { name: "Rate", kind: "number", cell: speed },
    { name: "Received", kind: "number", cell: (b) => bytes(b.bytes_transferred) },
    { name: "Zero", kind: "number", cell: (b) => bytes(b.bytes_zeroed) },
    { name: "Elided", kind: "number", cell: (b) => bytes(b.bytes_elided) },
    { name: "Stored", kind: "number", cell: (b) => bytes(b.bytes_stored) },
    token() && { name: "Act", cell: (b) => cancel(b) }
  ].filter(Boolean);

/// Draws `jobs`, a BackupList, into `place`; those of the VM `only`, if one is named.
export function drawRunning(place, jobs, { only } = {}) {
  if (!jobs) return replace(place, notice("quiet", "Asking what runs now…"));
  noteRates(jobs.backups);
  const backups = only ? jobs.backups.filter((backup) => backup.vm_name === only) : jobs.backups;
  if (!backups.length) {
    return replace(place, only ? [] : notice("quiet", "No backup is running. They appear here by themselves."));
  }
  const more = jobs.total - jobs.backups.length;
  replace(
    place,
    table("Running backups", columns(), backups, { hideCaption: true }),
    h(
      "p",
      { class: "note" },
      "Received: sent by the client as data. Zero: sent as zeroes. Elided: equal to what the chain holds, so not stored."
    ),
    more > 0 && !only && h("p", { class: "note" }, `${count(more, "more backup")} not shown here.`)
  );
}
