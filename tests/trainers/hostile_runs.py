"""Hostile run directories: name → what spoils a good one of offline training, and words of a message about it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from epvf_data import outputs
from epvf_data.store.checksum import crc32c
from epvf_data.trainers import checkpoint

Spoil = Callable[[Path], object]
THESIS = "../outside/thesis.txt"  # from inside a run: a file of the user's that nobody named
ESCAPE = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil"
LONG = "x" * 10**6
GROUND = "checkpoints/iid/ground"


class Watch:
    """Time, and memory beyond what was there before (Linux alone tells), that a block takes."""

    def __enter__(self) -> Watch:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the highest mark
        self.before, self.began = _resident("VmRSS"), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.megabytes = time.perf_counter() - self.began, (_resident("VmHWM") - self.before) // 1024


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def change(name: str, edit: Callable[[Any], object]) -> Spoil:
    """Edits a JSON file; what `edit` returns takes the value's place, unless it is None."""

    def spoil(run: Path) -> None:
        value = json.loads((run / name).read_text())
        found = edit(value)
        (run / name).write_text(json.dumps(value if found is None else found))

    return spoil


def setting(name: str, value: Any) -> Spoil:
    return change("config.json", lambda it: it["config"].__setitem__(name, value))


def put(name: str, data: bytes) -> Spoil:
    def spoil(run: Path) -> None:
        remove(run / name)
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)

    return spoil


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(name: str, target: str = THESIS) -> Spoil:
    def spoil(run: Path) -> None:
        remove(run / name)
        (run / name).symlink_to(target)

    return spoil


def special(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(run: Path) -> None:
        remove(run / name)
        make(run / name)

    return spoil


def listen(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def moved(name: str) -> Spoil:
    """A folder of the run that lies elsewhere, with a link in its place."""

    def spoil(run: Path) -> None:
        shutil.move(run / name, run.parent / "outside" / f"{run.name}-moved")
        (run / name).symlink_to(f"{'../' * (name.count('/') + 1)}outside/{run.name}-moved")

    return spoil


FILES: dict[str, tuple[Spoil, str]] = {
    **{
        f"link {name}": (link(name), "is a link or a special file")
        for name in (
            *(".unfinished-evaluation.json", ".unfinished-metrics.jsonl", "config.json", "report.json"),
            *("metrics.jsonl", "evaluation.json", "evaluation.png", "versions.json", "notes", "tensorboard"),
        )
    },
    "link to a device": (link("report.json", "/dev/zero"), "is a link or a special file"),
    "link to nothing": (link("x", "nowhere"), "is a link or a special file"),
    "link to itself": (link("x", "x"), "is a link or a special file"),
    "link to the folder": (link("checkpoints/iid/loop", "."), "is a link or a special file"),
    "checkpoints elsewhere": (moved("checkpoints"), "is a link or a special file"),
    "a checkpoint elsewhere": (moved(f"{GROUND}/0"), "is a link or a special file"),
    "pipe": (special("config.json", os.mkfifo), "is a link or a special file"),
    "pipe in a checkpoint": (special(f"{GROUND}/0/pipe", os.mkfifo), "is a link or a special file"),
    "socket": (special("metrics.jsonl", listen), "is a link or a special file"),
    "folders in folders": (special("a", lambda path: Path(path, *"b" * 30).mkdir(parents=True)), "too deep"),
    "a folder as config.json": (special("config.json", Path.mkdir), "is not a plain file"),
}


def deep(levels: int = 100_000) -> bytes:
    return b'{"a":' * levels


BYTES = {
    "empty": (b"", "is not valid JSON"),
    "no JSON": (b"\x00\xff\x80", "is not valid JSON"),
    "no object": (b"[]", "is not a JSON object"),
    "nesting": (b"[" * 100_000, "nests"),
    "nesting of tables": (deep(), "nests"),
    "digits": (b'{"config": ' + b"9" * 5000 + b"}", "5000 digits"),
    "not a number": (b'{"config": NaN}', "not a JSON number"),
    "beyond 64 bits": (b'{"config": 1e999}', "beyond the range"),
    "twice the same key": (b'{"config": {}, "config": {}}', "twice"),
    "many items": (b'{"config": [' + b"1," * 10**6 + b"1]}", "items"),
    "many bytes": (b" " * (17 << 20) + b"{}", "bytes of metadata"),
    "half a character": (b'{"config": "\\ud800"}', "UTF-8"),
}
CONFIG = {f"config.json: {name}": (put("config.json", data), words) for name, (data, words) in BYTES.items()}
CONFIG |= {
    f"{name} is {str(value)[:20]}": (setting(name, value), f"config.json cannot be used.*{name}")
    for name, wrong in {
        "seeds": (10**9, 0, "x", 10**39, 1.5, True, [], {}),
        "resamples": (10**9, -1),
        "ensemble": (10**9,),
        "epochs": (10**9,),
        "patience": (10**39,),
        "batch_size": (10**12,),
        "widths": ([10**9], [1] * 1000, [[1]], "x"),
        "bins": (10**9,),
        "layers": (10**9,),
        "probes": (10**12,),
        "channels": (10**12,),
        "block": (10**12,),
        "learning_rate": (-1, 1e300, "x"),
        "test_fraction": (0, 1, 1e308),
        "seed": (-1, 10**39),
        "device_bytes": (10**39,),
        "critic": ("nope", LONG, 5, {}),
        "split": ("nope", "../../x", "$\\frac{$", LONG, ESCAPE, 7),
        "loss": ("nope",),
        "target": ("nope",),
        "architecture": (7,),
        "nope": (1,),
        LONG: (1,),
    }.items()
    for value in wrong
    if name != LONG
} | {
    "a setting of a megabyte": (setting(LONG, 1), "there is no setting x"),
    "critics by the million": (
        change("config.json", lambda it: it["config"].update(seeds=1000, ensemble=1000)),
        "seeds × ensemble",
    ),
    "settings are a list": (change("config.json", lambda it: it.__setitem__("config", [])), "holds no settings"),
    "no settings": (change("config.json", lambda it: it.pop("config") and None), "holds no settings"),
    "another kind of run": (change("config.json", lambda it: it.pop("dataset") and None), "no run of train-offline"),
    **{
        f"data set {str(value)[:20]}": (change("config.json", lambda it, v=value: it.__setitem__("dataset", v)), words)
        for value, words in (
            ("x", "does not say which rows"),
            ({}, "does not say which rows"),
            ({"path": 5, "content": "x"}, "does not say which rows"),
            ({"path": "x", "content": "x", "more": 1}, "does not say which rows"),
        )
    },
}


def names(path: str) -> Spoil:
    return change("config.json", lambda it: it["dataset"].__setitem__("path", path))


# Read by what opens the run's own data set; the content says that it is another one.
ROWS: dict[str, tuple[Spoil, str]] = {
    "a relative path": (names("toy.zarr"), "names no data set by its path"),
    "a path with NUL": (names("/tmp/\0"), "does not say which rows"),
    "a path with escapes": (names(f"/{ESCAPE}"), "names no data set by its path"),
    "a path of a megabyte": (names(f"/{LONG}"), "does not say which rows"),
    "a device": (names("/dev/zero"), "is a file; a data set is a folder"),
    "no data set": (names("/etc"), "is not a data set"),
    "other rows": (
        change("config.json", lambda it: it["dataset"].__setitem__("content", "0" * 64)),
        "other content",
    ),
}


def split(edit: Callable[[Any], object]) -> Spoil:
    return change("report.json", lambda it: edit(it["splits"]))


_NO_REPORT = "is not what an evaluation of an offline run leaves"
# Read by `compare`.
REPORTS: dict[str, tuple[Spoil, str]] = {
    **{
        f"report.json: {name}": (put("report.json", data), words)
        for name, (data, words) in BYTES.items()
        if name != "no object"
    },
    "report.json: a list": (put("report.json", b"[]"), "is not a JSON object"),
    "evaluation.json: nesting": (put("evaluation.json", deep()), "nests"),
    "evaluation.json: a word": (put("evaluation.json", b'{"by_split": {"iid": {"gradient": "x"}}}'), _NO_REPORT),
    "evaluation.json: a list": (put("evaluation.json", b'{"by_split": [[]]}'), _NO_REPORT),
    "splits that are not there": (change("report.json", lambda it: it.pop("splits") and None), _NO_REPORT),
    "no splits": (change("report.json", lambda it: it.__setitem__("splits", [])), _NO_REPORT),
    "a split of no name": (change("report.json", lambda it: it.__setitem__("splits", {"$\\frac{$": 1})), _NO_REPORT),
    "a split that is a word": (split(lambda it: it.__setitem__("iid", "x")), _NO_REPORT),
    "no critic": (split(lambda it: it["iid"].pop("critic") and None), _NO_REPORT),
    "no split available": (split(lambda it: it["iid"].__setitem__("available", False)), "no split of these runs"),
    **{
        f"Spearman {value}": (split(lambda it, v=value: it["iid"]["critic"].__setitem__("spearman", v)), _NO_REPORT)
        for value in ("x", None, True, 1e300, 10**39, [])
    },
    "an interval of three": (
        split(lambda it: it["iid"]["critic"]["interval"].__setitem__("spearman", [0, 1, 2])),
        _NO_REPORT,
    ),
}


def folder(run: Path, where: str = f"{GROUND}/0") -> Path:
    return run / where


def tree(edit: Callable[[Any], object], where: str = GROUND) -> Spoil:
    """Edits the numbers of a checkpoint, which is written anew."""

    def spoil(run: Path) -> None:
        step = checkpoint.latest(run / where)
        value = checkpoint.restore(run / where)
        found = edit(value)
        shutil.rmtree(run / where)
        checkpoint.save(run / where, step or 0, value if found is None else found)

    return spoil


def metadata(edit: Callable[[Any], object]) -> Spoil:
    return change(f"{GROUND}/0/_METADATA", edit)


def keys(*path: str) -> Spoil:
    """The first array of a checkpoint has another name."""

    def edit(it: Any) -> None:
        _, value = it["tree_metadata"].popitem()
        it["tree_metadata"]["x"] = {**value, "key_metadata": [{"key": key, "key_type": 2} for key in path]}

    return metadata(edit)


def plain(shape: list[int], chunks: list[int] | None = None, data: bytes = b"", **more: Any) -> Spoil:
    """A checkpoint without a database, of which `fit` claims a shape."""

    def spoil(run: Path) -> None:
        place = run / GROUND / "0"
        described = json.loads((place / "_METADATA").read_text())
        shutil.rmtree(place)
        for entry in described["tree_metadata"].values():
            name = ".".join(key["key"] for key in entry["key_metadata"])
            said: dict[str, Any] = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "<i8", "order": "C"}
            said |= {"fill_value": None, "filters": None, "compressor": {"id": "zstd", "level": 1}}
            if name == "fit":
                said |= {"shape": shape, "chunks": chunks or shape, **more}
            put(f"{GROUND}/0/{name}/.zarray", json.dumps(said).encode())(run)
            put(f"{GROUND}/0/{name}/0", data)(run)
        put(f"{GROUND}/0/_METADATA", json.dumps({**described, "use_ocdbt": False}).encode())(run)

    return spoil


def bomb(run: Path) -> None:
    """A table of the database that says 2²⁸ files, in a gigabyte of zeros that zstd packs into 32 KiB."""
    path = folder(run) / "manifest.ocdbt"
    body = numcodecs.Zstd().decode(path.read_bytes()[14:-4])
    at = body.index(b"\x01\x22\x00d/")
    start = body[:at] + b"\x80\x80\x80\x80\x01"
    blocks = [(len(start) << 3).to_bytes(3, "little") + start]
    blocks += [((1 << 17) << 3 | 2 | (place == 8191)).to_bytes(3, "little") + b"\0" for place in range(8192)]
    table(path, b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks))


def table(path: Path, body: bytes) -> None:
    raw = b"\x0c\xdb\x3a\x2a" + struct.pack("<Q", 14 + len(body) + 4) + b"\0\1" + body
    path.write_bytes(raw + struct.pack("<I", crc32c(np.frombuffer(raw, np.uint8))))


def every_file(edit: Callable[[bytes], bytes]) -> Spoil:
    def spoil(run: Path) -> None:
        for path in folder(run).rglob("*"):
            if path.is_file():
                path.write_bytes(edit(path.read_bytes()))

    return spoil


_PATH = "names an array by a path"
_DAMAGED = "damaged checkpoint"
# Read by what loads the critics.
CHECKPOINTS: dict[str, tuple[Spoil, str]] = {
    **{
        f"an array called {name[:20]!r}": (keys(name), _PATH)
        for name in ("/etc/passwd", "..", "../../../outside", "a/../../b", "", "a//b", ESCAPE, "nul\0", LONG)
    },
    "an array without a name": (keys(), _DAMAGED),
    "names in names": (keys(*["a"] * 100), _DAMAGED),
    "_METADATA: nesting": (put(f"{GROUND}/0/_METADATA", deep()), "nests"),
    "_METADATA: nothing": (put(f"{GROUND}/0/_METADATA", b"{}"), _DAMAGED),
    "_METADATA: words": (put(f"{GROUND}/0/_METADATA", b'{"tree_metadata": {"a": "b"}}'), _DAMAGED),
    "_METADATA: a link": (link(f"{GROUND}/0/_METADATA"), "is a link"),
    "no _METADATA": (lambda run: remove(folder(run) / "_METADATA"), "is missing"),
    "fewer arrays": (metadata(lambda it: it["tree_metadata"].popitem() and None), "of another critic"),
    "10¹² numbers": (plain([10**12]), "of another critic|unpacks to over"),
    "10¹² numbers, little by little": (plain([10**12], [10]), "unpacks to over"),
    "a chunk of 10¹² numbers": (plain([4], [10**12]), "unpacks to over"),
    "a million chunks": (plain([10**6], [1]), "unpacks to over"),
    "shapes of words": (plain(["x"]), _DAMAGED),  # pyright: ignore
    "negative shapes": (plain([-4]), _DAMAGED),
    "objects": (plain([4], dtype="|O"), "of another critic"),
    "a record of fields": (plain([4], dtype=[["a", "<f4"]]), _DAMAGED),
    "Blosc, which unpacks whatever a chunk says": (plain([4], compressor={"id": "blosc"}), "is packed|packed by"),
    "a filter": (plain([4], filters=[{"id": "pickle"}]), "packed by"),
    "a bomb in a table": (bomb, "tables that unpack"),
    "files cut in half": (every_file(lambda data: data[: len(data) // 2]), "is not valid JSON"),
    "files with holes": (lambda run: os.truncate(folder(run) / "manifest.ocdbt", 50 << 20), "has holes"),
    "more bytes than there are numbers": (
        lambda run: os.truncate(folder(run) / "manifest.ocdbt", 1 << 40),
        "a checkpoint has at most",
    ),
    "a database of zeros": (put(f"{GROUND}/0/manifest.ocdbt", bytes(1000)), _DAMAGED),
    "no database": (lambda run: remove(folder(run) / "manifest.ocdbt"), _DAMAGED),
    "no tables": (lambda run: remove(folder(run) / "d"), _DAMAGED),
    "a file as checkpoint": (put(f"{GROUND}/0", b"x"), "cannot be read"),
    "a file as checkpoints": (put("checkpoints", b"x"), "no checkpoint yet|cannot be|not a directory"),
    "rows that are not there": (tree(lambda it: it["fit"].__setitem__(-1, 10**9)), "no training leaves"),
    "negative rows": (tree(lambda it: it["test"].__setitem__(0, -1)), "no training leaves"),
    "rows twice": (tree(lambda it: it["fit"].__setitem__(1, it["fit"][0])), "no training leaves"),
    "no rows": (plain([0], [1]), "of another critic"),
    "NaN": (tree(lambda it: it["ridge"]["0"]["weights"].__setitem__(0, np.nan)), "no training leaves"),
    "no spread": (tree(lambda it: it["scale"]["0"]["theta_std"].__setitem__(0, 0)), "no training leaves"),
    "other numbers": (tree(lambda it: it.__setitem__("fit", it["fit"].astype(np.float32))), "of another critic"),
    "wild numbers": (tree(lambda it: it["ridge"]["0"]["weights"].__setitem__(slice(None), 3e38)), "not finite"),
    "NaN of a critic": (
        tree(lambda it: it["best"]["params"]["Dense_0"]["kernel"].__setitem__(..., np.nan), "checkpoints/iid/final"),
        "not finite",
    ),
    "an epoch to come": (tree(lambda it: it["epoch"].__setitem__((), 10**9), "checkpoints/iid/final"), "of epoch"),
    "other widths": (
        tree(lambda it: it["best"]["params"].__setitem__("Dense_0", {}) or None, "checkpoints/iid/final"),
        "of another critic",
    ),
}

# Nothing of a stranger's: every verb goes on.
HARMLESS: dict[str, Spoil] = {
    "the user's own files": lambda run: (
        put("notes.txt", b"mine")(run),
        put("plots/a b/ä.png", b"x")(run),
        put(".unfinished-report.json", b"{")(run),
    ),
    "a torn line": lambda run: outputs.append_text(run / "metrics.jsonl", '{"split": "iid", "ep'),
    "no versions": lambda run: remove(run / "versions.json"),
}
