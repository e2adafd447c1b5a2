// SPDX-License-Identifier: Apache-2.0
/// Changes that a reader of the page asks for: asked once more, done, and said how it went.
import { button, h, notice, replace } from "./dom.js";
import { post } from "./api.js";
import { errorNotice } from "./errors.js";

const place = document.getElementById("message");

/// Nothing is said or asked any more.
export const forgetMessage = () => replace(place);

/// `change` is { question, yes, path, answer: a schema, body, done(answer): what is said then }.
export function act(change) {
  const asker = document.activeElement;
  const close = () => {
    forgetMessage();
    if (asker?.isConnected) asker.focus();
  };
  const say = (said) => replace(place, h("div", { class: "said" }, said, button("Close", close, { class: "quiet" })));
  const go = async () => {
    replace(place, notice("quiet", "Asking varve…"));
    try {
      const answer = await post(change.path, change.answer, change.body);
      say(notice("ok", change.done(answer)));
      document.dispatchEvent(new CustomEvent("varve-changed"));
    } catch (failure) {
      say(errorNotice(failure));
    }
  };
  const onkeydown = (event) => event.key === "Escape" && close();
  const buttons = h("p", { class: "buttons" }, button(change.yes, go, { class: "strong" }), button("No", close));
  const question = { class: "notice warn ask", role: "alertdialog", "aria-label": change.question, onkeydown };
  replace(place, h("div", question, h("p", null, change.question), buttons));
  buttons.querySelector("button").focus();
}

/// Copies `text` and says so on the button for a moment.
export function copyButton(text, what) {
  const copy = button(
    "Copy",
    async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        // not a secure origin, or not allowed
        const selection = window.getSelection();
        selection.selectAllChildren(copy.previousElementSibling);
        copy.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => (copy.textContent = "Copy"), 2000);
    },
    { class: "quiet", "aria-label": `Copy: ${what}` }
  );
  return copy;
}
