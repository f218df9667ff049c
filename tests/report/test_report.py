"""The page: what is in it, that it can do nothing but show it, and how it behaves in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import ConfigError, DatasetError, RunError
from epvf_data.report import page
from epvf_data.report.gather import MOST, gather, notable
from epvf_data.store import reader

SPEC = epvf_data.PolicySpec(3, 2, hidden=(4,))
TASK = epvf_data.task("reach<b>er", 3, 2, horizon=50)
HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">&\u2028"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make(path, rows=300, seed=0, source=HOSTILE):
    """Rows whose return is linear in θ, of two sources, one with a name that is markup."""
    random = np.random.default_rng(seed)
    params = random.normal(size=(rows, SPEC.size))
    returns = params @ np.arange(SPEC.size) + 0.1 * random.normal(size=rows)
    states = random.normal(size=(6, 3))
    actions = np.tanh(params[:, :12].reshape(rows, 6, 2))
    sources, base = [source if row % 3 else "random" for row in range(rows)], [f"base{row % 20}" for row in range(rows)]
    probes = {"probe_states": states * 0 + np.arange(3), "probe_actions": actions}
    return epvf_data.write(path, TASK, SPEC, params, returns, source=sources, base=base, **probes)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return make(tmp_path_factory.mktemp("report") / "a<i>.zarr").path


@pytest.fixture(scope="module")
def run(stored):
    """A plane that was fitted to these rows."""
    folder = stored.parent / "plane"
    epvf_data.train_offline(stored, epvf_data.OfflineConfig(critic="ridge", split="iid", resamples=20), folder)
    return folder


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def test_all_rows_are_there_and_nothing_of_a_stranger_is_markup(stored, tmp_path):
    told = epvf_data.write_report([stored], tmp_path / "a.html", pictures=False)
    text, data = (tmp_path / "a.html").read_text(), data_of(tmp_path / "a.html")
    assert told == {
        "page": str(tmp_path / "a.html"),
        "bytes": len(text.encode()),
        "points": 300,
        "frames": 0,
        "notes": [],
    }
    table = reader.open(stored).table()
    assert data["points"]["row"] == list(range(300))
    np.testing.assert_allclose(data["points"]["return"], table.mean_returns(), rtol=1e-4)
    np.testing.assert_allclose(data["points"]["norm"], np.linalg.norm(table.column("params"), axis=1), rtol=1e-4)
    assert any("hacked" in name for name in data["sources"])  # as text
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 2
    assert 'onerror="' not in text
    assert "<i>" not in text
    assert not re.search(r"https?:", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert "{{" not in text.replace(json.dumps(data), "")[:2000]


def test_more_rows_than_fit_are_sampled_and_the_notable_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("epvf_data.report.gather.MOST", 40)
    dataset = make(tmp_path / "a.zarr")
    found = gather([dataset], [], 0)
    assert len(found["points"]["row"]) == 40
    for ranks in notable(dataset).values():
        assert set(ranks.values()) <= set(found["points"]["row"])
    means = dataset.table().mean_returns()
    assert means[notable(dataset)["random"]["best"]] == means[::3].max()
    assert MOST == 10_000


def test_a_critic_is_shown_on_what_it_never_saw(stored, run, tmp_path):
    epvf_data.write_report([stored], tmp_path / "a.html", [run], pictures=False)
    data = data_of(tmp_path / "a.html")
    [shown] = data["runs"]
    critic = epvf_data.load_critic(run)
    test = critic.fitted.ground.test
    values = np.array([np.nan if value is None else value for value in shown["values"]])
    assert set(np.flatnonzero(np.isfinite(values))) == set(test.tolist())
    table = reader.open(stored).table()
    np.testing.assert_allclose(values[test], critic(table.take("params", test)), rtol=1e-3, atol=1e-3)
    assert shown["spearman"] > 0.9
    assert (shown["split"], shown["held_out"]) == ("iid", len(test))


def test_of_a_split_with_folds_all_rows_are_shown_and_the_score_is_the_reports(stored, tmp_path):
    report = epvf_data.train_offline(
        stored, epvf_data.OfflineConfig(critic="linear", folds=3, epochs=3, seeds=1), tmp_path / "run"
    )
    epvf_data.write_report([stored], tmp_path / "a.html", [tmp_path / "run"], pictures=False)
    [shown] = data_of(tmp_path / "a.html")["runs"]
    assert (shown["split"], shown["held_out"]) == ("lineage", report.rows_test) == ("lineage", 300)
    assert shown["spearman"] == pytest.approx(report.spearman)


def test_two_data_sets_share_a_map_and_a_run_finds_its_own(stored, run, tmp_path):
    other = make(tmp_path / "b.zarr", rows=60, seed=1, source="cma")
    epvf_data.write_report([other.path, stored], tmp_path / "a.html", [run], pictures=False)
    data = data_of(tmp_path / "a.html")
    assert [one["rows"] for one in data["datasets"]] == [60, 300]
    assert None not in data["points"]["x"]
    owners = {owner for owner, value in zip(data["points"]["dataset"], data["runs"][0]["values"], strict=True) if value}
    assert owners == {1}
    with pytest.raises(RunError, match="was fitted to other rows than those of"):
        epvf_data.write_report([other.path], tmp_path / "c.html", [run], pictures=False)


def test_code_that_nothing_needs_is_told(stored, run, tmp_path):
    with pytest.raises(ConfigError, match="no run here has a critic of your own; leave --critic out"):
        epvf_data.write_report([stored], tmp_path / "a.html", [run], critics=["mine.py:make"], pictures=False)
    with pytest.raises(ConfigError, match="are MLPs, which need no code; leave --policy out"):
        epvf_data.write_report([stored], tmp_path / "a.html", policy="mine.py:make", pictures=False)


def test_mistakes_are_one_sentence_and_leave_no_file(stored, tmp_path, shell):
    for words, told in (
        ([stored, stored, stored], "3 data sets were named; a page shows at most 2"),
        ([stored, "--out", "a.pdf"], "ends in .html"),
        (["missing.zarr"], "missing.zarr"),
    ):
        done = shell("report", *words, code=None)
        assert done.returncode, words
        assert told in done.stderr
    (tmp_path / "a.html").write_text("mine")
    with pytest.raises(DatasetError, match="force"):
        epvf_data.write_report([stored], tmp_path / "a.html", pictures=False)
    with pytest.raises(ConfigError, match="no data set was named"):
        epvf_data.write_report([], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_text() == "mine"


PROBE = Path(__file__).with_name("probe.js").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_in_a_browser_panels_are_linked_and_nothing_else_runs(stored, run, tmp_path):
    """The page's own program is followed by one that drags and clicks, and says what happened."""
    epvf_data.write_report([stored], tmp_path / "a.html", [run], pictures=False)
    text = (tmp_path / "a.html").read_text()
    program = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[0]
    longer = program + PROBE
    text = text.replace(program, longer).replace(page._source(program), page._source(longer))
    (tmp_path / "probed.html").write_text(text)
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1600"]
    words += [
        f"--user-data-dir={tmp_path}/browser",
        "--virtual-time-budget=3000",
        "--dump-dom",
        f"file://{tmp_path}/probed.html",
    ]
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=300)
    out = re.search("<output>(.*?)</output>", done.stdout, re.DOTALL)
    assert out, done.stderr[-2000:]
    said = json.loads(out[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert said["title"] == "a<i>.zarr"
    assert all(said["ink"])
    assert len(said["ink"]) == 4
    assert "selected: mean return" in said["histogram"]
    assert said["least"] > np.median(reader.open(stored).table().mean_returns())
    assert 0 < said["map"][0] < 300
    assert said["map"][1:] == [True, True]
    assert said["detail"].startswith("Row 7 of a<i>.zarr")
    assert f"--row 7 --architecture {SPEC.id[:12]}" in said["detail"]
    assert "policies drawn" in said["hidden"]
    assert (said["images"], said["scripts"], said["eval"]) == (0, 2, False)
    assert "injected" not in said
    assert {"script-src", "img-src"} <= {directive.removesuffix("-elem") for directive in said["violations"]}


@pytest.mark.soak
def test_frames_are_of_the_best_median_and_worst_of_each_source(in_tmp):
    epvf_data.collect(epvf_data.collect_config("cartpole", envs=16, horizon=30), "poles.zarr")
    told = epvf_data.write_report(["poles.zarr"], "poles.html")
    data = data_of(in_tmp / "poles.html")
    kinds = notable(reader.open("poles.zarr"))
    assert told["frames"] == len(data["frames"][0]) == 3 * len(kinds)
    assert all(strip["picture"].startswith("data:image/webp;base64,") for strip in data["frames"][0])
    assert told["bytes"] < page.MOST_BYTES
