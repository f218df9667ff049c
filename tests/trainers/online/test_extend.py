"""A finished run with more iterations is the run that had them from the start.

A buffer of another size makes another program. With the few optimisations that tests have, XLA rounds in it in another
way now and then.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from epvf_data.config import to_dict
from epvf_data.errors import RunError
from epvf_data.trainers import checkpoint
from epvf_data.trainers.online.replay import FLOYD, distinct
from epvf_data.trainers.online.run import train_online
from epvf_data.trainers.online.settings import online_config

STEPS = {
    "env": f"{Path(__file__).with_name('slide.py')}:make",
    **{"envs": 4, "env_steps": None, "horizon": 20, "policy.hidden": [8], "critic.widths": [16], "critic.steps": 4},
    "time.segment": 5,
    "time.reward_range": [0.0, 1.0],
    "time.warmup": 20,
    "time.critic_first": 0,
    "time.probes": 4,
    "time.projection": 4,
    "replay.capacity": 128,
    "replay.batch_size": 16,
    "checkpoint_seconds": 0.0,
}
# name → settings, iterations of the run that ends first and of the longer one
RUNS = {
    "epvf": ({"seeds": 2}, 3, 5),
    "epvf, batches that are sorted out": (
        {"envs": 128, "horizon": 3, "replay.capacity": 2048, "replay.batch_size": FLOYD + 1},
        *(3, 5),
    ),
    "epvf, the buffer comes round": ({"replay.capacity": 24}, 2, 5),
    "epvf, from one iteration": ({}, 1, 3),
    "epvf, fresh rows": ({"replay.capacity": None, "replay.batch_size": None}, 1, 3),
    "es": ({"algorithm": "es", "seeds": 2}, 3, 5),
    "random": ({"algorithm": "random"}, 3, 5),
    "pavf": (STEPS, 2, 4),
}
ALWAYS = ("es",)
EXACT = ("epvf, fresh rows", "es", "random", "pavf")  # nothing of another size


def lines(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in found]


def close(line, rounding):
    return {name: value and pytest.approx(value, rel=rounding, abs=rounding) for name, value in line.items()}


def differing(first, second, rounding=0.0):
    """What two runs do not have in common, by name: to the bit, or by more than rounding."""
    trees = [checkpoint.restore(run / "checkpoints") for run in (first, second)]
    paths = [jax.tree_util.tree_flatten_with_path(tree)[0] for tree in trees]
    return [
        jax.tree_util.keystr(path)
        for (path, one), (other, two) in zip(*paths, strict=True)
        if path != other or not (np.allclose(one, two, rounding, rounding, True) or "seconds" in str(path))
    ]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.soak) for name in RUNS],
)
def test_a_finished_run_with_more_iterations_is_the_longer_run(tmp_path, cartpole, name):
    changes, first, last = RUNS[name]
    make = partial(online_config, "ant-pavf") if name == "pavf" else cartpole
    config = partial(make, **{"log_every": 1, **changes})
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    report = train_online(config(iterations=last), whole)
    assert train_online(config(iterations=first), extended).finished
    again = train_online(config(iterations=last), extended, resume=True)
    assert again.finished
    rounding = 0.0 if name in EXACT else 1e-5
    assert (again.iterations, again.env_steps) == (report.iterations, report.env_steps)
    for one, two in zip(lines(extended), lines(whole), strict=True):
        assert one == close(two, rounding)
    assert differing(extended, whole, rounding) == []
    assert json.loads((extended / "config.json").read_text())["config"] == to_dict(config(iterations=last))


def test_a_run_that_ended_between_two_log_entries_logs_again_where_the_longer_one_does(tmp_path, cartpole):
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    train_online(cartpole(seeds=2, log_every=4, iterations=9), whole)
    for iterations in (3, 9):
        train_online(cartpole(seeds=2, log_every=4, iterations=iterations), extended, resume=iterations > 3)
    assert [line["iteration"] for line in lines(whole)] == [4, 4, 8, 8, 9, 9]
    assert [line["iteration"] for line in lines(extended)] == [3, 3, 4, 4, 8, 8, 9, 9]
    # The best of more entries may differ.
    assert [name for name in differing(extended, whole, 1e-3) if "best" not in name] == []
    for one, two in zip(lines(extended)[-2:], lines(whole)[-2:], strict=True):
        assert one == close(two, 1e-2)


def test_rows_are_drawn_alike_from_a_buffer_with_more_room():
    key, count = jax.random.key(5), FLOYD + 1
    for filled in (300, 200):
        some, more = (np.asarray(distinct(key, count, size, jax.numpy.asarray(filled))) for size in (400, 5000))
        np.testing.assert_array_equal(some, more)


def test_a_checkpoint_of_another_form_is_told_with_what_it_has_and_should_have(tmp_path, cartpole):
    config = cartpole(log_every=1, iterations=2)
    train_online(config, tmp_path / "run")
    tree = checkpoint.restore(tmp_path / "run" / "checkpoints")
    tree["state"]["inner"]["buffer"]["base"] = np.zeros((1, 9, 4), np.float32)
    checkpoint.save(tmp_path / "run" / "checkpoints", 3, tree)
    told = r"does not fit these settings: state/.*buffer/base is float32\[1, 9, 4\], expected float32\[1, 1 to 4, \d+\]"
    with pytest.raises(RunError, match=told):
        train_online(cartpole(log_every=1, iterations=4), tmp_path / "run", resume=True)
