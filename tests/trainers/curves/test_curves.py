"""Online runs after training: info, plot, compare and render of them, from Python and from the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import ConfigError, DatasetError, RunError
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers.curves.history import read_groups
from epvf_data.trainers.curves.plot import band, draw


def test_runs_of_equal_settings_and_other_seeds_are_one_experiment(tmp_path, write_run):
    a, b = write_run(tmp_path / "a", seeds=2), write_run(tmp_path / "b", seeds=2, seed=2)
    other = write_run(tmp_path / "other", envs=8)
    again = write_run(tmp_path / "again", seeds=2)  # the seeds of `a`: no new ones
    groups = read_groups([a, other, b, again])
    assert [group.name for group in groups] == ["a and 1 more", "again", "other"]
    assert [curve.seed for curve in groups[0].curves] == [0, 1, 2, 3]
    twice = read_groups([a, write_run(tmp_path / "deep" / "a", envs=8)])
    assert [group.name for group in twice] == [str(a), str(tmp_path / "deep" / "a")]


def test_numbers_of_each_seed_and_over_seeds(tmp_path, write_run):
    found = epvf_data.compare([write_run(tmp_path / "low", 100, seeds=3), write_run(tmp_path / "high", 200, seeds=4)])
    low, high = found["groups"]
    assert low["final_return"]["per_seed"] == low["best_return"]["per_seed"] == [100, 101, 102]
    assert low["final_return"]["median"] == 101
    assert low["final_return"]["interval"] == [100, 102]
    assert (low["perturbed_return"]["median"], high["perturbed_return"]["median"]) == (50.5, 100.75)
    assert (low["env_steps"]["median"], low["minutes"]["median"]) == (2000, pytest.approx(50 / 60))
    (difference,) = found["differences"]
    assert (difference["of"], difference["from"]) == ("high", "low")
    assert difference["final_return"]["value"] == 100.5
    least, most = difference["final_return"]["interval"]
    assert 98 <= least < 100.5 < most <= 103
    assert difference["final_return"]["apart"] is True
    assert found["same_task"]
    few = epvf_data.compare([tmp_path / "low", write_run(tmp_path / "two", 101, seeds=2, horizon=7)])
    assert few["differences"][0]["final_return"] == {"value": 0.5, "interval": None, "apart": None}
    assert few["groups"][1]["final_return"]["interval"] is None
    assert not few["same_task"]


def test_the_table_has_the_numbers_of_the_picture(tmp_path, write_run):
    one = write_run(tmp_path / "=one", 100, seeds=3)
    numbers = epvf_data.plot_runs(one, tmp_path / "c.pdf", table=tmp_path / "c.csv")
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert len(rows) == len(numbers)
    assert {row["experiment"] for row in rows} == {"'=one"}  # no formula for a spreadsheet
    chosen = [row for row in rows if (row["axis"], row["policies"], row["seed"]) == ("env_steps", "unperturbed", "")]
    drawn = band(read_groups([one])[0].curves, "return_unperturbed", "env_steps")
    np.testing.assert_allclose([float(row["return"]) for row in chosen], drawn.median, rtol=1e-6)
    np.testing.assert_allclose([float(row["place"]) for row in chosen], drawn.place, rtol=1e-6)
    assert all(float(row["low"]) <= float(row["return"]) <= float(row["high"]) for row in chosen)
    middle = drawn.place / 2000 * 101  # the line that the middle seed climbs
    np.testing.assert_allclose(drawn.median, middle, rtol=1e-6)
    seeds = [row for row in rows if (row["axis"], row["policies"], row["seed"]) == ("minutes", "perturbed", "2")]
    assert len(seeds) == len(chosen)
    assert {row["low"] for row in seeds} == {""}


def test_minutes_are_those_of_the_whole_run(tmp_path, write_run):
    """Compiling took one of the two runs three seconds longer: it is that much later everywhere."""
    first, second = write_run(tmp_path / "a", seeds=2), write_run(tmp_path / "b", seeds=2, seed=2)
    lines = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    later = [json.dumps({**line, "seconds": line["seconds"] + 3}) + "\n" for line in lines]
    (second / "metrics.jsonl").write_text("".join(later))
    drawn = band(read_groups([first, second])[0].curves, "return_unperturbed", "minutes")
    assert len(drawn.seeds) == 4
    begins = [min(line["seconds"] for line in lines) / 60, max(line["seconds"] for line in lines) / 60]
    assert begins[0] + 0.05 < drawn.place[0] < drawn.place[-1] < begins[1]
    assert (drawn.seeds[0] > drawn.seeds[2]).all()  # it climbs, and is ahead


def test_the_picture_says_what_is_drawn(tmp_path, write_run):
    groups = read_groups([write_run(tmp_path / "a", seeds=3), write_run(tmp_path / "$b_", seeds=2, envs=8)])
    figure = draw(groups)
    told = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert told[:2] == ["a (es, 3 seeds)", r"\$b_ (es, 2 seeds)"]
    assert "unperturbed policy θ, median over seeds" in told
    assert any("95 % bootstrap interval of the median" in text for text in told)
    assert any("single seeds" in text for text in told)
    left, right = figure.axes
    assert left.get_ylabel() == "undiscounted return"
    assert "environment steps" in left.get_xlabel()
    assert "minutes" in right.get_xlabel()


def test_one_log_entry_is_drawn_as_a_point(tmp_path, write_run):
    numbers = epvf_data.plot_runs(write_run(tmp_path / "a", iterations=1, seeds=2), tmp_path / "a.png")
    assert {line["place"] for line in numbers if line["axis"] == "env_steps"} == {100}


def test_what_is_no_online_run_gets_one_sentence(tmp_path, in_tmp, write_run, small):
    run = write_run(tmp_path / "run")
    (tmp_path / "off").mkdir()
    (tmp_path / "off" / "config.json").write_text('{"config": {}, "dataset": {"path": "/x", "content": "y"}}')
    for runs, told in (
        ([run, "small.zarr"], "small.zarr is a data set, expected a run of train-online"),
        ([run, tmp_path / "off"], "run of train-online and .*off one of train-offline; compare runs of one kind"),
        ([run, tmp_path / "nothing"], "nothing does not exist"),
    ):
        with pytest.raises(RunError, match=told):
            epvf_data.compare(runs)
    with pytest.raises(ConfigError, match=r"ends in \.csv"):
        epvf_data.plot_runs(run, table="x.txt")
    with pytest.raises(DatasetError, match="exists already"):
        epvf_data.plot_runs(run, table=run / "c.csv") and epvf_data.plot_runs(run, table=run / "c.csv")
    (run / "metrics.jsonl").write_text("[]\nrubbish\n")
    with pytest.raises(RunError, match="holds no line with seed, iteration and env_steps of this run"):
        epvf_data.plot_runs(run, "x.png")
    (run / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="is empty or gone, and the run is finished"):
        epvf_data.plot_runs(run, "x.png")
    (run / "report.json").unlink()
    with pytest.raises(RunError, match="has logged nothing yet; `epvf-data watch .*run` waits"):
        epvf_data.plot_runs(run, "x.png")
    found = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**found, "config": {"env": 5}}))
    with pytest.raises(RunError, match="holds no settings of online training; the run is damaged"):
        epvf_data.plot_runs(run, "x.png")
    assert not (in_tmp / "x.png").exists()


def test_the_best_policy_is_that_of_the_seed_with_the_best_return(tmp_path, write_run):
    run, spec = write_run(tmp_path / "run", seeds=3), PolicySpec(4, 1, (2,))
    with pytest.raises(RunError, match=r"holds no best-0\.safetensors yet"):
        epvf_data.best_policy(run)
    for seed in range(2):
        save_policy(run / "policies" / f"best-{seed}.safetensors", spec, np.zeros(spec.size), env="cartpole")
    assert epvf_data.best_policy(run).name == "best-1.safetensors"  # seed 2 was better and has no file yet


def test_the_verbs_take_runs(in_tmp, shell, write_run):
    write_run(in_tmp / "a", 100, seeds=3)
    write_run(in_tmp / "b", 150, seeds=3, envs=8, finished=False)
    told = shell("info", "a").stdout
    assert "a: es on cartpole" in told
    assert "finished, 20 iterations, 3 seeds" in told
    assert "  median            101.00" in told
    assert "[100.00, 102.00]" in told
    found = json.loads(shell("info", "a", "--json", "--plot", "i.png").stdout)
    assert (found["kind"], found["final_return"]["median"], found["policy"]) == ("online", 101, None)
    told = shell("compare", "a", "b", "--plot", "c.svg", "--csv", "c.csv").stdout
    assert "b minus a: last return of θ +50.00 [" in told
    assert ", higher; best" in told
    assert "not finished" in told
    assert json.loads(shell("compare", "a", "b", "--json").stdout)["differences"][0]["of"] == "b"
    assert "a-curves.png: learning curves of a." in shell("plot", "a").stdout
    told = json.loads(shell("plot", "a", "b", "--out", "both.pdf", "--csv", "both.csv", "--json").stdout)
    assert told == {"picture": "both.pdf", "table": "both.csv", "experiments": ["a", "b"]}
    made = {"i.png", "c.svg", "c.csv", "a-curves.png", "both.pdf", "both.csv"}
    assert made <= {path.name for path in in_tmp.iterdir()}


def test_render_plays_the_best_policy_of_a_run(in_tmp, shell, write_run):
    pytest.importorskip("av")
    run, spec = write_run(in_tmp / "a"), PolicySpec(4, 1, (2,))
    save_policy(run / "policies" / "best-0.safetensors", spec, np.zeros(spec.size), env="cartpole")
    told = shell("render", "a", "--horizon", "5", "--width", "64", "--height", "64", "--quiet").stdout
    assert "video: a-best-0.mp4" in told
    assert (in_tmp / "a-best-0.png").is_file()
