// SPDX-License-Identifier: Apache-2.0
/// What else varve works on: verifications, and restores with their copies.
import { badge, h, link, notice, table } from "./dom.js";
import { agoElement, bytes, count, share, timeElement } from "./format.js";
import { get } from "./api.js";
import { lineList, readingLines, writingLines } from "./lines.js";
import { pointPath, vmPath } from "./paths.js";

const KINDS = {
  running: "busy",
  copying: "busy",
  making: "busy",
  completed: "ok",
  ready: "ok",
  cancelled: "none",
  dropping: "none",
  failed: "bad"
};

function subject(task) {
  if (task.backup_id)
    return task.vm_name
      ? link(pointPath(task.vm_name, task.backup_id), task.backup_id)
      : h("code", null, task.backup_id);
  return task.vm_name ? link(vmPath(task.vm_name), task.vm_name) : "all points";
}

function bar(done, total, label) {
  const part = total ? done / total : 0;
  return h(
    "div",
    { class: "progress" },
    h("progress", { max: 1, value: part, "aria-label": label }),
    h("span", { class: "figures" }, share(part))
  );
}

function found(task) {
  const damaged = task.images.filter((image) => image.result === "damaged");
  if (damaged.length) {
    return [
      badge("bad", `${count(damaged.length, "image")} damaged`),
      damaged.map((image) =>
        h(
          "span",
          { class: "below" },
          link(pointPath(image.vm_name, image.backup_id), `${image.vm_name} disk ${image.disk_id}`),
          `: ${image.problem || bytes(image.damaged_bytes)}`
        )
      ),
      h(
        "span",
        { class: "below" },
        `${count(task.damaged_backups.length, "backup reads", "backups read")} what is damaged`
      )
    ];
  }
  const soFar = `${count(task.images.length, "image")} of ${task.image_count}`;
  return task.state === "completed" ? `${soFar}, all sound` : soFar;
}

const VERIFICATIONS = [
  { name: "Of", cell: subject },
  {
    name: "State",
    cell: (task) => [badge(KINDS[task.state], task.state), task.error && h("span", { class: "below" }, task.error)]
  },
  {
    name: "Read",
    cell: (task) => (task.state === "running" ? bar(task.read_bytes, task.total_bytes, "Read") : bytes(task.read_bytes))
  },
  { name: "Found", cell: found },
  {
    name: "Begun",
    cell: (task) => [
      agoElement(task.started_at),
      h("span", { class: "below" }, task.begun_by === "scrub" ? "by schedule" : "on request")
    ]
  }
];

const copyOf = ({ promotion }) =>
  promotion && [
    badge(KINDS[promotion.state], promotion.state),
    promotion.state === "copying" ? bar(promotion.copied_bytes, promotion.total_bytes, "Copied") : null,
    h("span", { class: "below" }, promotion.error || promotion.path)
  ];

const RESTORES = [
  {
    name: "Of",
    cell: (task) => [
      link(pointPath(task.vm_name, task.backup_id), task.vm_name),
      h("span", { class: "below" }, task.restore_id)
    ]
  },
  { name: "State", cell: (task) => [badge(KINDS[task.state], task.state), h("span", { class: "below" }, task.mode)] },
  { name: "Written", kind: "number", cell: (task) => bytes(task.written_bytes) },
  { name: "Made", cell: (task) => agoElement(task.created_at) },
  { name: "Until", cell: (task) => (task.expires_at ? timeElement(task.expires_at) : "it is dropped") },
  { name: "Copy", cell: copyOf }
];

function restoreLines(restore) {
  return restore.disks
    .filter((disk) => disk.uris.length)
    .map((disk) =>
      h(
        "details",
        null,
        h("summary", null, `${restore.vm_name}, disk ${disk.disk_id}, ${restore.mode}: lines to use it`),
        lineList(
          restore.mode === "writable"
            ? writingLines(disk.uris[0])
            : readingLines(disk.uris[0], `${restore.vm_name}-disk${disk.disk_id}`)
        )
      )
    );
}

export const tasks = {
  title: () => "Tasks",

  load: (_, signal) =>
    Promise.all([
      get("/api/v1/verifications", "VerificationList", { signal }),
      get("/api/v1/restores", "RestoreList", { signal })
    ]),

  draw([{ verifications }, { restores }]) {
    return [
      h("h1", null, "Tasks"),
      h(
        "section",
        { "aria-labelledby": "verifications-title" },
        h("h2", { id: "verifications-title" }, "Verifications"),
        verifications.length
          ? table("Verifications", VERIFICATIONS, verifications, { hideCaption: true })
          : notice(
              "quiet",
              "None since varve has started. ",
              h("code", null, "varve verify --all"),
              " begins one; --scrub-interval of varve serve does it again and again."
            )
      ),
      h(
        "section",
        { "aria-labelledby": "restores-title" },
        h("h2", { id: "restores-title" }, "Restores"),
        restores.length
          ? [table("Restores", RESTORES, restores, { hideCaption: true }), restores.map(restoreLines)]
          : notice(
              "quiet",
              "Nobody works with a point now. Points can be read without one: their pages have the lines."
            )
      )
    ];
  }
};
