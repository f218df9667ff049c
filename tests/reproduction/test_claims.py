"""Verdicts follow the intervals: each way that a claim can go, on curves whose truth is known."""

import json
import re

import numpy as np
import pytest

from epvf_data.config import flatten, to_dict
from epvf_data.reproduction.beside import read_beside
from epvf_data.reproduction.claims import claims, judge
from epvf_data.reproduction.figures import FIGURES, variants
from epvf_data.reproduction.summary import Measured, summarise
from epvf_data.reproduction.verdicts import AGREES, CANNOT_TELL, DISAGREES
from epvf_data.trainers.curves.read import Curve

WORDS = {AGREES, DISAGREES, CANNOT_TELL}


def measured(variant, config, final, rate=0.05, seeds=5, spread=1.0, status="finished", unperturbed=None, rank=np.nan):
    """Curves that rise to `final`, one seed a little apart from the next."""
    at = np.arange(1.0, 401.0)
    curves = []
    for seed in range(seeds):
        shift = spread * (seed - (seeds - 1) / 2)
        values = (final + shift) * (1 - np.exp(-rate * (1 + 0.01 * seed) * at))
        other = values if unperturbed is None else np.full_like(values, unperturbed)
        curves.append(Curve(seed, at, 1000.0 * at + seed, values, other, np.full_like(values, rank) + 0.01 * seed, at))
    return Measured(variant, status, "", flatten(to_dict(config)), curves, 1.0, {})


def verdicts(figure, sim, finals, scale="cpu", settings="paper", only=None, **options):
    """Claim → verdict for variants that end at these returns (by name, else the first value)."""
    found = {}
    for variant in variants(figure, "cpu", settings):
        if only and variant.name not in only:
            continue
        envs = variant.changes.get("envs", 64)
        config = sim.settings(env=FIGURES[figure].env, envs=envs, horizon=500 if figure == "fig1" else 250)
        own = {key: value[variant.name] for key, value in options.items() if variant.name in value}
        final = finals.get(variant.name, finals.get("rest"))
        found[variant.name] = measured(variant, config, final, **own)
    return {claim["claim"]: claim["verdict"] for claim in judge(figure, scale, found)}


def test_fig1_agrees_when_more_environments_are_faster_and_all_arrive(sim):
    rates = {"envs-1": 0.02, "envs-2": 0.04, "envs-4": 0.08, "envs-8": 0.15, "envs-16": 0.16}
    found = verdicts("fig1", sim, {"rest": 495.0}, rate=rates)
    assert set(found.values()) == {AGREES}
    backwards = {name: 0.2 - rate for name, rate in rates.items()}
    found = verdicts("fig1", sim, {"rest": 495.0}, rate=backwards)
    assert found["More parallel environments converge faster."] == DISAGREES
    same = dict.fromkeys(rates, 0.05)
    assert (
        verdicts("fig1", sim, {"rest": 495.0}, rate=same)["More parallel environments converge faster."] == CANNOT_TELL
    )


def test_fig1_disagrees_when_one_stays_below(sim):
    text = "The perturbed policies reach the maximum of 500 with every number of environments."
    assert verdicts("fig1", sim, {"rest": 495.0, "envs-2": 300.0})[text] == DISAGREES
    near = verdicts("fig1", sim, {"rest": 495.0, "envs-2": 476.0}, spread={"envs-2": 8.0})
    assert near[text] == CANNOT_TELL
    apart = verdicts("fig1", sim, {"rest": 495.0}, unperturbed={"envs-4": 100.0})
    assert apart[text] == AGREES
    assert apart["The unperturbed policy reaches 500 as well."] == DISAGREES


@pytest.mark.parametrize(
    ("finals", "verdict"),
    [
        ((20, 40, 80, 150, 200), AGREES),
        ((200, 150, 80, 40, 20), DISAGREES),
        ((50, 50, 50, 50, 50), CANNOT_TELL),
        ((20, 90, 30, 150, 200), CANNOT_TELL),  # a step that loses
        ((0.5, 1, 2, 3, 5), CANNOT_TELL),  # nobody learns
    ],
)
def test_scaling(sim, finals, verdict):
    names = [f"envs-{envs}" for envs in (64, 128, 256, 512, 1024)]
    found = verdicts("fig2-scaling", sim, dict(zip(names, finals, strict=True)))
    assert found["More environments with equal batch and buffer end higher."] == verdict
    assert found[claims("fig2-scaling", "paper")[1].text] == CANNOT_TELL  # there are none of 2,048


@pytest.mark.parametrize(
    ("many", "few", "verdict"), [(240, 20, AGREES), (240, 100, DISAGREES), (150, 20, DISAGREES), (225, 20, CANNOT_TELL)]
)
def test_enough_environments(sim, many, few, verdict):
    found = {}
    for variant in variants("fig2-scaling", "paper"):
        config = sim.settings(env="ant", envs=variant.changes["envs"], horizon=250)
        found[variant.name] = measured(variant, config, many if config.envs >= 2048 else few)
    assert judge("fig2-scaling", "paper", found)[1]["verdict"] == verdict


def test_ablations_are_compared_with_the_setup(sim):
    finals = {"best": 100.0, "rest": 50.0, "gaussian": 150.0, "noise-1": 100.0, "es": 120.0}
    found = verdicts("fig2-ablations", sim, finals)
    assert found["The setup ends above its change “no weight clip”."] == AGREES
    assert found["The setup ends above its change “Gaussian noise N(0, 1)”."] == DISAGREES
    assert found["The setup ends above its change “noise scale 1.0”."] == CANNOT_TELL
    assert found["The setup ends above OpenAI-ES on the same number of rollouts."] == DISAGREES
    assert len(found) == 9
    assert set(verdicts("fig2-ablations", sim, {"rest": 3.0, "best": 5.0}).values()) == {CANNOT_TELL}


def test_runs_of_unequal_length_are_compared_at_equal_steps(sim):
    """The longer run is still learning where the shorter one ends: only what it had by then counts."""
    every = {variant.name: variant for variant in variants("fig2-ablations", "cpu")}
    config = sim.settings(env="ant", horizon=250)
    slow = measured(every["best"], config, 100.0, rate=0.002)
    short = measured(every["es"], config, 40.0)
    cut = [Curve(*(part if np.ndim(part) == 0 else part[:100] for part in curve)) for curve in short.curves]
    found = {"best": slow, "es": Measured(every["es"], "finished", "", short.config, cut, 1.0, {})}
    last = judge("fig2-ablations", "cpu", found)[-1]
    assert slow.final().min() > 45
    assert last["verdict"] == DISAGREES
    assert "at 0.1 M environment steps" in last["evidence"]


def test_what_a_policy_input_is_good_for_is_asked_apart_from_what_it_earns(sim):
    claim = "Q(s, a, θ) ranks perturbed policies better than: no policy input: TD3 with parameter noise."
    ends = "Q(s, a, θ) ends above: no policy input: TD3 with parameter noise."
    options = {"finals": {"rest": 200.0}, "only": ("best", "no-policy")}
    found = verdicts("time", sim, **options, rank={"best": 0.7, "no-policy": 0.5})
    assert (found[claim], found[ends]) == (AGREES, CANNOT_TELL)
    assert verdicts("time", sim, **options, rank={"best": 0.5, "no-policy": 0.7})[claim] == DISAGREES
    assert verdicts("time", sim, **options)[claim] == CANNOT_TELL  # nothing was logged


def test_ranks_are_judged_from_another_folders_data_as_from_logs(sim, tmp_path):
    about, options = FIGURES["time"], {"best": {"rank": 0.7}, "no-policy": {"rank": 0.5}, "psvf": {}}
    config = sim.settings(env="ant", horizon=250)
    there = [variant for variant in about.variants("cpu") if variant.name in options]
    found = {variant.name: measured(variant, config, 200.0, **options[variant.name]) for variant in there}
    plan = {"command": "a", "commands": ["a"], "date": "b", "versions": {}}
    plan["hardware"] = {"processor": "c", "cores": 2, "device": "cpu"}
    data = {"figure": "time", "scale": "cpu", **plan, "variants": summarise(about, "cpu", found)}
    (tmp_path / "data.json").write_text(json.dumps(data))
    others, sources = read_beside([tmp_path], about, "cpu", (), tmp_path / "runs")
    assert sources == [{"variants": ["best", "no-policy", "psvf"], **plan}]
    first, second = (judge("time", "cpu", one, partly=True) for one in (found, others))
    assert [(one["claim"], one["verdict"]) for one in first] == [(one["claim"], one["verdict"]) for one in second]
    (ranks,) = (one for one in second if "ranks" in one["claim"])  # psvf has none, and nothing is said of it
    assert ranks["verdict"] == AGREES
    assert re.search(r"Q\(s, a, θ\) 0\.7\d .* 0\.5\d .*; difference 0\.20", ranks["evidence"])


def test_architectures(sim):
    finals = {"critic-mlp": 100.0, "critic-probing": 40.0, "critic-probing+raw": 60.0, "critic-unf": 50.0}
    finals |= {"es": 120.0, "random": 5.0, "ppo": 110.0, "sac": 200.0, "rest": 80.0}
    found = verdicts("fig2-architectures", sim, finals)
    assert found["Probing actions alone do not reach raw parameters."] == AGREES
    assert found["Probing actions with raw parameters improve on probing actions."] == AGREES
    assert found["EPVF competes with PPO."] == AGREES  # 10 of 250 below
    assert found["EPVF competes with SAC."] == DISAGREES
    assert found["UNF features alone do not reach raw parameters."] == AGREES
    ours = verdicts("fig2-architectures", sim, {"rest": 80.0, "ours-critic-probing-ridge": 90.0}, settings="ours")
    assert set(ours.values()) == {AGREES}


def test_what_is_missing_unfinished_or_too_few_gives_no_verdict(sim):
    finals = {"best": 100.0, "rest": 50.0}
    assert set(verdicts("fig2-ablations", sim, finals, scale="smoke").values()) == {CANNOT_TELL}
    assert set(verdicts("fig2-ablations", sim, finals, seeds={"best": 2}).values()) == {CANNOT_TELL}
    assert set(verdicts("fig2-ablations", sim, finals, status={"best": "unfinished"}).values()) == {CANNOT_TELL}
    found = verdicts("fig2-ablations", sim, finals, only=("best", "gaussian"))
    assert [verdict for verdict in found.values() if verdict != CANNOT_TELL] == [AGREES]
