// SPDX-License-Identifier: Apache-2.0
/// The points of a VM as a timeline: a bar per backup, as high as what it stores, oldest first.
import { h } from "./dom.js";
import { bytes, day, moment } from "./format.js";
import { pointPath } from "./paths.js";

/// Disks of one backup as one point: sizes are summed, and of what was found of them the worst holds.
export function pointsByBackup(points) {
  const found = new Map();
  for (const disk of points) {
    const known = found.get(disk.backup_id);
    if (!known) {
      found.set(disk.backup_id, { ...disk, disks: [disk] });
      continue;
    }
    known.disks.push(disk);
    known.allocated_bytes += disk.allocated_bytes;
    known.size_bytes += disk.size_bytes;
    known.locked ||= disk.locked;
    if (disk.backup_type === "incremental") known.backup_type = "incremental"; // beside a new disk's full
  }
  for (const point of found.values()) Object.assign(point, proofOf(point.disks));
  return [...found.values()].sort((a, b) => a.completed_at.localeCompare(b.completed_at) || a.position - b.position);
}

function proofOf(disks) {
  const results = disks.map((disk) => disk.verification ?? "");
  const times = disks.map((disk) => disk.verified_at ?? "").sort();
  if (results.includes("damaged")) return { verification: "damaged", verified_at: times.at(-1) };
  if (results.includes("")) return { verification: "", verified_at: "" };
  const bare = results.includes("without_manifest");
  return { verification: bare ? "without_manifest" : "sound", verified_at: times[0] };
}

export const PROOF_WORDS = {
  sound: "verified",
  damaged: "damaged",
  without_manifest: "verified without content",
  "": "not verified"
};

export const flagsOf = (point) => point.disks.flatMap((disk) => disk.signals?.flags ?? []);

function describe(point) {
  return [
    `${moment(point.completed_at)}: ${point.backup_type}, ${bytes(point.allocated_bytes)} stored`,
    PROOF_WORDS[point.verification],
    point.locked && "locked",
    ...flagsOf(point).map((flag) => flag.flag.replaceAll("_", " "))
  ]
    .filter(Boolean)
    .join(", ");
}

/// Heights by logarithm: a full is often a thousand times an incremental, and both must be seen.
function heightOf(point, least, most) {
  if (most <= least) return 60;
  const place = Math.log(Math.max(point.allocated_bytes, 1) / least) / Math.log(most / least);
  return 14 + 86 * Math.max(0, place);
}

function bar(name, point, height, { isChosen, label }) {
  const fill = h("span", { class: "fill" });
  fill.style.setProperty("height", `${height.toFixed(1)}%`);
  const proof = { sound: "✓", without_manifest: "✓", damaged: "✕" }[point.verification] ?? "";
  return h(
    "li",
    null,
    h(
      "a",
      {
        href: pointPath(name, point.backup_id),
        title: describe(point),
        "aria-label": describe(point),
        "aria-current": isChosen && "true",
        "data-focus": `bar-${point.backup_id}`,
        class: [
          "point",
          point.backup_type,
          point.verification === "damaged" && "damaged",
          flagsOf(point).length && "flagged"
        ]
          .filter(Boolean)
          .join(" ")
      },
      h("span", { class: "column" }, fill),
      h("span", { class: "proof", "aria-hidden": "true" }, proof),
      h("span", { class: "lock", "aria-hidden": "true" }, point.locked ? "■" : "")
    ),
    h("span", { class: "day", "aria-hidden": "true" }, label ?? "")
  );
}

/// A list of links; `chosen` is the backup whose bar is marked.
export function timeline(name, points, chosen) {
  const sizes = points.map((point) => Math.max(point.allocated_bytes, 1));
  const least = Math.min(...sizes),
    most = Math.max(...sizes);
  const every = Math.max(1, Math.ceil(points.length / 12));
  const bars = points.map((point, at) =>
    bar(name, point, heightOf(point, least, most), {
      isChosen: point.backup_id === chosen,
      label: at % every === 0 ? day(point.completed_at) : null
    })
  );
  return h(
    "figure",
    { class: "timeline" },
    h("ol", { tabindex: "-1" }, bars),
    h(
      "figcaption",
      { class: "legend" },
      h("span", { class: "key full" }, "full"),
      h("span", { class: "key incremental" }, "incremental"),
      h("span", null, "✓ verified"),
      h("span", null, "✕ damaged"),
      h("span", null, "■ locked"),
      h("span", null, `the height is what it stores, from ${bytes(least)} to ${bytes(most)}, by logarithm`)
    )
  );
}

/// The newest point is what one wants to see first; later it stays where the reader has put it.
export function scrollTimeline(place, before) {
  const list = place.querySelector(".timeline ol");
  if (!list) return;
  const chosen = list.querySelector("[aria-current]")?.parentElement.offsetLeft ?? list.scrollWidth;
  list.scrollLeft = before ?? chosen - list.clientWidth / 2;
}
