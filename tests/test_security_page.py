"""docs/security.md: its table has a test or a reason in every cell, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEY = re.compile(r"[A-Z]\d+")


def functions(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_cell_of_the_table_has_a_test_that_is_there():
    page = (ROOT / "docs" / "security.md").read_text().split("## How it is tested")[1]
    rows = [
        line.strip("|").split("|")[1:] for line in page.splitlines() if line.startswith("| ") and "code" not in line
    ]
    named: dict[str, str] = {}
    for path, text in re.findall(r"^- \[(tests/\S+)\]\(\S+\): (.*(?:\n  .*)*)", page, re.MULTILINE):
        tests, there = dict(re.findall(r"([A-Z]\d+)\s+`(\w+)`", text)), functions(path)
        assert tests
        assert {*tests.values()} <= there, {*tests.values()} - there
        assert not tests.keys() & named.keys()
        named |= dict.fromkeys(tests, path)
    used = {key for row in rows for cell in row for key in KEY.findall(cell)}
    assert len(rows) > 10
    assert all(len(row) == 6 and all(KEY.search(cell) for cell in row) for row in rows)
    assert used == named.keys(), used ^ named.keys()
