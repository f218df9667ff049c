"""Environments of one's own: found from anywhere, never stale, and never another task under the same name."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import epvf_data
from epvf_data import envs
from epvf_data.collectors.collect import collect
from epvf_data.collectors.resimulate import resimulate
from epvf_data.collectors.setting import collect_config
from epvf_data.curation.merge import merge
from epvf_data.envs import template
from epvf_data.envs.functions import functions
from epvf_data.errors import EnvironmentMismatchError, EpvfWarning, RunError
from epvf_data.store.extract import part_rows
from epvf_data.store.identity import functions_of
from epvf_data.store.writer import Writer
from epvf_data.trainers.online.run import train_online
from epvf_data.trainers.online.settings import online_config

TEXT = Path(template.__file__).read_text()
REWARD = "return (1 - jnp.cos"
SMALL = {"envs": 4, "horizon": 3, "episodes": 1, "policy.hidden": [4], "perturbed.bases": ["random"]}


def write(path, *changes):
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return f"{path}:make"


def made(where, out, **settings):
    return collect(collect_config(where, **{**SMALL, **settings}), out)


@pytest.mark.parametrize("name", ["{folder}/tasks/swing.py:make", "tasks.swing:make"])
def test_modules_and_files_beside_it_count_from_anywhere(in_tmp, monkeypatch, name):
    """A module beside the file, one in a package there, a file of numbers, and one that a function imports late."""
    (in_tmp / "tasks" / "helpers").mkdir(parents=True)
    parts = {"tasks/gains.py": "r = 1.0\n", "tasks/helpers/__init__.py": "", "tasks/helpers/late.py": "r = 2.0\n"}
    for file, text in {**parts, "tasks/cost.json": "3.0"}.items():
        (in_tmp / file).write_text(text)
    beside = "" if name.startswith("{") else "tasks."
    head = f"import json\nfrom pathlib import Path\nfrom {beside}gains import r\n"
    head += "c = json.loads((Path(__file__).parent / 'cost.json').read_text())\nimport jax\n"
    inner = f"from {beside}helpers import late\n    return c * r * late.r * (1 - jnp.cos"
    write(in_tmp / "tasks" / "swing.py", ("import jax\n", head), (REWARD, inner))
    where = name.format(folder=in_tmp)
    if where.startswith("/"):
        monkeypatch.chdir("/")
    before, modules = list(sys.path), set(sys.modules)
    first = envs.make(where)
    assert envs.make(where) is first  # compiled functions are reused
    seen = [functions(first)]
    changes = {**{file: text.replace(".0", ".5") for file, text in parts.items() if text}, "tasks/cost.json": "4.0"}
    for file, text in changes.items():  # of the same length and in the same second
        (in_tmp / file).write_text(text)
        again = envs.make(where)
        assert again is not first
        assert again.digest == first.digest
        assert functions(again) not in seen
        assert {key for key, value in functions(again).items() if value != seen[0][key]} == {"reward"}
        seen.append(functions(again))
    assert sys.path == before
    assert not list(in_tmp.rglob("__pycache__"))
    for module in set(sys.modules) - modules:
        if "swing" in module or module.partition(".")[0] in ("gains", "helpers", "tasks"):
            del sys.modules[module]


def test_two_folders_have_modules_of_one_name(in_tmp):
    for folder, value in (("a", "1.0"), ("b", "2.0")):
        (in_tmp / folder).mkdir()
        (in_tmp / folder / "gains.py").write_text(f"r = {value}\n")
        write(
            in_tmp / folder / "swing.py",
            ("import jax\n", "from gains import r\nimport jax\n"),
            (REWARD, "return r + (1 - jnp.cos"),
        )
    first, second = (envs.make(f"{folder}/swing.py:make") for folder in "ab")
    assert functions(first)["reward"] != functions(second)["reward"]
    assert envs.make("a/swing.py:make") is first


def test_comments_names_and_equal_code_are_the_same(in_tmp):
    first = envs.make(write(in_tmp / "a.py"))
    other = write(
        in_tmp / "b.py", (REWARD, "angle = after.qpos  # the hinge's\n    " + REWARD), ("after.qpos[0])", "angle[0])")
    )
    assert functions(envs.make(other)) == functions(first)
    for old, new, name in (
        ("/ 10]", "/ 11]", "observe"),
        ("> 50", "> 51", "terminated"),
        ("lambda action: action", "lambda action: action / 2", "control"),
        ("0.1 * jax", "0.2 * jax", "reset"),
    ):
        found = functions(envs.make(write(in_tmp / "b.py", (old, new))))
        assert [key for key, value in found.items() if value != functions(first)[key]] == [name]


def test_another_reward_does_not_mix_silently(in_tmp):
    where = write(in_tmp / "mine.py")
    made(where, "a.zarr")
    write(in_tmp / "mine.py", (REWARD, "# as before\n    " + REWARD))
    made(where, "a.zarr", seed=1)  # a comment is no change
    assert len(functions_of(epvf_data.open("a.zarr"))) == 1
    write(in_tmp / "mine.py", (REWARD, "return 100 + (1 - jnp.cos"))
    words = "holds rows that another reward of my-pendulum gave, and its version is 1 as before"
    for settings in ({"seed": 2}, {"policies": 8}):
        with pytest.raises(EnvironmentMismatchError, match=words):
            collect(collect_config(where, **SMALL, **settings), "a.zarr", resume="policies" in settings)
    assert len(epvf_data.open("a.zarr")) == 8
    with pytest.warns(EpvfWarning, match="made with another reward .* returns will differ"):
        assert resimulate(epvf_data.open("a.zarr"), 4, env=where).max_error > 100
    made(where, "b.zarr", seed=2)
    with pytest.raises(EnvironmentMismatchError, match="b.zarr holds rows that another reward .*--other-environments"):
        merge(["a.zarr", "b.zarr"], "c.zarr")
    merge(["a.zarr", "b.zarr"], "c.zarr", other_environments=True)
    made(where, "c.zarr", seed=3)  # whoever merged them has said that they can be compared
    with pytest.raises(EnvironmentMismatchError, match="another observe, reward of"):
        made(write(in_tmp / "mine.py", (REWARD, "return 7 + (1 - jnp.cos"), ("/ 10]", "/ 11]")), "b.zarr", seed=4)
    write(in_tmp / "mine.py", ('version="1"', 'version="2"'), (REWARD, "return 100 + (1 - jnp.cos"))
    with pytest.raises(EnvironmentMismatchError, match="they differ in version '1' and '2', digests"):
        made(where, "a.zarr", seed=2)


def test_what_cannot_be_compared_is_said_once(in_tmp, monkeypatch):
    where = write(in_tmp / "mine.py")
    made(where, "a.zarr")
    with monkeypatch.context() as patch:
        patch.setattr("epvf_data.envs.functions.functions", lambda env: {**functions(env), "jax": "99.0"})
        with pytest.warns(EpvfWarning, match="my-pendulum computes what it did .* another version of JAX made"):
            made(where, "a.zarr", seed=1)
        made(where, "a.zarr", seed=2)
        made(where, "b.zarr")
    made(where, "d.zarr")
    with pytest.warns(EpvfWarning, match="nothing tells whether my-pendulum computes the same in b.zarr and d.zarr"):
        merge(["d.zarr", "b.zarr"], "c.zarr")


def test_data_sets_that_do_not_tell_their_functions_are_said_to(in_tmp, shell):
    """Those of earlier releases."""
    where = write(in_tmp / "mine.py")
    made(where, "a.zarr")
    found = epvf_data.open("a.zarr")
    with Writer.open("old.zarr", found.env) as writer:
        writer.commit(part_rows(found.parts[0]), {"verb": "collect"})
    words = ["collect", "--env", where, "--out", "old.zarr", "--quiet"]
    for name, value in SMALL.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    with warnings.catch_warnings():
        warnings.simplefilter("default", EpvfWarning)
        done = shell(*words)
    assert "note: nothing tells whether my-pendulum computes what it did for the rows in old.zarr" in done.stderr
    assert len(epvf_data.open("old.zarr")) == 8


@pytest.mark.soak  # a run with a policy or critic of one's own keeps its file in the same way
def test_a_run_does_not_go_on_with_another_reward(in_tmp):
    where = write(in_tmp / "mine.py")
    config = online_config("body", env=where, envs=4, iterations=2, horizon=3, **{"policy.hidden": [4]})
    train_online(config, "run", record="rows.zarr")
    write(in_tmp / "mine.py", (REWARD, "return 100 + (1 - jnp.cos"))
    with pytest.raises(RunError, match="started with another reward of its environment"):
        train_online(config, "run", resume=True, record="rows.zarr")
    with pytest.raises(EnvironmentMismatchError, match="rows.zarr holds rows that another reward"):
        train_online(config, "other", record="rows.zarr")
    with pytest.raises(EnvironmentMismatchError, match="give another --warm-start"):
        train_online(replace(config, critic=replace(config.critic, name="mlp")), "warm", warm_start="rows.zarr")
