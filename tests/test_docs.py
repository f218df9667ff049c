"""The documents keep their word: code in the README is the code that is tested, and it runs."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readmes_examples_are_the_files_that_are_tested():
    python = blocks(README, "python")
    example = (ROOT / "examples" / "collect_and_train.py").read_text().split('"""\n\n', 1)[1]
    assert example in python
    assert len(example.splitlines()) < 20
    plain = blocks((ROOT / "docs" / "format.md").read_text(), "python")[0]
    assert plain in python


def test_links_in_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("verb", ["collect", "train-online"])
def test_every_setting_is_documented(verb):
    from epvf_data.collectors.setting import collect_config
    from epvf_data.config import to_dict
    from epvf_data.trainers.online.settings import online_config

    file, config = {
        "collect": ("collecting.md", collect_config("ant")),
        "train-online": ("online.md", online_config("ant-cpu")),
    }[verb]
    text = (ROOT / "docs" / file).read_text()
    for name, value in to_dict(config).items():
        for key in [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]:
            assert f"`{key}`" in text, key


def test_every_verb_is_documented():
    from typer.main import get_command

    from epvf_data.cli import load

    app = load()

    text = README + (ROOT / "docs" / "datasets.md").read_text()
    for verb in get_command(app).commands:  # pyright: ignore[reportAttributeAccessIssue]
        assert f"epvf-data {verb}" in text or f"`{verb} " in text, verb


def test_the_example_of_reading_runs(in_tmp, capsys):
    from epvf_data.curation.merge import merge

    merge([ROOT / "tests" / "golden" / "v1"], "whole.zarr")
    import epvf_data
    from epvf_data.curation.select import filter_rows

    first = epvf_data.open("whole.zarr").architectures[0]
    filter_rows("whole.zarr", "ant.zarr", f"architecture == '{first.id[:8]}'")
    exec(blocks((ROOT / "docs" / "datasets.md").read_text(), "python")[0], {})
    shown = capsys.readouterr().out
    assert shown.startswith(f"{first.rows} [('{first.spec}', {first.rows})]")
    assert f"({min(256, first.rows)}, {first.spec.size})" in shown


def test_the_page_on_python_runs(in_tmp):
    """Its blocks in the order in which they can: rows first, then the critic that is fitted to them."""
    critic, rows, fit = blocks((ROOT / "docs" / "python.md").read_text(), "python")
    for block in (rows, fit, critic):
        exec(block, {})
    assert (in_tmp / "toy.html").stat().st_size < 2e6


def test_the_page_on_plugging_runs(in_tmp, shell):
    """Its commands and blocks in their order, on fewer and shorter episodes; the first block is the template."""
    text = (ROOT / "docs" / "plugging.md").read_text()
    template = (ROOT / "epvf_data" / "critics" / "template.py").read_text()
    names: dict = {}
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL):
        if kind == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            words = line.partition("#")[0].split()[1:]
            done = shell(*words, *(["--set", "horizon=30", "--set", "episodes=2"] if words[0] == "collect" else []))
            if words[0] == "compare":
                assert "\n  cartpole-mine (mine.py:make) " in done.stdout
    assert template.endswith(blocks(text, "python")[0])
    policy = (ROOT / "epvf_data" / "policies" / "template.py").read_text()
    assert policy.endswith(blocks(text.split("## A policy architecture")[1], "python")[0])
    assert (in_tmp / "better" / "improved-1.safetensors").exists()


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_looking_at_online_runs_goes_as_the_page_says(in_tmp, shell, small):
    text = (ROOT / "docs" / "online.md").read_text().split("## Looking at runs")[1].split("\n## ")[0]
    (console,), (python,) = blocks(text, "console"), blocks(text, "python")
    for line in console.splitlines():
        words = line.removeprefix("$ epvf-data ")
        shell(*(words.replace("100 --iterations 40", "20 --iterations 4") if small else words).split())
    exec(compile(python, "online.md", "exec"), {})
    assert {"curves.pdf", "curves.csv", "curves.png", "numbers.csv"} <= {path.name for path in in_tmp.iterdir()}


def test_every_public_name_is_in_the_reference():
    import epvf_data

    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference" / "python.md").read_text(), re.MULTILINE)
    for name, where in epvf_data._PUBLIC.items():
        module, _, inner = where.partition(":")
        assert f"{module}.{inner or name}" in listed, name
    for name in listed:
        module, inner = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), inner), name


@pytest.mark.soak
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed: make docs")
    words = ["build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run([sys.executable, "-m", "mkdocs", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epvf-data report" in (tmp_path / "site" / "reference" / "commands" / "index.html").read_text()
    for page in (tmp_path / "site").rglob("*.html"):  # what it loads comes with it
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="https?:', page.read_text()), page


SMALLER = {
    "envs=512": "envs=96, horizon=30",
    "epochs=10, seeds=2": "epochs=2, seeds=1",
    'split="lineage")': 'split="lineage", epochs=2, seeds=1, resamples=20)',
    "range(15)": "range(2)",
}


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("name", "made"), [("tour", "cartpole.html"), pytest.param("own", "best.mp4", marks=pytest.mark.soak)]
)
def test_the_notebooks_run(in_tmp, shell, name, made, small):
    """Every code cell but the one that installs the package, in order; `!` calls the command line."""
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code[0].startswith("%pip install")
    names: dict = {}
    for cell in code[1:]:
        if cell.startswith("!epvf-data"):
            words = cell.split()[1:]
            if small and words[0] == "check-env":  # which conformance/test_check.py does with the same template
                continue
            command = [sys.executable, "-m", "epvf_data", *words]
            shell(*words) if small else subprocess.run(command, check=True, cwd=in_tmp)
            continue
        for whole, part in SMALLER.items() if small else ():
            cell = cell.replace(whole, part)
        exec(compile(cell, f"{name}.ipynb", "exec"), names)
    assert (in_tmp / made).stat().st_size > 1000


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_the_python_example_runs(in_tmp, capsys, small):
    """To the letter, and with fewer policies and epochs."""
    text = (ROOT / "examples" / "collect_and_train.py").read_text()
    if small:
        assert "envs=1024" in text
        text = text.replace("envs=1024", "envs=64, horizon=30")
    exec(compile(text, "collect_and_train.py", "exec"), {})
    assert ("64 policies" if small else "1024 policies") in capsys.readouterr().out
    assert (in_tmp / "cartpole-run" / "predicted_vs_true.png").exists()


@pytest.mark.soak
def test_the_evolution_example_makes_bases(in_tmp):
    words = [
        "--env",
        "cartpole",
        "--generations",
        "3",
        "--population",
        "32",
        "--horizon",
        "50",
        "--every",
        "1",
        "--episodes",
        "2",
    ]
    script = ROOT / "examples" / "evolve_base.py"
    subprocess.run([sys.executable, script, *words], check=True, capture_output=True, timeout=300)
    from epvf_data import load_policy

    spec, flat = load_policy("bases/cartpole-h50-last.safetensors")
    assert flat.shape == (spec.size,)


@pytest.mark.soak
def test_the_slices_of_gpu_time_go_on_where_the_last_one_stopped(in_tmp):
    script = ROOT / "examples" / "offline_gpu" / "train.sh"
    small = "policy.hidden=[8] critic.widths=[8] replay.capacity=64 replay.batch_size=8 envs=8 horizon=20 iterations=10"
    words = [word for change in small.split() for word in ("--set", change)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = []
    for _ in range(2):
        done = subprocess.run(
            ["bash", script, "-", "cartpole-paper", "run", "0", *words],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PATH": path},
        )
        assert done.returncode == 0, done.stderr
        told.append([json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
        assert (in_tmp / "run.tar.gz").exists()
        shutil.rmtree(in_tmp / "run")  # only the archive travels
    assert [report["iterations"] for report, _ in told] == [5, 10]
    assert [report["finished"] for report, _ in told] == [False, True]
    assert told[1][1]["env_steps"] > told[0][1]["env_steps"] > 0
