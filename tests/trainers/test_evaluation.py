"""Evaluation: calibration, gradients and climbs where the truth is known, and end to end on CartPole."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import epvf_data
from epvf_data.cli import load
from epvf_data.errors import ConfigError, EnvironmentMismatchError, RunError
from epvf_data.trainers.evaluation.calibration import calibrate
from epvf_data.trainers.evaluation.ceiling import ceiling_of_labels
from epvf_data.trainers.evaluation.compare import compare
from epvf_data.trainers.evaluation.evaluate import evaluate
from epvf_data.trainers.evaluation.gradients import compare_gradients, local_spread
from epvf_data.trainers.evaluation.improvement import improve
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.offline.run import load_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig

app = load()


class Linear:
    """A task whose return is linear in θ."""

    def __init__(self, slope, noise=0.0):
        self.slope, self.noise, self.random = slope, noise, np.random.default_rng(0)

    def returns(self, spec, theta):
        return theta @ self.slope + self.noise * self.random.normal(size=len(theta))

    def varies(self, spec):
        return self.noise > 0

    def outcomes(self, spec, theta, episodes, stream, progress):
        drawn = self.noise * self.random.normal(size=(len(theta), episodes))
        return SimpleNamespace(returns=(theta @ self.slope)[:, None] + drawn)

    progress = None


@pytest.fixture(scope="module")
def known(toy, tmp_path_factory):
    """A run on rows whose return is linear in θ, and that task."""
    folder, random = tmp_path_factory.mktemp("known"), np.random.default_rng(0)
    slope = random.normal(size=toy.SPEC.size)
    theta = random.normal(size=(400, toy.SPEC.size)) * random.uniform(0.5, 2.0, toy.SPEC.size)
    families = np.arange(400) % 20
    path = toy.write(folder / "toy.zarr", theta, (theta @ slope)[:, None], families)
    config = OfflineConfig(critic="linear", split="iid", epochs=150, learning_rate=0.03, weight_decay=0.0, resamples=20)
    train_offline(path, config, folder / "run")
    return folder / "run", load_run(folder / "run").fitted["iid"], slope


def test_a_critic_that_knows_its_spread_is_calibrated():
    random = np.random.default_rng(0)
    spread = random.uniform(0.5, 3.0, 4000)
    members = random.normal(size=(12, 4000)) * spread
    truth = random.normal(size=4000) * spread * np.sqrt(1 + 1 / 12)
    found = calibrate(members, truth)
    assert found["coverage"]["0.95"] == pytest.approx(0.93, abs=0.03)  # twelve members: Student's t, not normal
    assert found["coverage"]["0.5"] == pytest.approx(0.48, abs=0.04)
    assert found["error_spread_spearman"] > 0.3
    assert calibrate(members, truth * 10)["coverage"]["0.95"] < 0.5
    assert calibrate(members[:1], truth) is None


def test_the_gradient_of_a_right_critic_is_that_of_evolution_strategies(known):
    _, fitted, slope = known
    exact = compare_gradients(fitted, 0, Linear(slope), EvaluationConfig(policies=4, pairs=2000))
    assert exact["cosine"] > 0.95
    assert exact["ceiling"] > 0.98
    noisy = compare_gradients(fitted, 0, Linear(slope, noise=2.0), EvaluationConfig(policies=6, pairs=400))
    assert noisy["cosine"] == pytest.approx(noisy["ceiling"], abs=0.07)  # as good as the truth itself
    wrong = compare_gradients(fitted, 0, Linear(np.roll(slope, 7)), EvaluationConfig(policies=4, pairs=500))
    assert abs(wrong["cosine"]) < 0.5
    low, high = exact["interval"]
    assert low <= exact["cosine"] <= high


def test_the_ceiling_is_what_the_mean_returns_would_reach(known):
    _, fitted, slope = known
    exact = ceiling_of_labels(fitted, 0, Linear(slope), EvaluationConfig(labels=30))
    assert (exact["spearman"], exact["policies"], exact["episodes"]) == (1.0, 30, 1)  # a second episode tells no more
    assert exact["largest_difference"] == pytest.approx(0, abs=1e-4)
    spread = fitted.source.labels.std()
    noisy = ceiling_of_labels(fitted, 0, Linear(slope, noise=2 * spread), EvaluationConfig(labels=40))
    low, high = noisy["interval"]
    assert low <= noisy["spearman"] <= high
    # Means of eight episodes still differ by 0.7 spreads from what is stored: r = 1 / √(1 + 0.5) ≈ 0.82.
    assert 0.55 < noisy["spearman"] < 0.95
    assert noisy["median_difference"] > 0.2 * spread


def test_the_local_spread_is_that_inside_families(toy, tmp_path):
    random = np.random.default_rng(0)
    family = np.repeat(np.arange(8), 20)
    bases = 10.0 * random.normal(size=(8, toy.SPEC.size))
    wide = random.uniform(0.1, 0.5, toy.SPEC.size)
    theta = bases[family] + wide * random.normal(size=(160, toy.SPEC.size))
    theta[:, 3] = bases[family, 3]  # varies in no family
    rows = toy.write(tmp_path / "a.zarr", theta, theta[:, :1], family)
    found = local_spread(epvf_data.open(rows).table())
    np.testing.assert_allclose(np.delete(found, 3), np.delete(wide, 3), rtol=0.25)
    assert found[3] == pytest.approx(theta[:, 3].std(), rel=1e-4)
    alone = toy.write(tmp_path / "b.zarr", theta, theta[:, :1], np.full(160, -1))
    np.testing.assert_allclose(local_spread(epvf_data.open(alone).table()), theta.std(0), rtol=1e-4)


def test_climbing_a_right_critic_helps_and_random_steps_do_not(known):
    _, fitted, slope = known
    found = improve(fitted, 0, Linear(slope), EvaluationConfig(starts=20, steps=(1, 4, 16), step=0.05))
    for climb, control in zip(found["climb"], found["random"], strict=True):
        assert climb["improved"] == 1.0
        assert climb["mean"] > control["mean"]
        assert climb["predicted"] == pytest.approx(climb["mean"], rel=0.05)
    assert found["stopped"]["steps"] == 16
    assert found["stopped"]["gain"] > 0
    assert found["stopped"]["mean"] > found["start_mean"]
    assert found["best_in_data"] > found["start_mean"] > 0
    assert found["climb"][-1]["best"] > found["best_in_data"]


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    """A small CartPole data set and two runs on it."""
    folder = tmp_path_factory.mktemp("poles")
    config = epvf_data.collect_config(
        "cartpole", envs=200, horizon=60, **{"policy.hidden": [8], "probes": 8, "perturbed.bases": ["random"]}
    )
    epvf_data.collect(config, folder / "poles.zarr")
    for name in ("mlp", "stored-probing", "ridge"):
        split = "both" if name == "mlp" else "iid"
        settings = OfflineConfig(critic=name, split=split, epochs=3, seeds=2, widths=(16,), resamples=20)
        train_offline(folder / "poles.zarr", settings, folder / name)
    return folder


SMALL = EvaluationConfig(labels=6, label_episodes=3, policies=2, pairs=4, starts=5, steps=(1, 2), episodes=2)


@pytest.mark.parametrize("name", ["mlp", pytest.param("stored-probing", marks=pytest.mark.soak)])
def test_a_run_is_judged_from_end_to_end(poles, name):
    told = []
    small = dataclasses.replace(SMALL, split="iid")
    found = evaluate(poles / name, poles / "poles.zarr", small, progress=lambda *numbers: told.append(numbers))
    assert json.loads((poles / name / "evaluation.json").read_text()) == found
    assert (poles / name / "evaluation-iid.png").read_bytes().startswith(b"\x89PNG")
    assert told == sorted(told)
    # 6 · 3 episodes for the labels; 2 · 2 · 4 policies for the gradient; 5 starts, after each of 2 numbers of steps by
    # 2 seeds and at random; 1 mean.
    assert {total for _, total, _ in told} == {told[-1][0]} == {6 * 3 + 2 * (16 + 5 * (1 + 2 * (2 + 1)) + 1)}
    assert told[-1][2] > told[-1][0]
    assert found["splits"]["iid"]["available"]
    assert found["calibration"]["members"] == 2
    assert len(found["gradient"]["per_policy"]) == 2
    assert found["improvement"]["starts"] == 5
    assert found["improvement"]["best_in_data"] <= 60
    (elsewhere,) = found["elsewhere"]["architectures"].values()
    assert elsewhere["rows"] == 200
    assert evaluate(poles / name, None, small)["gradient"] == found["gradient"]  # nothing is left to chance


def test_an_evaluation_keeps_what_earlier_ones_measured(poles):
    run = poles / "mlp"
    iid = evaluate(run, poles / "poles.zarr", dataclasses.replace(SMALL, split="iid"))
    honest = evaluate(run, None, SMALL)
    assert (honest["split"], honest["kept"]) == ("lineage", [])  # the split that speaks for the run
    later = evaluate(run, rollouts=False)
    assert later["kept"] == ["labels", "gradient", "improvement"]
    assert later["labels"] == honest["labels"]
    assert (later["gradient"], later["improvement"]) == (honest["gradient"], honest["improvement"])
    assert later["elsewhere"] is None
    assert json.loads((run / "evaluation.json").read_text()) == later
    kept = later["by_split"]["iid"]
    assert (kept["gradient"], kept["improvement"]) == (iid["gradient"], iid["improvement"])
    assert kept["elsewhere"] == {iid["elsewhere"]["dataset"]: iid["elsewhere"]["architectures"]}
    assert {"evaluation-iid.png", "evaluation-lineage.png"} <= {path.name for path in run.iterdir()}
    shown = {
        name: next(line for line in lines if line["run"] == str(run))
        for name, lines in compare([run])["splits"].items()
    }
    assert shown["iid"]["gradient_cosine"] == iid["gradient"]["cosine"]
    assert shown["lineage"]["gradient_cosine"] == honest["gradient"]["cosine"] != shown["iid"]["gradient_cosine"]
    start, stopped = honest["improvement"]["start_mean"], honest["improvement"]["stopped"]
    assert shown["lineage"]["improvement"] == stopped["gain"]
    assert shown["lineage"]["improvement_over_start"] == stopped["mean"] - start
    only = json.loads((run / "evaluation.json").read_text())
    del only["by_split"]["lineage"]
    only["by_split"]["iid"]["epochs"] = [2, 1, 1]  # of a run that was trained on since
    (run / "evaluation.json").write_text(json.dumps(only))
    lines = compare([run])["splits"]["lineage"]
    assert all(
        line["gradient_cosine"] is line["improvement"] is line["improvement_over_start"] is None for line in lines
    )
    again = evaluate(run, rollouts=False)
    assert set(again["by_split"]) == {"lineage"}
    assert (again["kept"], again["gradient"]) == ([], None)


def test_the_screen_shows_start_ascent_and_random_side_by_side(poles):
    (poles / "mlp" / "evaluation.json").unlink(missing_ok=True)
    arguments = ["evaluate", str(poles / "mlp"), "--set", "policies=0", "--set", "starts=5", "--set", "steps=[2]"]
    shown = CliRunner().invoke(app, [*arguments, "--set", "episodes=2"])
    assert shown.exit_code == 0, shown.output
    found = json.loads((poles / "mlp" / "evaluation.json").read_text())["improvement"]
    stopped, start = found["stopped"], found["start_mean"]
    head, means = (line for line in shown.stdout.splitlines() if "after ascent" in line or "mean return  " in line)
    assert head.split() == ["start", "after", "ascent", "after", "random", "steps"]
    assert means.split()[2:] == [f"{one:.2f}" for one in (start, stopped["mean"], found["random"][-1]["mean"])]
    assert f"{stopped['mean'] - start:+.2f} over the start, {stopped['gain']:+.2f} over random steps" in shown.stdout
    shown = CliRunner().invoke(app, ["compare", str(poles / "mlp"), str(poles / "ridge")])
    rows = [line.split() for line in shown.stdout.splitlines() if line.lstrip().startswith(("mlp ", "ridge "))]
    assert {tuple(row[-2:]) for row in rows if row[0] == "ridge"} == {("–", "–")}
    assert [row[-1] for row in rows if row[0] == "mlp"] == ["–", f"{stopped['gain']:.2f}"]
    assert "random steps of the same length" in shown.stdout


def test_runs_are_put_side_by_side(poles, toy, dataset, tmp_path):
    found = compare([poles / "mlp", poles / "stored-probing"], tmp_path / "both.png")
    assert found["same_rows"]
    assert {line["critic"] for line in found["splits"]["iid"]} == {
        *("mlp", "stored-probing", "ridge on θ (control)", "ridge on actions (control)")
    }
    again = compare([poles / "mlp", poles / "ridge"])["splits"]["iid"]
    assert [line["critic"] for line in again if "ridge" in line["critic"]] == ["ridge"]  # which needs no control beside
    scores = [line["spearman"] for line in found["splits"]["iid"]]
    assert scores == sorted(scores, reverse=True)
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    train_offline(dataset, OfflineConfig(critic="ridge", split="iid", resamples=20), tmp_path / "other")
    assert not compare([poles / "mlp", tmp_path / "other"])["same_rows"]
    with pytest.raises(RunError, match="holds no run"):
        compare([tmp_path])


def test_what_cannot_be_judged_is_said(known, poles, dataset):
    run, _, _ = known
    with pytest.raises(
        EnvironmentMismatchError, match="toy, which is none of this package.s environments.*--no-rollouts"
    ):
        evaluate(run)
    found = evaluate(run, dataset, rollouts=False)
    assert found["gradient"] is None
    (elsewhere,) = found["elsewhere"]["architectures"].values()
    assert elsewhere["rows"] == 600
    other = evaluate(run, poles / "poles.zarr", rollouts=False)["elsewhere"]["architectures"]
    assert next(iter(other.values()))["reason"] == "The critic never saw such policies."
    with pytest.raises(RunError, match="no critic of the split lineage; choose one of iid"):
        evaluate(run, config=EvaluationConfig(split="lineage"), rollouts=False)
    with pytest.raises(ConfigError, match="ascending"):
        EvaluationConfig(steps=(5, 1))
