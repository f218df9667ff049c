"""All tests, the exhaustive ones too, compiled as users compile (`make soak`), with a record: tests/soak.json.

`python tests/soak.py [words for pytest]` writes the commit that was tested, the day, the machine, how many tests
passed, and the minutes. The record is written when all of them were run, whether or not they passed.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from pathlib import Path

import pytest

from epvf_data import provenance

RECORD = Path(__file__).with_name("soak.json")


class Outcomes:
    """Counts the tests of a run by how they ended."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.ended[report.nodeid] = report.outcome

    def counts(self) -> dict[str, int]:
        """How many passed, failed (also in their set-up) and were skipped."""
        return {name: list(self.ended.values()).count(name) for name in ("passed", "failed", "skipped")}


def main(words: list[str]) -> int:
    outcomes, start = Outcomes(), time.time()
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    code = pytest.main(["--soak", "--timeout", "3600", *words], plugins=[outcomes])
    used = os.times()
    state = provenance.git_state()
    record = {
        "commit": state["commit"],
        "dirty": state["dirty"],
        "date": datetime.date.today().isoformat(),
        "host": f"{os.cpu_count()} cores, {provenance.processor()}",
        **outcomes.counts(),
        "minutes": round((time.time() - start) / 60, 1),
        "processor_minutes": round((used.user + used.system + used.children_user + used.children_system) / 60, 1),
    }
    if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
