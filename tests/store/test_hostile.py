"""What a stranger's data set cannot do: each of the corpus is read in a child process with bounded memory and time."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import conftest, corpus, forge

import epvf_data
from epvf_data import untrusted
from epvf_data.errors import UnsafeDatasetError
from epvf_data.store.writer import Writer

HERE = Path(__file__).parent
MEGABYTES = 300  # of address space, more than reading a good data set takes
SECONDS = 30  # to read one data set in eight ways, on a busy machine
# Every arena of malloc reserves address space, and how many there are depends on how busy the machine is.
ENVIRONMENT = {**os.environ, "MALLOC_ARENA_MAX": "2", "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE": "1", "COLUMNS": "1000"}


@pytest.fixture
def good(quick_path) -> dict[str, Path]:
    """Two data sets of two commits each, plain and compressed, and a file outside that nobody has to read."""
    (quick_path / "outside").mkdir()
    (quick_path / "outside" / "secret").write_text("secret")
    for name, compression in (("plain", None), ("packed", 3)):
        with Writer.open(quick_path / name, conftest.ENV, compression) as writer:
            for seed in range(2):
                writer.commit(conftest.build_rows(3 - seed, seed, probes=2, discount=0.9), {})
    return {name: quick_path / name for name in ("plain", "packed")}


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every name under a folder with its size, its time of change and its mode."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (status.st_size, status.st_mtime_ns, status.st_mode) for path, status in found}


def read_in_a_child(good: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """What reading each data set in every way gave. Nothing may have been written, and no code have run."""
    before = snapshot(good.parent)
    result = subprocess.run(
        [sys.executable, str(HERE / "forge.py"), str(MEGABYTES), str(SECONDS), str(good)],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        cwd=good.parent,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert snapshot(good.parent) == before
    return [json.loads(line) for line in result.stdout.splitlines()]


def sentences(found: dict[str, Any]) -> list[str]:
    """All messages that reading gave, each of which must be one short line without control characters."""
    problems = [
        text for way in ("validate", "deep", "leftovers") if isinstance(found[way], list) for text in found[way]
    ]
    texts = [found[way] for way in forge.WAYS if isinstance(found.get(way), str)] + problems
    for text in texts:
        assert text.isprintable(), repr(text)
        assert len(text) < 600, text
        assert text[-1] in ".…", text
    return texts


def spoilt(good: Path, table: dict[str, tuple[Any, str]]) -> list[tuple[str, str, Path]]:
    return [
        (name, match, forge.forged(good, good.parent / f"{good.name}-{number}", change))
        for number, (name, (change, match)) in enumerate(table.items())
    ]


@pytest.mark.parametrize(("base", "table"), [("plain", "CORPUS"), ("packed", "PACKED"), ("plain", "HARMLESS")])
def test_hostile_data_sets_give_one_sentence(good, base, table, monkeypatch, some):
    monkeypatch.chdir(good[base].parent)  # where a pickle would leave its mark
    cases = spoilt(good[base], some(getattr(corpus, table)))
    for (name, match, _), found in zip(cases, read_in_a_child(good[base], [path for _, _, path in cases]), strict=True):
        assert found["crashes"] == [], (name, "\n".join(found["crashes"]))
        texts = sentences(found)
        if table == "HARMLESS":
            assert not any(isinstance(found[way], str) for way in forge.WAYS), (name, texts)
        else:
            assert found["deep"], name
        assert match is None or any(re.search(match, text) for text in texts), (name, match, texts)
    assert not Path(corpus.CANARY).exists()


def run_verb(verb: str, path: Path, *options: str, trace: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "epvf_data", verb, str(path), *options]
    if trace is not None:
        command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=openat,open,creat,connect,execve", *command]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=path.parent, env=ENVIRONMENT, timeout=120, check=False
    )


SHELL = {
    "linked part": ("CORPUS", "info"),
    "pipe as a record": ("CORPUS", "info"),
    "shape beyond 2**63": ("CORPUS", "validate"),
    "no words": ("CORPUS", "validate"),
    "pickle in a part": ("CORPUS", "validate"),
    "words with escapes": ("HARMLESS", "info"),
    "name with escapes": ("HARMLESS", "info"),
}


def test_hostile_data_sets_from_the_shell(good, monkeypatch, shell):
    """One sentence or a clean listing; the terminal is not in a stranger's hands."""
    monkeypatch.chdir(good["plain"].parent)
    for name, (table, verb) in SHELL.items():
        change, match = getattr(corpus, table)[name]
        path = forge.forged(good["plain"], good["plain"].parent / re.sub(r"\W", "-", name), change)
        result = shell(verb, path, *(["--deep", "--quiet"] if verb == "validate" else []), code=None)
        text = result.stdout + result.stderr
        assert result.returncode == (0 if match is None else 1), (name, text)
        assert "Traceback" not in text, name
        assert text.replace("\n", "").isprintable(), (name, text)
        assert match is None or re.search(match, text), (name, text)
        assert match is None or len(text.splitlines()) <= 3, (name, text)


@pytest.mark.parametrize("name", ["linked shard", "name in a record: '../../outside/secret'"])
def test_nothing_outside_is_opened(good, name, tmp_path):
    """Every file that is opened lies in the data set, or would be opened for a good one as well."""
    path = forge.forged(good["plain"], good["plain"].parent / "traced", corpus.CORPUS[name][0])
    opened = {}
    for which in (good["plain"], path):
        assert run_verb("validate", which, "--deep", "--quiet", trace=tmp_path / which.name).returncode == (
            which == path
        )
        lines = (tmp_path / which.name).read_text().splitlines()
        names = [re.findall(r'"([^"]*)"', line) for line in lines if " = -1 " not in line]
        opened[which] = {Path(found[0]) for found in names if found}
    assert any(path in item.parents for item in opened[path])
    there = good["plain"].parent
    assert not [item for item in opened[path] if there in item.parents and path not in (item, *item.parents)]
    for line in (tmp_path / path.name).read_text().splitlines():
        assert str(there) not in line or "O_RDONLY" in line or "execve" in line, line


def test_a_data_set_may_be_reached_by_a_link_that_its_user_made(good, tmp_path):
    (tmp_path / "link").symlink_to(good["plain"])
    assert epvf_data.open(tmp_path / "link").rows == 5
    assert epvf_data.validate(tmp_path / "link", deep=True) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain θ", "plain θ"),
        ("a\x1b[2J\n", "a\\x1b[2J\\n"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("x" * 99, "x" * 80 + "…"),
    ],
)
def test_what_strangers_wrote_is_shown_on_one_line(text, shown):
    assert untrusted.printable(text) == shown


def test_brackets_inside_words_are_no_depth():
    data = rb'{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"{{{{{{{","b\\":["]"]}'
    assert untrusted.parse_json(data, "here")["a"].startswith("[[")
    assert untrusted._structure(data) == (2, 3)
    with pytest.raises(UnsafeDatasetError, match="40 levels"):
        untrusted.parse_json(b'{"\\\\":' * 40 + b"1" + b"}" * 40, "here")


def test_random_seeds_of_128_bits_are_numbers():
    assert untrusted.parse_json(b'{"a":%d}' % (1 << 127), "here")["a"] == 1 << 127


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory) -> tuple[Any, list[bytes]]:
    """The functions that benchmarks/fuzz.py runs for minutes, and valid inputs for them."""
    source = importlib.util.spec_from_file_location("fuzz", HERE.parent.parent / "benchmarks" / "fuzz.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module, module.seeds(module.build(tmp_path_factory.mktemp("fuzz") / "store"))


EDITS = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8) | st.sampled_from([b'"', b"[", b"9" * 50]))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 16), edits=st.lists(EDITS, min_size=1, max_size=4))
def test_changed_bytes_give_our_errors_only(fuzz, seed, edits):
    """Valid metadata and shards with a few pieces replaced: each is read, or refused with an error of ours."""
    module, seeds = fuzz
    data = seeds[seed % len(seeds)]
    for place, length, new in edits:
        at = 1 + int(place * (len(data) - 1))
        data = data[:at] + new + data[at + length :]
    module.run(data)
