"""Offline training with every family of critics: losses, ensembles, splits, several architectures at once."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

import epvf_data
from epvf_data.critics.families import CRITICS
from epvf_data.curation.select import withhold
from epvf_data.errors import ConfigError, DatasetError, RunError
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers import checkpoint
from epvf_data.trainers.evaluation.evaluate import evaluate
from epvf_data.trainers.offline.batches import shape_epoch
from epvf_data.trainers.offline.run import evaluate_run, train_offline
from epvf_data.trainers.offline.settings import SPLITS, OfflineConfig
from epvf_data.trainers.offline.source import open_source
from epvf_data.trainers.offline.splits import make_splits

MANY = ("linear", "statistics", "simba", "probing+raw", "unf", "unf+raw")  # the others stand for them in `make test`


def quick(**changes) -> OfflineConfig:
    small = {"widths": (32,), "probes": 8, "channels": 4, "layers": 1, "batch_size": 64, "seeds": 2, "resamples": 40}
    return OfflineConfig(**{**small, "split": "iid", "learning_rate": 3e-3, **changes})


@pytest.fixture(scope="module")
def acting(toy, tmp_path_factory):
    """One architecture, returns that depend on the actions."""
    path = tmp_path_factory.mktemp("data") / "acting.zarr"
    return toy.write(path, *toy.acting_rows(toy.SPEC, 600), states=toy.STATES)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name in MANY)) for name in CRITICS])
def test_every_critic_learns_and_is_evaluated_again(name, acting, tmp_path):
    report = train_offline(acting, quick(critic=name, epochs=25, weight_decay=0.1), tmp_path / "run")
    iid = report.splits["iid"]
    assert iid["available"]
    assert evaluate_run(tmp_path / "run") == report
    assert report.spearman > {"statistics": 0.0, "unf": 0.2, "probing": 0.7, "stored-probing": 0.9}.get(name, 0.3)
    if CRITICS[name].reads == "probe_actions":
        plane = iid["critic"] if CRITICS[name].closed else iid["controls"]["ridge"]
        assert plane["r2"] > 0.99  # the plane over stored actions is the truth


@pytest.mark.parametrize(
    "loss", [pytest.param("mse", marks=pytest.mark.soak), "hl-gauss", pytest.param("rank", marks=pytest.mark.soak)]
)
def test_every_loss_predicts_returns_in_their_units(loss, acting, tmp_path):
    report = train_offline(acting, quick(critic="stored-probing", loss=loss, epochs=60), tmp_path / "run")
    assert report.spearman > 0.95
    assert report.r2 > 0.7
    assert evaluate_run(tmp_path / "run") == report


def test_an_ensemble_is_its_members(acting, tmp_path):
    alone = train_offline(acting, quick(critic="stored-probing", seeds=6, epochs=5), tmp_path / "alone")
    found = {
        bound: train_offline(
            acting, quick(critic="stored-probing", ensemble=3, bound=bound, epochs=5), tmp_path / bound
        )
        for bound in ("mean", "min", "lower")
    }
    folder = "checkpoints/iid/final"
    one, other = (checkpoint.restore(tmp_path / run / folder)["best"] for run in ("alone", "mean"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one, other)  # seeds × members
    each = {bound: report.splits["iid"]["critic"] for bound, report in found.items()}
    assert len(each["mean"]["per_seed"]["r2"]) == 2
    assert each["mean"]["r2"] >= alone.r2
    bias = {bound: found["top_tenth"]["bias"] for bound, found in each.items()}
    assert max(bias["min"], bias["lower"]) < bias["mean"]


@pytest.mark.parametrize(
    "changes", [{"gradient_penalty": 10.0}, pytest.param({"augment": "both"}, marks=pytest.mark.soak)]
)
def test_switches_change_what_is_learned(acting, tmp_path, changes):
    plain = train_offline(acting, quick(critic="mlp", epochs=3), tmp_path / "plain")
    other = train_offline(acting, quick(critic="mlp", epochs=3, **changes), tmp_path / "other")
    assert other.splits["iid"]["critic"] != plain.splits["iid"]["critic"]
    blocks = train_offline(acting, quick(critic="mlp", epochs=3, block=24), tmp_path / "blocks")
    assert blocks.r2 == pytest.approx(plain.r2, abs=1e-3)  # the same sums in another order


def test_augmented_policies_make_the_order_of_hidden_units_meaningless(toy, acting, tmp_path):
    """An MLP that saw every policy in many orders says nearly the same of a policy and of itself renumbered."""
    config = quick(critic="mlp", epochs=40, augment="permute", seeds=1)
    report = train_offline(acting, config, tmp_path / "run")
    assert report.spearman > 0.5


@pytest.mark.parametrize(
    ("name", "device_bytes"),
    [
        pytest.param("probing", 1 << 30, marks=pytest.mark.soak),
        ("stored-probing", 0),
        pytest.param("stored-probing", 1 << 30, marks=pytest.mark.soak),
    ],
)
def test_one_critic_reads_several_architectures(mixed, tmp_path, name, device_bytes):
    config = quick(critic=name, split="iid,architecture", epochs=40, device_bytes=device_bytes)
    report = train_offline(mixed, config, tmp_path / "run")
    unseen = report.splits["architecture"]
    assert len(report.dataset["architectures"]) == 3
    assert unseen["rows_test"] == 260  # the smallest architecture
    assert report.spearman > 0.8
    assert unseen["critic"]["spearman"] > 0.7
    assert evaluate_run(tmp_path / "run") == report
    if name == "probing":  # nothing can be said from parameters of another architecture
        assert unseen["controls"]["ridge"] is None
        assert "no ridge on their parameters can be fitted" in unseen["verdict"]
    else:  # one ridge on the actions of all architectures is the truth
        assert unseen["controls"]["ridge"]["spearman"] > 0.99
        assert unseen["ridge_rows"] == unseen["rows_train"]
        assert "the ridge on actions reaches" in unseen["verdict"]
    assert report.splits["iid"]["controls"]["ridge"]["spearman"] > 0.2


def test_who_reads_parameters_needs_one_architecture(mixed, tmp_path):
    with pytest.raises(DatasetError, match="name exactly one"):
        train_offline(mixed, quick(critic="mlp"), tmp_path / "run")
    spec = PolicySpec(3, 2, (9,))
    report = train_offline(mixed, quick(critic="mlp", epochs=2, architecture=spec.id[:12]), tmp_path / "one")
    assert report.dataset["policies"] == "3-9-2"
    with pytest.raises(DatasetError, match="needs two architectures"):
        train_offline(
            mixed, quick(critic="probing", split="architecture", architecture=spec.id), tmp_path / "architecture"
        )


def test_stored_actions_have_to_be_there(dataset, tmp_path):
    with pytest.raises(DatasetError, match="no actions in probing states .*--critic mlp"):
        train_offline(dataset, quick(critic="stored-probing"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_source_or_architecture_that_is_held_out_can_be_named(mixed):
    opened = epvf_data.open(mixed)
    source = open_source([opened.table(item.id) for item in opened.architectures], 0)
    for place, item in enumerate(opened.architectures):
        test = make_splits(source, "architecture", 0.1, 0.1, 0, item.id[:6])[0].test
        assert set(source.places(test)) == {place}
        assert len(test) == item.rows
    kinds = np.array(source.kinds)
    for name in set(source.kinds):
        assert set(kinds[make_splits(source, "source", 0.1, 0.1, 0, name)[0].test]) == {name}
    for split in ("source", "architecture"):
        with pytest.raises(DatasetError, match="held_out is 'none', and these"):
            make_splits(source, split, 0.1, 0.1, 0, "none")


def test_a_task_that_many_solve_has_no_highest_returns_to_rank(mixed):
    opened = epvf_data.open(mixed)
    source = open_source([opened.table(item.id) for item in opened.architectures], 0)
    best = np.sort(source.labels)[-100]
    with pytest.raises(DatasetError, match="highest returns are all .* nothing to rank; choose another split"):
        make_splits(replace(source, labels=np.minimum(source.labels, best)), "high", 0.1, 0.1, 0)


@pytest.mark.parametrize("name", SPLITS)
def test_splits_hold_out_what_they_say(name, mixed):
    opened = epvf_data.open(mixed)
    source = open_source([opened.table(item.id) for item in opened.architectures], 0)
    split = make_splits(source, name, 0.1, 0.1, seed=0)[0]
    together = np.concatenate(split)
    assert sorted(together.tolist()) == list(range(840))  # every row once
    train, test = split.train, split.test
    if name == "high":
        assert source.labels[train].max() < source.labels[test].min()
        assert source.labels[split.fit].max() < source.labels[split.validation].min()
    elif name == "lineage":
        assert not set(source.families[train]) & set(source.families[test])
    elif name == "architecture":
        assert not set(source.places(train)) & set(source.places(test))
    elif name == "source":
        kinds = np.array(source.kinds)
        assert set(kinds[test]) == {"random"}
        assert "random" not in set(kinds[train])


@pytest.mark.parametrize(("counts", "batch"), [((100,), 32), ((9, 9), 5), ((1000, 3, 40), 64), ((5, 0, 7), 4)])
def test_an_epoch_has_room_for_every_row_and_no_empty_step(counts, batch):
    shape = shape_epoch(counts, batch)
    assert all(size * shape.steps >= count for count, size in zip(counts, shape.sizes, strict=True))
    last = [count - size * (shape.steps - 1) for count, size in zip(counts, shape.sizes, strict=True)]
    assert max(last) > 0
    assert sum(shape.sizes) < batch + len(counts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "iid,random"}, "there is no split 'random'"),
        ({"critic": "ridge", "loss": "rank"}, "closed form"),
        ({"critic": "ridge", "ensemble": 2}, "closed form"),
    ],
)
def test_settings_that_contradict_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        OfflineConfig(**changes)


def test_stored_actions_need_no_parameters(acting, tmp_path):
    withhold(acting, tmp_path / "bare.zarr")
    config = quick(critic="stored-probing", epochs=5)
    reports = [train_offline(path, config, tmp_path / path.stem) for path in (acting, tmp_path / "bare.zarr")]
    assert reports[0].splits["iid"]["critic"] == reports[1].splits["iid"]["critic"]
    with pytest.raises(DatasetError, match="withheld; their actions"):
        train_offline(tmp_path / "bare.zarr", quick(critic="mlp"), tmp_path / "mlp")
    with pytest.raises(RunError, match="judge the critic's predictions alone with --no-rollouts"):
        evaluate(tmp_path / "bare")
    assert evaluate(tmp_path / "bare", rollouts=False)["gradient"] is None
