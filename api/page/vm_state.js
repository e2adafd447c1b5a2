/// How a VM is protected, in a word: from its last good point, what is running, and what was found.
import { ageOf, duration } from "./format.js";

/// Where a varve says nothing of how often a backup is expected: once a day, and two hours for it to take longer.
const USUAL_INTERVAL_SECONDS = 26 * 3600;

/// Seconds; 0: none is expected.
export const expectedInterval = (vm) => vm.expected_interval_seconds ?? USUAL_INTERVAL_SECONDS;

export const lastGood = (vm) => (vm.last_good_at === undefined ? vm.last_point?.completed_at : vm.last_good_at);

function isLate(vm) {
  if (typeof vm.overdue === "boolean") return vm.overdue;
  const expected = expectedInterval(vm);
  return expected > 0 && (ageOf(lastGood(vm) ?? vm.created_at) ?? 0) > expected;
}

/// What "late" means, for the VMs of a list.
export const lateWords = (vms) =>
  vms.some((vm) => vm.expected_interval_seconds === undefined)
    ? `Late is a VM whose last good point is older than ${duration(USUAL_INTERVAL_SECONDS)}.`
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
    const late = isLate(vm);
    return {
      kind: late ? "bad" : "warn",
      rank: late ? 1 : 3,
      text: `no point yet${running}`,
      why: "it was never backed up"
    };
  }
  if (isLate(vm)) {
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
