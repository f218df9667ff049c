"""What asks for too much ends in a sentence: of memory, of rows, of numbers that no float has."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from store import corpus, forge

from epvf_data.errors import ConfigError, RunError, StorageError
from epvf_data.store import reader

pytest.importorskip("jax")


def jax_asks_for_too_much(path: object) -> None:
    import jax.numpy as jnp

    jnp.zeros((1 << 40, 4))


def numpy_asks_for_too_much(path: object) -> None:
    np.zeros((1 << 44, 4))


@pytest.mark.parametrize("ask", [jax_asks_for_too_much, numpy_asks_for_too_much])
def test_too_little_memory_is_told_in_a_sentence(shell, small, monkeypatch, ask):
    monkeypatch.setattr(reader, "open", ask)
    done = shell("info", small, code=1)
    assert done.stderr == "error: this needs more memory than is free; close other programs or ask for less at once.\n"


def test_faults_of_ours_keep_their_traceback(shell, small, monkeypatch):
    def fault(path: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(reader, "open", fault)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        shell("info", small, code=None)


def test_rows_without_end_take_no_memory(in_tmp, monkeypatch):
    """Their numbers are never all there at once: the disk is what they do not fit."""
    from epvf_data.recipes.collect import collect_recipe
    from epvf_data.recipes.tables import build

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
    tables = {"architectures": {"a": {"hidden": [4]}}, "sources": {"s": {"kind": "random"}}}
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    with pytest.raises(StorageError, match="100000000 rows need"):
        collect_recipe(build({"env": "cartpole", "policies": 10**8, "envs": 1024, **tables}), "x.zarr")
    assert resident("VmHWM") - before < 300
    assert not (in_tmp / "x.zarr").exists()


def resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) >> 10


@pytest.mark.parametrize("value", [1e300, np.nan, np.inf, 1e39])
def test_numbers_that_no_policy_has_give_no_warning(in_tmp, value):
    from epvf_data.importing.run import import_policy

    shapes = {"0.weight": (4, 4), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}
    tensors = {name: np.full(shape, value) for name, shape in shapes.items()}
    save_file(tensors, "actor.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="are not finite"):
            import_policy("actor.safetensors", "out", settings={"activation": "tanh", "output": "tanh"})
    assert not (in_tmp / "out").exists()


@pytest.mark.parametrize("name", [".", "", "/"])
@pytest.mark.parametrize("verb", [("export-policy",), ("train-offline", "--critic", "ridge")])
def test_a_folder_is_no_name_for_a_file(small, shell, verb, name):
    before = sorted(small.parent.iterdir())
    assert shell(verb[0], small, *verb[1:], "--out", name, code=1).stderr.startswith("error: ")
    assert sorted(small.parent.iterdir()) == before


def test_a_recipe_with_teachers_needs_a_name_beside_which_they_run(in_tmp):
    from epvf_data.recipes.collect import runs_of

    for name in (".", "/", ""):
        with pytest.raises(ConfigError, match="is no name for a data set"):
            runs_of(name)
    assert runs_of("a/b.zarr") == Path("a/b.runs")


def test_what_the_system_refuses_is_told_in_a_sentence(shell, small):
    told = shell("card", small, "--out", "y" * 300, "-q", code=1).stderr
    assert "File name too long" in told
    assert told.count("\n") == 1


def test_a_runs_name_is_utf_8_for_its_checkpoints_and_its_rows_may_have_another(in_tmp, small):
    from epvf_data.trainers.offline.run import stored_run, train_offline
    from epvf_data.trainers.offline.settings import OfflineConfig

    odd, rows = os.fsdecode(b"\xff\xfe"), reader.open(small).architectures[0].id
    config = OfflineConfig(critic="ridge", split="iid", resamples=5, architecture=rows)
    with pytest.raises(RunError, match=r"the name .*\\udcff\\udcfe is not UTF-8; give the run another one"):
        train_offline(small, config, odd)
    assert not Path(odd).exists()
    small.rename(odd)
    train_offline(odd, config, "run")
    assert stored_run(Path("run"))["dataset"]["path"].endswith(r"\udcff\udcfe")
    (Path("run")).rename(os.fsdecode(b"\xfe"))
    with pytest.raises(RunError, match="is not UTF-8"):
        stored_run(Path(os.fsdecode(b"\xfe")))


DAMAGE = {  # an attribute of a part → what a verb that takes it up says
    "no words": ("outside its vocabulary of", ("diff", "merge", "filter", "card")),
    "simulation of text": ("simulation is", ("filter", "withhold", "info")),
    "discount of text": ("discount is", ("export-npz", "filter")),
}


@pytest.mark.parametrize(("name", "verb"), [(name, verb) for name, (_, verbs) in DAMAGE.items() for verb in verbs])
def test_attributes_that_no_part_has_are_damage_to_every_verb(in_tmp, small, shell, name, verb):
    """Every hash fits, but the words are fewer than their indices say, and so on."""
    forge.forged(small, in_tmp / "evil", corpus.CORPUS[name][0])
    words = {
        "diff": ("evil", small),
        "merge": (small, "evil", "--out", "m"),
        "filter": ("evil", "--where", "base == 'x'"),
    }
    if verb == "export-npz":
        words[verb] = ("evil", "--architecture", reader.open(small).architectures[0].id)
    assert DAMAGE[name][0] in shell(verb, *words.get(verb, ("evil",)), code=1).stderr


@pytest.mark.parametrize("verb", [("info",), ("plot",), ("card", "-q"), ("export-policy",), ("validate", "-q")])
def test_names_that_steer_terminals_are_shown_as_text(small, shell, monkeypatch, verb):
    """Folders that a stranger named, which the user completes with the tab key."""
    monkeypatch.chdir(small.parent)
    name = "a\x1b]0;owned\x07\nerror: send money\u202e$\\frac{$" + os.fsdecode(b"\xff") + ".zarr"
    small.rename(name)
    done = shell(verb[0], name, *verb[1:], code=None)
    told = done.stdout + done.stderr
    assert told
    assert told.replace("\n", "").isprintable()
    assert not any(line.startswith("error: send money") for line in told.splitlines())
