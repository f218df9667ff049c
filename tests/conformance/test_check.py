"""Every usual mistake is found and named; the template has none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epvf_data
from epvf_data import envs
from epvf_data.collectors.resimulate import resimulate
from epvf_data.conformance import check_env
from epvf_data.envs import template
from epvf_data.errors import ConfigError, EnvironmentMismatchError
from epvf_data.policies.spec import PolicySpec
from epvf_data.render.render import render_policy
from epvf_data.render.rows import render_row
from epvf_data.store.writer import Writer

GOOD = template.make()
COUNTER = itertools.count()
NOISE = np.random.default_rng(0)

# What is wrong → changes of the template, the rule that finds it, and words of the finding.
MISTAKES = {
    "reset ignores its key": ({"reset": lambda key: template.reset(jax.random.key(0))}, "reset", "same start for two"),
    "reset draws from NumPy": (
        {"reset": lambda key: template.reset(key)._replace(qpos=jnp.float32(NOISE.normal(size=1)))},
        "reset",
        "different starts for the same key",
    ),
    "start is random, and not said": ({"random_start": False}, "reset", "random_start is False"),
    "reset of another type": ({"reset": lambda key: (jnp.zeros(1), jnp.zeros(1))}, "reset", "tuple"),
    "reset in whole numbers": (
        {"reset": lambda key: template.reset(key)._replace(qpos=jnp.zeros(1, int))},
        "reset",
        "int32; expected float32",
    ),
    "NaN at the start": (
        {"reset": lambda key: template.reset(key)._replace(qvel=jnp.full(1, jnp.nan))},
        "reset",
        "not finite",
    ),
    "another timestep": ({"timestep": 0.02}, "model", "the model's is 0.01 s"),
    "too few positions": (
        {"reset": lambda key: template.reset(key)._replace(qpos=jax.random.normal(key, (3,)))},
        "model",
        "qpos has 3 numbers; the model needs 1",
    ),
    "another number of controls": ({"control": lambda action: jnp.zeros(2)}, "model", "1 actuators"),
    "control beyond its range": ({"control": lambda action: 3 * action}, "model", "beyond the actuators' ctrlrange"),
    "a model that is none": ({"xml": "<mujoco><body></mujoco>"}, "model", "XML"),
    "observation of another size": ({"observation_size": 4}, "sizes", "observe gives the shape (3,)"),
    "reward is an array": ({"reward": lambda before, after: after.qpos}, "sizes", "reward gives the shape (1,)"),
    "end is a number": ({"terminated": lambda state: state.qvel[0]}, "sizes", "expected a truth value"),
    "ends where it begins": ({"terminated": lambda state: jnp.ones((), bool)}, "sizes", "ended where it begins"),
    "reward has a memory": (
        {"reward": lambda before, after: after.qpos[0] + jnp.float32(next(COUNTER))},
        "pure functions",
        "reward gives another result",
    ),
    "observation is noisy": (
        {"observe": lambda state: template.observe(state) + jnp.float32(NOISE.normal())},
        "pure functions",
        "observe gives another result",
    ),
    "a branch in Python": (
        {"reward": lambda before, after: jnp.ones(()) if after.qpos[0] > 0 else jnp.zeros(())},
        "pure functions",
        "TracerBoolConversionError",
    ),
    "reward is NaN": (
        {"reward": lambda before, after: jnp.sqrt(-1.0 - after.qpos[0] ** 2)},
        "finite numbers",
        "32 of 32 random policies met NaN",
    ),
    "ends at once": (
        {"terminated": lambda state: jnp.abs(state.action).sum() > 0},
        "episodes",
        "every episode ends in its first step",
    ),
    "reward says nothing": (
        {"reward": lambda before, after: jnp.ones(()), "terminated": lambda state: jnp.zeros((), bool)},
        "episodes",
        "get the return 100",
    ),
}


def test_the_template_keeps_every_rule():
    found = check_env(GOOD)
    assert [finding for finding in found if not finding.ok] == []
    assert {"reset", "model", "sizes", "pure functions", "finite numbers", "episodes", "backends agree"} == {
        finding.rule for finding in found
    }


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found(name):
    changes, rule, words = MISTAKES[name]
    problems = [finding for finding in check_env(replace(GOOD, **changes), ("native",)) if not finding.ok]
    assert [finding.rule for finding in problems][:1] == [rule]
    assert words in problems[0].text


def test_backends_that_disagree_are_found(monkeypatch):
    from epvf_data.conformance import check

    plain = check.rollout

    def other(env, spec, params, *, reset_seed, backend):
        found = plain(env, spec, params, reset_seed=reset_seed, backend="native")
        return found._replace(returns=found.returns * (1.0 if backend == "native" else 3.0))

    monkeypatch.setattr(check, "rollout", other)
    problems = [finding for finding in check_env(GOOD) if not finding.ok]
    assert [finding.rule for finding in problems] == ["backends agree"]


@pytest.mark.soak
def test_environments_with_their_own_dynamics_pass():
    assert all(finding.ok for finding in check_env(envs.make("cartpole")))


def write(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return f"{name}:make"


def test_a_users_file_is_collected_and_rolled_out_again(in_tmp):
    where = write(in_tmp, Path(template.__file__).read_text().replace("my-pendulum", "swing"))
    config = epvf_data.collect_config(where, envs=32, episodes=2)
    epvf_data.collect(config, "swing.zarr")
    dataset = epvf_data.open("swing.zarr")
    assert dataset.env.name == "swing"
    with pytest.raises(EnvironmentMismatchError, match="none of this package's environments"):
        resimulate(dataset, 8)
    assert resimulate(dataset, 8, env=where).max_error == 0
    changed = write(in_tmp, (in_tmp / "mine.py").read_text().replace('version="1"', 'version="2"'), "changed.py")
    with pytest.raises(EnvironmentMismatchError, match="name the one that it was made with"):
        resimulate(dataset, 8, env=changed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def other(): ...", "it has no function 'make'"),
        ("def make(): return 1/0", "ZeroDivisionError in line 1 of mine.py: division by zero"),
        ("def make(): return 3", "gives int; expected an epvf_data.envs.Env"),
        ("import nothing_of_that_name", "ModuleNotFoundError in line 1 of mine.py"),
        ("def make(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit in line 1"),
        ("from epvf_data.envs import make as given\ndef make(): return given('ant')", "called 'ant', as one of this"),
    ],
)
def test_what_a_file_gets_wrong_is_said_in_one_sentence(in_tmp, text, words):
    with pytest.raises(ConfigError, match=words):
        envs.make(write(in_tmp, text))


def test_names_that_are_no_environment():
    with pytest.raises(ConfigError, match="did you mean hopper"):
        envs.make("hoper")
    with pytest.raises(ConfigError, match="there is no such file"):
        envs.make("nowhere.py:make")
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        envs.make("no_such_module:make")
    with pytest.raises(ConfigError, match="an environment is called"):
        replace(GOOD, name="../x")


def test_from_the_shell(in_tmp, shell):
    def run(*words):
        done = shell(*words, code=None)
        return done.returncode, done.stdout + done.stderr

    assert run("new-env", "seesaw")[0] == 0
    assert (in_tmp / "seesaw.py").read_text().count("\n") < 60
    assert "exists already" in run("new-env", "seesaw")[1]
    code, text = run("check-env", "seesaw.py:make", "--backend", "native")
    assert code == 0
    assert "keeps all rules" in text
    (in_tmp / "seesaw.py").write_text((in_tmp / "seesaw.py").read_text().replace("timestep=0.01", "timestep=0.02"))
    code, text = run("check-env", "seesaw.py:make")
    assert code == 1
    assert "problem" in text


def test_names_that_strangers_wrote_load_no_code(in_tmp, env, make_rows):
    write(in_tmp, "open('was_here', 'w').close()", "evil.py")
    identity = replace(env, name="evil.py:make")
    with Writer.open("theirs.zarr", identity) as writer:
        writer.commit(make_rows(12, 0, probes=2), {})
    dataset = epvf_data.open("theirs.zarr")
    with pytest.raises(EnvironmentMismatchError, match="none of this package's"):
        resimulate(dataset, 4)
    with pytest.raises(EnvironmentMismatchError, match="none of this package's"):
        render_row("theirs.zarr")
    spec = PolicySpec(4, 2, ())
    epvf_data.save_policy("theirs.safetensors", spec, np.zeros(spec.size, np.float32), env="evil.py:make")
    with pytest.raises(ConfigError, match="none of this package's"):
        render_policy("theirs.safetensors")
    assert not (in_tmp / "was_here").exists()
    with pytest.raises(ConfigError, match="it has no function 'make'"):
        envs.make("evil.py:make")  # the user's own word does
    assert (in_tmp / "was_here").exists()
