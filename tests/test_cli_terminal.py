"""Text of strangers on the terminal and in pictures: nothing steers, nothing is markup, nothing is without end."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store import conftest as store

import epvf_data
from epvf_data import untrusted
from epvf_data.cli import main
from epvf_data.cli.app import print_json, print_table, say
from epvf_data.store.writer import Writer

WORDS = {
    "title and bell": "\x1b]0;owned\x07\u202e\u2066txt",
    "clear": "\x1b[2J\x9b2J",
    "another line": "a\nerror: send money\r",
    "directional": "gnp.\u202e\u2066txt",
    "markup": "[red]x[/red] [link=http://a.example]here[/link]",
    "formula": "$\\frac{$ and $x$",
    "half a formula": "$\\undefined{x}$",
    "hidden from legends": "_nolegend_",
    "surrogate": "a\ud800b",
    "nothing": "",
    "a megabyte": "x" * (1 << 20),
    "a megabyte of formulas": "$\\sum$" * (1 << 17),
    "many formulas": "$\\sum$" * (1 << 12),
    "a percent": "%s %d {0} {x} {{",
}
FILE = {name: word for name, word in WORDS.items() if name != "surrogate"}  # no file of ours can hold it


# Always: a terminal's codes and directions, and nothing.
FEW = ("title and bell", "nothing")


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.soak] * (name not in FEW)) for name in FILE])
def evil(request, in_tmp) -> str:
    """Data sets a and evil, the latter with a stranger's words wherever free words may be. Gives one of these."""
    word = FILE[request.param]
    plain = store.build_rows(6, probes=2)
    vocabularies = {
        name: tuple(f"{word}{n}" for n, _ in enumerate(w)) for name, w in plain.lineage.vocabularies.items()
    }
    lineage = dataclasses.replace(plain.lineage, vocabularies=vocabularies)
    rows = dataclasses.replace(plain, lineage=lineage, simulation={"backend": word, "device": word, "dtype": word})
    env = dataclasses.replace(store.ENV, name=word, version=word, details={word[:100]: word})
    provenance = {"command": [word, word], "versions": {"jax": word}, "git": {"commit": word}, "verb": word}
    for path, identity, content in (("a.zarr", store.ENV, plain), ("evil.zarr", env, rows)):
        with Writer.open(path, identity) as writer:
            writer.commit(content, provenance)
            writer.commit(store.build_rows(2, 5, spec=store.PolicySpec(4, 2, (5,))), provenance)
    return word


@pytest.fixture
def verb(monkeypatch, capsys):
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["epvf-data", *words])
        with contextlib.suppress(SystemExit):
            main()
        told = capsys.readouterr()
        return told.out + told.err

    return run


VERBS = [
    ("info", "evil.zarr"),
    ("info", "evil.zarr", "--commits"),
    ("info", "evil.zarr", "--json"),
    ("info", "evil.zarr", "--commits", "--json"),
    ("validate", "evil.zarr", "--deep"),
    ("validate", "evil.zarr", "--resimulate", "1"),
    ("diff", "a.zarr", "evil.zarr"),
    ("diff", "evil.zarr", "a.zarr", "--json"),
    ("merge", "a.zarr", "evil.zarr", "--out", "m.zarr"),
    ("filter", "evil.zarr", "--where", "return > 100"),
    ("filter", "evil.zarr", "--where", "source == 'x' or scale < 5"),
    ("sample", "evil.zarr", "--rows", "3"),
    ("split", "evil.zarr"),
    ("withhold", "evil.zarr"),
    ("compact", "evil.zarr"),
    ("gc", "evil.zarr", "--grace", "0"),
    ("plot", "evil.zarr"),
    ("info", "evil.zarr", "--plot", "r.png"),
    ("export-npz", "evil.zarr"),
    ("export-policy", "evil.zarr"),
    ("export-hdf5", "evil.zarr"),
    ("export-archive", "evil.zarr", "out"),
    ("card", "evil.zarr"),
    ("render", "evil.zarr"),
    ("collect", "--out", "evil.zarr", "--env", "cartpole"),
    ("collect", "--recipe", "evil.zarr"),
    ("train-offline", "evil.zarr", "--critic", "nope"),
]


def test_no_verb_hands_the_terminal_over(evil, verb, in_tmp):
    pytest.importorskip("jax")
    for words in VERBS:
        began = time.process_time()
        shown = verb(*words)
        assert shown.replace("\n", "").isprintable(), (words, shown[:500])
        assert "Traceback" not in shown
        assert not any(line.startswith("error: send money") for line in shown.splitlines()), words
        assert len(shown) < 20_000 or "--json" in words, words
        assert time.process_time() - began < 10


def test_one_door_to_the_terminal(capsys):
    for word in WORDS.values():
        say(f"first {word} last")
        say(word, error=True)
        print_json({"word": word, "\x7f": "\x7f"})
        print_table(["a", word], [[word, "1"]] * 300)
    told = capsys.readouterr()
    for line in (told.out + told.err).split("\n"):
        assert line.isprintable()
        assert len(line) < 10_010 or line.startswith('{"word"')
    tree = [ast.parse(path.read_text()) for path in (Path(main.__code__.co_filename).parent).glob("*.py")]
    calls = [
        node.func.id
        for one in tree
        for node in ast.walk(one)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert (calls.count("print"), calls.count("_print")) == (1, 2)  # of `say` and `print_json`


@pytest.mark.parametrize("name", WORDS)
def test_bars_show_names_as_they_are(name, monkeypatch):
    from epvf_data.progress import Bar

    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    with Bar(WORDS[name], "rows") as bar:
        bar.update(1, 2)
        bar.epoch({"split": WORDS[name], "epoch": 1, "epochs": 2, "validation_loss": [1.0]})
    assert "\x1b]" not in screen.getvalue()  # neither titles nor links
    assert "owned" not in screen.getvalue() or r"\x1b]0;owned\x07" in screen.getvalue()
    assert len(screen.getvalue()) < 20_000
    if name == "markup":
        assert "[red]x[/red]" in screen.getvalue()


@pytest.mark.parametrize("name", WORDS)
def test_pictures_show_words_as_they_are(name):
    """In titles, ticks and legends: the text that is drawn is the text, of bounded length."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    text = untrusted.picture_text(WORDS[name], 30)
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], label=f"{text} (5)")
    axes.set_yticks([0], [text])
    axes.set_xlabel(text)
    title = axes.set_title(f"{text}: {text}")
    legend = axes.legend().get_texts()
    figure.canvas.draw()
    shown = untrusted.printable(WORDS[name], 30)
    assert title._preprocess_math(title.get_text()) == (f"{title.get_text()}".replace(r"\$", "$"), False)
    assert title.get_text().replace(r"\$", "$").strip() == f"{text}: {text}".replace(r"\$", "$").strip()
    assert len(legend) == 1
    assert legend[0].get_text().replace(r"\$", "$").lstrip() == f"{shown} (5)".lstrip()
    assert len(text) <= 2 * 31 + 1


@pytest.mark.soak
def test_as_many_sources_as_rows_are_told_in_few_lines_and_little_time(in_tmp, verb):
    words = tuple(f"source {number}" for number in range(50_000))
    plain = store.build_rows(len(words))
    lineage = dataclasses.replace(
        plain.lineage,
        source=np.arange(len(plain), dtype=np.uint16),
        vocabularies={**plain.lineage.vocabularies, "source": words},
    )
    with Writer.open("many.zarr", store.ENV) as writer:
        writer.commit(dataclasses.replace(plain, lineage=lineage), {})
        writer.commit(store.build_rows(2, 5, spec=store.PolicySpec(4, 2, (5,))), {})
    began = time.process_time()
    for line in (("info",), ("info", "--plot", "r.png"), ("plot",), ("card", "-q")):
        shown = verb(line[0], "many.zarr", *line[1:])
        assert len(shown) < 50_000
        assert shown.count("\n") < 250
    assert time.process_time() - began < 20
    listed = json.loads(verb("info", "many.zarr", "--json"))
    assert (len(listed["sources"]), len(listed["coverage"])) == (50_002, 50_002)


def test_no_settings_of_matplotlib_are_taken_from_the_folder(in_tmp):
    """They may let LaTeX set every text, which is another program that reads files."""
    with Writer.open("a.zarr", store.ENV) as writer:
        writer.commit(store.build_rows(6, probes=2), {})
    (in_tmp / "matplotlibrc").write_text("text.usetex: True\nfont.size: 80\n")
    (in_tmp / "bin").mkdir()
    for name in ("latex", "dvipng", "kpsewhich"):
        (in_tmp / "bin" / name).write_text(f"#!/bin/sh\ntouch '{in_tmp}/ran'\n")
        (in_tmp / "bin" / name).chmod(0o755)
    command = [sys.executable, "-P", "-m", "epvf_data", "info", "a.zarr", "--plot", "a.png"]
    outside = {**os.environ, "PATH": f"{in_tmp / 'bin'}:{os.environ['PATH']}"}
    outside["PYTHONPATH"] = str(Path(epvf_data.__file__).parent.parent)
    done = subprocess.run(command, capture_output=True, text=True, env=outside, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (in_tmp / "a.png").read_bytes().startswith(b"\x89PNG")
    assert not (in_tmp / "ran").exists()


def test_numbers_that_json_does_not_have_are_null(in_tmp, verb):
    """A row may have a return that is not finite, and whoever reads the answer must not stumble over it."""
    plain = store.build_rows(4)
    with Writer.open("a.zarr", store.ENV) as writer:
        writer.commit(dataclasses.replace(plain, returns=np.full_like(plain.returns, np.nan)), {})
    assert json.loads(verb("export-policy", "a.zarr", "--row", "0", "--json"))["mean_return"] is None
