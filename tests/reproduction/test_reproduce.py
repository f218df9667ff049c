"""From the command to the three files, with a trainer that writes known curves in place of training."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import epvf_data.cli.reproducing  # noqa: F401  registers the verb
from epvf_data.cli.app import app
from epvf_data.errors import ConfigError, RunError
from epvf_data.reproduction import runs
from epvf_data.reproduction.reproduce import reproduce

SMALL = {"iterations": 100}


class Trainer:
    """Stands in for training: writes a run whose return rises, and remembers how it was called."""

    def __init__(self, sim):
        self.sim, self.calls, self.fail, self.stop = sim, [], {}, {}

    def __call__(self, config, directory, *, progress, resume=False):
        self.calls.append((directory.name, resume))
        if directory.name in self.fail:
            raise self.fail[directory.name]
        for iteration in (10, 20):
            progress(
                {
                    "iteration": iteration,
                    "iterations": config.iterations,
                    "env_steps": iteration * config.envs * config.seeds,
                    "env_steps_total": config.env_steps and config.env_steps * config.seeds,
                    "return_perturbed": 1.0 * iteration,
                }
            )
        if resume:
            for path in sorted(directory.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            directory.rmdir()
        stop = self.stop.pop(directory.name, None)
        iterations = 50 if stop else 100
        self.sim.write_run(directory, config, finished=stop is None, iterations=iterations, rate=0.02 * config.envs)
        if stop:
            raise stop


@pytest.fixture
def trainer(sim, monkeypatch):
    found = Trainer(sim)
    monkeypatch.setattr(runs, "_trainer", lambda variant: found)
    return found


@pytest.fixture
def undrawn(monkeypatch):
    """Empty pictures, where another test looks at them."""
    monkeypatch.setattr("epvf_data.reproduction.draw.draw", lambda data: Figure(figsize=(1, 1)))


def test_runs_become_data_a_picture_and_a_report(trainer, tmp_path):
    out = tmp_path / "fig"
    result = reproduce("fig1", "cpu", out, seeds=3, overrides=SMALL)
    assert result.to_dict().keys() == {"figure", "data", "image", "report", "runs"}
    assert set(result.runs.values()) == {"finished"}
    data = json.loads((out / "data.json").read_text())
    assert {"figure", "scale", "command", "versions", "hardware", "date", "claims"} <= data.keys()
    assert data["hardware"].keys() == {"processor", "cores", "device"}
    assert [variant["name"] for variant in data["variants"]] == [f"envs-{envs}" for envs in (1, 2, 4, 8, 16)]
    variant = data["variants"][1]
    assert variant["changes"] == {"envs": [1, 2]}
    assert variant["seeds"] == [0, 1, 2]
    assert variant["seconds"] == 12.0
    for axis, key in ((axis, key) for axis in variant["curves"] for key in ("return_perturbed", "return_unperturbed")):
        curve = variant["curves"][axis][key]
        assert len(curve["seeds"]) == 3
        assert {len(curve["iqm"]), len(curve["low"]), len(curve["high"]), len(curve["seeds"][0])} == {
            len(curve["grid"])
        }
        assert all(
            low <= middle <= high for low, middle, high in zip(curve["low"], curve["iqm"], curve["high"], strict=True)
        )
    assert curve["grid"][-1] <= variant["iterations"] == 100
    final = variant["final"]["return_perturbed"]
    assert min(final["seeds"]) <= final["low"] <= final["iqm"] <= final["high"] <= max(final["seeds"])
    image = matplotlib.image.imread(out / "figure.png")
    assert image.shape[1] >= 1200
    report = (out / "report.md").read_text()
    assert all(claim["claim"] in report and claim["verdict"].capitalize() in report for claim in data["claims"])
    assert f"| 2 environments | 3 | {variant['env_steps']:,.0f} |" in report
    assert data["command"] in report


def test_finished_runs_are_kept_and_interrupted_ones_go_on(trainer, undrawn, tmp_path):
    trainer.stop = {"envs-2": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL)
    assert trainer.calls == [("envs-1", False), ("envs-2", False)]
    drawn = reproduce("fig1", "cpu", tmp_path, redraw=True)
    assert drawn.runs["envs-1"] == "finished"
    assert drawn.runs["envs-2"] == "unfinished"
    assert drawn.runs["envs-4"] == "missing"
    report = (tmp_path / "report.md").read_text()
    assert "2 environments (unfinished)" in report
    assert "The run `envs-2` is not finished." in report
    assert len(trainer.calls) == 2
    done = reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL)
    assert set(done.runs.values()) == {"finished"}
    assert trainer.calls[2:] == [("envs-2", True), ("envs-4", False), ("envs-8", False), ("envs-16", False)]
    reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL)
    assert len(trainer.calls) == 6


def test_a_larger_budget_carries_finished_runs_on(trainer, undrawn, tmp_path):
    reproduce("fig1", "cpu", tmp_path, only=["envs-1"], seeds=2, overrides=SMALL)
    longer = reproduce("fig1", "cpu", tmp_path, only=["envs-1"], seeds=2, overrides={"iterations": 200})
    assert longer.runs["envs-1"] == "finished"
    assert trainer.calls == [("envs-1", False), ("envs-1", True)]
    with pytest.raises(RunError, match=r"envs-1 was started with iterations 200 \(now 100\)"):
        reproduce("fig1", "cpu", tmp_path, only=["envs-1"], seeds=2, overrides=SMALL)
    assert len(trainer.calls) == 2


def test_a_run_whose_rate_falls_over_its_budget_is_not_carried_on(trainer, undrawn, tmp_path):
    one = {"settings": "ours", "only": ["ours-best"], "seeds": 1}
    reproduce("fig2-ablations", "cpu", tmp_path, overrides={"env_steps": 10_000, "envs": 8}, **one)
    with pytest.raises(RunError, match=r"was started with env_steps 10000 \(now 20000\)"):
        reproduce("fig2-ablations", "cpu", tmp_path, overrides={"env_steps": 20_000, "envs": 8}, **one)
    assert len(trainer.calls) == 1


def test_a_failure_costs_its_own_run_only_and_is_tried_again(trainer, undrawn, tmp_path):
    trainer.fail = {"envs-1": RunError("no luck;\ntry again."), "envs-8": ZeroDivisionError("oh")}
    result = reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL)
    assert result.failed == {"envs-1": "no luck; try again.", "envs-8": "ZeroDivisionError: oh"}
    assert [result.runs[f"envs-{envs}"] for envs in (1, 2, 8)] == ["failed", "finished", "failed"]
    assert "Traceback" in (tmp_path / "runs" / "envs-8.failed.txt").read_text()
    assert "failed: ZeroDivisionError: oh" in (tmp_path / "report.md").read_text()
    assert reproduce("fig1", "cpu", tmp_path, redraw=True).runs["envs-8"] == "failed"
    with pytest.raises(ZeroDivisionError):
        reproduce("fig1", "cpu", tmp_path, only=["envs-8"], seeds=2, overrides=SMALL, debug=True)
    trainer.fail = {}
    result = reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL)
    assert set(result.runs.values()) == {"finished"}
    assert not list((tmp_path / "runs").glob("*.failed.txt"))


def test_other_settings_are_refused_before_anything_runs(trainer, undrawn, tmp_path):
    reproduce("fig1", "cpu", tmp_path, only=["envs-16"], seeds=2, overrides=SMALL)
    with pytest.raises(RunError, match=r"envs-16 was started with critic.steps 10 \(now 3\), seeds 2 \(now 4\)"):
        reproduce("fig1", "cpu", tmp_path, seeds=4, overrides={**SMALL, "critic": {"steps": 3}})
    assert trainer.calls == [("envs-16", False)]
    with pytest.raises(RunError, match="holds fig1 at scale cpu"):
        reproduce("fig1", "smoke", tmp_path)
    with pytest.raises(ConfigError, match="no setting iterationz"):
        reproduce("fig1", "cpu", tmp_path / "new", overrides={"iterationz": 3})
    with pytest.raises(RunError, match="nothing to draw"):
        reproduce("fig1", "cpu", tmp_path / "new", redraw=True)
    assert not (tmp_path / "new").exists()


def test_both_settings_stand_side_by_side_and_share_controls(trainer, tmp_path):
    only = ["best", "buffer-100x", "es", "ours-best", "ours-mlp", "ours-es"]
    small = {"env_steps": 10_000, "envs": 8}
    result = reproduce("fig2-ablations", "cpu", tmp_path, settings="both", only=only, seeds=2, overrides=small)
    assert [name for name, _ in trainer.calls] == ["best", "seed-0", "seed-1", "es", "ours-best", "ours-mlp"]
    assert {result.runs[name] for name in only} == {"finished"}
    data = json.loads((tmp_path / "data.json").read_text())
    variants = {variant["name"]: variant for variant in data["variants"]}
    assert variants["buffer-100x"]["seeds"] == [0, 1]
    assert variants["buffer-100x"]["changes"] == {"replay.batch_size": [None, 8], "replay.capacity": [None, 800]}
    assert variants["buffer-100x"]["seconds"] == 24.0
    assert variants["ours-mlp"]["changes"]["critic.name"] == ["probing-ridge", "mlp"]
    report = (tmp_path / "report.md").read_text()
    assert "### With the paper's settings" in report
    assert "### With our settings" in report
    # Drawing the paper's alone still shows ours, which were run; a panel that was not run does not appear.
    assert "ours-best" in reproduce("fig2-ablations", "cpu", tmp_path, redraw=True).runs
    single = reproduce("fig2-ablations", "cpu", tmp_path / "b", only=["es"], seeds=2, overrides=small)
    assert not any(name.startswith("ours-") for name in single.runs)


def test_some_variants_can_be_drawn_alone(trainer, tmp_path):
    small = {"env_steps": 10_000, "envs": 8}
    options = {"settings": "ours", "seeds": 2, "overrides": small}
    reproduce("fig2-ablations", "cpu", tmp_path, only=["ours-best", "ours-mlp", "ours-es"], **options)
    whole = json.loads((tmp_path / "data.json").read_text())
    drawn = reproduce("fig2-ablations", "cpu", tmp_path, settings="ours", only=["ours-best", "ours-es"], redraw=True)
    assert set(drawn.runs) == {"ours-best", "ours-es"}
    data = json.loads((tmp_path / "data.json").read_text())
    assert [variant["name"] for variant in data["variants"]] == ["ours-best", "ours-es"]
    assert [claim["claim"] for claim in data["claims"]] == [whole["claims"][-2]["claim"]]
    assert data["commands"] == whole["commands"]


def test_runs_whose_plan_is_lost_get_a_new_one(trainer, undrawn, tmp_path):
    options = {"seeds": 2, "overrides": SMALL, "only": ["envs-4"]}
    reproduce("fig1", "cpu", tmp_path, **options)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(RunError, match=r"lost its plan\.json"):
        reproduce("fig1", "cpu", tmp_path, redraw=True)
    reproduce("fig1", "cpu", tmp_path, **options)
    assert len(trainer.calls) == 1
    assert reproduce("fig1", "cpu", tmp_path, redraw=True).runs["envs-4"] == "finished"


def test_the_command_line(trainer, undrawn, in_tmp):
    runner = CliRunner()
    arguments = ["reproduce", "fig1", "--scale", "cpu", "--seeds", "2", "--set", "iterations=100", "--json"]
    found = runner.invoke(app, arguments)
    assert found.exit_code == 0, found.output
    last = json.loads(found.stdout.splitlines()[-1])
    assert last["image"] == "fig1-cpu/figure.png"
    assert (in_tmp / last["data"]).is_file()
    assert "5/5 envs-16: " in found.stderr
    trainer.fail = {"envs-4": RunError("the disk is full.")}
    found = runner.invoke(app, [*arguments, "--out", "other", "--quiet"])
    assert isinstance(found.exception, RunError)
    assert str(found.exception) == "1 run failed (envs-4), the first because: the disk is full."
    assert found.stderr == ""
    trainer.fail = {}
    trainer.stop = {"envs-4": KeyboardInterrupt()}
    found = runner.invoke(app, [*arguments, "--out", "other", "--quiet"])
    assert str(found.exception).startswith("interrupted; give the same command")


def test_runs_on_an_executor_fail_and_go_on_by_themselves(trainer, undrawn, tmp_path):
    trainer.fail = {"envs-8": ZeroDivisionError("oh")}
    with ThreadPoolExecutor(1) as pool:
        result = reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL, executor=pool)
        assert result.failed == {"envs-8": "ZeroDivisionError: oh"}
        assert "Traceback" in (tmp_path / "runs" / "envs-8.failed.txt").read_text()
        trainer.fail, before = {}, len(trainer.calls)
        result = reproduce("fig1", "cpu", tmp_path, seeds=2, overrides=SMALL, executor=pool)
    assert set(result.runs.values()) == {"finished"}
    assert [name for name, _ in trainer.calls[before:]] == ["envs-8"]
    assert not list((tmp_path / "runs").glob("*.failed.txt"))


def test_variants_of_other_folders_are_drawn_and_judged_as_if_they_had_run_here(trainer, undrawn, tmp_path):
    small = {"seeds": 5, "overrides": {"env_steps": 10_000, "envs": 8}}
    names = ["best", "noise-1", "es"]
    reproduce("fig2-ablations", "cpu", tmp_path / "all", only=names, **small)
    for name in names:
        reproduce("fig2-ablations", "cpu", tmp_path / name, only=[name], **small)
    calls = len(trainer.calls)
    folders = [tmp_path / name for name in names]
    joined = reproduce("fig2-ablations", "cpu", tmp_path / "joined", redraw=True, beside=folders)
    assert len(trainer.calls) == calls
    assert list(joined.runs) == names
    data, whole = (json.loads((tmp_path / name / "data.json").read_text()) for name in ("joined", "all"))
    there = {one["name"]: one for one in whole["variants"]}
    for variant in data["variants"]:
        assert variant["final"] == there[variant["name"]]["final"]
        assert variant["changes"].get("exploration.scale") == there[variant["name"]]["changes"].get("exploration.scale")
    told = {claim["claim"]: claim for claim in whole["claims"]}
    assert len(data["claims"]) == 2  # those about the three
    for claim in data["claims"]:
        assert claim["verdict"] == told[claim["claim"]]["verdict"]
        here, logs = (re.findall(r"\d+\.\d", one["evidence"])[:2] for one in (claim, told[claim["claim"]]))
        assert np.array(here, float) == pytest.approx(np.array(logs, float), rel=0.02)  # cells against logged points
    report = (tmp_path / "joined" / "report.md").read_text()
    assert report.count("Command: ") == 3  # each with what it made, where and when
    assert [one["variants"] for one in data["beside"]] == [["noise-1"], ["es"]]
    again = reproduce("fig2-ablations", "cpu", tmp_path / "again", redraw=True, beside=[tmp_path / "joined"])
    assert again.runs == joined.runs
    assert json.loads((tmp_path / "again" / "data.json").read_text())["claims"] == data["claims"]
    mixed = reproduce("fig2-ablations", "cpu", tmp_path / "es", redraw=True, beside=folders[:2])  # its own runs, too
    assert list(mixed.runs) == names
    one = reproduce("fig2-ablations", "cpu", tmp_path / "one", redraw=True, only=["es"], beside=folders)
    assert list(one.runs) == ["es"]
    report = (tmp_path / "one" / "report.md").read_text()
    assert report.count("Command: ") == 1  # what is not drawn is not told of
    assert " 0 environment steps" not in report


def test_what_a_variant_alone_changes_is_told(trainer, undrawn, tmp_path):
    """The run that it differs from is not there: its settings are known all the same."""
    reproduce("fig2-ablations", "cpu", tmp_path, only=["noise-1"], seeds=1)
    reproduce("fig2-ablations", "cpu", tmp_path, only=["noise-1"], redraw=True)
    (variant,) = json.loads((tmp_path / "data.json").read_text())["variants"]
    assert variant["changes"]["exploration.scale"] == [0.3, 1.0]


def test_folders_of_another_figure_or_none_are_refused_before_anything_runs(trainer, undrawn, tmp_path):
    options = {"only": ["es"], "seeds": 1, "overrides": {"env_steps": 10_000}}
    reproduce("fig2-ablations", "cpu", tmp_path / "one", **options)
    calls = len(trainer.calls)
    for figure, folder, text in (
        ("fig2-architectures", "one", r"holds fig2-ablations at scale cpu, and what is drawn is fig2-architectures"),
        ("fig2-ablations", "two", r"two holds no whole data\.json; name a folder that"),
        ("fig1", "one", r"fig1 is judged by single iterations"),
    ):
        with pytest.raises(RunError, match=text):
            reproduce(figure, "cpu", tmp_path / "new", beside=[tmp_path / folder])
        assert not (tmp_path / "new").exists()
    assert len(trainer.calls) == calls
