"""JAX set up otherwise, by variables or by a program: the same rows, or one sentence before anything is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

jax = pytest.importorskip("jax")

from epvf_data import collect, collect_config, train_offline  # noqa: E402
from epvf_data.errors import BackendError, ConfigError  # noqa: E402
from epvf_data.rollout import resolve_backend  # noqa: E402
from epvf_data.runtime import NEEDED, cache_folder, cache_problem, check, prepare  # noqa: E402
from epvf_data.store.digest import content_hash  # noqa: E402
from epvf_data.store.reader import open as read  # noqa: E402

OTHERWISE = {
    "jax_enable_x64": True,
    "jax_disable_jit": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 3,
    "jax_numpy_dtype_promotion": "strict",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_transfer_guard": "disallow",
    "jax_no_execution": True,
    "jax_no_tracing": True,
    "jax_error_checking_behavior_nan": "raise",
}
COLLECT = ("collect", "--env", "cartpole", "--envs", "4", "--horizon", "10", "--quiet", "--out", "a.zarr")


@pytest.fixture
def otherwise():
    """Changes settings of JAX until the test ends."""
    before = {name: getattr(jax.config, name) for name in OTHERWISE if name in NEEDED}
    yield lambda *names: [jax.config.update(name, OTHERWISE[name]) for name in names if name in NEEDED]
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("name", [name for name in OTHERWISE if name in NEEDED])
def test_a_program_is_told_before_anything_is_done(small, in_tmp, otherwise, name):
    otherwise(name)
    for work in (
        lambda: resolve_backend(None),
        lambda: collect(collect_config("cartpole", envs=4), "x.zarr"),
        lambda: train_offline(small, run_dir="run"),
    ):
        with pytest.raises(ConfigError, match=f"unset {name.upper()}, or call jax.config.update"):
            work()
    assert [path.name for path in in_tmp.iterdir()] == ["small.zarr"]


def test_the_command_line_makes_the_same_rows_whatever_is_set(in_tmp, shell, otherwise):
    shell(*COLLECT)
    otherwise(*OTHERWISE)
    shell(*COLLECT[:-1], "b.zarr")
    assert content_hash(read("b.zarr")) == content_hash(read("a.zarr"))
    otherwise(*OTHERWISE)
    assert "at most 0." in shell("validate", "a.zarr", "--resimulate", "4").stdout
    otherwise(*OTHERWISE)
    assert "No problem found" in shell("doctor").stdout


def test_every_setting_is_tried():
    assert set(NEEDED) <= set(OTHERWISE)


@pytest.mark.parametrize(
    ("variable", "verb"),
    [("JAX_ENABLE_X64=maybe", "doctor"), ("JAX_PLATFORMS=cuda", "collect"), ("JAX_PLATFORM_NAME=tpu", "doctor")],
)
def test_a_variable_that_stops_jax_is_named(in_tmp, variable, verb):
    name, value = variable.split("=")
    command = [sys.executable, "-m", "epvf_data", verb]
    env = {**os.environ, name: value}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if variable.startswith("JAX_PLATFORMS") and done.returncode == 0:
        pytest.skip("there is such a device here")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert variable in done.stdout + done.stderr
    assert verb == "doctor" or (done.stderr.count("\n") == 1 and not list(in_tmp.iterdir()))


def test_a_processor_that_jax_leaves_out_is_told(monkeypatch):
    from epvf_data import envs

    def absent(backend: str) -> None:
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "local_devices", absent)
    with pytest.raises(BackendError, match="set JAX_PLATFORMS=cuda,cpu"):
        resolve_backend(envs.make("ant"), "native")


FORK = """
import os, numpy as np
from epvf_data import envs
from epvf_data.errors import BackendError
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout
env = envs.make("cartpole").with_horizon(3)
spec = PolicySpec(env.observation_size, env.action_size, (4,))
run = lambda: rollout(env, spec, np.zeros((1, spec.size), np.float32))
if os.fork() == 0:  # nothing was computed yet
    run()
    os._exit(0)
assert os.wait()[1] == 0
run()
if os.fork() == 0:
    try:
        run()
    except BackendError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_process_forked_after_a_rollout_says_so_and_does_not_hang():
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("this process was forked from one that computed with JAX")
    assert 'get_context("spawn")' in done.stdout


def test_without_a_home_nothing_is_cached(in_tmp, monkeypatch, shell):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_folder() is None
    prepare()
    check()
    assert "problem   there is no cache folder" in shell("doctor", code=1).stdout
    shell(*COLLECT)
    assert [path.name for path in in_tmp.iterdir()] == ["a.zarr"]


def test_a_cache_that_cannot_be_written_is_a_problem_of_doctor_alone(in_tmp, monkeypatch, shell):
    (in_tmp / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp / "file"))
    assert "cannot be written" in (cache_problem() or "")
    assert "cannot be written" in shell("doctor", code=1).stdout
    assert shell(*COLLECT).stderr == ""


def test_verbs_that_draw_nothing_need_no_opengl(in_tmp):
    command = [sys.executable, "-m", "epvf_data", *COLLECT]
    env = {**os.environ, "MUJOCO_GL": "nonsense"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command[:3], "doctor"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "MUJOCO_GL=nonsense" in done.stderr
    assert done.stderr.count("\n") == 1
