// SPDX-License-Identifier: Apache-2.0
/// What was backed up, day by day, and the last backups of all VMs.
import { facts, h, link, notice, pager, replace, table } from "./dom.js";
import { bytes, count, now, rate } from "./format.js";
import { get, SLOW_MILLISECONDS } from "./api.js";
import { barChart } from "./charts.js";
import { everyDay } from "./forecast.js";
import { backupColumns } from "./vm.js";
import { vmPath } from "./paths.js";

const DAYS = 30,
  PAGE_ROWS = 25;
const shown = { status: "", first: 0 };

const listPath = () =>
  `/api/v1/backups?limit=${PAGE_ROWS}&offset=${shown.first}${shown.status && `&status=${shown.status}`}`;

const columns = (backups) => [
  { name: "VM", cell: (backup) => link(vmPath(backup.vm_name), backup.vm_name) },
  ...backupColumns(backups)
];

function drawList(place, list, refresh) {
  const turn = (first) => {
    shown.first = first;
    refresh();
  };
  replace(
    place,
    list.backups.length
      ? table("Backups, newest first", columns(list.backups), list.backups)
      : notice("quiet", shown.status ? "No backup has ended like that." : "There was no backup yet."),
    pager(list.total, PAGE_ROWS, shown.first, turn)
  );
}

function charts(days) {
  if (days.length < 2) return notice("quiet", "What each day brought is drawn from the second day on.");
  const dates = days.map((each) => each.date);
  return h(
    "div",
    { class: "pair" },
    barChart(
      "Stored each day",
      dates,
      days.map((each) => each.bytes_stored),
      bytes
    ),
    barChart(
      "Throughput while backups ran",
      dates,
      days.map((each) => each.bytes_received / Math.max(each.seconds, 1)),
      rate
    )
  );
}

function statusChoice(refresh) {
  const words = [
    ["", "all"],
    ["completed", "completed"],
    ["failed", "failed"],
    ["cancelled", "cancelled"],
    ["running", "running"]
  ];
  return h(
    "label",
    null,
    "Show ",
    h(
      "select",
      {
        "data-focus": "status",
        onchange: (event) => {
          Object.assign(shown, { status: event.target.value, first: 0 });
          event.target.blur();
          refresh();
        }
      },
      words.map(([value, text]) => h("option", { value, selected: shown.status === value }, text))
    )
  );
}

export const history = {
  title: () => "History",

  async load(_, signal) {
    const [{ days }, list] = await Promise.all([
      get(`/api/v1/backups/by-day?days=${DAYS}`, "BackupDays", { signal, youngEnough: SLOW_MILLISECONDS }),
      get(listPath(), "BackupList", { signal })
    ]);
    return { days: everyDay(days, now()), list };
  },

  draw({ days, list }, { refresh }) {
    const place = h("div");
    drawList(place, list, refresh);
    const sum = (name) => days.reduce((total, each) => total + each[name], 0);
    return [
      h("h1", null, "History"),
      facts([
        ["Days", `the last ${DAYS}`],
        ["Completed", count(sum("backup_count"), "backup")],
        ["Received", bytes(sum("bytes_received"))],
        ["Stored", bytes(sum("bytes_stored"))]
      ]),
      charts(days),
      h(
        "section",
        { "aria-labelledby": "backups-title" },
        h("h2", { id: "backups-title" }, "Backups"),
        h("div", { class: "controls" }, statusChoice(refresh)),
        place
      )
    ];
  }
};
