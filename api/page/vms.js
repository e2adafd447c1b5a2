// SPDX-License-Identifier: Apache-2.0
/// The overview: what runs now, and all VMs with the age of their last good point.
import { badge, command, facts, h, link, notice, pager, replace, table } from "./dom.js";
import { agoElement, ageOf, bytes, count, duration } from "./format.js";
import { get } from "./api.js";
import { drawRunning } from "./running.js";
import { lastGood, lateWords, stateOf } from "./vm_state.js";
import { vmPath } from "./paths.js";

const PAGE_ROWS = 50;
const shown = { filter: "", only: "all", key: "rank", down: false, first: 0 };

const KEYS = {
  rank: (row) => row.state.rank,
  name: (row) => row.vm.vm_name,
  age: (row) => ageOf(lastGood(row.vm)) ?? Infinity,
  stored: (row) => row.vm.last_point?.allocated_bytes ?? -1,
  chain: (row) => row.vm.last_point?.chain_length ?? -1
};

function verifiedCell({ vm: { last_point: point } }) {
  if (!point) return "";
  if (point.verification === "damaged") return badge("bad", "damaged");
  return point.verified_at ? agoElement(point.verified_at) : h("span", { class: "muted" }, "not yet");
}

const COLUMNS = [
  { name: "VM", sort: "name", cell: ({ vm }) => link(vmPath(vm.vm_name), vm.vm_name) },
  { name: "State", sort: "rank", cell: ({ state }) => badge(state.kind, state.text, state.why) },
  {
    name: "Last good point",
    sort: "age",
    kind: "number",
    cell: ({ vm, state }) => h("span", { class: state.rank === 1 && "bad-text" }, agoElement(lastGood(vm)))
  },
  { name: "Type", cell: ({ vm }) => vm.last_point?.backup_type ?? "" },
  {
    name: "Stored by it",
    sort: "stored",
    kind: "number",
    cell: ({ vm }) => (vm.last_point ? bytes(vm.last_point.allocated_bytes) : "")
  },
  {
    name: "Chain",
    sort: "chain",
    kind: "number",
    cell: ({ vm }) => (vm.last_point ? count(vm.last_point.chain_length, "point") : "")
  },
  {
    name: "Disks",
    kind: "number",
    cell: ({ vm }) => (vm.disk_count > 1 ? `${bytes(vm.capacity_bytes)} in ${vm.disk_count}` : bytes(vm.capacity_bytes))
  },
  { name: "Verified", kind: "number", cell: verifiedCell }
];

function wantedRows(rows) {
  const words = shown.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter(
    ({ vm, state }) =>
      words.every((word) => vm.vm_name.toLowerCase().includes(word)) &&
      (shown.only === "all" || (shown.only === "attention" ? state.rank <= 3 : Boolean(vm.current_job_id)))
  );
  const key = KEYS[shown.key],
    sign = shown.down ? -1 : 1;
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return found.sort((a, b) => sign * order(key(a), key(b)) || order(a.vm.vm_name, b.vm.vm_name));
}

function summary(rows) {
  const attention = rows.filter(({ state }) => state.rank <= 3).length;
  const oldest = rows.reduce((age, { vm }) => Math.max(age, ageOf(lastGood(vm)) ?? 0), 0);
  return facts([
    ["VMs", h("b", null, rows.length.toLocaleString("en"))],
    ["Need attention", h("b", { class: attention ? "bad-text" : null }, attention.toLocaleString("en"))],
    ["Oldest last point", h("b", null, oldest ? duration(oldest) : "none")]
  ]);
}

const NO_VMS = () =>
  notice(
    "quiet",
    h(
      "p",
      null,
      h("strong", null, "No VM is known yet."),
      " A first backup makes one, of a file, a device or an NBD export:"
    ),
    h("p", null, command("varve pull web01 --disk 0=disk.raw --checkpoint monday")),
    h("p", null, "VMware machines are registered by ", command("varve vm add NAME --vcenter HOST …"), ".")
  );

function drawTable(place, rows) {
  const found = wantedRows(rows);
  if (shown.first >= found.length) shown.first = 0;
  const again = () => drawTable(place, rows);
  const turn = (first) => ((shown.first = first), again());
  const by = (key) => {
    shown.down = shown.key === key && !shown.down;
    shown.key = key;
    turn(0);
  };
  replace(
    place,
    found.length
      ? table("Virtual machines", COLUMNS, found.slice(shown.first, shown.first + PAGE_ROWS), {
          order: { key: shown.key, down: shown.down, by },
          hideCaption: true
        })
      : notice("quiet", `None of ${count(rows.length, "VM")} is like that.`),
    pager(found.length, PAGE_ROWS, shown.first, turn)
  );
}

function controls(redraw) {
  const change = (name) => (event) => {
    shown[name] = event.target.value;
    shown.first = 0;
    redraw();
  };
  const option = (value, text) => h("option", { value, selected: shown.only === value }, text);
  return h(
    "div",
    { class: "controls" },
    h(
      "label",
      null,
      "Filter by name ",
      h("input", {
        type: "search",
        value: shown.filter,
        oninput: change("filter"),
        "data-focus": "filter",
        autocomplete: "off",
        spellcheck: "false"
      })
    ),
    h(
      "label",
      null,
      "Show ",
      h(
        "select",
        { onchange: change("only"), "data-focus": "only" },
        option("all", "all"),
        option("attention", "what needs attention"),
        option("running", "what is running")
      )
    )
  );
}

export const vms = {
  title: () => "Overview",
  load: (_, signal) => get("/api/v1/vm-contexts", "VmContextList", { signal }),

  draw({ vm_contexts: known }, { jobs }) {
    const running = h("div");
    drawRunning(running, jobs);
    this.onJobs = (next) => drawRunning(running, next);
    const rows = known.map((vm) => ({ vm, state: stateOf(vm) }));
    const list = h("div");
    if (rows.length) drawTable(list, rows);
    return [
      h(
        "section",
        { "aria-labelledby": "running-title" },
        h("h1", { class: "unseen" }, "Overview"),
        h("h2", { id: "running-title" }, "Running now"),
        running
      ),
      h(
        "section",
        { "aria-labelledby": "vms-title" },
        h("h2", { id: "vms-title" }, "Virtual machines"),
        rows.length
          ? [summary(rows), controls(() => drawTable(list, rows)), list, h("p", { class: "note" }, lateWords(known))]
          : NO_VMS()
      )
    ];
  }
};
