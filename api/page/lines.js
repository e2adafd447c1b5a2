// SPDX-License-Identifier: Apache-2.0
/// Lines for a shell that read an export, ready to be copied.
import { h } from "./dom.js";
import { copyButton } from "./act.js";
import { shellWord } from "./format.js";

/// qemu's option syntax ends a value at a comma; two are one.
const driveValue = (uri) => uri.replaceAll(",", ",,");

const safeName = (text) => text.replace(/[^\w.-]+/g, "_").replace(/^-+/, "") || "disk";

/// [what, line] of a restore point or another export that is read.
export function readingLines(uri, name) {
  const file = safeName(name);
  return [
    ["Copy to a raw file", `nbdcopy -- ${shellWord(uri)} ${file}.raw`],
    ["Copy to a QCOW2 file", `qemu-img convert -p -f raw -O qcow2 ${shellWord(uri)} ${file}.qcow2`],
    [
      "Boot it, changes are thrown away",
      `qemu-system-x86_64 -m 2G -snapshot -drive ${shellWord(`file=${driveValue(uri)},format=raw,if=virtio`)}`
    ],
    ["See what it is", `nbdinfo -- ${shellWord(uri)}`]
  ];
}

/// Of a writable restore: what is written stays in it.
export function writingLines(uri) {
  return [
    [
      "Boot it, changes stay in the restore",
      `qemu-system-x86_64 -m 2G -drive ${shellWord(`file=${driveValue(uri)},format=raw,if=virtio`)}`
    ],
    ["Mount its file systems", `nbdfuse disk.raw ${shellWord(uri)} &`]
  ];
}

export const lineList = (lines) =>
  h(
    "dl",
    { class: "lines" },
    lines.map(([what, line]) =>
      h("div", null, h("dt", null, what), h("dd", null, h("code", { tabindex: "0" }, line), copyButton(line, what)))
    )
  );
