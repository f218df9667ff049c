"""Perturbation laws and sources of policies of the user's own."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epvf_data
from epvf_data.collectors.lot import lot_of
from epvf_data.errors import ArchitectureMismatchError, ConfigError, FileError

SMALL = {"envs": 6, "horizon": 10, "probes": 4, "policy.hidden": [4], "episodes": 1, "random.share": 0.0}
TEXT = """
import jax
import jax.numpy as jnp
import numpy as np


def lasso(key, base, scale):
    '''A tenth of the parameters move.'''
    where, how = jax.random.split(key)
    return scale * jax.random.laplace(how, base.shape) * jax.random.bernoulli(where, 0.1, base.shape)


def three(spec, seed):
    return np.random.default_rng(seed).normal(size=(3, spec.size))
"""


def config(**changes):
    return epvf_data.collect_config("cartpole", **{**SMALL, **changes})


def lasso(key, base, scale):
    return scale * jnp.sign(jax.random.normal(key, base.shape))


def three(spec, seed):
    return np.random.default_rng(seed).normal(size=(3, spec.size))


def test_rows_by_the_users_law_around_the_users_policies(in_tmp, shell):
    Path("mine.py").write_text(TEXT)
    chosen = ["--set", "perturbed.law=mine.py:lasso", "--base", "mine.py:three", "--seed", "5"]
    words = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    shell("collect", "--env", "cartpole", *words, *chosen, "--out", "own.zarr", "-q")
    dataset = epvf_data.open("own.zarr")
    table = dataset.table()
    theta = table.column("params")
    bases = three(table.spec, 5).astype(np.float32)
    np.testing.assert_array_equal(theta[:3], bases)  # each family begins with its base
    assert 0 < (theta[3:] != bases).sum() < theta[3:].size / 3
    assert table.vocabulary("law") == ("lasso",)
    made = dataset.commits[0].provenance["config"]
    assert made["perturbed"]["law"] == "mine.py:lasso"
    assert len(made["law_sha256"]) == 64
    again = config(seed=5, **{"perturbed.law": "mine.py:lasso", "perturbed.bases": ["mine.py:three"]})
    assert epvf_data.collect(again, "own.zarr", resume=True).rows == 0
    run = lot_of(again).run
    Path("mine.py").write_text(TEXT.replace("0.1", "0.2"))
    assert lot_of(again).run != run  # another law makes other rows


def test_functions_pass_from_python():
    chosen = config(**{"perturbed.law": lasso, "perturbed.bases": [three]})
    lot = lot_of(chosen)
    made = lot.draw(np.arange(6))
    steps = np.abs(made.params[3:] - made.params[:3])
    np.testing.assert_allclose(steps, 0.03, rtol=1e-3)
    assert lot.config["perturbed"]["law"] == f"{__name__}:lasso"
    assert lot.config["perturbed"]["bases"] == [f"{__name__}:three"]
    assert "law_sha256" not in lot.config


@pytest.mark.parametrize(
    ("setting", "given", "words"),
    [
        ("law", lambda key, base, scale: base[:2], "float32 of the shape \\[25\\]"),
        ("law", lambda key, base: base, "gives no noise: TypeError"),
        ("law", lambda key, base, scale: (base > 0) * 1, "int32 of the shape \\[25\\] as noise"),
        ("bases", lambda spec, seed: np.zeros((2, 3)), "policies of the shape \\[2, 3\\]; expected \\[n, 25\\]"),
        ("bases", lambda spec, seed: np.full((2, spec.size), np.nan), "gives 50 numbers that are not finite"),
        ("bases", lambda spec, seed: spec.sizzle, "gives no policies: AttributeError in line"),
        ("law", "none.py:law", "there is no such file"),
        ("law", "gausian", "there is no perturbation law 'gausian'; did you mean gaussian"),
        ("law", 3, "perturbed.law is 3; expected text"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(in_tmp, setting, given, words):
    value = [given] if setting == "bases" else given
    with pytest.raises((ConfigError, FileError, ArchitectureMismatchError), match=words):
        epvf_data.collect(config(**{f"perturbed.{setting}": value}), "x.zarr")
    assert not Path("x.zarr").exists()
