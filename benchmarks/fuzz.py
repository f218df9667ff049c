"""Fuzzes everything that parses a stranger's metadata: whatever the bytes are, only our own errors may come out.

Two fuzzers, each for some time: `structural` changes valid documents by a seeded random generator (bytes, JSON members)
and reads them with hashes that fit, now and then as a whole data set; `guided` hands bytes to the same functions under
atheris (libFuzzer), which keeps what reaches new code. Prints one JSON line and adds it to results/fuzz.json, beside
those of the other fuzzers: day, commit, seeds, executions, how far the guided one came, and every finding (an exception
that is not ours, or a second for one input).

    python benchmarks/fuzz.py --seconds 300 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GUIDED = "--guided-child"
SLOW = 1.0  # seconds that no input of a few kilobytes may take
SIZE = 1 << 14  # bytes of the longest input
ROUND = 60  # seconds of one process of the guided fuzzer

if GUIDED in sys.argv:
    atheris = importlib.import_module("atheris")
    instrument: Any = atheris.instrument_imports(include=["epvf_data"])
else:
    atheris, instrument = None, contextlib.nullcontext()

with instrument:
    import numpy as np

    from epvf_data import provenance, untrusted
    from epvf_data.errors import EpvfError
    from epvf_data.policies.kinds import from_dict
    from epvf_data.policies.own import OwnSpec
    from epvf_data.policies.spec import Normaliser, PolicySpec
    from epvf_data.store import commit, guard
    from epvf_data.store.checksum import crc32c
    from epvf_data.store.lineage import Lineage
    from epvf_data.store.schema import COLUMNS, PROBE_STATES, EnvIdentity, Rows, to_json
    from epvf_data.store.shard import Layout, Shard, array_metadata, encode, zstd_content_size
    from epvf_data.store.validate import leftovers, validate
    from epvf_data.store.writer import Writer

SPEC = PolicySpec(3, 2, (4,), normaliser=Normaliser((0.0,) * 3, (1.0,) * 3))
ENV = EnvIdentity("fuzz", "1", "f" * 64, 3, 2, 10, 0.05, 5, {"solver": "none"})
LAYOUTS = (Layout((20, 3), "float32", 32), Layout((20, 3), "float32", 32, 3), Layout((5,), "bool", 16))
NAMES = (*COLUMNS, "states")


def _array(data: bytes, name: str) -> None:
    column = PROBE_STATES if name == "states" else COLUMNS[name]
    guard.array_layout(untrusted.parse_json(data, "array"), column, "array")


def _group(data: bytes) -> None:
    guard.group_attributes(untrusted.parse_json(data, "group"), "group")


def _record(data: bytes) -> None:
    """A record with a seal that fits; `data` is its JSON without the seal."""
    import hashlib

    body = data[:-1]
    record = commit.unseal(body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}', "record")
    commit.live_parts([record, record])


def _policy(data: bytes) -> None:
    spec = from_dict(untrusted.parse_json(data, "policy"))
    assert from_dict(spec.to_dict()) == spec
    assert len(spec.id) == 64
    to_json(spec.to_dict())


def _env(data: bytes) -> None:
    to_json(EnvIdentity.from_dict(untrusted.parse_json(data, "env")).to_dict())


def _read(data: bytes, layout: Layout) -> None:
    descriptor = os.memfd_create("shard")
    try:
        os.write(descriptor, data)
        shard = Shard(descriptor, layout, "shard")
        target = np.empty(layout.shape, layout.dtype)
        shard.read(0, layout.shape[0], target)
        shard.take(np.arange(layout.shape[0])[::-1], target)
    finally:
        os.close(descriptor)


def _index(data: bytes, layout: Layout) -> None:
    """Bytes as a shard, with a checksum of the index that fits."""
    table = np.frombuffer(data[-16 * layout.chunks :], np.uint8)
    _read(data + crc32c(table).to_bytes(4, "little"), layout)


def _frame(data: bytes) -> None:
    """Bytes as the only chunk of a compressed shard, with all checksums that fit."""
    zstd_content_size(np.frombuffer(data, np.uint8))
    index = np.array([0, len(data) + 4], "<u8").tobytes()
    checked = data + crc32c(np.frombuffer(data, np.uint8)).to_bytes(4, "little")
    _read(checked + index + crc32c(np.frombuffer(index, np.uint8)).to_bytes(4, "little"), LAYOUTS[1])


TARGETS: tuple[Callable[[bytes], object], ...] = (
    lambda data: untrusted.parse_json(data, "json"),
    lambda data: _array(data[1:], NAMES[data[0] % len(NAMES)] if data else "params"),
    _group,
    _record,
    _policy,
    _env,
    lambda data: _read(data[1:], LAYOUTS[data[0] % len(LAYOUTS)] if data else LAYOUTS[0]),
    lambda data: _index(data[1:], LAYOUTS[data[0] % len(LAYOUTS)] if data else LAYOUTS[0]),
    _frame,
    lambda data: untrusted.printable(data.decode("utf-8", "surrogateescape")).encode(),
)


def run(data: bytes) -> None:
    """One input: its first byte names what reads the rest. Errors of ours are what is wanted of bad input."""
    if not data:
        return
    with contextlib.suppress(EpvfError):
        TARGETS[data[0] % len(TARGETS)](data[1:])


def seeds(store: Path) -> list[bytes]:
    """Valid inputs for every target."""
    record = json.loads((store / "commits" / "00000000.json").read_bytes())
    part = store / "parts" / record["add"][0]["id"]
    attributes = json.loads((part / "zarr.json").read_bytes())["attributes"]["epvf_data"]
    shards = [(n, b"".join(encode(np.zeros(layout.shape, layout.dtype), layout))) for n, layout in enumerate(LAYOUTS)]
    chunk = int.from_bytes(shards[1][1][-12:-4], "little") - 4
    body = {key: value for key, value in record.items() if key != "sha256"}
    inputs = [(0, to_json(attributes)), (2, (part / "zarr.json").read_bytes()), (2, (store / "zarr.json").read_bytes())]
    inputs += [(3, to_json(body)), (4, to_json(SPEC.to_dict())), (5, to_json(ENV.to_dict()))]
    inputs.append((4, to_json(OwnSpec(3, 2, 9, "mine.py:make", "0" * 64).to_dict())))
    inputs += [(6, bytes([n]) + data) for n, data in shards] + [(7, bytes([n]) + data[:-4]) for n, data in shards]
    inputs += [(8, shards[1][1][:chunk]), (9, "a\x1b[2J\u202e".encode())]
    for number, name in enumerate(NAMES):
        column = PROBE_STATES if name == "states" else COLUMNS[name]
        layout = Layout((20,) + (3,) * (len(column.dims) - 1), column.dtype, 32, 3 if number % 2 else None)
        inputs.append((1, bytes([number]) + to_json(array_metadata(layout, column.dims))))
    return [bytes([target]) + data for target, data in inputs]


VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**64,
    10**30,
    1e308,
    0.5,
    "",
    "x",
    "\ud800",
    "\x1b[2J",
    "../..",
    [],
    {},
    [[]],
)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with some members replaced, removed, doubled or moved."""
    places: list[tuple[Any, Any]] = []

    def collect(inner: Any) -> None:
        for key in list(inner if isinstance(inner, dict) else range(len(inner))):
            places.append((inner, key))
            if isinstance(inner[key], (dict, list)):
                collect(inner[key])

    collect(value)
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(places)
        if (isinstance(holder, list) and key >= len(holder)) or (isinstance(holder, dict) and key not in holder):
            continue
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(["x", str(key).upper(), "", "\x1b[2J", "../x"])] = holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif kind == 3:
            other, place = rng.choice(places)
            if (isinstance(other, dict) and place in other) or (isinstance(other, list) and place < len(other)):
                holder[key] = json.loads(json.dumps(other[place]))
        else:
            holder[key] = rng.choice(VALUES)
    return value


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, pieces cut, doubled and inserted."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randint(1, 20)]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randint(1, 40)]
        elif kind == 3:
            out[at:at] = rng.choice([b'"', b"\\", b"[", b"{", b"9" * 50, b"\\ud800", b"\xff", b"NaN", b"1e999", b"\0"])
        elif at < len(out):
            out[at] = rng.randrange(256)
    return bytes(out)


def structural(store: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Changed documents into every target, and one in fifty of the metadata files as a whole data set."""
    rng, inputs = random.Random(seed), seeds(store)
    findings: dict[str, str] = {}
    executions = stores = 0
    end = time.monotonic() + seconds
    files = [file for file in store.rglob("*.json") if "staging" not in file.parts]
    while time.monotonic() < end:
        data = rng.choice(inputs)
        skip = 2 if data[0] == 1 else 1
        if data[0] <= 5 and rng.random() < 0.5:
            text = json.dumps(mutate_json(json.loads(data[skip:]), rng), sort_keys=True, separators=(",", ":"))
            data = data[:skip] + text.encode()
        else:
            data = data[:1] + mutate_bytes(data[1:], rng)
        executions += 1
        _watch(lambda data=data: run(data), data, findings)
        if executions % 50 == 0:
            stores += 1
            file = rng.choice(files)
            before = file.read_bytes()
            file.write_bytes(mutate_bytes(before, rng))
            try:
                _watch(lambda: _whole(store), file.name.encode() + b" " + file.read_bytes(), findings)
            finally:
                file.write_bytes(before)
    return {"seed": seed, "seconds": seconds, "executions": executions, "stores": stores, "findings": findings}


def _whole(store: Path) -> None:
    for check in (lambda: validate(store, deep=True), lambda: leftovers(store)):
        with contextlib.suppress(EpvfError):
            check()


def _watch(work: Callable[[], object], data: bytes, findings: dict[str, str]) -> None:
    began = time.thread_time()
    try:
        work()
    except Exception:
        findings.setdefault(traceback.format_exc().splitlines()[-1], repr(data[:2000]))
    if time.thread_time() - began > SLOW:
        findings.setdefault("slow", repr(data[:2000]))


def guided(store: Path, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """libFuzzer in child processes, one after another with one corpus: instrumented code takes ever more memory."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds(store)):
        (corpus / f"seed-{number}").write_bytes(data)
    report: dict[str, Any] = {"seed": seed, "seconds": seconds, "seeds": number + 1, "executions": 0, "findings": {}}
    for first in range(0, int(seconds), ROUND):
        options = [f"-max_total_time={min(ROUND, int(seconds) - first)}", f"-seed={seed + first}", f"-max_len={SIZE}"]
        options += ["-timeout=10", "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={folder}/finding-"]
        command = [sys.executable, str(Path(__file__).resolve()), GUIDED, str(corpus), *options]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        progress = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", result.stderr)
        executed = re.findall(r"number_of_executed_units: (\d+)", result.stderr)
        report["executions"] += int(executed[-1]) if executed else 0
        report.setdefault("edges_of_the_seeds", int(progress[0][0]) if progress else None)
        if progress:
            report |= dict(zip(("edges", "features", "corpus"), map(int, progress[-1]), strict=True))
        if result.returncode:
            report["findings"][f"round {first}"] = result.stderr[-2000:]
    report["findings"] |= {file.name: repr(file.read_bytes()[:2000]) for file in sorted(folder.glob("finding-*"))}
    return report


def build(path: Path) -> Path:
    """A tiny data set with everything optional in it."""
    rng = np.random.default_rng(0)
    n, shape = 3, (3, 2)
    rows = Rows(
        spec=SPEC,
        params=rng.standard_normal((n, SPEC.size), dtype=np.float32),
        returns=np.zeros(shape, np.float32),
        lengths=np.full(shape, 10, np.int32),
        terminated=np.zeros(shape, bool),
        truncated=np.ones(shape, bool),
        finite=np.ones(shape, bool),
        reset_seed=np.zeros((n, 2), np.uint32),
        lineage=Lineage.build(n, source="random", base=["a", None, "b"], run="r", law="gaussian"),
        simulation={"backend": "none"},
        probe_states=np.zeros((2, 3), np.float32),
        probe_actions=np.zeros((n, 2, 2), np.float32),
        discounted_returns=np.zeros(shape, np.float32),
        discount=0.9,
    )
    with Writer.open(path, ENV) as writer:
        writer.commit(rows, {"versions": {"numpy": "2"}})
    return path


def record(out: Path, fuzzer: str, report: dict[str, Any]) -> None:
    """Adds a report to the list of its fuzzer's in a file."""
    known = json.loads(out.read_text()) if out.exists() else {}
    about = {"date": provenance.now(), "commit": provenance.git_state()["commit"], "python": platform.python_version()}
    known.setdefault(fuzzer, []).append({**about, **report})
    out.write_text(json.dumps(known, indent=1) + "\n")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for each of the two fuzzers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        store = build(Path(folder) / "store")
        report = {
            "structural": structural(store, options.seconds, options.seed),
            "guided": guided(store, Path(folder), options.seconds, options.seed),
        }
    record(options.out, "store", report)
    print(json.dumps(report))
    sys.exit(bool(report["structural"]["findings"] or report["guided"]["findings"]))


if __name__ == "__main__":
    if GUIDED in sys.argv:
        sys.argv.remove(GUIDED)
        assert atheris is not None
        atheris.Setup(sys.argv, run)
        atheris.Fuzz()
    else:
        main(sys.argv[1:])
