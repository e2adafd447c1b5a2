// SPDX-License-Identifier: Apache-2.0
/// Repositories: how full they are, and when they will be.
import { badge, facts, h, notice } from "./dom.js";
import { agoElement, bytes, count, now, share } from "./format.js";
import { get, SLOW_MILLISECONDS } from "./api.js";
import { barChart } from "./charts.js";
import { daysUntilFull, everyDay, perDay } from "./forecast.js";

const DAYS = 30;

const below = (text) => h("span", { class: "below" }, text);

function fullWords(storage, days) {
  const left = daysUntilFull(days, storage.available_bytes);
  if (left === undefined) return ["not known yet", below("that takes backups on three days")];
  if (left === Infinity) return ["not in sight", below("nothing is stored")];
  const soon = left < 14 ? "bad-text" : null;
  return [
    h("span", { class: soon }, `in ${left >= 365 ? "more than a year" : count(Math.floor(left), "day")}`),
    below("if nothing is deleted")
  ];
}

function fillMeter(storage) {
  const part = storage.total_bytes ? storage.used_bytes / storage.total_bytes : 0;
  return h(
    "div",
    { class: "fill-meter" },
    h("meter", { min: 0, max: 1, value: part, low: 0.8, high: 0.9, optimum: 0, "aria-label": `${share(part)} used` }),
    h("span", { class: "figures" }, `${share(part)} used`)
  );
}

function stateBadge(repository) {
  if (!repository.enabled) return badge("none", "disabled");
  return repository.available ? badge("ok", "available") : badge("bad", "not available");
}

function card({ repository, days }) {
  const { storage_info: storage } = repository;
  const rules = [
    repository.is_immutable && "immutable",
    repository.min_retention_days > 0 && `keeps each backup ${count(repository.min_retention_days, "day")}`
  ]
    .filter(Boolean)
    .join(", ");
  return h(
    "section",
    { class: "card", "aria-labelledby": `repository-${repository.id}` },
    h(
      "div",
      { class: "headline" },
      h("h2", { id: `repository-${repository.id}` }, repository.name),
      stateBadge(repository)
    ),
    repository.unavailable_reason && notice("bad", repository.unavailable_reason),
    storage ? fillMeter(storage) : notice("quiet", "Its space was not measured yet."),
    storage &&
      facts([
        ["Free", bytes(storage.available_bytes), below(`of ${bytes(storage.total_bytes)}`)],
        ["Full", ...fullWords(storage, days)],
        ["Stored a day", bytes(perDay(days) ?? NaN), below(`by the last ${DAYS} days`)],
        ["Backups", storage.backup_count.toLocaleString("en")],
        ["Measured", agoElement(storage.last_check_at)],
        ["Kind", repository.type, rules && below(rules)]
      ]),
    days.length > 1
      ? barChart(
          "Stored by the backups of each day",
          days.map((each) => each.date),
          days.map((each) => each.bytes_stored),
          bytes
        )
      : notice("quiet", "What is stored a day is drawn from the second day on.")
  );
}

export const repositories = {
  title: () => "Repositories",

  async load(_, signal) {
    const { repositories: known } = await get("/api/v1/repositories", "RepositoryList", { signal });
    return Promise.all(
      known.map(async (repository) => {
        const query = `repository_id=${encodeURIComponent(repository.id)}&days=${DAYS}`;
        const { days } = await get(`/api/v1/backups/by-day?${query}`, "BackupDays", {
          signal,
          youngEnough: SLOW_MILLISECONDS
        });
        return { repository, days: everyDay(days, now()) };
      })
    );
  },

  draw(known) {
    return [
      h("h1", null, "Repositories"),
      known.length
        ? h("div", { class: "cards" }, known.map(card))
        : notice(
            "quiet",
            "There is no repository yet. ",
            h("code", null, "varve serve --repository DIR"),
            " makes the first, ",
            h("code", null, "varve repo add NAME --path DIR"),
            " others."
          )
    ];
  }
};
