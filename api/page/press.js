// SPDX-License-Identifier: Apache-2.0
/// A press of the mouse or of the space bar is a click only where it begins and ends on the same element: what is drawn
/// anew in between would take the click away. So whoever draws without being asked waits for `released()`.
let pressed = null; // { promise, resolve } while something is held down

function begin() {
  if (pressed) return;
  pressed = {};
  pressed.promise = new Promise((resolve) => (pressed.resolve = resolve));
}

function end() {
  const ended = pressed;
  pressed = null;
  if (ended) setTimeout(ended.resolve); // after the click, which comes with the release
}

/// Resolves at once if nothing is held down.
export const released = async () => {
  while (pressed) await pressed.promise;
};

const whole = { capture: true, passive: true };
addEventListener("pointerdown", (event) => event.button === 0 && begin(), whole);
addEventListener("keydown", (event) => event.key === " " && begin(), whole);
addEventListener("keyup", (event) => event.key === " " && end(), whole);
addEventListener("pointerup", end, whole);
addEventListener("pointercancel", end, whole);
addEventListener("blur", end); // of the window: an element's own does not bubble
