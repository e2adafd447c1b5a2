// SPDX-License-Identifier: Apache-2.0
/// What is served over NBD now, with the lines that read it.
import { badge, h, link, notice, table } from "./dom.js";
import { agoElement, bytes } from "./format.js";
import { get } from "./api.js";
import { lineList, readingLines } from "./lines.js";
import { pointPath, vmPath } from "./paths.js";

const KINDS = { ingest: ["busy", "being written"], point: ["ok", "point, being read"], temporary: ["none", "restore"] };

const COLUMNS = [
  { name: "Export", cell: (each) => h("code", null, each.name) },
  { name: "What", cell: (each) => badge(...(KINDS[each.kind] ?? ["none", each.kind])) },
  {
    name: "VM",
    cell: (each) =>
      each.vm_name && [
        link(each.kind === "point" ? pointPath(each.vm_name, each.backup_id) : vmPath(each.vm_name), each.vm_name),
        h("span", { class: "below" }, `disk ${each.disk_id}`)
      ]
  },
  { name: "Size", kind: "number", cell: (each) => bytes(each.size_bytes) },
  { name: "Connections", kind: "number", cell: (each) => each.connections },
  { name: "Read", kind: "number", cell: (each) => bytes(each.bytes_read) },
  { name: "Received", kind: "number", cell: (each) => bytes(each.bytes_received) },
  { name: "Last request", cell: (each) => (each.last_request_at ? agoElement(each.last_request_at) : "none yet") }
];

/// The newest point of each disk, of all VMs: what somebody most often wants to read.
function newestPoints(points) {
  const newest = new Map();
  for (const point of points) {
    const key = `${point.vm_name}\n${point.disk_id}`;
    if (!newest.has(key)) newest.set(key, point);
  }
  return [...newest.values()].sort((a, b) => a.vm_name.localeCompare(b.vm_name) || a.disk_id - b.disk_id);
}

const SHOWN_MAX = 50;

function pointLines(points) {
  if (!points.length) return notice("quiet", "There is no restore point yet. Each one becomes an export by itself.");
  return [
    points
      .slice(0, SHOWN_MAX)
      .map((point) =>
        h(
          "details",
          { class: "export" },
          h(
            "summary",
            null,
            h("b", null, point.vm_name),
            ` disk ${point.disk_id}, `,
            agoElement(point.completed_at),
            h("span", { class: "muted" }, ` ${bytes(point.size_bytes)}`)
          ),
          point.uris.length
            ? lineList(readingLines(point.uris[0], `${point.vm_name}-disk${point.disk_id}`))
            : notice("quiet", "Not served by name: varve has no NBD listener.")
        )
      ),
    points.length > SHOWN_MAX &&
      h("p", { class: "note" }, `The page of a VM has the lines of the other ${points.length - SHOWN_MAX} disks.`)
  ];
}

export const exportsView = {
  title: () => "Exports",

  load: (_, signal) =>
    Promise.all([
      get("/api/v1/nbd/exports", "ExportList", { signal }),
      get("/api/v1/points?point=latest&limit=10000", "PointList", { signal })
    ]),

  draw([{ exports: open }, { points }]) {
    return [
      h("h1", null, "Exports"),
      h(
        "section",
        { "aria-labelledby": "open-title" },
        h("h2", { id: "open-title" }, "Open now"),
        open.length
          ? table("Open exports", COLUMNS, open, { hideCaption: true })
          : notice("quiet", "No export is open: nothing is being written or read.")
      ),
      h(
        "section",
        { "aria-labelledby": "newest-title" },
        h("h2", { id: "newest-title" }, "Newest points, ready to be read"),
        h(
          "p",
          { class: "note" },
          "Every restore point is an export under a name of its own. Copying and booting change nothing in it."
        ),
        pointLines(newestPoints(points))
      )
    ];
  }
};
