"""Fuzzes what reads a stranger's files beyond the store: settings, recipes, policies, runs, checkpoints, provenance.

    python benchmarks/fuzz_files.py --seconds 60 [--kind recipe --kind torch] [--seed 1]
    python benchmarks/fuzz_files.py --kind torch --only 1234        # one execution again, with its traceback

Each execution changes a valid file with a generator of its own seed, knowing the file's structure, and reads it as a
verb does. A finding is an exception that is not ours, an answer after 10 s, or 300 MB. The last line is JSON, which is
added to results/fuzz.json: for each kind executions, those that were read, and findings with the numbers of their
executions (four of a sort).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from flax.serialization import msgpack_serialize
from fuzz import record

import epvf_data
from epvf_data import config as configuration
from epvf_data import untrusted
from epvf_data.baselines.settings import BaselineConfig
from epvf_data.cards.facts import gather
from epvf_data.collectors.setting import CollectConfig
from epvf_data.curation.history import history
from epvf_data.errors import EpvfError
from epvf_data.importing import settings as importing
from epvf_data.importing.run import import_policy
from epvf_data.policies.files import load_policy, save_policy
from epvf_data.policies.spec import Normaliser, PolicySpec
from epvf_data.recipes.settings import KINDS, ArchitectureConfig
from epvf_data.recipes.tables import build, read
from epvf_data.store.schema import to_json
from epvf_data.store.writer import Writer
from epvf_data.trainers import checkpoint, rundir
from epvf_data.trainers.evaluation.compare import compare
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.online.settings import OnlineConfig, online_config

SECONDS, MEGABYTES = 10, 300
HERE = Path(__file__).resolve().parent.parent / "tests"
CLASSES = (CollectConfig, OnlineConfig, OfflineConfig, BaselineConfig, EvaluationConfig)
ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**12, 10**38, -(10**39), 0.0, -0.0, -0.5, 1e-320, 1e38, 1e308, "",
    "none", "text", "/etc/passwd", "../x", "evil.py:make", "\x1b[2J\u202e", "x" * 5000, "a\0b", "é", ".", "bundled",
    [], [[]], [1], [0.0], ["text"], [None], [[1], [2]], [{}], {}, {"": {}}, {"a": {"b": [1]}}, list(range(300)),
]  # fmt: skip
# Text that JSON or TOML may hold where a value is expected, and that no value of Python becomes.
RAW = ["9" * 5000, "-" + "9" * 41, "1e999", "NaN", "-Infinity", "inf", "nan", "[" * 3000, "[" * 40 + "]" * 40,
       '{"a":' * 50 + "1" + "}" * 50, '"\\ud800"', '"\\u0000"', '{"a":1,"a":2}', "2026-01-01", "0x" + "f" * 4000,
       "'''\n'''", "a" + ".a" * 5000]  # fmt: skip


def module(path: Path) -> ModuleType:
    source = importlib.util.spec_from_file_location(path.stem, path)
    assert source is not None
    assert source.loader is not None
    found = importlib.util.module_from_spec(source)
    source.loader.exec_module(found)
    return found


def places(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, inner in items:
        yield (*keys, key)
        yield from places(inner, (*keys, key))


def at(value: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        value = value[key]
    return value


def mutated(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON value with a few members changed, moved, renamed, repeated or gone."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 5])):
        known = list(places(value))
        if not known:
            return draw.choice(ODD)
        keys = draw.choice(known)
        holder, last = at(value, keys[:-1]), keys[-1]
        old = holder[last]
        how = draw.randrange(8)
        if how == 0:
            holder[last] = copy.deepcopy(draw.choice(ODD))
        elif how == 1:
            holder[last] = copy.deepcopy(at(value, draw.choice(known)))
        elif how == 2:
            del holder[last]
        elif how == 3 and isinstance(holder, dict):
            holder[draw.choice([*map(str, holder), "x", "", "../x", "x" * 300])] = old
        elif how == 4 and isinstance(old, list) and old:
            holder[last] = old * draw.choice([0, 2, 50])
        elif how == 5:
            holder[last] = draw.choice([[old], {"x": old}, [old, old]])
        elif isinstance(old, int | float) and not isinstance(old, bool):
            holder[last] = draw.choice([old + 1, old - 1, -old, old * 1000, float(old), str(old), old * 2**40])
        elif isinstance(old, str):
            cut = draw.randint(0, len(old))
            holder[last] = draw.choice(
                [old[:cut], old + old, old.upper(), old[:cut] + draw.choice("/.:\x07 ") + old[cut:]]
            )
        else:
            holder[last] = copy.deepcopy(draw.choice(ODD))
    return value


def text_of(value: Any, draw: random.Random) -> str:
    """JSON of a changed value; now and then with raw text in place of some value, or cut."""
    text = json.dumps(mutated(value, draw) if draw.random() < 0.9 else value)
    if draw.random() < 0.2:
        marks = [place for place, char in enumerate(text) if char in ":,["] or [0]
        begin = draw.choice(marks) + 1
        end = next((place for place in range(begin, len(text)) if text[place] in ",]}"), len(text))
        text = text[:begin] + draw.choice(RAW) + text[end:]
    if draw.random() < 0.05:
        begin, length = draw.randint(0, len(text)), draw.randint(1, 40)
        text = draw.choice([text[:begin], text[:begin] + text[begin + length :], text + text[begin:]])
    return text


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, left out, repeated or put in."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 8])):
        place = draw.randint(0, max(len(changed) - 1, 0))
        how, piece = draw.randrange(5), draw.randbytes(draw.randint(1, 8))
        if how == 0 and changed:
            changed[place] = draw.randrange(256)
        elif how == 1 and changed:
            changed[place] ^= 1 << draw.randrange(8)
        elif how == 2:
            del changed[place : place + draw.randint(1, 16)]
        elif how == 3:
            changed[place:place] = draw.choice([piece, b"\xff" * 8, bytes(8), changed[place : place + 64]])
        else:
            changed = changed[:place]
    return bytes(changed)


def toml_of(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml_of(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return '"none"' if value is None else json.dumps(value)


def settings_of(made: Any) -> dict[str, Any]:
    return configuration.to_dict(made)


class Kinds:
    """One method a kind: a generator → what it reads. Files lie in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / "file"
        self.forge = module(HERE / "store" / "forge.py")
        self.torch = module(HERE / "importing" / "forge_torch.py")
        self.rows = module(HERE / "store" / "conftest.py")
        given = {OnlineConfig: online_config("ant-cpu"), EvaluationConfig: EvaluationConfig()}
        self.settings = [(cls, settings_of(given.get(cls) or cls())) for cls in CLASSES]
        self.imports = settings_of(importing.ImportSettings())
        self.imports |= {"tensors": {"layer_0/kernel": {"name": "a", "transpose": True}}}
        of = {"of": ["online"]}
        sources = {
            kind: {"kind": kind, **settings_of(cls(**of) if kind in ("between", "renumbered") else cls())}
            for kind, cls in KINDS.items()
        }
        sources["online"]["settings"] = {"iterations": 3, "critic.probes": 3, "start": None}
        self.recipes = {
            **{"env": "ant", "policies": 8, "envs": 4, "episodes": 1, "horizon": 9, "seed": 0, "backend": "auto"},
            **{"discount": 0.5, "probes": 3, "sources": sources},
            "architectures": {
                "a": settings_of(ArchitectureConfig()),
                "b": settings_of(ArchitectureConfig(hidden=(3,))),
            },
        }
        self._make_store()
        self._make_runs()

    def _make_store(self) -> None:
        path = self.folder / "store"
        record = {"config": {"recipe": self.recipes}, "run": "a" * 64, "rows": [0, 3], "seed": 3}
        record |= {"command": ["epvf-data", "collect"], "git": {"commit": "abc", "dirty": True}}
        record |= {
            "versions": {"jax": "1"},
            "simulation": {"backend": "native", "device": "cpu"},
            "ended": "2026-01-01",
        }
        inner = {"commit": 0, "record": "b" * 64, "rows": 3, "dataset": "c.zarr", "provenance": record}
        self.record = {**record, "origins": [inner, {**inner, "provenance": {**record, "origins": [inner]}}]}
        with Writer.open(path, self.rows.ENV) as writer:
            writer.commit(self.rows.build_rows(3, 1, probes=2), self.record)
        self.forged = self.forge.Forge(path)

    def _make_runs(self) -> None:
        self.run = self.folder / "run"
        self.config = {"config": settings_of(OfflineConfig()), "dataset": {"path": "a.zarr", "content": "c" * 64}}
        self.config |= {
            "env_digest": "d" * 64,
            "backend": "native",
            "record": None,
            "warm_start": None,
            "run": "e" * 64,
        }
        rundir.create_run(self.run, self.config)
        numbers = {"spearman": 0.5, "kendall": 0.4, "r2": 0.3, "mean_absolute_error": 1.0, "regret": {"10": 1.0}}
        numbers |= {"iqm": {"spearman": 0.5}, "per_seed": {"spearman": [0.4, 0.6]}}
        numbers |= {"interval": {"spearman": [0.1, 0.9]}, "top_tenth": {"spearman": 0.5, "mean_absolute_error": 1.0}}
        split = {"available": True, "critic": numbers, "controls": {"ridge": numbers, "mean": numbers}}
        split |= {
            "seconds": 1.5,
            "rows_train": 9,
            "rows_test": 3,
            "verdict": "good",
            "ceiling": {"r2": 0.9, "basis": "episodes"},
        }
        self.report = {
            "run": "run",
            "critic": "mlp",
            "splits": {"iid": split, "lineage": {"available": False, "reason": "few"}},
        }
        self.report |= {
            "dataset": {"env": "toy", "rows": 12, "policies": "4-3-2", "return_mean": 1.0, "return_std": 1.0}
        }
        gradient = {
            "cosine": 0.1,
            "interval": [0.0, 0.2],
            "per_policy": [0.1],
            "pairs": 4,
            "chance": 0.1,
            "ceiling": 1.0,
        }
        measured = {"epochs": [1, 1], "gradient": gradient, "improvement": None, "elsewhere": {}}
        self.evaluation = {"split": "iid", "by_split": {"iid": measured}}
        self.tree = {"params": {"w": np.ones((3, 4), np.float32), "b": np.zeros(4, np.float32)}, "step": np.array(3)}
        checkpoint.save(self.folder / "checkpoints", 1, self.tree)
        self.metadata = self.folder / "checkpoints" / "1" / "_METADATA"
        self.description = json.loads(self.metadata.read_text())

    def toml(self, draw: random.Random) -> None:
        cls, settings = draw.choice([*self.settings, (None, self.imports)])
        changed = mutated(settings, draw)
        items = changed.items() if isinstance(changed, dict) else [("value", changed)]
        lines = [f"{json.dumps(str(key))} = {toml_of(value)}" for key, value in items]
        if draw.random() < 0.3:
            lines[draw.randrange(len(lines) or 1) : 0] = [f"seed = {draw.choice(RAW)}", draw.choice(RAW)]
        data = "\n".join(lines).encode(errors="surrogatepass")
        table = untrusted.parse_toml(bytes_of(data, draw) if draw.random() < 0.2 else data, "file")
        if cls is None:
            importing.build(table)
        else:
            json.dumps(settings_of(configuration.build(cls, table)), allow_nan=False)

    def recipe(self, draw: random.Random) -> None:
        made = build(untrusted.parse_json(text_of(self.recipes, draw).encode(errors="surrogatepass"), "recipe"))
        assert sum(made.counts().values()) == made.policies

    def safetensors(self, draw: random.Random) -> None:
        spec = draw.choice(
            [
                PolicySpec(4, 1, (4,)),
                PolicySpec(3, 2, (4, 5), "relu", "clip", layer_norm=True, gaussian="mean"),
                PolicySpec(2, 2, (), normaliser=Normaliser((0.5, 1.0), (1.0, 2.0))),
            ]
        )
        save_policy(self.file, spec, np.ones(spec.size, np.float32), env="ant")
        data = self.file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        head = json.loads(data[8 : 8 + length])
        if draw.random() < 0.3:
            del head["__metadata__"]
        elif draw.random() < 0.7:
            head["__metadata__"]["spec"] = text_of(json.loads(head["__metadata__"]["spec"]), draw)
        text = text_of(head, draw) if draw.random() < 0.5 else json.dumps(head)
        raw = text.encode(errors="surrogatepass")
        data = struct.pack("<Q", len(raw) + draw.choice([0] * 20 + [1, -1, 2**40])) + raw + data[8 + length :]
        self.file.write_bytes(bytes_of(data, draw) if draw.random() < 0.1 else data)
        if "__metadata__" not in head:
            return self._imported()
        found, flat = load_policy(self.file)
        assert flat.size == found.size
        return None

    def _imported(self) -> None:
        """The file as `import-policy` reads it."""
        out = self.folder / "out"
        out.unlink(missing_ok=True)
        import_policy(self.file, out, settings={"activation": "tanh", "output": "tanh"})
        load_policy(out)

    def torch_file(self, draw: random.Random) -> None:
        items = {"0.weight": self.torch.tensor("0", "FloatStorage", 8, 0, (4, 2), (2, 1))}
        items |= {"0.bias": self.torch.tensor("1", "FloatStorage", 4, 0, (4,), (1,))}
        items |= {"2.weight": self.torch.tensor("2", "HalfStorage", 4, 0, (1, 4), (4, 1))}
        pieces = [b"\x80\x02", b"}(", *(self.torch.text(name) + value for name, value in items.items()), b"u."]
        odd = [
            b"}",
            b"]",
            b")",
            b"(",
            b"0",
            b"N",
            b"t",
            b"u",
            b"s",
            b"a",
            b"e",
            b"q\x00",
            b"h\x00",
            b"R",
            b"Q",
            b"b",
            b".",
        ]
        odd += [b"\x85", b"\x86", b"\x94", b"J" + struct.pack("<i", -1), b"\x8a\xff" + b"\x7f" * 255, b"cos\nsystem\n"]
        odd += [self.torch.text("x" * draw.choice([1, 2000])), self.torch.numbers([draw.choice([-1, 2**31, 2**39])])]
        for _ in range(draw.randint(0, 6)):
            place = draw.randrange(1, len(pieces))
            pieces[place:place] = [draw.choice([*odd, *pieces])] * draw.choice([1, 1, 1, 30, 3000])
        pickle = b"".join(pieces)
        pickle = bytes_of(pickle, draw) if draw.random() < 0.7 else pickle
        storages = {"0": bytes(32), "1": bytes(16), "2": bytes(8)}
        if draw.random() < 0.2:
            storages[draw.choice("012x")] = bytes(draw.choice([0, 3, 1 << 22]))
        data = self.torch.archive(pickle, storages, draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        if draw.random() < 0.2:
            said = text_of({"action_space": {":type:": "<class 'gym.Box'>", "low": "[-1.]", "_shape": [1]}}, draw)
            whole = BytesIO()
            with zipfile.ZipFile(whole, "w") as out:
                out.writestr("policy.pth", data)
                out.writestr("data", said.encode(errors="surrogatepass"))
            data = whole.getvalue()
        self.file.write_bytes(bytes_of(data, draw) if draw.random() < 0.2 else data)
        self._imported()

    def msgpack(self, draw: random.Random) -> None:
        layer = {"kernel": np.ones((4, 2), np.float32), "bias": np.ones(2, np.float16)}
        tree: Any = {
            "params": {"Dense_0": layer, "Dense_1": {"kernel": np.ones((2, 1))}},
            "step": 3,
            "words": ["a", 1.5],
        }
        if draw.random() < 0.7:
            place = draw.choice(list(places(tree)))
            value = draw.choice([*ODD[5:], np.ones((0, 3)), np.ones((2, 2), bool), np.float32(3), 1 << 40, -5])
            at(tree, place[:-1])[place[-1]] = value if not isinstance(value, int) else value % (1 << 64)
        data = msgpack_serialize(tree)
        if draw.random() < 0.8:
            data = bytes_of(data, draw)
        heads = [
            b"\xdd\x7f\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\x91" * 3000,
            b"\x81\xa1a" * 40,
        ]
        if draw.random() < 0.3:
            place = draw.randrange(len(data) or 1)
            data = data[:place] + draw.choice(heads) + data[place:]
        self.file.write_bytes(data)
        self._imported()

    def runs(self, draw: random.Random) -> None:
        (self.run / "config.json").write_bytes(text_of(self.config, draw).encode(errors="surrogatepass"))
        (self.run / "report.json").write_bytes(text_of(self.report, draw).encode(errors="surrogatepass"))
        (self.run / "evaluation.json").write_bytes(text_of(self.evaluation, draw).encode(errors="surrogatepass"))
        if draw.random() < 0.5:
            (self.run / "config.json").write_text(json.dumps(self.config))
        for settings in (None, OfflineConfig, OnlineConfig):
            with contextlib.suppress(EpvfError):
                rundir.read_run(self.run, settings)
        compare([self.run])

    def checkpoints(self, draw: random.Random) -> None:
        self.metadata.write_bytes(text_of(self.description, draw).encode(errors="surrogatepass"))
        found = checkpoint.restore(self.folder / "checkpoints", draw.choice([None, self.tree]))
        assert isinstance(found, dict)

    def provenance(self, draw: random.Random) -> None:
        record = copy.deepcopy(self.forged.records[0])
        changed = mutated(self.record, draw)
        record["provenance"] = changed if isinstance(changed, dict) else {"x": changed}
        to_json(record)
        self.forged.write(0, record)
        dataset = epvf_data.open(self.forged.path)
        history(dataset)
        gather(dataset)
        build(read(str(self.forged.path)))


KINDS_OF_FILES = ("toml", "recipe", "safetensors", "torch_file", "msgpack", "runs", "checkpoints", "provenance")


class Late(Exception):
    """An execution took more than SECONDS."""


def memory(which: str) -> float:
    """Megabytes of this process: VmRSS, or VmHWM, the most since `clear`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def once(work: Callable[[random.Random], None], draw: random.Random) -> tuple[bool, str | None]:
    """Whether the file was read, and what was found."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: the machine may be busy
    signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
    read, finding = False, None
    try:
        work(draw)
        read = True
    except EpvfError as error:
        if not str(error).replace("\n", "").isprintable() or len(str(error)) > 5000:
            finding = f"the sentence is {len(str(error))} characters long, or steers terminals"
    except Late:
        finding = f"no answer after {SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "epvf_data" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "here"
        finding = f"{type(error).__name__} at {place}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    if finding is None and memory("VmHWM") - before > MEGABYTES:
        finding = f"over {MEGABYTES} MB"
    return read, finding


def fuzz(kind: str, kinds: Kinds, seconds: float, seed: int) -> dict[str, Any]:
    """Executions of one kind for so many seconds."""
    told: dict[str, Any] = {"executions": 0, "read": 0, "findings": {}}
    work, began = getattr(kinds, kind), time.monotonic()
    while time.monotonic() - began < seconds:
        number = told["executions"]
        read, finding = once(work, random.Random(f"{seed}/{kind}/{number}"))
        told["executions"], told["read"] = number + 1, told["read"] + read
        if finding is not None:
            known = told["findings"].setdefault(finding, [])
            if not known:
                print(f"{kind}: {finding} (--kind {kind} --seed {seed} --only {number})", file=sys.stderr, flush=True)
            if len(known) < 4:
                known.append(number)
    print(
        f"{kind}: {told['executions']:,} executions, {told['read']:,} read, {len(told['findings'])} findings",
        flush=True,
    )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60, help="for each kind")
    parser.add_argument("--kind", action="append", choices=KINDS_OF_FILES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "fuzz.json")
    parser.add_argument("--only", type=int, help="this execution alone, with its traceback")
    asked = parser.parse_args()

    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGPROF, late)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    os.chdir(folder)
    try:
        kinds = Kinds(folder)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + (3 << 30),) * 2)
        chosen = asked.kind or KINDS_OF_FILES
        if asked.only is not None:
            for kind in chosen:
                getattr(kinds, kind)(random.Random(f"{asked.seed}/{kind}/{asked.only}"))
            return
        found = {kind: fuzz(kind, kinds, asked.seconds, asked.seed) for kind in chosen}
        record(asked.out, "files", {"seed": asked.seed, "seconds": asked.seconds, **found})
        print(json.dumps({"seed": asked.seed, "seconds": asked.seconds, **found}))
    finally:
        shutil.rmtree(folder)  # made above


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
