# SPDX-License-Identifier: Apache-2.0
"""Runs a test file's cases and prints one line per case, in GoogleTest's form.

scripts/test counts these lines, for C++ and Python alike.
"""

import sys
import time
import unittest
from pathlib import Path

from harness import scratch

RUN, OK, FAILED, SKIPPED = "[ RUN      ]", "[       OK ]", "[  FAILED  ]", "[  SKIPPED ]"


def _name(test):
    """Module.Class.method, where the module is the file that is being run."""
    return test.id().replace("__main__", Path(sys.argv[0]).stem, 1)


class _Result(unittest.TestResult):
    """Prints a case when it starts and when its fate is known."""

    def startTest(self, test):
        super().startTest(test)
        self.mark, self.explanation = OK, ""
        self.started = time.monotonic()
        print(f"{RUN} {_name(test)}", flush=True)

    def stopTest(self, test):
        super().stopTest(test)
        if self.explanation:
            print(self.explanation)
        spent = int((time.monotonic() - self.started) * 1000)
        print(f"{self.mark} {_name(test)} ({spent} ms)", flush=True)

    def _bad(self, test, error):
        self.mark = FAILED
        title = test.shortDescription() or ""
        self.explanation += f"{title}\n{self._exc_info_to_string(error, test)}"

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self._bad(test, error)

    def addError(self, test, error):
        super().addError(test, error)
        self._bad(test, error)
        if not isinstance(test, unittest.TestCase):  # setUpClass or the module itself failed
            print(f"{RUN} {_name(test)}\n{self.explanation}\n{FAILED} {_name(test)} (0 ms)", flush=True)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.explanation += f"{subtest.id()}\n"
            self._bad(test, error)

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.mark, self.explanation = SKIPPED, "known to fail: see the test's decorator"

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.mark, self.explanation = FAILED, "works now: remove @expectedFailure"

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.mark, self.explanation = SKIPPED, f"skipped: {reason}"


class _Runner:
    """The part of unittest's runner interface that unittest.main needs."""

    def __init__(self, *_, failfast=False, **__):
        self.failfast = failfast

    def run(self, suite):
        result = _Result()
        result.failfast = self.failfast
        suite(result)
        bad = len({test.id() for test, _ in result.failures + result.errors}) + len(result.unexpectedSuccesses)
        print(f"{result.testsRun} run, {bad} failed, {len(result.skipped)} skipped", flush=True)
        return result


def main():
    """For the end of every test file; accepts unittest's own options (-k, -f, names)."""
    scratch.remove_all_when_terminated()
    unittest.main(module="__main__", testRunner=_Runner)
