#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts test cases, not programs, in meson's testlog.json.

GoogleTest and tests/harness/run.py print the same lines for every case.  A case that was started
and never finished has failed with its program.
"""

import json
import re
import sys

STARTED = re.compile(r"\[ RUN      \] (\S+)")
ENDED = re.compile(r"\[ {2}(?: {5}OK|FAILED |SKIPPED) \] (\S+?),? .*\(\d+ ms\)")
FATES = ("OK", "FAILED", "SKIPPED")
PROGRAM_FATES = {"OK": "OK", "EXPECTEDFAIL": "OK", "SKIP": "SKIPPED"}


def cases_of(program):
    """Case name -> fate for one program of the log."""
    fates = {}
    for line in program.get("stdout", "").splitlines():
        if started := STARTED.search(line):
            fates[started.group(1)] = "FAILED"
        elif ended := ENDED.search(line):
            fates[ended.group(1)] = next(fate for fate in FATES if f"{fate} " in ended.group(0))
    own = PROGRAM_FATES.get(program["result"], "FAILED")
    if not fates or (own == "FAILED" and "FAILED" not in fates.values()):
        fates["(the program itself)"] = own  # it has no cases, or it failed outside of them
    return fates


def main():
    counts = dict.fromkeys(FATES, 0)
    try:
        with open(sys.argv[1], encoding="utf-8") as log:
            programs = [json.loads(line) for line in log]
    except OSError as error:
        sys.exit(f"no test log: {error}\n0 passed, 1 failed")
    for program in programs:
        for case, fate in cases_of(program).items():
            counts[fate] += 1
            if fate != "OK":
                print(f"{fate.lower()}: {program['name']}: {case}")
    skipped = f", {counts['SKIPPED']} skipped" if counts["SKIPPED"] else ""
    print(f"{counts['OK']} passed, {counts['FAILED']} failed{skipped}", flush=True)
    sys.exit(1 if counts["FAILED"] or not counts["OK"] else 0)


if __name__ == "__main__":
    main()
