// SPDX-License-Identifier: Apache-2.0
/// Failures in words: what happened, why, and what to do.
import { h, notice } from "./dom.js";

export function errorNotice(failure) {
  const known = failure.status !== undefined;
  return notice(
    "bad",
    h("p", null, h("strong", null, sentence(known ? failure.message : "The page made a mistake"))),
    h("p", null, known ? failure.details : String(failure.message ?? failure)),
    h(
      "p",
      null,
      failure.status === 401 || failure.status === 403
        ? `${failure.hint ?? ""} Give the page a token by the button at the upper right.`
        : failure.hint
    )
  );
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}
