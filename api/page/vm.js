// SPDX-License-Identifier: Apache-2.0
/// One VM: its points as a timeline and as a table, its throughput, and its last backups.
import { badge, button, command, facts, h, link, notice, pager, replace, table } from "./dom.js";
import { agoElement, bytes, count, duration, rate, share, shellWord, timeElement } from "./format.js";
import { ApiError, get, token } from "./api.js";
import { act } from "./act.js";
import { flagsOf, pointsByBackup, PROOF_WORDS, scrollTimeline, timeline } from "./chain.js";
import { barChart } from "./charts.js";
import { drawRunning } from "./running.js";
import { expectedInterval, lastGood, stateOf } from "./vm_state.js";
import { pointPath } from "./paths.js";

const BACKUPS_MAX = 400,
  PAGE_ROWS = 25;
const shown = { name: "", first: 0 };

const verify = (name) =>
  button(
    "Verify all points",
    () =>
      act({
        question: `Read every point of ${name} and compare it with what was sent?`,
        yes: "Verify",
        path: "/api/v1/verifications",
        body: { vm_name: name },
        answer: "Verification",
        done: (begun) => `The verification has begun: ${count(begun.image_count, "image")}. Tasks show how far it is.`
      }),
    { "data-focus": "verify" }
  );

export function proofBadge(point) {
  if (point.verification === "damaged") return badge("bad", "damaged");
  if (!point.verification) return h("span", { class: "muted" }, "not yet");
  return [
    badge(point.verification === "sound" ? "ok" : "warn", PROOF_WORDS[point.verification]),
    " ",
    agoElement(point.verified_at)
  ];
}

export function lockWords(point) {
  if (!point.locked) return "";
  return point.locked_until ? ["until ", timeElement(point.locked_until)] : "for good";
}

/// Without the columns that would be empty in every row.
const pointColumns = (name, points) =>
  [
    { name: "Point", cell: (point) => link(pointPath(name, point.backup_id), timeElement(point.completed_at)) },
    { name: "Type", cell: (point) => point.backup_type },
    { name: "Stored", kind: "number", cell: (point) => bytes(point.allocated_bytes) },
    { name: "Changed", kind: "number", cell: (point) => share(changedShare(point)) },
    { name: "Verified", cell: proofBadge },
    points.some((point) => point.locked) && { name: "Locked", cell: lockWords },
    points.some((point) => flagsOf(point).length) && {
      name: "Unusual",
      cell: (point) => flagsOf(point).map((flag) => badge("warn", flag.flag.replaceAll("_", " "), flag.reason))
    }
  ].filter(Boolean);

function changedShare(point) {
  const known = point.disks.filter((disk) => Number.isFinite(disk.signals?.change_share));
  const size = known.reduce((sum, disk) => sum + disk.size_bytes, 0);
  return known.reduce((sum, disk) => sum + disk.signals.change_share * disk.size_bytes, 0) / size;
}

function drawPoints(place, name, points) {
  const newestFirst = [...points].reverse();
  const turn = (first) => ((shown.first = first), drawPoints(place, name, points));
  if (shown.first >= points.length) shown.first = 0;
  replace(
    place,
    table("Points, newest first", pointColumns(name, points), newestFirst.slice(shown.first, shown.first + PAGE_ROWS)),
    pager(points.length, PAGE_ROWS, shown.first, turn)
  );
}

const seconds = (backup) =>
  (Date.parse(backup.completed_at) - Date.parse(backup.started_at ?? backup.created_at)) / 1000;
const STATUS_KINDS = { completed: "ok", failed: "bad", cancelled: "none", running: "busy", pending: "busy" };

/// The same of backups.
export const backupColumns = (backups) =>
  [
    { name: "Begun", cell: (backup) => timeElement(backup.created_at) },
    { name: "Type", cell: (backup) => backup.backup_type },
    {
      name: "Ended",
      cell: (backup) => [
        badge(STATUS_KINDS[backup.status] ?? "none", backup.status),
        backup.error_message && h("span", { class: "below" }, backup.error_message),
        backup.resumable &&
          h("span", { class: "below" }, "can be resumed: ", h("code", null, `varve pull --resume ${backup.backup_id}`))
      ]
    },
    { name: "Took", kind: "number", cell: (backup) => (backup.completed_at ? duration(seconds(backup)) : "") },
    { name: "Received", kind: "number", cell: (backup) => bytes(backup.bytes_transferred) },
    { name: "Stored", kind: "number", cell: (backup) => bytes(backup.bytes_stored) },
    backups.some((backup) => backup.warnings.length) && {
      name: "Warnings",
      cell: (backup) =>
        backup.warnings.map((warning) => badge("warn", warning.code.replaceAll("_", " "), warning.message))
    }
  ].filter(Boolean);

function charts(backups) {
  const ended = backups.filter((backup) => backup.status === "completed" && backup.completed_at).reverse();
  if (ended.length < 2) return notice("quiet", "Throughput and stored bytes are drawn from the second backup on.");
  const times = ended.map((backup) => backup.completed_at);
  return h(
    "div",
    { class: "pair" },
    barChart(
      "Throughput of its backups",
      times,
      ended.map((each) => each.bytes_transferred / Math.max(seconds(each), 1)),
      rate
    ),
    barChart(
      "Stored by its backups",
      times,
      ended.map((each) => each.bytes_stored),
      bytes
    )
  );
}

const NO_POINTS = (name) =>
  notice(
    "quiet",
    h("p", null, h("strong", null, "This VM has no restore point yet."), " A first one comes from a full backup:"),
    h("p", null, command(`varve pull ${shellWord(name)} --disk 0=disk.raw --checkpoint monday`))
  );

export const vm = {
  title: (name) => name || "VM",

  async load([name], signal) {
    const query = `vm_name=${encodeURIComponent(name)}`;
    const [all, points, backups] = await Promise.all([
      get("/api/v1/vm-contexts", "VmContextList", { signal }),
      get(`/api/v1/points?${query}&limit=10000`, "PointList", { signal }),
      get(`/api/v1/backups?${query}&limit=${BACKUPS_MAX}`, "BackupList", { signal })
    ]);
    const context = all.vm_contexts.find((each) => each.vm_name === name);
    if (!context)
      throw new ApiError(404, { error: `no VM is called ${name}`, hint: "The overview lists all of them." });
    return { context, points: pointsByBackup(points.points), backups };
  },

  draw({ context, points, backups }, { jobs }) {
    const name = context.vm_name,
      state = stateOf(context);
    if (shown.name !== name) Object.assign(shown, { name, first: 0 });
    const running = h("div"),
      list = h("div");
    drawRunning(running, jobs, { only: name });
    this.onJobs = (next) => drawRunning(running, next, { only: name });
    if (points.length) drawPoints(list, name, points);
    return [
      h("p", { class: "trail" }, link("#/", "Overview"), " /"),
      h(
        "div",
        { class: "headline" },
        h("h1", null, name),
        badge(state.kind, state.text, state.why),
        token() && points.length > 0 && verify(name)
      ),
      facts([
        ["Last good point", agoElement(lastGood(context))],
        [
          "Expected every",
          expectedInterval(context) ? duration(expectedInterval(context)) : "no interval"
        ],
        ["Points", points.length.toLocaleString("en")],
        ["Stored by them", bytes(points.reduce((sum, point) => sum + point.allocated_bytes, 0))],
        ["Disks", `${context.disk_count}, ${bytes(context.capacity_bytes)}`],
        ["Known since", timeElement(context.created_at)]
      ]),
      running,
      h(
        "section",
        { "aria-labelledby": "points-title" },
        h("h2", { id: "points-title" }, "Restore points"),
        points.length ? [timeline(name, points), list] : NO_POINTS(name)
      ),
      h(
        "section",
        { "aria-labelledby": "history-title" },
        h("h2", { id: "history-title" }, "History"),
        charts(backups.backups),
        backups.backups.length > 0 &&
          table(
            backups.total > 10 ? `Last 10 of ${backups.total.toLocaleString("en")} backups` : "Backups",
            backupColumns(backups.backups.slice(0, 10)),
            backups.backups.slice(0, 10)
          )
      )
    ];
  },

  drawn: scrollTimeline
};
