"""Tasks, results and the leaderboard; every group end to end on its small task."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.benchmark import result
from epvf_data.benchmark.run import run_task
from epvf_data.benchmark.table import leaderboard, markdown
from epvf_data.benchmark.tasks import DATA, GROUPS, TASKS, methods_of, small, split_method
from epvf_data.errors import ConfigError, DatasetError, FileError
from epvf_data.recipes import tables
from epvf_data.store.digest import content_hash

OWN = """
import numpy as np

def propose(problem):
    assert problem.returns.shape == (len(problem.theta),)
    noise = np.random.default_rng(problem.seed).normal(size=problem.starts.shape)
    return problem.starts + 0.01 * problem.spread * noise

def fails(problem):
    if problem.seed == 1:
        raise ValueError("no idea")
    return problem.starts

def wrong(problem):
    return problem.starts[:, :3]

def predict(rows):
    assert np.isnan(rows.returns[rows.test]).all()
    every = np.concatenate([np.abs(one).mean(1) for one in rows.actions])
    return every[rows.test]

def too_few(rows):
    return [1.0, 2.0]

def learn(budget):
    from epvf_data import PolicySpec
    spec = PolicySpec(budget.env.observation_size, budget.env.action_size, hidden=(4,))
    theta = np.random.default_rng(budget.seed).normal(size=(8, spec.size)).astype(np.float32)
    found = budget.returns(spec, theta)[:, 0]
    return spec, theta[found.argmax()]

def spends(budget):
    while True:
        learn(budget)
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with small rows, the critics that were fitted on them, and methods of one's own."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "own.py").write_text(OWN)
    return folder


def run(bench, task, method, out, **more):
    return run_task(task, method, bench / out, work=bench / "work", seeds=2, quick=True, **more)


def test_every_task_is_whole():
    for task in TASKS.values():
        assert task.group in GROUPS
        assert (task.data in DATA) != (task.group == "online")
        assert small(task).headline == task.headline
        assert methods_of(task)
    for rows in DATA.values():
        if rows.recipe:
            assert tables.build(tables.read(rows.recipe, rows.env)).env == rows.env
    assert split_method(TASKS["improve-hopper"], "coms/mlp") == ("coms", "mlp")


def test_the_hopper_recipe_has_design_benchs_shape():
    from epvf_data import envs

    recipe = tables.build(tables.read("hoppercontroller"))
    (architecture,) = recipe.architectures.values()
    spec = architecture.spec(envs.make("hopper"))
    assert (recipe.policies, recipe.episodes, spec.size) == (3200, 1, 5126)
    assert (spec.sizes, spec.activation, spec.output) == ((11, 64, 64, 3), "tanh", "identity")


def test_proposals_get_both_scorings_and_own_code_the_same(bench):
    found = run(bench, "improve-hopper", "lower", "lower.json")
    assert found == result.read(bench / "lower.json")
    assert [one["seed"] for one in found["seeds"]] == [0, 1]
    for one in found["seeds"]:
        measures = one["measures"]
        assert measures["best"] == pytest.approx(measures["return_best"] / measures["return_row"])
        assert measures["chosen"] == pytest.approx(measures["return_chosen"] / measures["return_row"])
        assert measures["proposals"] == 8
    values = [one["measures"]["best"] for one in found["seeds"]]
    assert found["measures"]["best"]["mean"] == pytest.approx(np.mean(values))
    assert found["data"]["rows"] == 96
    own = run(bench, "improve-hopper", f"{bench / 'own.py'}:propose", "own.json")
    assert len(own["code"]) == 64
    assert own["data"] == found["data"]
    assert own["measures"]["return_row"]["mean"] == found["measures"]["return_row"]["mean"]  # the same episodes
    assert own["measures"].get("stop") is None


def test_a_method_that_fails_is_one_sentence_and_what_was_done_stays(bench):
    with pytest.raises(ConfigError, match=r"ValueError in line 11 of own.py: no idea"):
        run(bench, "improve-hopper", f"{bench / 'own.py'}:fails", "fails.json")
    found = result.read(bench / "fails.json")
    assert [one["seed"] for one in found["seeds"]] == [0]
    assert found["failed"]["seed"] == 1
    (bench / "own.py").write_text(OWN.replace("problem.seed == 1", "problem.seed == 9"))
    again = run(bench, "improve-hopper", f"{bench / 'own.py'}:fails", "fails.json", resume=True)
    assert [one["seed"] for one in again["seeds"]] == [0, 1]
    assert "failed" not in again
    assert again["seeds"][0] == found["seeds"][0]
    with pytest.raises(ConfigError, match=r"shape \[8, 3\]; expected"):
        run(bench, "improve-hopper", f"{bench / 'own.py'}:wrong", "wrong.json")


def test_seeds_on_an_executor_are_those_of_one_process(bench):
    for task, method in (("predict-architecture", "ridge-actions"), ("improve-hopper", f"{bench / 'own.py'}:propose")):
        with ThreadPoolExecutor(1) as pool:
            spread = run(bench, task, method, f"spread-{task}.json", executor=pool)
        whole = run(bench, task, method, f"whole-{task}.json")
        assert [one["seed"] for one in spread["seeds"]] == [0, 1]
        assert spread["measures"] == whole["measures"]
    assert result.read(bench / "spread-improve-hopper.json")["measures"] == spread["measures"]


def test_held_out_rows_are_predicted(bench):
    for method in ("ridge-actions", f"{bench / 'own.py'}:predict"):
        found = run(bench, "predict-architecture", method, f"{len(method)}.json")
        assert -1 <= found["measures"]["spearman"]["mean"] <= 1
        assert found["measures"]["spearman"]["interval"] is None  # both seeds say the same
    assert run(bench, "predict-iid", "ridge", "parameters.json")["data"]["rows"] == 96  # of one architecture
    with pytest.raises(ConfigError, match=r"predictions of the shape \[2\]; expected"):
        run(bench, "predict-iid", f"{bench / 'own.py'}:too_few", "x.json")


def test_online_methods_are_held_to_their_budget(bench):
    found = run(bench, "online-hopper", f"{bench / 'own.py'}:learn", "learn.json")
    assert 0 < found["measures"]["steps"]["mean"] <= 8 * 500
    with pytest.raises(ConfigError, match="the budget of 4,000 control steps is spent"):
        run(bench, "online-hopper", f"{bench / 'own.py'}:spends", "spends.json")


def test_the_leaderboard_orders_by_the_headline_and_escapes(bench):
    run(bench, "improve-hopper", "average", "average.json")
    run(bench, "improve-hopper", "random", "random.json")
    files = [bench / "average.json", bench / "random.json"]
    order = [one["measures"]["best"]["mean"] for one in leaderboard(files)]
    assert order == sorted(order, reverse=True)
    forged = json.loads((bench / "random.json").read_text())
    forged |= {"method": "<b>|x", "data": {"content": "other"}, "hardware": {"processor": "a|b\n# c", "cores": 2}}
    (bench / "forged.json").write_text(json.dumps(forged))
    text = markdown(leaderboard([*files, bench / "forged.json"]))
    assert "<b>" not in text
    assert "\n# c" not in text
    assert "**not the same for all**" in text
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_what_cannot_be_is_said(bench, in_tmp):
    with pytest.raises(ConfigError, match="no task 'improve-hoper'; did you mean improve-hopper"):
        run(bench, "improve-hoper", "coms", "a.json")
    with pytest.raises(ConfigError, match="did you mean coms"):
        run(bench, "improve-hopper", "coma", "a.json")
    with pytest.raises(ConfigError, match="did you mean mlp"):
        run(bench, "improve-hopper", "coms/mpl", "a.json")
    with pytest.raises(FileError, match="there is no such file"):
        run(bench, "improve-hopper", "none.py:f", "a.json")
    run(bench, "improve-hopper", "random", "taken.json")
    with pytest.raises(ConfigError, match="exists already"):
        run(bench, "improve-hopper", "random", "taken.json")
    with pytest.raises(ConfigError, match="of another task or method"):
        run(bench, "improve-hopper", "average", "taken.json", resume=True)
    with pytest.raises(DatasetError, match="is of 4,096 rows of ant"):
        run_task("improve-ant", "random", "a.json", data=bench / "work" / "small" / "small.zarr")
    Path("bad.json").write_text("{}")
    with pytest.raises(FileError, match="no result of format 1"):
        result.read("bad.json")
    assert not (bench / "a.json").exists()


def test_the_verbs(bench, in_tmp, shell):
    assert "improve-hopper" in shell("bench", "list").stdout
    listed = json.loads(shell("bench", "list", "--json").stdout)
    assert {one["name"] for one in listed} == set(TASKS)
    words = ("--small", "--seeds", "2", "--work", bench / "work", "-q")
    told = shell("bench", "run", "improve-hopper", "random", *words).stdout
    assert "result: improve-hopper-random.json" in told
    assert "`random`" in shell("bench", "table", "improve-hopper-random.json").stdout
    assert json.loads(Path("leaderboard.json").read_text())["results"][0]["method"] == "random"
    assert "# Leaderboard" in Path("leaderboard.md").read_text()
    rows = json.loads(Path("improve-hopper-random.json").read_text())["data"]
    shell(*shlex.split(rows["made_by"])[1:], "--out", "again.zarr", "-q")
    assert content_hash(epvf_data.open("again.zarr")) == rows["content"]
