// SPDX-License-Identifier: Apache-2.0
/// How a VM is protected, in a word: from its last good point, what is running, and what was found.
import { duration } from "./format.js";

/// Seconds; 0: none is expected.
export const expectedInterval = (vm) => vm.expected_interval_seconds;

export const lastGood = (vm) => vm.last_good_at;

/// What "late" means, for the VMs of a list.
export const lateWords = (vms) =>
  vms.some((vm) => !expectedInterval(vm))
    ? "Late is a VM whose last good point is older than is expected of it; of some nothing is expected: " +
      "--expected-interval of varve serve says it for all."
    : "Late is a VM whose last good point is older than is expected of it.";

/// { kind, text, rank, why }: the lower the rank, the sooner somebody should look.
export function stateOf(vm) {
  const running = vm.current_job_id ? ", running" : "";
  if (vm.damaged_points) {
    return {
      kind: "bad",
      rank: 0,
      text: `damaged${running}`,
      why: `${vm.damaged_points} of its images were found damaged`
    };
  }
  const expected = duration(expectedInterval(vm));
  if (!lastGood(vm)) {
    const late = vm.overdue;
    return {
      kind: late ? "bad" : "warn",
      rank: late ? 1 : 3,
      text: `no point yet${running}`,
      why: "it was never backed up"
    };
  }
  if (vm.overdue) {
    return { kind: "bad", rank: 1, text: `late${running}`, why: `its last good point is older than ${expected}` };
  }
  if (vm.current_job_id) return { kind: "busy", rank: 4, text: "running", why: "a backup is running" };
  if (vm.current_status === "failed") {
    return {
      kind: "warn",
      rank: 2,
      text: "last backup failed",
      why: "its last good point is young enough all the same"
    };
  }
  return { kind: "ok", rank: 5, text: "good", why: "its last good point is young enough" };
}
