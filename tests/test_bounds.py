"""What asks for too much ends in a sentence: of memory, of rows, of numbers that no float has."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from epvf_data.errors import ConfigError, StorageError
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
    from epvf_data.recipes import build, collect_recipe

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
    from epvf_data.importing import import_policy

    shapes = {"0.weight": (4, 4), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}
    tensors = {name: np.full(shape, value) for name, shape in shapes.items()}
    save_file(tensors, "actor.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="are not finite"):
            import_policy("actor.safetensors", "out", settings={"activation": "tanh", "output": "tanh"})
    assert not (in_tmp / "out").exists()
