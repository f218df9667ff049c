"""The leaderboard of result files: Markdown to read, JSON to compute with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epvf_data import outputs
from epvf_data.benchmark.result import read
from epvf_data.benchmark.tasks import DATA, GROUPS, TASKS
from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable

COLUMNS = {
    "predict": ("spearman", "kendall", "r2", "regret@5"),
    "improve": ("best", "chosen", "median", "published", "return_best", "return_row", "stop"),
    "online": ("return", "least", "steps"),
}


def leaderboard(files: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The results by task, the best first by its headline measure. Raises ConfigError where there are none."""
    if not files:
        raise ConfigError("no result was named; name files that `bench run` has written.")
    found = [read(path) for path in files]
    order = list(TASKS)

    def place(one: Mapping[str, Any]) -> tuple[int, bool, float]:
        head = one["measures"].get(TASKS[one["task"]].headline)
        return order.index(one["task"]), head is None, 0.0 if head is None else -head["mean"]

    return sorted(found, key=place)


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """A table a task. Text of strangers is escaped."""
    lines = [
        "# Leaderboard",
        "",
        "Means over seeds, 95 % intervals (Student's t), none where seeds do not differ; by `epvf-data bench table`.",
    ]
    for name in dict.fromkeys(one["task"] for one in results):
        task = TASKS[name]
        rows = [one for one in results if one["task"] == name]
        columns = [column for column in COLUMNS[task.group] if any(column in one["measures"] for one in rows)]
        head = ["method", *columns, "seeds", "wall s", "CPU s", "hardware"]
        lines += ["", f"## {name}", "", f"{GROUPS[task.group].capitalize()}: {task.about}."]
        if task.data is not None:
            lines += ["", f"Rows: `{DATA[task.data].command}`; content {_contents(rows)}."]
        lines += ["", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 2) + "|---|"]
        lines += ["| " + " | ".join(_cells(one, columns)) + " |" for one in rows]
    return "\n".join(lines) + "\n"


def _contents(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hashes of the rows: more than one means that methods saw different rows."""
    found = dict.fromkeys(printable(str(one["data"].get("content"))[:12], 12) for one in rows)
    return ", ".join(f"`{one}`" for one in found) + (" (**not the same for all**)" if len(found) > 1 else "")


def _cells(one: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    mark = " (small)" if one["small"] else ""
    stated = one.get("hardware")
    hardware = stated if isinstance(stated, dict) else {}
    cores = f"{printable(hardware.get('processor', ''), 40)}, {printable(hardware.get('cores', ''), 6)} cores"
    own = " (own code)" if ":" in one["method"] else ""
    name = printable(one["method"].rpartition(":")[2], 60)
    return [
        _escape(f"`{name}`{own}{mark}"),
        *(_number(one["measures"].get(column)) for column in columns),
        str(len(one["seeds"])),
        *(f"{one[key]:,.0f}" if isinstance(one.get(key), int | float) else "" for key in ("seconds", "cpu_seconds")),
        _escape(cores),
    ]


def _number(measure: Mapping[str, Any] | None) -> str:
    """`1.23 [1.10, 1.36]`."""
    if measure is None:
        return ""
    digits = 0 if abs(measure["mean"]) >= 1000 else 1 if abs(measure["mean"]) >= 20 else 2
    if not measure.get("interval"):
        return f"{measure['mean']:,.{digits}f}"
    low, high = measure["interval"]
    return f"{measure['mean']:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def write(files: Sequence[str | Path], out: Path, force: bool = False) -> list[dict[str, Any]]:
    """Writes OUT (Markdown) and the same results as JSON beside it. Raises as `leaderboard` and `outputs` do."""
    found = leaderboard(files)
    if out.suffix != ".md":
        raise ConfigError(f"{out} is no name for a leaderboard; give --out NAME.md.")
    other = outputs.beside(out, ".json")
    for path in (out, other):
        outputs.check_free(path, force)
    outputs.write_bytes(out, markdown(found).encode(), force)
    text = json.dumps({"format": 1, "results": found}, indent=1, allow_nan=False) + "\n"
    outputs.write_bytes(other, text.encode(), force)
    return found
