"""Several devices in one process find what one finds: on forced host devices, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from epvf_data.errors import ConfigError
from epvf_data.trainers.mesh import ONE, make_layout
from epvf_data.trainers.offline.settings import OfflineConfig

DEVICES = 4
ROUNDING = 1e-5  # of a loss near 1 after 100 steps; the sums over rows are added in another order


@pytest.fixture(scope="module")
def found(dataset, tmp_path_factory):
    """What one device found in fits and rollouts, and all of four."""
    return on_devices("parts", dataset, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """The same of whole runs."""
    return on_devices("runs", dataset, tmp_path_factory.mktemp("runs"))


def on_devices(what: str, dataset, folder: Path) -> list:
    forced = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    program = Path(__file__).with_name("several_devices.py")
    command = [sys.executable, program, dataset, folder, str(DEVICES), what]
    variables = {**os.environ, "XLA_FLAGS": forced, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def numbers(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize(("which", "members"), [("found", 1), pytest.param("runs", 6, marks=pytest.mark.soak)])
def test_losses_of_100_steps_are_those_of_one_device(request, which, members):
    one, four = (numbers(each["fit"][str(members)]) for each in request.getfixturevalue(which))
    assert len(one) == 101 * members
    assert one[-members:].mean() < 0.8 * one[:members].mean()
    np.testing.assert_allclose(four, one, rtol=0, atol=ROUNDING)


@pytest.mark.soak
@pytest.mark.parametrize("device_bytes", ["0", str(1 << 30)])
def test_an_offline_run_is_that_of_one_device_after_a_stop_too(runs, device_bytes):
    one, four = (numbers(each["train_offline"][device_bytes]) for each in runs)
    assert len(one) == 8
    np.testing.assert_allclose(four, one, rtol=ROUNDING)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["host", "compiled"])
def test_an_online_run_is_that_of_one_device(runs, how):
    one, four = (each["train_online"][how] for each in runs)
    for name in ("critic_loss", "return_perturbed", "return_max", "episode_length", "policy_size"):
        ours, theirs = (numbers([chunk[name] for chunk in each["metrics"]]) for each in (four, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(numbers(four["unperturbed"]), numbers(one["unperturbed"]), rtol=1e-4)


def test_returns_are_those_of_one_device_bit_by_bit(found):
    one, four = (numbers(each["returns"]) for each in found)
    assert len(np.unique(one)) > 5
    np.testing.assert_array_equal(four, one)


def test_one_device_needs_no_mesh_and_none_is_refused():
    assert make_layout(4, [64], 1) == ONE
    tree = {"a": np.ones(3)}
    assert ONE.members(tree) is ONE.rows(tree) is ONE.copied(tree) is tree
    with pytest.raises(ConfigError, match="devices is 0"):
        OfflineConfig(devices=0)
