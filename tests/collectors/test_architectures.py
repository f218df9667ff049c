"""Several kinds of policies in one data set, through every verb that reads them."""

import json

import numpy as np
import pytest

import epvf_data
from epvf_data.collectors.collect import collect
from epvf_data.collectors.lot import lot_of
from epvf_data.collectors.setting import collect_config
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers.offline.publish import chance
from epvf_data.trainers.offline.source import open_source

SMALL = {"horizon": 20, "perturbed.bases": ["random"], "perturbed.random_bases": 3, "policy.hidden": [8, 5]}
KINDS = {"plain": {}, "norm": {"layer_norm": True}, "sampled": {"gaussian": "sampled"}}


def config(env="ant", envs=40, **policy):
    return collect_config(env, envs=envs, **SMALL, **{f"policy.{name}": value for name, value in policy.items()})


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Folder with ant.zarr: 40 rows of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for policy in KINDS.values():
        collect(config(**policy), folder / "ant.zarr", mixed=True)
    return folder


def test_each_kind_is_an_array_of_its_own_and_only_sampling_takes_more_episodes(three, shell):
    dataset = epvf_data.open(three / "ant.zarr")
    assert [item.spec for item in dataset.architectures] == [
        PolicySpec(34, 8, (8, 5), **kind) for kind in KINDS.values()
    ]
    assert [item.rows for item in dataset.architectures] == [40] * 3
    returns = [dataset.table(item.id).column("returns") for item in dataset.architectures]
    assert [piece.shape[1] for piece in returns] == [1, 1, 8]
    assert (returns[2].std(axis=1) > 0).all()
    told = shell("info", three / "ant.zarr").stdout
    assert "rows by source" in told
    for item in dataset.architectures:
        assert f"policies {item.spec} ({item.id[:8]}): 40 rows" in told


def test_all_are_rolled_out_again_to_the_bit_by_the_shell(three, shell):
    told = json.loads(shell("validate", str(three / "ant.zarr"), "--deep", "--resimulate", "120", "--json").stdout)
    assert (told["ok"], told["rows"], told["max_return_error"]) == (True, 120, 0)
    assert told["resimulated"] > 90  # as many of each kind as the draw gives, none twice


def test_a_row_of_each_kind_is_drawn_and_exported(three, shell):
    dataset = epvf_data.open(three / "ant.zarr")
    for number, item in enumerate(dataset.architectures):
        words = ("--row", "3", "--architecture", item.id, "--json")
        film = str(three / f"{number}.mp4")
        size = ("--width", "160", "--height", "90", "--episode", "5" if item.spec.sampled else "0", "--out", film)
        if item.spec.sampled:
            drawn = json.loads(shell("render", str(three / "ant.zarr"), *words, *size, "--quiet").stdout)
            assert drawn["return"] == drawn["stored_return"]
        policy = str(three / f"{number}.safetensors")
        json.loads(shell("export-policy", str(three / "ant.zarr"), *words, "--out", policy).stdout)
        spec, flat = epvf_data.load_policy(policy)
        assert spec == item.spec
        np.testing.assert_array_equal(flat, dataset.table(item.id).column("params")[3])


@pytest.mark.soak
def test_one_critic_reads_all_kinds_and_the_ceiling_knows_who_is_noisy(three, shell):
    words = ("--critic", "probing", "--split", "iid", "--out", str(three / "run"), "--json")
    quick = [word for change in ("seeds=1", "epochs=3", "probes=8", "resamples=20") for word in ("--set", change)]
    told = json.loads(shell("train-offline", str(three / "ant.zarr"), *words, *quick, "--quiet").stdout)
    assert told["rows_train"] + told["rows_test"] <= 120
    report = json.loads((three / "run" / "report.json").read_text())
    assert len(report["dataset"]["architectures"]) == 3
    assert 0 <= report["splits"]["iid"]["ceiling"]["r2"] < 1
    dataset = epvf_data.open(three / "ant.zarr")
    tables = [dataset.table(item.id) for item in dataset.architectures]
    vary, variances = chance(dataset, open_source(tables, 0))
    assert vary is True
    assert (variances[:80] == 0).all()
    assert (variances[80:] > 0).all()
    assert chance(dataset, open_source(tables[:2], 0))[0] is False


def test_one_episode_of_a_sampled_policy_leaves_the_ceiling_unknown(tmp_path):
    for policy, episodes in (({}, 1), ({"gaussian": "sampled"}, 1)):
        chosen = collect_config(
            "ant", envs=10, episodes=episodes, **SMALL, **{f"policy.{k}": v for k, v in policy.items()}
        )
        collect(chosen, tmp_path / "ant.zarr", mixed=True)
    dataset = epvf_data.open(tmp_path / "ant.zarr")
    vary, variances = chance(dataset, open_source([dataset.table(item.id) for item in dataset.architectures], 0))
    assert vary is True
    assert np.isnan(variances).all()


@pytest.mark.parametrize(("policy", "episodes"), [({}, 1), ({"gaussian": "mean"}, 1), ({"gaussian": "sampled"}, 8)])
def test_default_episodes(policy, episodes):
    assert lot_of(config(**policy)).episodes == episodes


def test_collections_from_before_these_settings_go_on():
    """The run's identity of a plain policy says nothing of them; those of the new kinds differ."""
    runs = [lot_of(config("cartpole", **kind)).run for kind in ({}, {"layer_norm": False}, *list(KINDS.values())[1:])]
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3
