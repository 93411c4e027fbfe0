"""What ``make test`` prints: a line when a file is done, the time left, and what was not tested on this machine."""

from __future__ import annotations

import collections
import csv
import os
import re
import time
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.csv")
"""Seconds of what takes longest, by test: preparation and the test itself; ``DURATIONS=write`` stores a run's."""
SLOW = 1.0  # seconds, from which on a test is left out by --quick
UNLISTED = 0.1  # seconds that a test that is not listed may take, roughly


def group(nodeid: str) -> str:
    """What is run in one go, by one process: a file, or a chapter of the notebooks."""
    module, _, test = nodeid.partition("::")
    chapter = re.search(r"\[(\w+)\]$", test) if module.endswith("test_notebooks.py") else None
    return f"{module} {chapter[1]}" if chapter else module


def known_durations() -> dict[str, tuple[float, float]]:
    """The stored seconds of preparation and test, by test."""
    if not DURATIONS.is_file():
        return {}
    with open(DURATIONS, newline="", encoding="utf-8") as file:
        return {row["test"]: (float(row["setup"]), float(row["call"])) for row in csv.DictReader(file)}


def _shared_fixtures(item: pytest.Item) -> set[str]:
    """Names of the fixtures that a test shares with others."""
    found = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - pytest has no public way
    return {name for name, definitions in found.items() if definitions and definitions[-1].scope != "function"}


def keep_quick(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that take long, and those that share what takes long to prepare."""
    known = known_durations()
    slow = {
        (item.path, name)
        for item in items
        if known.get(item.nodeid, (0, 0))[0] >= SLOW
        for name in _shared_fixtures(item)
    }
    kept, left_out = [], []
    for item in items:
        long = known.get(item.nodeid, (0, 0))[1] >= SLOW or any(
            (item.path, name) in slow for name in _shared_fixtures(item)
        )
        (left_out if long else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


class Progress:
    """A pytest plugin: one line for each file instead of a dot for each test."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.start, self.expected = config, time.monotonic(), known_durations()
        self.left: collections.Counter[str] = collections.Counter()
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.seconds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.tests: dict[str, str] = {}  # tests that have not ended, and their group

    def collected(self, ids: list[str]) -> None:
        """Every process of xdist collects the same tests; the first that is done says which."""
        if not self.tests:
            self.tests = {nodeid: group(nodeid) for nodeid in ids}
            self.left = collections.Counter(self.tests.values())
            self.total = sum(map(self.weight, self.tests))
            self.done = 0.0

    def weight(self, nodeid: str) -> float:
        """Seconds that a test is expected to take."""
        return max(UNLISTED, sum(self.expected.get(nodeid, ())))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self.collected([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        self.collected(list(ids))

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if report.when == "call" and report.passed or report.skipped:
            return ("skipped" if report.skipped else "passed"), "", ""
        return ("", "", "") if report.passed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = group(report.nodeid)
        self.seconds[report.nodeid][report.when] += report.duration
        if report.failed or report.skipped or report.when == "call":
            self.outcomes[name][report.outcome] += 1
        if report.when != "teardown" or self.tests.pop(report.nodeid, None) is None:
            return
        self.done += self.weight(report.nodeid)
        self.left[name] -= 1
        if not self.left[name]:
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes[name].items()))
            took = sum(times.total() for nodeid, times in self.seconds.items() if group(nodeid) == name)
            print(f"[{self.done / self.total:4.0%}] {name}: {told} in {took:.0f} s{self.time_left()}", flush=True)

    def time_left(self) -> str:
        """From the share of the work that is done, by stored durations where there are some."""
        if not self.tests:
            return ""
        passed = time.monotonic() - self.start
        minutes = passed * (self.total / self.done - 1) / 60
        return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"

    def pytest_sessionfinish(self) -> None:
        if os.environ.get("DURATIONS") == "write":
            with open(DURATIONS, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("test", "setup", "call"))
                for nodeid, times in sorted(self.seconds.items()):
                    if times.total() >= SLOW / 2:
                        writer.writerow((nodeid, f"{times['setup']:.1f}", f"{times['call']:.1f}"))


def not_tested(reporter: object) -> None:
    """A section of the summary that names what was skipped, and why; a reason is written once."""
    reasons = collections.Counter()
    for report in reporter.stats.get("skipped", ()):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[(report.nodeid.partition("::")[0], why.removeprefix("Skipped: "))] += 1
    if reasons:
        reporter.section("not tested on this machine")
        for (file, why), count in sorted(reasons.items()):
            reporter.write_line(f"{count} test{'s' if count > 1 else ''} of {file}: {why}")
    else:
        reporter.section("every test was run, none was skipped")
