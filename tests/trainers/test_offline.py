"""Offline training end to end on the real store: contract, honesty, isolation of the test rows, refusals."""

from __future__ import annotations

import dataclasses
import json
import time

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import epvf_data
from epvf_data.critics.base import Scale
from epvf_data.curation.select import withhold
from epvf_data.errors import ConfigError, DatasetError, RunError
from epvf_data.trainers import checkpoint, rundir
from epvf_data.trainers.offline.run import evaluate_run, train_offline
from epvf_data.trainers.offline.settings import QUICK, OfflineConfig

FILES = {"config.json", "versions.json", "metrics.jsonl", "checkpoints", "report.json", "predicted_vs_true.png"}


def quick(**changes) -> OfflineConfig:
    small = {"critic": "mlp", "folds": 1, "epochs": 4, "widths": (16,), "batch_size": 64, "seeds": 2, "resamples": 40}
    return OfflineConfig(**{**small, **changes})


def fitted(run, split, what) -> list[np.ndarray]:
    return jax.tree.leaves(checkpoint.restore(run / "checkpoints" / split / what))


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished run on both splits, its report, and the progress that it gave."""
    run, seen, told = tmp_path_factory.mktemp("runs") / "run", [], {}

    def tell(name, result):
        told[name] = (result, len(seen), (run / "report.json").exists())

    began = time.perf_counter()
    report = train_offline(dataset, quick(), run, progress=seen.append, told=tell)
    assert report.seconds == pytest.approx(time.perf_counter() - began, abs=0.5)  # the whole run
    assert [(one[0], one[2]) for one in told.values()] == [(split, False) for split in report.splits.values()]
    assert told["iid"][1] < told["lineage"][1] == len(seen)  # told before the next split is fitted
    return run, report, seen


def test_the_report_and_the_run_directory_keep_the_contract(finished, dataset):
    run, report, seen = finished
    assert {path.name for path in run.iterdir()} == FILES
    assert json.loads((run / "report.json").read_text()) == report.to_dict()
    iid, lineage = report.splits["iid"], report.splits["lineage"]
    assert (report.critic, report.split) == ("mlp", "lineage")
    assert (report.rows_train, report.rows_test) == (lineage["rows_train"], lineage["rows_test"]) != (540, 60)
    assert (iid["rows_train"], iid["rows_test"]) == (540, 60)
    assert (report.spearman, report.kendall, report.r2) == tuple(
        lineage["critic"][k] for k in ("spearman", "kendall", "r2")
    )
    assert report.seconds > report.seconds_fitting == iid["seconds"] + lineage["seconds"] > 0
    assert iid["families_train"] == iid["families_test"] == 12  # siblings on both sides
    assert lineage["families_train"] + lineage["families_test"] == 12  # none on both
    for split in (iid, lineage):
        assert split["available"]
        assert split["finished"]
        assert split["controls"]["mean"]["r2"] <= 0
        assert split["controls"]["mean"]["spearman"] == 0.0
        assert split["verdict"] in report.verdict
        low, high = split["critic"]["interval"]["spearman"]
        assert -1 <= low <= high <= 1
    settings = json.loads((run / "config.json").read_text())
    assert settings["config"]["widths"] == [16]
    assert settings["dataset"]["path"] == str(dataset.absolute())
    assert json.loads((run / "versions.json").read_text())["jax"] == jax.__version__
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["split"], line["epoch"]) for line in lines] == [(item["split"], item["epoch"]) for item in seen]
    assert len(lines[0]["train_loss"]) == len(lines[0]["validation_loss"]) == 2
    assert (run / "predicted_vs_true.png").read_bytes().startswith(b"\x89PNG")


def test_evaluating_again_gives_the_same_report(finished, tmp_path):
    run, report, _ = finished
    assert evaluate_run(run) == report
    (run / "report.json").unlink()  # and with it, how long all but the fits took
    again = evaluate_run(run)
    assert again == dataclasses.replace(report, seconds=report.seconds_fitting)
    assert json.loads((run / "report.json").read_text()) == again.to_dict()
    rundir.write_json(run / "report.json", report.to_dict())
    with pytest.raises(RunError, match="holds no run"):
        evaluate_run(tmp_path)


def test_resuming_a_finished_run_trains_no_more(finished, dataset):
    run, report, _ = finished
    seen = []
    again = train_offline(dataset, quick(), run, resume=True, progress=seen.append)
    assert again == dataclasses.replace(report, seconds=again.seconds)
    assert again.seconds > report.seconds
    assert seen == []


def test_a_linear_signal_is_found_and_the_numbers_are_of_the_test_rows(finished, dataset):
    run, report, _ = finished
    control = report.splits["iid"]["controls"]["ridge"]
    assert control["spearman"] > 0.9
    ground = checkpoint.restore(run / "checkpoints" / "iid" / "ground")
    rows = epvf_data.open(dataset).table()
    scale, test, plane = Scale(**ground["scale"]["0"]), ground["test"], ground["ridge"]["0"]
    standard = (rows.take("params", test) - scale.theta_mean) / scale.theta_std
    predicted = (standard @ plane["weights"] + plane["bias"]) * scale.return_std + scale.return_mean
    true = rows.take("returns", test)[:, 0]
    spread = np.square(true - true.mean()).sum()
    assert control["r2"] == pytest.approx(1 - np.square(true - predicted).sum() / spread, abs=1e-4)


def test_shuffled_returns_are_reported_as_unpredictable(toy, tmp_path):
    scores, verdicts = [], []
    for seed in range(3):
        theta, returns, families = toy.linear_rows(seed=seed)
        returns = np.random.default_rng(seed).permutation(returns)
        path = toy.write(tmp_path / f"{seed}.zarr", theta, returns, families)
        report = train_offline(path, quick(split="iid", resamples=100), tmp_path / f"run{seed}")
        scores += [report.spearman, report.splits["iid"]["controls"]["ridge"]["spearman"]]
        verdicts.append("no better than chance" in report.verdict)
    assert abs(np.mean(scores)) < 0.2
    assert sum(verdicts) >= 2


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), split=st.sampled_from(["iid", "lineage"]))
def test_no_test_row_ever_enters_training(finished, toy, tmp_path_factory, seed, split):
    run, _, _ = finished
    folder = tmp_path_factory.mktemp("changed")
    theta, returns, families = toy.linear_rows()
    test = checkpoint.restore(run / "checkpoints" / split / "ground")["test"]
    random = np.random.default_rng(seed)
    theta[test] = random.normal(scale=100.0, size=(len(test), toy.SPEC.size))
    returns[test] = random.normal(scale=1e4, size=(len(test), 1))
    path = toy.write(folder / "toy.zarr", theta, returns, families)
    train_offline(path, quick(split=split), folder / "run")
    for what in ("ground", "final"):
        before = checkpoint.restore(run / "checkpoints" / split / what)
        after = checkpoint.restore(folder / "run" / "checkpoints" / split / what)
        del before["seconds"], after["seconds"]
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_streaming_learns_the_same_thing_in_parts(toy, tmp_path):
    theta, returns, families = toy.linear_rows(episodes=3)
    path = toy.write(tmp_path / "toy.zarr", theta, returns, families, parts=3)
    longer = {"epochs": 30, "learning_rate": 3e-3}
    resident = train_offline(path, quick(**longer), tmp_path / "resident")
    streamed = train_offline(path, quick(**longer, device_bytes=0), tmp_path / "streamed")
    for split in ("iid", "lineage"):
        one, other = resident.splits[split], streamed.splits[split]
        for key in ("spearman", "kendall", "r2"):  # the plane does not depend on how its rows are read
            assert one["controls"]["ridge"][key] == pytest.approx(other["controls"]["ridge"][key], abs=1e-6)
        assert one["critic"]["spearman"] == pytest.approx(other["critic"]["spearman"], abs=0.1)  # another batch order
        assert one["ceiling"] == other["ceiling"]
        assert 0.5 < one["ceiling"]["r2"] < 1.0
    assert streamed.spearman > 0.7
    again = train_offline(path, quick(**longer, device_bytes=0), tmp_path / "again")
    assert again.splits["iid"]["critic"] == streamed.splits["iid"]["critic"]


def test_over_the_folds_every_family_is_held_out_once(toy, tmp_path):
    theta, returns, families = toy.linear_rows(rows=240)
    path = toy.write(tmp_path / "toy.zarr", theta, returns, families)
    report = train_offline(path, quick(folds=3, epochs=2, seeds=1, critic="linear"), tmp_path / "run")
    lineage = report.splits["lineage"]
    assert (lineage["folds"], lineage["rows_test"], lineage["families_test"]) == (3, 240, 12)
    assert lineage["rows_train"] + lineage["rows_test"] / 3 == 240
    assert lineage["controls"]["mean"]["r2"] == pytest.approx(0, abs=0.02)
    assert lineage["critic"]["within"]["families"] == 12
    assert "Among the policies of one such family" in lineage["verdict"]
    assert report.splits["iid"]["folds"] == 1
    held_out = [fitted(tmp_path / "run", name, "ground") for name in ("lineage", "lineage-2", "lineage-3")]
    assert len(held_out) == 3
    assert evaluate_run(tmp_path / "run") == report
    one = train_offline(path, quick(folds=99, epochs=1, seeds=1, critic="ridge"), tmp_path / "each")
    assert one.splits["lineage"]["folds"] == 12  # leave one family out


def test_beside_the_ridge_on_actions_stands_the_one_on_parameters(toy, tmp_path):
    theta, returns, families = toy.acting_rows(toy.SPEC)
    path = toy.write(tmp_path / "acting.zarr", theta, returns, families, states=toy.STATES)
    report = train_offline(path, OfflineConfig(resamples=40, folds=3), tmp_path / "run")
    alone = train_offline(path, OfflineConfig(critic="ridge", resamples=40, folds=3), tmp_path / "alone")
    for name, split in report.splits.items():
        assert split["ridge_reads"] == "params"
        assert split["controls"]["ridge"] == alone.splits[name]["critic"]
        assert split["critic"]["spearman"] > 0.99 > split["controls"]["ridge"]["spearman"]  # made of actions
        assert "the critic ranks better than the ridge on θ" in split["verdict"]
    assert evaluate_run(tmp_path / "run") == report
    withhold(path, tmp_path / "bare.zarr")
    bare = train_offline(tmp_path / "bare.zarr", OfflineConfig(resamples=40, folds=3), tmp_path / "bare")
    assert bare.splits["lineage"]["critic"] == report.splits["lineage"]["critic"]
    assert bare.splits["lineage"]["controls"]["ridge"] is None


def test_the_ridge_as_critic_needs_no_steps(dataset, tmp_path):
    report = train_offline(dataset, quick(critic="ridge", split="iid"), tmp_path / "run")
    iid = report.splits["iid"]
    assert iid["controls"]["ridge"] is None  # no control of itself
    assert iid["critic_against_ridge"] is None
    assert "the critic ranks better than chance" in report.verdict
    assert "it is the ridge itself" in report.verdict
    assert iid["epochs"] == 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert evaluate_run(tmp_path / "run") == report


def test_a_quick_look_costs_a_tenth():
    for steps in (3, 15, 200):  # of an epoch
        whole, look = OfflineConfig(), OfflineConfig(**QUICK)
        assert look.seeds * look.plan(steps)[0] <= whole.seeds * whole.plan(steps)[0] / 5
    assert OfflineConfig(**QUICK).plan(3)[0] * 3 >= 100


def test_one_family_leaves_the_lineage_split_out_or_refuses(toy, tmp_path):
    theta, returns, _ = toy.linear_rows(rows=80)
    path = toy.write(tmp_path / "one.zarr", theta, returns, np.zeros(80, int))
    report = train_offline(path, quick(), tmp_path / "both")
    assert report.splits["lineage"]["available"] is False
    assert "two families" in report.splits["lineage"]["reason"]
    assert report.splits["iid"]["available"]
    assert evaluate_run(tmp_path / "both") == report
    with pytest.raises(DatasetError, match="two families"):
        train_offline(path, quick(split="lineage"), tmp_path / "lineage")
    assert not (tmp_path / "lineage").exists()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda theta, returns: (theta[:1], returns[:1]), "got 1 rows"),
        (lambda theta, returns: (theta, np.full_like(returns, 7.0)), "all 600 returns are 7"),
        (lambda theta, returns: (np.where(np.arange(600)[:, None] == 17, np.nan, theta), returns), "row 17 has param"),
        (lambda theta, returns: (theta, np.where(np.arange(600)[:, None] == 3, np.inf, returns)), "row 3 has a return"),
    ],
)
@pytest.mark.parametrize("device_bytes", [0, 1 << 30])
def test_rows_that_cannot_be_learned_from_are_refused(toy, tmp_path, harm, message, device_bytes):
    theta, returns, families = toy.linear_rows()
    theta, returns = harm(theta, returns)
    path = toy.write(tmp_path / "bad.zarr", theta, returns, families[: len(theta)])
    with pytest.raises(DatasetError, match=message):
        train_offline(path, quick(device_bytes=device_bytes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_directories_and_other_settings_or_rows_are_refused(finished, toy, dataset, tmp_path):
    run, _, _ = finished
    with pytest.raises(RunError, match="exists already; resume it .--resume., or choose another"):
        train_offline(dataset, quick(), run)
    with pytest.raises(RunError, match="seeds 2 \\(now 5\\)"):
        train_offline(dataset, quick(seeds=5), run, resume=True)
    theta, returns, families = toy.linear_rows(seed=9)
    other = toy.write(tmp_path / "other.zarr", theta, returns, families)
    with pytest.raises(RunError, match="other content"):
        train_offline(other, quick(), run, resume=True)
    with pytest.raises(RunError, match="nowhere does not exist; check the name"):
        train_offline(dataset, quick(), tmp_path / "nowhere", resume=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no run"):
        train_offline(dataset, quick(), tmp_path / "empty", resume=True)
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "config.json").write_text('{"config": {"env": "ant"}}')
    with pytest.raises(RunError, match="no run of train-offline"):
        train_offline(dataset, quick(), tmp_path / "online", resume=True)
    with pytest.raises(RunError, match="no run of train-offline"):
        evaluate_run(tmp_path / "online", dataset)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        train_offline(dataset, quick(), tmp_path / "full")
    with pytest.raises(RunError, match="not finite after epoch"):
        train_offline(dataset, quick(learning_rate=1e30), tmp_path / "hot")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "mpl"}, "did you mean mlp"),
        ({"split": "random"}, "choose one of"),
        ({"seeds": 0}, "at least 1"),
        ({"test_fraction": 1.0}, "between 0 and 1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"weight_decay": -1.0}, "at least 0"),
        ({"widths": (0,)}, "at least 1"),
        ({"widths": (1.5,)}, "whole number"),
        ({"resamples": 10**9}, "resamples is 1000000000; it must be at most 10,000"),
        ({"seeds": 10**9}, "at most 1,000"),
        ({"widths": (1,) * 1000}, "at most 64"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"seeds": 1000, "ensemble": 1000}, "seeds × ensemble is 1,000,000"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        OfflineConfig(**changes)


@pytest.mark.parametrize("rows", [100, 2_000, 4_000, 20_000, 1_000_000])
def test_a_first_look_fits_as_many_times_fewer_batches_as_it_is_said(rows):
    batches = -(-rows // OfflineConfig.batch_size)
    config, quick = OfflineConfig(), OfflineConfig(**QUICK)
    fitted = [one.plan(batches)[0] * one.seeds * one.fits for one in (config, quick)]
    assert config.quicker(config.plan(batches)[0]) == pytest.approx(fitted[0] / fitted[1], abs=1)
    assert quick.quicker(quick.plan(batches)[0]) == 1  # and so nothing is said
    assert (
        OfflineConfig(epochs=40).quicker(40) == 3 * config.seeds
    )  # six fits for two; --quick leaves stated epochs alone
