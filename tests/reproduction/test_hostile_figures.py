"""What a stranger's folder of a figure cannot do, to `reproduce` and to what goes on with its runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from trainers import hostile_runs as corpus

from epvf_data.errors import EpvfError
from epvf_data.reproduction.reproduce import reproduce
from epvf_data.trainers.online.run import read_config, train_online
from epvf_data.trainers.online.settings import online_config

change, put, link, special = corpus.change, corpus.put, corpus.link, corpus.special
PLAN = {
    **{"figure": "fig1", "scale": "cpu", "command": "epvf-data reproduce fig1", "date": "2026-01-01"},
    **{"commands": ["epvf-data reproduce fig1"], "left_out": {}, "versions": {"jax": "1"}},
    "hardware": {"processor": "a", "cores": 2, "device": "cpu"},
}
IDENTITY = {"env_digest": "x", "backend": "native", "run": "x", "record": None, "warm_start": None}
EVIL = "import pathlib; pathlib.Path('pwned').touch()\n"


@pytest.fixture
def figure(tmp_path, sim, monkeypatch):
    """A folder with two runs and a plan; everything happens in the folder above it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis.txt").write_text("precious")
    (tmp_path / "evil.py").write_text(EVIL + "def make(): ...\n")
    for envs in (1, 2):
        config = sim.settings(env="cartpole", envs=envs, seeds=2)
        run = sim.write_run(tmp_path / "fig" / "runs" / f"envs-{envs}", config)
        change("config.json", lambda it: {**it, **IDENTITY})(run)
        (run / corpus.GROUND / "0").mkdir(parents=True)
    (tmp_path / "fig" / "plan.json").write_text(json.dumps(PLAN))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "fig"


def draw(out: Path):
    return reproduce("fig1", "cpu", out, redraw=True)


def resume(out: Path):
    return train_online(online_config("cartpole-paper", envs=1, seeds=2), out / "runs" / "envs-1", resume=True)


VERBS = (draw, resume, lambda out: read_config(out / "runs" / "envs-1"))


def refusal(verb, out: Path) -> str | None:
    with corpus.Watch() as watch:
        try:
            verb(out)
            text = None
        except EpvfError as error:
            text = str(error)
    assert watch.seconds < 30
    assert watch.megabytes < 300
    assert text is None or (text.isprintable() and len(text) < 800), text
    assert (out.parent / "outside" / "thesis.txt").read_text() == "precious"
    assert not (out.parent / "pwned").exists()
    return text


RUN = {
    **{f"config.json: {name}": (put("config.json", data), words) for name, (data, words) in corpus.BYTES.items()},
    **{
        f"{name} is {str(value)[:20]}": (corpus.setting(name, value), "cannot be used|holds no run")
        for name, value in (
            *(("seeds", 10**9), ("seeds", "x"), ("envs", -1), ("iterations", 10**39), ("policy", 5)),
            *(("critic", []), ("env", 7), ("env", "nope"), ("algorithm", "x" * 10**6), ("nope", 1)),
            *(("log_every", 0), ("horizon", "x"), ("seed", 10**12), ("policy", {"hidden": "x"})),
        )
    },
}


@pytest.mark.parametrize("name", corpus.FILES)
def test_links_special_files_and_unknown_shapes(figure, name):
    spoil, _ = corpus.FILES[name]
    shutil.move(figure.parent / "outside", figure / "runs" / "outside")  # where the links point to
    spoil(figure / "runs" / "envs-1")
    shutil.copytree(figure / "runs" / "outside", figure.parent / "outside")
    for verb in VERBS:
        assert refusal(verb, figure), name


@pytest.mark.parametrize("name", RUN)
def test_settings_of_runs(figure, name):
    spoil, words = RUN[name]
    spoil(figure / "runs" / "envs-1")
    texts = [refusal(verb, figure) for verb in VERBS]
    assert all(texts), texts
    assert any(re.search(words, str(text)) for text in texts), texts


def test_code_that_a_run_names_is_not_run(figure):
    corpus.setting("env", "evil.py:make")(figure / "runs" / "envs-1")
    for verb in VERBS:
        assert "none of this package" in str(refusal(verb, figure)) or verb is resume
    assert read_config(figure / "runs" / "envs-1", env="cartpole").env == "cartpole"


FIGURE = {
    "runs elsewhere": lambda out: (shutil.move(out / "runs", out / "x"), link("runs", "x")(out)),
    "a run elsewhere": lambda out: (
        shutil.move(out / "runs" / "envs-1", out / "x"),
        link("runs/envs-1", "../x")(out),
    ),
    "seeds elsewhere": lambda out: (
        shutil.move(out / "runs" / "envs-1", out / "x"),
        (out / "runs" / "envs-1").mkdir(),
        link("runs/envs-1/seed-0", "../../x")(out),
    ),
    "runs are a file": lambda out: (shutil.rmtree(out / "runs"), put("runs", b"")(out)),
    "a note that is a link": link("runs/envs-4.failed.txt", "../../outside/thesis.txt"),
    "a note that is a pipe": special("runs/envs-4.failed.txt", os.mkfifo),
    "a plan that is a link": lambda out: (put("x", json.dumps(PLAN).encode())(out), link("plan.json", "x")(out)),
    "a plan that is a pipe": special("plan.json", os.mkfifo),
    "a plan of many levels": put("plan.json", corpus.deep()),
    "a plan of another figure": change("plan.json", lambda it: it.__setitem__("figure", corpus.ESCAPE)),
    "a picture that is a link": link("figure.png", "../outside/thesis.txt"),
    "a report that is a link": link("report.md", "../outside/thesis.txt"),
    "data that are a link": link("data.json", "../outside/thesis.txt"),
    **{
        f"{key} is {str(value)[:20]}": change("plan.json", lambda it, k=key, v=value: it.__setitem__(k, v))
        for key, value in (
            *(("commands", "x"), ("commands", [1]), ("versions", []), ("versions", {"jax": 1})),
            *(("hardware", {}), ("hardware", None), ("left_out", {"envs-4": 5}), ("date", 5)),
        )
    },
    "an endless line": put("runs/envs-1/metrics.jsonl", b"x" * (2 << 20)),
    "versions of many levels": put("runs/envs-1/versions.json", corpus.deep()),
}


@pytest.mark.parametrize("name", FIGURE)
def test_figures_of_strangers(figure, name):
    FIGURE[name](figure)
    assert refusal(draw, figure), name


def lines(**more) -> bytes:
    """What a seed logged, with some numbers changed in every second line."""
    found = []
    for at in range(1, 400):
        line = {"seed": 0, "iteration": at, "env_steps": 10 * at, "return_perturbed": 1.0, "return_unperturbed": 2.0}
        found.append(json.dumps(line | {name: value(at) if callable(value) else value for name, value in more.items()}))
    return "\n".join(found).encode()


STRANGE = {
    "many seeds": lines(seed=lambda at: at * 7919),
    "seeds of words": lines(seed="x"),
    "wild returns": lines(return_perturbed=1e300),
    "returns of words": lines(return_perturbed="x"),
    "wild steps": lines(env_steps=1e29),
    "steps that go back": lines(env_steps=lambda at: -at),
    "no steps": lines(env_steps=None),
    "wild iterations": lines(iteration=10**39),
    "iterations all alike": lines(iteration=1),
    "lists": b"[]\n" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_metrics_cannot_break_a_drawing(figure, name, monkeypatch):
    monkeypatch.setattr("epvf_data.reproduction.draw.draw", lambda data: Figure(figsize=(1, 1)))
    put("runs/envs-1/metrics.jsonl", STRANGE[name])(figure)
    assert refusal(draw, figure) is None
    json.loads((figure / "data.json").read_text())


def test_words_of_a_plan_are_no_markup(figure, monkeypatch):
    monkeypatch.setattr("epvf_data.reproduction.draw.draw", lambda data: Figure(figsize=(1, 1)))
    evil = "![x](http://evil/x.png) `<script>` " + corpus.ESCAPE
    stranger = PLAN | {"commands": [evil], "date": evil, "left_out": {"envs-4": evil}, "versions": {"jax": evil}}
    (figure / "plan.json").write_text(json.dumps(stranger | {"hardware": {**PLAN["hardware"], "processor": evil}}))
    put("runs/envs-8.failed.txt", evil.encode())(figure)
    put("runs/envs-1/versions.json", json.dumps({"jax": evil, "x" * 10**6: None}).encode())(figure)
    assert refusal(draw, figure) is None
    text = (figure / "report.md").read_text()
    assert all(line.isprintable() for line in text.splitlines())
    outside_code = re.sub(r"`[^`]*`", "", text.replace("figure.png)", ""))
    assert "![x](" not in outside_code
    assert "<script>" not in outside_code
    assert (figure / "data.json").stat().st_size < 10**6


def first(change_of):
    """A change of the first variant of data.json."""
    return change("data.json", lambda it: change_of(it["variants"][0]))


def series(change_of):
    return first(lambda it: change_of(it["curves"]["env_steps"]["return_perturbed"]))


BESIDE = {
    "data that are a link": lambda out: (shutil.move(out / "data.json", out / "x"), link("data.json", "x")(out)),
    "data that are a pipe": lambda out: ((out / "data.json").unlink(), special("data.json", os.mkfifo)(out)),
    "data of many levels": put("data.json", corpus.deep()),
    "half a file": put("data.json", b'{"figure": '),
    "a list": put("data.json", b"[]"),
    "no variants": change("data.json", lambda it: it.pop("variants")),
    "variants without names": first(lambda it: it.pop("name")),
    "a name of an object": first(lambda it: it.__setitem__("name", {})),
    "another figure": change("data.json", lambda it: it.__setitem__("figure", corpus.ESCAPE)),
    "a state of its own": first(lambda it: it.__setitem__("status", "left out")),
    "many seeds": first(lambda it: it.__setitem__("seeds", list(range(10**5)))),
    "no hardware": change("data.json", lambda it: it.pop("hardware")),
    "wild seconds": first(lambda it: it.__setitem__("seconds", 10**40)),
    "no final": first(lambda it: it.pop("final")),
    "a short series": series(lambda it: it["low"].pop()),
    "a seed's short series": series(lambda it: it["seeds"][0].pop()),
    "words in a series": series(lambda it: it["iqm"].__setitem__(0, "x")),
    "holes in a series": series(lambda it: it["grid"].__setitem__(0, None)),
    "lots of no form": change("data.json", lambda it: it.__setitem__("beside", 5)),
    "lots of words": change("data.json", lambda it: it.__setitem__("beside", ["x"])),
    "a setting of words": first(lambda it: it.__setitem__("changes", {"![x](y)": [1, 2]})),
    "a series of its own": first(lambda it: it["curves"]["env_steps"].__setitem__("x", 5)),
}


@pytest.fixture
def other(figure, sim, monkeypatch):
    """A folder with what two runs of another figure gave."""
    monkeypatch.setattr("epvf_data.reproduction.draw.draw", lambda data: Figure(figsize=(1, 1)))
    folder = figure.with_name("other")
    for name in ("best", "es"):
        config = sim.settings(env="ant", envs=2, seeds=2, horizon=250)
        sim.write_run(folder / "runs" / name, config)
    (folder / "plan.json").write_text(json.dumps(PLAN | {"figure": "fig2-ablations"}))
    reproduce("fig2-ablations", "cpu", folder, redraw=True)
    return folder


def borrow(out: Path):
    return reproduce("fig2-ablations", "cpu", out.with_name("joined"), redraw=True, beside=[out])


@pytest.mark.parametrize("name", BESIDE)
def test_data_of_strangers(other, name):
    BESIDE[name](other)
    assert refusal(borrow, other), name
    assert not other.with_name("joined").exists()


def test_words_of_a_strangers_data_are_no_markup(other):
    evil = "![x](http://evil/x.png) `<script>` " + corpus.ESCAPE
    first(lambda it: it.update(label=evil, changes={"envs": [evil, evil]}, reason=evil, preset=evil, x=evil))(other)
    change("data.json", lambda it: it.update(title=evil, commands=[evil], date=evil, claims=[{"claim": evil}]))(other)
    assert refusal(borrow, other) is None
    text = (other.with_name("joined") / "report.md").read_text()
    assert all(line.isprintable() for line in text.splitlines())
    outside_code = re.sub(r"`[^`]*`", "", text.replace("figure.png)", ""))
    assert "![x](" not in outside_code
    assert "<script>" not in outside_code


def test_the_users_own_files_stay(tmp_path, sim):
    for name in ("report.md", "figure.png", "data.json"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(EpvfError, match="exists already|choose another|lost its plan|nothing to draw"):
            reproduce("fig1", "cpu", out, redraw=True)
        assert (out / name).read_text() == "mine"
