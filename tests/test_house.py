"""The house rules that a machine can check: directions of imports, style, sizes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["lint-imports"]])
def test_tools_find_nothing(command):
    tool = Path(sys.executable).parent / command[0]
    process = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_modules_and_functions_stay_small():
    long = []
    for path in sorted((ROOT / "epvf_data").rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > 300:
            long.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and path.parent.name != "cli":  # bodies of verbs aside
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > 60:
                    long.append(f"{path.name} {node.name}: {size} lines")
    assert not long


def test_the_public_names_exist():
    import epvf_data

    for name in epvf_data.__all__:
        assert getattr(epvf_data, name) is not None
    with pytest.raises(AttributeError):
        _ = epvf_data.no_such_name
