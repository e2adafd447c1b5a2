// SPDX-License-Identifier: Apache-2.0
/// The page: which view is shown, what keeps it fresh, and the token.
import { forgetMessage } from "./act.js";
import { button, h, notice, replace } from "./dom.js";
import { follow, setToken, token } from "./api.js";
import { errorNotice } from "./errors.js";
import { exportsView } from "./exports.js";
import { history } from "./history.js";
import { placeOf } from "./paths.js";
import { point } from "./point.js";
import { released } from "./press.js";
import { repositories } from "./repositories.js";
import { tasks } from "./tasks.js";
import { vm } from "./vm.js";
import { vms } from "./vms.js";

const VIEWS = { overview: vms, vm, repositories, history, tasks, exports: exportsView };
const LINKS = [
  ["overview", "Overview"],
  ["repositories", "Repositories"],
  ["history", "History"],
  ["tasks", "Tasks"],
  ["exports", "Exports"]
];
const REFRESH_MILLISECONDS = 30_000;
const PATIENCE_MILLISECONDS = 200; // a view that comes sooner needs no "Loading"

const main = document.getElementById("main");
const state = { jobs: null, latest: null, running: "", view: null, parameters: [], asking: new AbortController() };

function chosen() {
  const { name, parameters } = placeOf(location.hash);
  if (name === "vm" && parameters.length > 1) return { name, view: point, parameters };
  return { name, view: Object.hasOwn(VIEWS, name) ? VIEWS[name] : null, parameters };
}

function drawLinks(current) {
  replace(
    document.getElementById("views"),
    h(
      "ul",
      null,
      LINKS.map(([name, text]) =>
        h(
          "li",
          null,
          h(
            "a",
            {
              href: name === "overview" ? "#/" : `#/${name}`,
              "data-focus": `view-${name}`,
              "aria-current": (name === current || (name === "overview" && current === "vm")) && "page"
            },
            text
          )
        )
      )
    )
  );
}

/// Loads and draws the view that is chosen. A view that was there stays until the new one is.
async function show({ fresh }) {
  state.asking.abort();
  const asking = (state.asking = new AbortController());
  const { name, view, parameters } = chosen();
  Object.assign(state, { view, parameters });
  drawLinks(name);
  if (!view) return drawNowhere();
  document.title = `${view.title(...parameters)} – varve`;
  const waiting = fresh && setTimeout(() => replace(main, notice("quiet", "Loading…")), PATIENCE_MILLISECONDS);
  let content;
  try {
    const data = await view.load(parameters, asking.signal);
    await released();
    if (asking.signal.aborted) return;
    content = view.draw(data, { parameters, jobs: state.jobs, refresh: () => show({ fresh: false }) });
  } catch (failure) {
    if (asking.signal.aborted) return;
    content = [
      h("h1", null, view.title(...parameters)),
      errorNotice(failure),
      h(
        "p",
        null,
        button("Try again", () => show({ fresh: true }))
      )
    ];
  } finally {
    clearTimeout(waiting);
  }
  main.classList.remove("stale");
  const scrolled = fresh ? undefined : main.querySelector(".timeline ol")?.scrollLeft;
  replace(main, content);
  view.drawn?.(main, scrolled);
  if (fresh === "moved") {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  performance.mark("varve-drawn");
}

function drawNowhere() {
  document.title = "Not found – varve";
  replace(main, h("h1", null, "There is no such view"), notice("quiet", "The views are named above."));
}

async function onJobs(jobs) {
  state.latest = jobs;
  await released();
  if (state.latest === jobs) takeJobs(jobs); // else a later list has come meanwhile
}

function takeJobs(jobs) {
  const running = jobs.backups
    .map((backup) => backup.backup_id)
    .sort()
    .join();
  const changed = state.jobs && running !== state.running;
  Object.assign(state, { jobs, running });
  state.view?.onJobs?.(jobs);
  if (changed) refresh(); // a backup has begun or ended, so that points and ages differ too
}

const refresh = () => isBusy() || show({ fresh: false });

/// Somebody is in the middle of a question, a choice or a text that a new drawing would take away.
function isBusy() {
  return Boolean(document.querySelector(".ask, main details[open]")) || document.activeElement?.tagName === "SELECT";
}

const LINK_STATES = {
  live: ["ok", "live", "The server tells what changes as it happens."],
  polling: ["ok", "every 2 s", "What runs is asked for every two seconds."],
  refused: ["warn", "token needed", "varve is there and wants a token: press the button at the top."],
  lost: ["bad", "not reached", "What is shown is as old as the last answer."]
};

function onLinkState(name, failure) {
  const place = document.getElementById("link-state");
  const [kind, text, why] = LINK_STATES[name];
  main.classList.toggle("stale", name === "lost");
  if (place.dataset.state === name) return;
  const wasLost = place.dataset.state === "lost" && name !== "lost";
  place.dataset.state = name;
  replace(
    place,
    h("span", { class: `badge ${kind}`, title: failure ? `${failure.message}. ${failure.hint}` : why }, text)
  );
  if (wasLost) refresh();
}

const follower = follow(onJobs, onLinkState);

// ---- the token ----

const access = document.getElementById("access"),
  accessPlace = document.getElementById("access-place");

function drawAccess() {
  access.textContent = token() ? "Token given" : "Read-only";
  access.setAttribute("aria-expanded", String(accessPlace.childElementCount > 0));
}

function useToken(text) {
  setToken(text);
  replace(accessPlace);
  drawAccess();
  access.focus();
  follower();
  show({ fresh: false });
}

function askForToken() {
  if (accessPlace.childElementCount) {
    replace(accessPlace);
    return drawAccess();
  }
  const input = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  replace(
    accessPlace,
    h(
      "form",
      {
        id: "access-form",
        class: "access",
        onsubmit: (event) => {
          event.preventDefault();
          useToken(input.value.trim());
        },
        onkeydown: (event) => event.key === "Escape" && (askForToken(), access.focus())
      },
      h("label", { for: "token" }, "API token "),
      input,
      h("button", { type: "submit", class: "strong" }, "Use it"),
      token() && button("Forget it", () => useToken("")),
      h(
        "p",
        { class: "note" },
        "With a token the page can cancel a backup and start a verification; without one it only reads. ",
        "It is kept in this tab until the tab is closed. A varve that was started without tokens accepts any text here."
      )
    )
  );
  drawAccess();
  input.focus();
}

access.addEventListener("click", askForToken);
drawAccess();

// ---- what makes it draw ----

window.addEventListener("hashchange", () => {
  forgetMessage();
  show({ fresh: "moved" });
});
document.addEventListener("varve-changed", () => setTimeout(refresh, 500));
document.addEventListener("visibilitychange", () => document.hidden || refresh());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show({ fresh: false }));
setInterval(() => document.hidden || refresh(), REFRESH_MILLISECONDS);
show({ fresh: true });
