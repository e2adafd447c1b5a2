// SPDX-License-Identifier: Apache-2.0
/// Elements out of values. Text is always set as text, never as markup: a VM may be called anything.

/// h("a", { href: "#/", class: "quiet" }, "Overview"). Members that begin with "on" are listeners; false, null and
/// undefined are left out, among the children too.
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

export const link = (href, ...children) => h("a", { href }, ...children);

export const button = (text, onclick, more) => h("button", { type: "button", onclick, ...more }, text);

/// A state in words, with a sign that is not only a colour: ok, warn, bad, busy or none.
export const badge = (kind, text, title) => h("span", { class: `badge ${kind}`, title }, text);

/// What stands where there is nothing to show, or where something went wrong.
export const notice = (kind, ...children) => h("div", { class: `notice ${kind}` }, ...children);

export const command = (text) => h("code", { class: "command" }, text);

/// Pairs of a term and what is known of it.
export const facts = (pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([term, ...value]) => h("div", null, h("dt", null, term), h("dd", null, ...value)))
  );

/// A table: columns are { name, cell(row), kind: "number" or undefined, sort: its key, if it can be sorted by }.
/// `order` is { key, down, by(key) }. On narrow screens a row becomes a card, whose lines say the column; the roles keep
/// it a table to those who hear it.
export function table(caption, columns, rows, { order, hideCaption } = {}) {
  const headings = columns.map((column) => heading(column, order));
  const lines = rows.map((row) =>
    h(
      "tr",
      { role: "row" },
      columns.map((column, at) => cell(column, row, at))
    )
  );
  return h(
    "table",
    { role: "table" },
    h("caption", { class: hideCaption && "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings)),
    h("tbody", { role: "rowgroup" }, lines)
  );
}

function cell(column, row, at) {
  const more = { class: column.kind, "data-label": column.name };
  if (at === 0) return h("th", { scope: "row", role: "rowheader", ...more }, column.cell(row));
  return h("td", { role: "cell", ...more }, column.cell(row));
}

function heading(column, order) {
  const isSorted = order && column.sort === order.key;
  const sort = isSorted && (order.down ? "descending" : "ascending");
  const content =
    order && column.sort
      ? button(column.name, () => order.by(column.sort), { class: "sort", "data-focus": `sort-${column.sort}` })
      : column.name;
  return h("th", { scope: "col", role: "columnheader", class: column.kind, "aria-sort": sort }, content);
}

/// Puts `content` in the place of what is there. What had the focus has it again, if it is there again.
export function replace(place, ...content) {
  const before = place.contains(document.activeElement) ? document.activeElement : null;
  const key = before?.dataset.focus,
    caret = before?.selectionStart;
  place.replaceChildren();
  append(place, content);
  const after = key && place.querySelector(`[data-focus="${CSS.escape(key)}"]`);
  if (!after) return;
  after.focus({ preventScroll: true });
  if (typeof caret === "number") after.setSelectionRange(caret, caret);
}

/// `rows` in pages: only one page of them becomes elements.
export function pager(count, size, first, turn) {
  if (count <= size) return null;
  const last = Math.min(first + size, count);
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages" },
    button("Previous", () => turn(first - size), { disabled: first === 0, "data-focus": "previous" }),
    h("span", { class: "figures" }, `${first + 1}–${last} of ${count.toLocaleString("en")}`),
    button("Next", () => turn(first + size), { disabled: last === count, "data-focus": "next" })
  );
}
