"""Merging: every row once, in order, with its lineage and provenance, and all of it or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store import conftest as store

import epvf_data
from epvf_data.curation.merge import merge
from epvf_data.errors import CorruptDatasetError, DatasetError, EnvironmentMismatchError
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.task import task_of
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.identity import mixed
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

WIDE = PolicySpec(4, 2, (5,))


def write(path: Path, env: EnvIdentity, *commits) -> Path:
    with Writer.open(path, env) as writer:
        for number, rows in enumerate(commits):
            writer.commit(rows, {"step": number, "command": ["collect", path.name], "seed": number})
    return path


def params(path: Path, architecture=None) -> np.ndarray:
    return epvf_data.open(path).table(architecture).column("params")


def test_all_architectures_every_row_once_lineage_and_provenance(quick_path, env, make_rows):
    a = write(quick_path / "a", env, make_rows(10, 0, probes=2), [make_rows(5, 1), make_rows(7, 2, spec=WIDE)])
    b = write(
        quick_path / "b", env, make_rows(10, 0, probes=2), make_rows(4, 3, spec=WIDE), make_rows(6, 4, episodes=3)
    )
    report = merge([a, b], quick_path / "c")
    assert (report.rows, report.rows_repeated, report.architectures) == (32, 10, 2)
    made = epvf_data.open(quick_path / "c")
    assert validate(quick_path / "c", deep=True) == []
    narrow = made.architectures[0].id
    expected = [make_rows(10, 0), make_rows(5, 1), make_rows(6, 4, episodes=3)]
    assert params(quick_path / "c", narrow).tobytes() == b"".join(rows.params.tobytes() for rows in expected)
    bases = [word for rows in expected for word in rows.lineage.words("base")]
    assert made.lineage(narrow).words("base") == bases
    origins = [origin for record in made.commits for origin in record.provenance["origins"]]
    assert [(origin["commit"], origin["rows"], origin["provenance"]["step"]) for origin in origins] == [
        (0, 10, 0),
        (1, 12, 1),
        (1, 4, 1),
        (2, 6, 2),
    ]
    assert {origin["record"] for origin in origins} <= {
        record.sha256 for path in (a, b) for record in epvf_data.open(path).commits
    }
    assert [part.entry.probe is not None for part in made.parts] == [True, False, False, False, False]


def test_parts_without_repeated_rows_are_copied_byte_by_byte(quick_path, env, make_rows):
    a = write(quick_path / "a", env, make_rows(10, 0, probes=2, discount=0.9))
    b = write(quick_path / "b", env, make_rows(10, 1, probes=2, discount=0.9))
    merge([a, b], quick_path / "c")
    old = [part.entry for path in (a, b) for part in epvf_data.open(path).parts]
    new = [part.entry for part in epvf_data.open(quick_path / "c").parts]
    assert [entry.files for entry in new] == [entry.files for entry in old]
    assert not {entry.id for entry in new} & {entry.id for entry in old}
    for entry, source in zip(new, old, strict=True):
        for name in entry.files:
            copies = list(quick_path.glob(f"*/parts/{source.id}/{name}"))
            assert (quick_path / "c" / "parts" / entry.id / name).read_bytes() == copies[0].read_bytes()


@given(choices=st.lists(st.integers(0, 7), min_size=1, max_size=12), cut=st.integers(0, 12), joined=st.booleans())
def test_any_rows_in_any_order_come_out_once(tmp_path_factory, choices, cut, joined):
    """Single rows, some the same, over two data sets, compacted or not: the union in order of first appearance."""
    here = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(dir=here) as folder:
        every = [store.build_rows(1, choice) for choice in choices]
        a = write(Path(folder, "a"), store.ENV, *every[:cut])
        b = write(Path(folder, "b"), store.ENV, *every[cut:])
        if joined:
            compact(a)
        report = merge([a, b], Path(folder, "c"))
        unique = list(dict.fromkeys(choices))
        assert (report.rows, report.rows_repeated) == (len(unique), len(choices) - len(unique))
        expected = b"".join(store.build_rows(1, choice).params.tobytes() for choice in unique)
        assert params(Path(folder, "c")).tobytes() == expected
        assert validate(Path(folder, "c"), deep=True) == []


def test_a_row_that_differs_in_one_thing_is_another_row(quick_path, env, make_rows):
    rows = make_rows(1, 0)
    changed: list[Rows] = [rows]
    for name in ("params", "returns", "reset_seed"):
        value = getattr(rows, name).copy()
        value.flat[0] += 1
        changed.append(replace(rows, **{name: value}))
    lineage = rows.lineage
    changed.append(replace(rows, lineage=replace(lineage, vocabularies={**lineage.vocabularies, "source": ("other",)})))
    changed.append(replace(rows, lineage=replace(lineage, scale=lineage.scale + 1)))
    a = write(quick_path / "a", env, *changed)
    report = merge([a, a], quick_path / "c")
    assert (report.rows, report.rows_repeated) == (len(changed), len(changed))


def test_another_environment_is_refused_unless_told(quick_path, env, make_rows):
    other = replace(env, name="hill", digest="e" * 64, horizon=20)
    a, b = write(quick_path / "a", env, make_rows(3, 0)), write(quick_path / "b", other, make_rows(4, 1))
    words = "differ in name 'hill' and 'toy', horizon 20 and 10, digests .*--other-environments"
    with pytest.raises(EnvironmentMismatchError, match=words):
        merge([a, b], quick_path / "c")
    assert not (quick_path / "c").exists()
    merge([a, b], quick_path / "c", other_environments=True)
    made = epvf_data.open(quick_path / "c")
    assert validate(quick_path / "c", deep=True) == []
    origins = [record.provenance["arguments"]["environment"]["digest"] for record in made.commits]
    assert origins == [env.digest, other.digest]


def test_rows_of_several_environments_claim_to_be_of_none_of_them(quick_path, env, make_rows, shell):
    """In whatever order they are merged, and the same ones again are the same mixture."""
    longer = replace(env, digest="e" * 64, horizon=20, details={"model_sha256": "m"})
    rows = make_rows(4, 1)
    long_rows = replace(rows, lengths=2 * rows.lengths)
    a, b = write(quick_path / "a", env, make_rows(3, 0)), write(quick_path / "b", longer, long_rows)
    made = []
    for number, paths in enumerate(([a, b], [b, a], [a, b])):
        out = quick_path / f"mixed{number}"
        merge(paths, out, other_environments=True)
        made.append(epvf_data.open(out))
        assert validate(out, deep=True) == []
    assert len({one.env.digest for one in made}) == 1
    assert made[0].env.digest not in (env.digest, longer.digest)
    assert (made[0].env.name, made[0].env.horizon, made[0].rows) == ("toy", 20, 7)
    assert [part.horizon for part in mixed(made[0].env)] == [10, 20]
    assert "toy (horizon 10, digest dddddddddddd), toy (horizon 20, digest eee" in shell("info", made[0].path).stdout
    merge([made[0].path, made[1].path], quick_path / "again")
    assert epvf_data.open(quick_path / "again").env.digest == made[0].env.digest
    merge([made[0].path, b], quick_path / "more", other_environments=True)
    assert epvf_data.open(quick_path / "more").env.digest == made[0].env.digest
    with pytest.raises(EnvironmentMismatchError, match="differ in horizon 10 and 20, .*the model"):
        Writer.open(a, longer)
    with pytest.raises(EnvironmentMismatchError, match="toy of horizon 10, toy of horizon 20.*no one task to roll out"):
        task_of(made[0], "my_env.py:make")


def test_progress_counts_each_row_once(quick_path, env, make_rows):
    a, b = write(quick_path / "a", env, make_rows(3, 0)), write(quick_path / "b", env, make_rows(4, 1))
    told = []
    merge([a, b], quick_path / "c", progress=lambda *counts: told.append(counts))
    assert told[-1] == (7, 7)
    assert told == sorted(told)


def test_what_cannot_be_merged_leaves_nothing(quick_path, env, make_rows):
    a, b = write(quick_path / "a", env, make_rows(3, 0)), write(quick_path / "b", env)
    with pytest.raises(DatasetError, match="no rows to merge"):
        merge([b], quick_path / "c")
    with pytest.raises(DatasetError, match="already is a data set"):
        merge([a], b)
    shard = next((a / "parts").glob("*/params/c/0/0"))
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptDatasetError, match="SHA-256"):
        merge([a], quick_path / "c")
    assert not (quick_path / "c").exists()


def test_merging_the_halves_of_a_split_gives_the_same_rows(quick_path, env, make_rows):
    """Commits that went through two hands keep the name of who made them."""
    from epvf_data.curation.select import split

    a = write(quick_path / "a", env, make_rows(20, 0), make_rows(20, 1))
    split(a, quick_path / "x", quick_path / "y", test_fraction=0.5, by="rows")
    merge([quick_path / "x", quick_path / "y"], quick_path / "c")
    made = epvf_data.open(quick_path / "c")
    assert sorted(params(quick_path / "c").tolist()) == sorted(params(a).tolist())
    inner = made.commits[0].provenance["origins"][0]["provenance"]
    assert (inner["verb"], inner["origins"][0]["provenance"]["command"]) == ("split", ["collect", "a"])


def test_killed_merges_leave_no_half_data_set(tmp_path, env, make_rows):
    """Killed at random moments `out` does not open, and the same command makes it whole afterwards."""
    a = write(tmp_path / "a", env, *(make_rows(40, step, probes=2) for step in range(12)))
    b = write(tmp_path / "b", env, *(make_rows(40, step, probes=2) for step in range(8, 20)))
    out = tmp_path / "c"
    code = (
        "import sys\nfrom epvf_data.curation.merge import merge\nprint(flush=True)\nmerge(sys.argv[1:3], sys.argv[3])"
    )
    rng = np.random.default_rng(0)
    halves = 0
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", code, a, b, out], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.35))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if (out / "zarr.json").exists():
            assert epvf_data.open(out).rows == 800
            assert validate(out, deep=True) == []
            break
        halves += out.exists()
        with pytest.raises(DatasetError, match="unfinished|does not exist|not a data set"):
            epvf_data.open(out)
    else:
        assert halves
        merge([a, b], out)
    whole = merge([a, b], tmp_path / "d")
    assert (whole.rows, whole.rows_repeated) == (800, 160)
    assert content_hash(epvf_data.open(out)) == content_hash(epvf_data.open(tmp_path / "d"))


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_data_sets(tmp_path, env):
    """200 and 400 MB are merged within the same few hundred megabytes, also where rows repeat."""
    code = """
import pathlib, sys
from epvf_data.curation.merge import merge
merge(sys.argv[1:-1], sys.argv[-1])
print(next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
"""
    spec = PolicySpec(34, 8, (64, 64))
    big = EnvIdentity("big", "1", "b" * 64, 34, 8, 10, 0.1, 1, {})
    rng = np.random.default_rng(0)

    def rows(seed, count=3600):
        flags = np.ones((count, 1), bool)
        return Rows(
            spec=spec,
            params=rng.random((count, spec.size), np.float32),
            returns=np.full((count, 1), seed, np.float32),
            lengths=np.full((count, 1), 10, np.int32),
            terminated=~flags,
            truncated=flags,
            finite=flags,
            reset_seed=np.arange(2 * count, dtype=np.uint32).reshape(-1, 2),
            lineage=Lineage.build(count, source="random"),
            simulation={},
        )

    peaks = []
    for size in (2, 4):
        path = write(tmp_path / f"a{size}", big, *(rows(seed) for seed in range(size)))
        again = write(tmp_path / f"b{size}", big, epvf_data.open(path).parts[0], rows(99, 10))
        process = subprocess.run(
            [sys.executable, "-c", code, path, again, tmp_path / f"c{size}"], capture_output=True, text=True, check=True
        )
        peaks.append(int(process.stdout) // 1024)  # MiB
        assert epvf_data.open(tmp_path / f"c{size}").rows == 3600 * size + 10
    assert peaks[0] < 500
    assert peaks[1] < peaks[0] + 60
