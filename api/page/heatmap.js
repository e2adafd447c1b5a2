// SPDX-License-Identifier: Apache-2.0
/// Where on a disk two points differ: a grid of regions, darker where more has changed.
import { facts, h, notice, replace, table } from "./dom.js";
import { bytes, count, share } from "./format.js";
import { get } from "./api.js";

const REGIONS_MAX = 1536,
  PAGES_MAX = 40,
  CLUSTER = 65536;
const STEPS = [0, 0.01, 0.1, 0.5]; // share of a region from which on it has the next colour

/// Regions of whole clusters: { size, bytes: changed in each, zero: of these, read as zeroes now }.
function regionsOf(sizeBytes) {
  const clusters = Math.max(1, Math.ceil(sizeBytes / CLUSTER));
  const each = Math.ceil(clusters / REGIONS_MAX);
  const length = Math.ceil(clusters / each);
  return { size: each * CLUSTER, changed: new Float64Array(length) };
}

function add(regions, range) {
  for (let at = range.offset, end = range.offset + range.length; at < end;) {
    const region = Math.floor(at / regions.size);
    const stop = Math.min(end, (region + 1) * regions.size);
    if (region < regions.changed.length) regions.changed[region] += stop - at;
    at = stop;
  }
}

/// All pages of /changes, folded into regions. Ends early where there are too many of them, and says so.
async function readChanges(backupId, since, disk, sizeBytes) {
  const result = { regions: regionsOf(sizeBytes), bytes: 0, zero: 0, ranges: 0, isWhole: true };
  const path = `/api/v1/backups/${encodeURIComponent(backupId)}/changes?since=${encodeURIComponent(since)}&disk_id=${disk}`;
  let offset = 0;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const part = await get(`${path}&offset=${offset}`, "Changes");
    for (const range of part.ranges) {
      add(result.regions, range);
      if (range.zero) result.zero += range.length;
    }
    result.bytes += part.bytes;
    result.ranges += part.ranges.length;
    if (part.next_offset === null) return result;
    offset = part.next_offset;
  }
  return { ...result, isWhole: false };
}

const stepOf = (part) => (part === 0 ? 0 : STEPS.filter((least) => part > least).length);

function paint(canvas, regions, columns) {
  const rows = Math.ceil(regions.changed.length / columns);
  const cell = Math.max(4, Math.floor(canvas.parentElement.clientWidth / columns)),
    scale = devicePixelRatio || 1;
  canvas.style.setProperty("width", `${columns * cell}px`);
  canvas.style.setProperty("height", `${rows * cell}px`);
  Object.assign(canvas, { width: columns * cell * scale, height: rows * cell * scale });
  const style = getComputedStyle(canvas),
    pen = canvas.getContext("2d");
  const colours = [0, 1, 2, 3, 4].map((step) => style.getPropertyValue(`--heat-${step}`).trim());
  pen.scale(scale, scale);
  regions.changed.forEach((changed, at) => {
    pen.fillStyle = colours[stepOf(changed / regions.size)];
    pen.fillRect((at % columns) * cell, Math.floor(at / columns) * cell, cell - 1, cell - 1);
  });
  return { columns, cell };
}

function regionWords(regions, at) {
  const changed = regions.changed[at];
  return (
    `${bytes(at * regions.size)} to ${bytes((at + 1) * regions.size)}: ` +
    (changed ? `${share(changed / regions.size)} changed` : "the same")
  );
}

function busiest(regions) {
  return [...regions.changed.keys()]
    .filter((at) => regions.changed[at])
    .sort((a, b) => regions.changed[b] - regions.changed[a])
    .slice(0, 10);
}

function drawMap(place, result) {
  const { regions } = result;
  const touched = regions.changed.filter(Boolean).length;
  const touchedShare = share(touched / regions.changed.length);
  const words = `${bytes(result.bytes)} differ, in ${count(result.ranges, "range")}, in ${touchedShare} of the regions`;
  const canvas = h("canvas", { class: "heat", role: "img", "aria-label": `Changed regions of the disk: ${words}` });
  const under = h(
    "p",
    { class: "note figures" },
    `A square is ${bytes(regions.size)} of the disk; point at one to read it.`
  );
  let grid;
  const repaint = () =>
    canvas.isConnected && (grid = paint(canvas, regions, canvas.parentElement.clientWidth < 480 ? 48 : 96));
  const name = (event) => {
    const column = Math.floor(event.offsetX / grid.cell),
      at = Math.floor(event.offsetY / grid.cell) * grid.columns + column;
    if (column < grid.columns && at < regions.changed.length) under.textContent = regionWords(regions, at);
  };
  canvas.addEventListener("pointermove", name);
  canvas.addEventListener("pointerdown", name);
  const keys = ["the same", "up to 1 %", "up to 10 %", "up to 50 %", "more"];
  replace(
    place,
    facts([
      ["Differs", bytes(result.bytes)],
      ["Ranges", result.ranges.toLocaleString("en")],
      ["Now zeroes", bytes(result.zero)],
      ["Regions touched", touchedShare]
    ]),
    result.isWhole
      ? null
      : notice("warn", "There are more ranges than are shown here: the end of the disk is missing."),
    h(
      "figure",
      { class: "heatmap" },
      h("div", null, canvas),
      h(
        "figcaption",
        { class: "legend" },
        keys.map((text, step) => h("span", { class: `key heat-${step}` }, text))
      )
    ),
    under,
    touched > 0 &&
      h(
        "details",
        null,
        h("summary", null, "The regions that changed most"),
        table(
          "The regions that changed most",
          [
            { name: "From", kind: "number", cell: (at) => bytes(at * regions.size) },
            { name: "Changed", kind: "number", cell: (at) => bytes(regions.changed[at]) },
            { name: "Share", kind: "number", cell: (at) => share(regions.changed[at] / regions.size) }
          ],
          busiest(regions),
          { hideCaption: true }
        )
      )
  );
  new ResizeObserver(repaint).observe(canvas.parentElement);
  repaint();
}

const compared = new Map(); // what was read, by what of: points do not change
const COMPARED_MAX = 20;

/// The map of one disk between two points, in `place`. Throws an ApiError.
export async function heatmap(place, { backupId, since, disk, sizeBytes }) {
  const key = JSON.stringify([backupId, since, disk]);
  place.dataset.wanted = key; // a slower answer to an earlier choice is not drawn over it
  if (!compared.has(key)) {
    replace(place, notice("quiet", "Comparing the two points…"));
    const result = await readChanges(backupId, since, disk, sizeBytes);
    if (compared.size >= COMPARED_MAX) compared.clear();
    compared.set(key, result);
  }
  if (place.isConnected && place.dataset.wanted === key) drawMap(place, compared.get(key));
}
