"""`collect --recipe` from the shell."""

import json
import signal
import subprocess
import sys
import time

import pytest

RECIPE = """
env = "ant"
policies = 40
envs = 16
horizon = 30

[architectures.small]
hidden = [8]

[sources.random]
kind = "random"

[sources.es]
kind = "online"
preset = "ant-cpu-es"
snapshots = 2
settings = { env_steps = 4000, envs = 16, horizon = 30, log_every = 1 }
"""


@pytest.fixture
def recipe(in_tmp):
    (in_tmp / "mine.toml").write_text(RECIPE)
    return in_tmp


def test_a_recipe_from_the_shell(recipe, shell):
    done = shell("collect", "--recipe", "mine.toml", "--json")
    told = json.loads(done.stdout)
    assert (told["dataset"], told["rows"], told["rows_total"]) == ("ant-mine.zarr", 40, 40)
    assert "es-small: 4," in done.stderr  # teachers tell their progress
    assert "collect: 40/40 episodes" in done.stderr
    again = shell("collect", "--recipe", "mine.toml", code=1)
    assert "already holds 40 rows of exactly this collection; add --resume" in again.stderr
    more = shell("collect", "--recipe", "mine.toml", "--resume", "--policies", "60", "--json", "--quiet")
    assert json.loads(more.stdout)["rows"] == 20
    assert more.stderr == ""
    shown = shell("info", "ant-mine.zarr").stdout
    assert "sources es " in shown
    coverage = json.loads(shell("info", "ant-mine.zarr", "--json").stdout)["coverage"]
    assert {(line["source"]) for line in coverage} == {"random", "es"}
    assert sum(line["rows"] for line in coverage) == 60
    checked = json.loads(shell("validate", "ant-mine.zarr", "--deep", "--resimulate", "60", "--json").stdout)
    assert (checked["ok"], checked["max_return_error"]) == (True, 0)
    copied = shell(
        "collect", "--recipe", "ant-mine.zarr", "--policies", "60", "--out", "copy.zarr", "--json", "--quiet"
    )
    assert json.loads(copied.stdout)["rows"] == 60
    same = json.loads(shell("diff", "ant-mine.zarr", "copy.zarr", "--json").stdout)
    assert (same["equal"], same["rows_only"], same["rows_in_both"]) == (True, [0, 0], 60)


@pytest.mark.soak
def test_ctrl_c_while_a_teacher_learns_keeps_what_it_has_learned(recipe, shell):
    (recipe / "mine.toml").write_text(RECIPE.replace("env_steps = 4000", "env_steps = 80000"))
    words = [sys.executable, "-m", "epvf_data", "collect", "--recipe", "mine.toml"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    metrics = recipe / "ant-mine.runs" / "es-small" / "metrics.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and not metrics.exists():
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 75
    assert "kept in ant-mine.runs, and the same command goes on" in told
    assert "Traceback" not in told
    before = metrics.read_text().splitlines()
    done = shell("collect", "--recipe", "mine.toml", "--json", "--quiet")
    assert json.loads(done.stdout)["rows"] == 40
    after = metrics.read_text().splitlines()
    assert after[: len(before)] == before  # the run went on where it was
    assert len(after) > len(before)


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        ([], ('kind = "random"', 'kind = "randon"'), "sources.random: there is no kind of source 'randon'"),
        (["--set", "sources.es.presett=x"], None, "sources.es: there is no setting presett; did you mean preset?"),
        (["--base", "x.safetensors"], None, "--base goes with a collection without --recipe"),
        (["--env", "ants"], None, "there is no environment 'ants'; did you mean ant?"),
        (["--set", "sources.odd=3"], None, "sources.odd: got 3; it is a table of settings."),
        (["--out", "mine.toml"], None, "mine.toml"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(recipe, shell, words, change, said):
    if change:
        (recipe / "mine.toml").write_text(RECIPE.replace(*change))
    done = shell("collect", "--recipe", "mine.toml", *words, code=None)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert not (recipe / "ant-mine.zarr").exists()
