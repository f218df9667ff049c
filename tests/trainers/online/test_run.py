"""Whole runs: what they leave behind, and that a killed one goes on to the same bits."""

from __future__ import annotations

import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epvf_data
from epvf_data.collectors.resimulate import resimulate
from epvf_data.config import to_dict
from epvf_data.errors import ArchitectureMismatchError, ConfigError, EnvironmentMismatchError, RunError
from epvf_data.policies.files import load_policy, read_notes, save_policy
from epvf_data.rollout import rollout
from epvf_data.store.digest import content_hash
from epvf_data.store.validate import validate
from epvf_data.trainers import checkpoint
from epvf_data.trainers.online import run
from epvf_data.trainers.online.exploration import spread
from epvf_data.trainers.online.loop import evaluation_seeds
from epvf_data.trainers.online.run import read_config, resolve, train_online

TWO = {"seeds": 2, "iterations": None, "env_steps": 480}  # compiled once for the tests that have them


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_clock(found):
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in found]


@pytest.mark.parametrize(
    ("task", "changes"),
    # CartPole is killed when one of its seeds has spent its budget and the other has not.
    [("cartpole", TWO), pytest.param("ant", {"seeds": 2}, marks=pytest.mark.soak)],
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, request, kill_at, task, changes):
    config = request.getfixturevalue(task)(**changes)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    report = train_online(config, whole, record=tmp_path / "whole.zarr")
    preset = {"cartpole": "cartpole-paper", "ant": "ant-cpu"}[task]
    kill_at(4, preset, to_dict(config), killed, tmp_path / "killed.zarr")
    assert not (killed / "report.json").exists()
    with pytest.raises(RunError, match="resume"):
        train_online(config, killed)
    again = train_online(config, killed, resume=True, record=tmp_path / "killed.zarr")
    names = ("return_perturbed", "return_best", "return_best_perturbed")
    assert [getattr(again, name) for name in names] == [getattr(report, name) for name in names]
    assert without_clock(lines(killed)) == without_clock(lines(whole))
    first, second = (checkpoint.restore(run / "checkpoints") for run in (whole, killed))
    first.pop("seconds"), second.pop("seconds")
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
    mine, others = epvf_data.open(tmp_path / "whole.zarr"), epvf_data.open(tmp_path / "killed.zarr")
    iterations = [max(line["iteration"] for line in lines(whole) if line["seed"] == seed) for seed in range(2)]
    assert mine.rows == others.rows == sum(iterations) * config.envs
    assert (len(set(iterations)) == 2) == (task == "cartpole")
    assert content_hash(mine) == content_hash(others)
    table, best = mine.table(), []
    runs, means = np.array(mine.lineage().words("run")), table.mean_returns()
    for seed in range(2):
        rows = np.flatnonzero([run.endswith(f"/{seed}") for run in runs])
        best.append(means[rows].max())
        for folder in (whole, killed):
            path = folder / "policies" / f"best-perturbed-{seed}.safetensors"
            assert load_policy(path)[1].tobytes() == table.column("params")[rows[means[rows].argmax()]].tobytes()
            assert float(read_notes(path)["return"]) == pytest.approx(best[-1])
    assert report.return_best_perturbed == pytest.approx(np.mean(best))
    assert report.return_best_perturbed > report.return_perturbed


def test_a_run_that_is_made_twice_at_once_records_each_row_once(tmp_path, cartpole):
    """While the first one trains, it is resumed, which is refused, and made again in another directory to its end."""
    config, rows = cartpole(iterations=4), tmp_path / "rows.zarr"
    told = []

    def meanwhile(event):
        if not told:
            with pytest.raises(RunError, match="another process trains .*run at this moment") as caught:
                train_online(config, tmp_path / "run", resume=True, record=rows)
            told.append(str(caught.value))
            train_online(config, tmp_path / "other", record=rows)

    train_online(config, tmp_path / "run", record=rows, progress=meanwhile)
    train_online(config, tmp_path / "third", record=tmp_path / "whole.zarr")
    assert content_hash(epvf_data.open(rows)) == content_hash(epvf_data.open(tmp_path / "whole.zarr"))
    train_online(config, tmp_path / "run", resume=True, record=rows)  # nobody holds it any more


def test_recorded_rows_tell_how_they_were_made(tmp_path, ant):
    config = ant(seeds=2, normalise_observations=False, **{"exploration.antithetic": True})
    train_online(config, tmp_path / "run", record=tmp_path / "rows.zarr")
    assert validate(tmp_path / "rows.zarr", deep=True) == []
    assert resimulate(epvf_data.open(tmp_path / "rows.zarr"), 40).max_error == 0
    table = epvf_data.open(tmp_path / "rows.zarr").table()
    rows = np.arange(table.rows)
    params, noise, signs = (table.take(name, rows) for name in ("params", "noise_seed", "sign"))
    iterations, runs = table.column("iteration"), table.column("run")
    assert set(np.asarray(iterations)) == set(range(config.iterations))
    assert list(table.vocabulary("source")) == ["epvf"]
    for row in (0, 20, table.rows - 1):
        family = np.flatnonzero((np.asarray(iterations) == iterations[row]) & (np.asarray(runs) == runs[row]))
        base = params[family].astype(np.float64).mean(axis=0)  # antithetic pairs cancel
        made = spread(config, jnp.asarray(base, jnp.float32), jnp.asarray(noise[row]), jnp.float32(signs[row]))
        np.testing.assert_allclose(made, params[row], atol=1e-6)


def test_recorded_rows_say_where_a_normaliser_is_folded_in(tmp_path, ant):
    train_online(
        ant(seeds=2, iterations=2, normalise_observations=True), tmp_path / "run", record=tmp_path / "rows.zarr"
    )
    assert list(epvf_data.open(tmp_path / "rows.zarr").table().vocabulary("law")) == ["gaussian normalised"]
    assert resimulate(epvf_data.open(tmp_path / "rows.zarr"), 10).max_error == 0


@pytest.mark.parametrize("task", [pytest.param("cartpole", marks=pytest.mark.soak), "ant"])
def test_sampled_policies_with_layer_norm_are_trained_and_their_rows_rolled_out_again(request, tmp_path, task):
    """On the Ant θ is judged in eight episodes, for its start is fixed and its actions are not."""
    kind = {"policy.layer_norm": True, "policy.gaussian": "sampled", "policy.bias": True}
    config = request.getfixturevalue(task)(iterations=2, normalise_observations=True, **kind)
    train_online(config, tmp_path / "run", record=tmp_path / "rows.zarr")
    dataset = epvf_data.open(tmp_path / "rows.zarr")
    assert dataset.table().spec.sampled
    assert resimulate(dataset, 10).max_error == 0
    env, spec, backend = resolve(config)
    loaded, params = load_policy(tmp_path / "run" / "policies" / "last-0.safetensors")
    assert loaded == spec
    judged = rollout(env, spec, params[None], reset_seed=evaluation_seeds(1), episodes=8, backend=backend).returns
    assert len(np.unique(judged)) > 1
    np.testing.assert_allclose(judged.mean(), lines(tmp_path / "run")[-1]["return_unperturbed"], rtol=1e-5)


def test_policies_and_report_of_a_finished_run(tmp_path, ant):
    config = ant(seeds=2)
    events = []
    report = train_online(config, tmp_path / "run", progress=events.append)
    assert report.finished
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report.to_dict()
    assert read_config(tmp_path / "run") == config
    assert [event["iteration"] for event in events] == list(range(1, 7))
    assert events[-1]["fraction"] == 1.0
    found = lines(tmp_path / "run")
    assert [(line["iteration"], line["seed"]) for line in found] == [(i, s) for i in range(1, 7) for s in (0, 1)]
    assert all(line["rollout_seconds"] > 0 for line in found)
    env, spec, backend = resolve(config)
    for seed in (0, 1):
        mine = [line for line in found if line["seed"] == seed]
        for name, wanted in (("last", mine[-1]), ("best", max(mine, key=lambda line: line["return_unperturbed"]))):
            loaded, params = load_policy(tmp_path / "run" / "policies" / f"{name}-{seed}.safetensors")
            assert loaded == spec
            again = rollout(env, spec, params[None], reset_seed=evaluation_seeds(1), backend=backend)
            np.testing.assert_allclose(again.returns[0, 0], wanted["return_unperturbed"], rtol=1e-6)
    assert list((tmp_path / "run" / "tensorboard" / "seed-1").iterdir())


def test_a_run_stops_when_its_time_is_up_and_goes_on(tmp_path, cartpole):
    config = cartpole(**TWO)
    rows = {"record": tmp_path / "rows.zarr"}
    first = train_online(config, tmp_path / "run", max_seconds=0.01, **rows)
    assert (first.iterations, first.finished) == (2, False)
    with pytest.raises(RunError, match=r"critic\.steps 2 \(now 3\)"):
        train_online(cartpole(**TWO, **{"critic.steps": 3}), tmp_path / "run", resume=True)
    # An earlier version began it: it did not know a setting, and named the run in another way.
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    del stored["config"]["improvement"]["final_at"]
    (tmp_path / "run" / "config.json").write_text(json.dumps({**stored, "run": "earlier"}))
    assert train_online(config, tmp_path / "run", resume=True, **rows).finished
    with pytest.raises(RunError, match="no run"):
        train_online(config, tmp_path / "other", resume=True)


def test_a_run_ends_before_its_time_is_up_where_the_next_log_entry_would_not(tmp_path, cartpole, monkeypatch):
    """A cluster's limit kills what oversteps it: with entries of ten seconds, 25 seconds have room for two."""
    clock = types.SimpleNamespace(now=0.0)
    loop = run.make_loop(cartpole(**TWO), *resolve(cartpole(**TWO)))

    def advance(*arguments):
        clock.now += 10.0
        return loop.advance(*arguments)

    monkeypatch.setattr(run, "make_loop", lambda *_: loop._replace(advance=advance))
    monkeypatch.setattr(run, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    report = train_online(cartpole(**TWO), tmp_path / "run", max_seconds=25.0)
    assert (report.finished, report.seconds) == (False, 20.0)
    assert len({line["iteration"] for line in lines(tmp_path / "run")}) == 2


def test_a_finished_run_goes_on_with_a_larger_budget_to_the_bits_of_the_longer_run(tmp_path, cartpole):
    one = {"iterations": None, "env_steps": 480}  # several seeds end apart, and go on from where each ended
    short, long = cartpole(**{**one, "env_steps": 200}), cartpole(**one)
    folders = whole, extended = tmp_path / "whole", tmp_path / "extended"
    train_online(long, whole, record=tmp_path / "whole.zarr")
    assert train_online(short, extended, record=tmp_path / "extended.zarr").finished
    with pytest.raises(RunError, match=r"env_steps 200 \(now 100\)"):
        train_online(cartpole(**{**one, "env_steps": 100}), extended, resume=True, record=tmp_path / "extended.zarr")
    copied = tmp_path / "killed"
    shutil.copytree(extended, copied)
    stored = json.loads((copied / "config.json").read_text())
    stored["config"]["env_steps"], stored["record"] = 480, None
    (copied / "config.json").write_text(json.dumps(stored))
    finished = []
    see = lambda _: finished.append((extended / "report.json").exists())  # noqa: E731
    report = train_online(long, extended, resume=True, record=tmp_path / "extended.zarr", progress=see)
    assert report.finished
    killed = copied  # after the budget was written down, and before the first checkpoint that knows of it
    assert train_online(long, killed, resume=True).finished
    assert without_clock(lines(killed)) == without_clock(lines(extended))
    pace = [checkpoint.restore(run / "checkpoints")["state"]["fraction"] for run in (killed, extended)]
    assert pace[0] == pytest.approx(pace[1])
    assert finished
    assert not any(finished)
    assert read_config(extended) == long
    assert report.env_steps == json.loads((whole / "report.json").read_text())["env_steps"]
    assert without_clock(lines(extended)) == without_clock(lines(whole))
    first, second = (checkpoint.restore(run / "checkpoints") for run in folders)
    assert first["state"]["fraction"] == pytest.approx(second["state"]["fraction"])
    for tree in (first, second):
        tree.pop("seconds"), tree["state"].pop("fraction")
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), first, second))
    falling = {"improvement.final_learning_rate": 1e-4}
    train_online(cartpole(**{**one, "env_steps": 200}, **falling), tmp_path / "falling")
    with pytest.raises(RunError, match="over which its learning rate falls"):
        train_online(cartpole(**one, **falling), tmp_path / "falling", resume=True)


def test_a_warm_critic_knows_the_rows_it_was_fitted_on(tmp_path, ant):
    wide = {"critic.name": "mlp", "critic.target": "standardised", "critic.widths": [32], "envs": 64, "seeds": 2}
    config = ant(**wide, **{"critic.warm_steps": 300, "critic.learning_rate": 3e-3})
    # The rows are the first iteration's own, so a critic that was fitted on them predicts it.
    train_online(ant(**wide, iterations=1), tmp_path / "made", record=tmp_path / "rows.zarr")
    cold = lines_of(train_online(config, tmp_path / "cold"), tmp_path / "cold")
    warm = lines_of(train_online(config, tmp_path / "warm", warm_start=tmp_path / "rows.zarr"), tmp_path / "warm")
    assert all(line["critic_heldout_correlation"] > 0.8 for line in warm[:2])
    assert all(abs(line["critic_heldout_correlation"]) < 0.5 for line in cold[:2])
    with pytest.raises(ConfigError, match="leave --warm-start out"):
        train_online(ant(), tmp_path / "none", warm_start=tmp_path / "rows.zarr")
    with pytest.raises(EnvironmentMismatchError, match="differ in horizon 12 and 13.*--warm-start"):
        train_online(ant(**wide, horizon=13), tmp_path / "none", warm_start=tmp_path / "rows.zarr")
    assert not (tmp_path / "none").exists()


def lines_of(report, run):
    assert report.finished
    return lines(run)


def test_a_run_starts_from_a_policy_file_and_its_own_policies_are_such_files(tmp_path, ant):
    config = ant(algorithm="random", iterations=1, start=str(tmp_path / "start.safetensors"))
    _, spec, _ = resolve(config)
    save_policy(tmp_path / "start.safetensors", spec, np.full(spec.size, 0.01, np.float32))
    train_online(config, tmp_path / "run", record=tmp_path / "rows.zarr")
    params = epvf_data.open(tmp_path / "rows.zarr").table().take("params", np.arange(16))
    np.testing.assert_allclose(params[0], 0.01, atol=1e-6)  # random search rolls θ itself out as well
    assert (np.abs(params[1:] - 0.01).max(axis=1) > 1e-3).all()
    collected = epvf_data.collect(
        epvf_data.collect_config(
            "ant",
            envs=4,
            horizon=12,
            **{
                "policy.hidden": [8],
                "random.share": 0.0,
                "perturbed.bases": [str(tmp_path / "run" / "policies" / "best-0.safetensors")],
            },
        ),
        tmp_path / "around.zarr",
    )
    assert collected.rows == 4
    other = ant(iterations=1, start=str(tmp_path / "start.safetensors"), **{"policy.hidden": [9]})
    with pytest.raises(ArchitectureMismatchError, match=r"policy\.hidden"):
        train_online(other, tmp_path / "wrong")
