// SPDX-License-Identifier: Apache-2.0
/// One restore point: what it is, what has changed since an older one, and how it is read.
import { badge, button, facts, h, link, notice, replace, table } from "./dom.js";
import { agoElement, bytes, count, moment, share, timeElement } from "./format.js";
import { ApiError, get, token } from "./api.js";
import { act } from "./act.js";
import { flagsOf, pointsByBackup, scrollTimeline, timeline } from "./chain.js";
import { errorNotice } from "./errors.js";
import { heatmap } from "./heatmap.js";
import { lineList, readingLines } from "./lines.js";
import { lockWords, proofBadge } from "./vm.js";
import { vmPath } from "./paths.js";

const verify = (point) =>
  button(
    "Verify this point",
    () =>
      act({
        question: "Read this point and all it stands on, and compare them with what was sent?",
        yes: "Verify",
        path: `/api/v1/backups/${encodeURIComponent(point.backup_id)}/verify`,
        answer: "Verification",
        done: (begun) => `The verification has begun: ${count(begun.image_count, "image")}. Tasks show how far it is.`
      }),
    { "data-focus": "verify" }
  );

const DISK_COLUMNS = [
  { name: "Disk", cell: (disk) => `disk ${disk.disk_id}` },
  { name: "Size", kind: "number", cell: (disk) => bytes(disk.size_bytes) },
  { name: "Stored", kind: "number", cell: (disk) => bytes(disk.allocated_bytes) },
  { name: "Changed", kind: "number", cell: (disk) => share(disk.signals?.change_share ?? NaN) },
  { name: "Incompressible", kind: "number", cell: (disk) => share(disk.signals?.incompressible_share ?? NaN) },
  { name: "Zero", kind: "number", cell: (disk) => share(disk.signals?.zero_share ?? NaN) },
  { name: "Elided", kind: "number", cell: (disk) => share(disk.signals?.elided_share ?? NaN) },
  { name: "Place in the chain", kind: "number", cell: (disk) => `${disk.generation}.${disk.position}` }
];

/// Older points of a disk, the nearest first: what it can be compared with.
const olderThan = (points, point, disk) =>
  points
    .filter(
      (other) =>
        other.completed_at <= point.completed_at &&
        other.backup_id !== point.backup_id &&
        other.repository_id === point.repository_id &&
        other.disks.some((each) => each.disk_id === disk)
    )
    .reverse();

const shown = { backupId: "", disk: "", since: "" }; // what the reader has chosen, kept when the view is drawn anew

const choice = (name, onchange) => h("select", { "data-focus": name, onchange });

/// The map, with the choice of disk and of the older point.
function comparison(points, point) {
  if (shown.backupId !== point.backup_id) Object.assign(shown, { backupId: point.backup_id, disk: "", since: "" });
  const place = h("div", { class: "map-place" });
  const draw = () => {
    Object.assign(shown, { disk: diskChoice.value, since: sinceChoice.value });
    if (!shown.since) {
      return replace(place, notice("quiet", "There is no older point of this disk to compare with: all of it is new."));
    }
    const disk = point.disks.find((each) => String(each.disk_id) === shown.disk);
    const of = { backupId: point.backup_id, since: shown.since, disk: disk.disk_id, sizeBytes: disk.size_bytes };
    heatmap(place, of).catch((failure) => replace(place, errorNotice(failure)));
  };
  const fill = () => {
    const older = olderThan(points, point, Number(diskChoice.value));
    replace(
      sinceChoice,
      older.map((other) => option(other.backup_id, `${moment(other.completed_at)}, ${other.backup_type}`, shown.since))
    );
    draw();
  };
  const diskChoice = choice("map-disk", fill),
    sinceChoice = choice("map-since", draw);
  replace(
    diskChoice,
    point.disks.map((disk) => option(String(disk.disk_id), `disk ${disk.disk_id}`, shown.disk))
  );
  queueMicrotask(fill); // once it is in the page
  return [
    h(
      "div",
      { class: "controls" },
      point.disks.length > 1 && h("label", null, "Disk ", diskChoice),
      h("label", null, "Compared with ", sinceChoice)
    ),
    place
  ];
}

const option = (value, text, chosen) => h("option", { value, selected: value === chosen }, text);

export const point = {
  title: (name) => `A point of ${name}`,

  async load([name, backupId], signal) {
    const found = await get(`/api/v1/points?vm_name=${encodeURIComponent(name)}&limit=10000`, "PointList", { signal });
    const points = pointsByBackup(found.points);
    const chosen = points.find((each) => each.backup_id === backupId);
    if (!chosen) {
      throw new ApiError(404, {
        error: "this point is not there",
        details: `${name} has no point ${backupId}.`,
        hint: "It may have been deleted. The page of the VM has those that there are."
      });
    }
    return { name, points, chosen };
  },

  draw({ name, points, chosen }) {
    return [
      h("p", { class: "trail" }, link("#/", "Overview"), " / ", link(vmPath(name), name), " /"),
      h(
        "div",
        { class: "headline" },
        h("h1", null, moment(chosen.completed_at)),
        badge("none", chosen.backup_type),
        token() && verify(chosen)
      ),
      timeline(name, points, chosen.backup_id),
      facts([
        ["Completed", timeElement(chosen.completed_at), h("span", { class: "below" }, agoElement(chosen.completed_at))],
        ["Stored", bytes(chosen.allocated_bytes)],
        ["Verified", proofBadge(chosen)],
        ["Locked", chosen.locked ? lockWords(chosen) : "no"],
        ["Repository", chosen.repository_id],
        ["Backup", h("code", null, chosen.backup_id)]
      ]),
      flagsOf(chosen).map((flag) =>
        notice("warn", h("strong", null, flag.flag.replaceAll("_", " ")), ` ${flag.reason}`)
      ),
      table("Disks", DISK_COLUMNS, chosen.disks, { hideCaption: true }),
      h(
        "section",
        { "aria-labelledby": "map-title" },
        h("h2", { id: "map-title" }, "What has changed"),
        comparison(points, chosen)
      ),
      h(
        "section",
        { "aria-labelledby": "lines-title" },
        h("h2", { id: "lines-title" }, "Read it"),
        h("p", { class: "note" }, "Every point is an NBD export, read-only, for as long as the point is there."),
        chosen.disks.map((disk) => [
          chosen.disks.length > 1 && h("h3", null, `Disk ${disk.disk_id}`),
          disk.uris.length
            ? lineList(readingLines(disk.uris[0], `${name}-disk${disk.disk_id}`))
            : notice("quiet", "This varve serves no NBD by name: start it with --nbd or --nbd-socket to read points.")
        ])
      )
    ];
  },

  drawn: scrollTimeline
};
