// SPDX-License-Identifier: Apache-2.0
/// The places of the page, as the part of its address behind the '#', and back.

export const vmPath = (name) => `#/vm/${encodeURIComponent(name)}`;
export const pointPath = (name, backupId) => `${vmPath(name)}/${encodeURIComponent(backupId)}`;

/// "#/vm/web01" gives { name: "vm", parameters: ["web01"] }.
export function placeOf(hash) {
  const [name, ...parameters] = hash
    .replace(/^#?\/?/, "")
    .split("/")
    .map(decoded);
  return { name: name || "overview", parameters };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}
