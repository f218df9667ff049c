"""Hostile data sets: name → what spoils a good one, and words that a message about it must hold.

Every change is followed by recomputing whatever hashes there are, so only the attack itself remains.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.store.checksum import crc32c

CANARY = "canary"  # a file beside the data set; whoever unpickles anything writes there


class Evil:
    """Writes to the canary when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"echo pwned >> {CANARY}",)


PICKLE = pickle.dumps(Evil())
META, ATTRIBUTES = "zarr.json", ("attributes", "epvf_data")
SHARDING = ("codecs", 0, "configuration")
ESCAPE = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil"


def array(*keys: Any, to: Any, name: str = "params"):
    """Changes the metadata of an array."""
    return lambda it: (it.change(it.part() / name / META, keys, to), it.seal())


def attribute(*keys: Any, to: Any):
    """Changes an attribute of the first part."""
    return lambda it: (it.change(it.part() / META, (*ATTRIBUTES, *keys), to), it.seal())


def env(key: str, to: Any):
    """Changes the environment's identity."""
    return lambda it: (it.change(it.path / META, (*ATTRIBUTES, "env", key), to), it.seal())


def record(change: Callable[[list[Any]], object]):
    """Changes the commit records."""
    return lambda it: (change(it.records), it.seal())


def metadata(data: bytes | Callable[[], bytes]):
    """Other bytes in place of an array's metadata."""
    return lambda it: (
        (it.part() / "params" / META).write_bytes(data if isinstance(data, bytes) else data()),
        it.seal(),
    )


def policy(*keys: Any, to: Any):
    """Changes the first part's policy, and its id in the part and in the record."""

    def change(it: Any) -> None:
        where = it.part() / META
        it.change(where, (*ATTRIBUTES, "policy", *keys), to)
        text = json.dumps(
            json.loads(where.read_bytes())["attributes"]["epvf_data"]["policy"], sort_keys=True, separators=(",", ":")
        )
        name = hashlib.sha256(text.encode()).hexdigest()
        it.change(where, (*ATTRIBUTES, "architecture"), name)
        it.records[0]["add"][0]["architecture"] = name
        it.seal()

    return change


def words(name: str, to: Callable[[list[str]], list[Any]]):
    """Changes a vocabulary."""

    def change(it: Any) -> None:
        where = it.part() / META
        keys = (*ATTRIBUTES, "vocabularies", name)
        before = json.loads(where.read_bytes())["attributes"]["epvf_data"]["vocabularies"][name]
        it.change(where, keys, to(before))
        it.seal()

    return change


def file(name: str, data: bytes = b"x", folder: Callable[[Any], Path] = lambda it: it.part()):
    """One more file, which the record does not list."""

    def add(it: Any) -> None:
        path = folder(it) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return add


def listed(name: str):
    """One more file name in a record."""
    return record(lambda all: all[0]["add"][0]["files"].update({name: [1, "0" * 64]}))


def outside(it: Any) -> Path:
    return it.path.parent / "outside"


def linked(*inner: str, hard: bool = False):
    """Something moved out of the data set, with a link in its place."""

    def move(it: Any) -> None:
        path = it.path.joinpath(*(part if part != "PART" else f"parts/{it.part().name}" for part in inner))
        target = outside(it) / f"{it.path.name}-moved"
        shutil.move(path, target)
        os.link(target, path) if hard else path.symlink_to(target)

    return move


def special(make: Callable[[Path], object], *inner: str):
    """A special file in the place of something."""

    def replace(it: Any) -> None:
        path = it.path.joinpath(*(part if part != "PART" else f"parts/{it.part().name}" for part in inner))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return replace


def listen(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def shard(*frames: bytes, index: list[int] | None = None, name: str = "params"):
    """Another shard of these frames, with checksums that fit; the index too unless it is given."""

    def write(it: Any) -> None:
        pieces, offsets, at = [], [], 0
        for frame in frames:
            pieces += [frame, crc32c(np.frombuffer(frame, np.uint8)).to_bytes(4, "little")]
            offsets += [at, len(frame) + 4]
            at += len(frame) + 4
        table = np.array(offsets if index is None else index, "<u8").view(np.uint8)
        pieces += [table.tobytes(), crc32c(table).to_bytes(4, "little")]
        (it.part() / name / "c" / "0" / "0").write_bytes(b"".join(pieces))
        it.seal()

    return write


def frame(size: int, declared: int | None = -1, dictionary: bytes = b"") -> bytes:
    """A zstd frame of `size` zeros, 128 KiB in 4 bytes, which declares another size or None."""
    left, blocks = size, []
    while left > 0:
        piece = min(left, 1 << 17)
        left -= piece
        blocks.append(((piece << 3) | 2 | (left == 0)).to_bytes(3, "little") + b"\0")
    told = b"" if declared is None else (size if declared < 0 else declared).to_bytes(8, "little")
    return (
        b"\x28\xb5\x2f\xfd"
        + bytes([(0xC0 if told else 0) | bool(dictionary)])
        + b"\x58"
        + dictionary
        + told
        + b"".join(blocks)
    )


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


CHUNK = 16 * 23 * 4  # bytes of a chunk of `params`
SKIPPABLE = b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + b"whatever"

NAMES = {
    f"name in a record: {name[:20]!r}": (listed(name), "names the file")
    for name in (
        "../../outside/secret",
        "/etc/passwd",
        "params/../x",
        "a\\b",
        "c:x",
        "",
        "params//zarr.json",
        ".zarray",
        "ä",
        "x" * 5000,
        ESCAPE,
        "nul\0",
        "a/" * 2000 + "b",
        "CON ",
    )
} | {
    "names that differ in case": (listed("PARAMS/zarr.json"), "both"),
    "case of a file": (file("PARAMS"), "both"),
    "v2 pickle filter in a part": (file(".zarray", PICKLE), "plain relative names"),
    "attributes of v2": (file("params/.zattrs", b"{}"), "plain relative names"),
    "pickle in a part": (file("data.pkl", PICKLE), "in no commit"),
    "escape in a file name": (file(ESCAPE.replace("/", "")), "plain relative names"),
    "file name that is not UTF-8": (file(os.fsdecode(b"\xff\xfe")), "plain relative names"),
    "long file name": (file("x" * 255), "plain relative names"),
    "deep folders": (file("/".join("d" * 100)), "too deep"),
    "thousands of files": (lambda it: [(it.part() / f"f{i}").touch() for i in range(1500)], "more than"),
    "foreign file beside the records": (file("x.pkl", PICKLE, lambda it: it.path / "commits"), "only commit records"),
    "part that is a file": (special(Path.touch, "PART"), "link or a special file"),
    "part id with a path": (record(lambda all: all[0]["add"][0].update(id="../../outside")), "identifier"),
    "probe id with a path": (record(lambda all: all[0].update(probes={"../x": {}})), "identifier"),
}
LINKS = {
    "linked root metadata": (linked(META), "symbolic link"),
    "linked records": (linked("commits"), "link"),
    "linked record": (linked("commits", "00000000.json"), "symbolic link"),
    "linked parts": (linked("parts"), "link"),
    "linked probes": (linked("probes"), "link"),
    "linked staging": (linked("staging"), "link"),
    "staging that dangles": (
        lambda it: (linked("staging")(it), shutil.rmtree(outside(it) / f"{it.path.name}-moved")),
        "link",
    ),
    "linked part": (linked("PART"), "link"),
    "linked array": (linked("PART", "params"), "link"),
    "linked shard": (linked("PART", "params", "c", "0", "0"), "link"),
    "linked metadata": (linked("PART", "params", META), "link"),
    "pipe as a shard": (special(os.mkfifo, "PART", "params", "c", "0", "0"), "special file"),
    "pipe as a record": (special(os.mkfifo, "commits", "00000001.json"), "not a plain file"),
    "pipe as the root metadata": (special(os.mkfifo, META), "not a plain file"),
    "pipe as a part": (special(os.mkfifo, "PART"), "special file"),
    "folder as a record": (special(Path.mkdir, "commits", "00000001.json"), "not a plain file"),
    "folder as a shard": (special(Path.mkdir, "PART", "params", "c", "0", "0"), "missing"),
    "socket as metadata": (special(listen, "PART", "params", META), "special file"),
    "device as a shard": (special(lambda path: path.symlink_to("/dev/zero"), "PART", "params", "c", "0", "0"), "link"),
}
JSON = {
    "15 MB of brackets": (metadata(lambda: b"[" * (15 << 20)), "levels"),
    "15 MB of quotes": (metadata(lambda: b'{"a":"' + b'\\"' * (7 << 20)), "not valid JSON"),
    "quotes": (metadata(lambda: b'"' * (2 << 20)), "not valid JSON"),
    "depth 10,000": (metadata(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "levels"),
    "brackets behind an open word": (metadata(b'{"a' + b"[" * 10_000), "not valid JSON"),
    "a million keys": (metadata(lambda: b'{"k":1' + b',"k":1' * 1_000_000 + b"}"), "items"),
    "50,000 keys": (metadata(lambda: dump({f"k{i}": 1 for i in range(50_000)})), "does not describe"),
    "a million items": (metadata(lambda: b'{"a":[' + b"1," * 1_000_000 + b"1]}"), "items"),
    "a word of 15 MB": (metadata(lambda: dump({"shape": "x" * (15 << 20)})), "does not describe"),
    "a file of 1 TB": (lambda it: os.truncate(it.path / META, 1 << 40), "at most"),
    "no JSON": (metadata(b""), "not valid JSON"),
    "a list": (metadata(b"[1]"), "not a JSON object"),
    "a key twice": (metadata(b'{"a":1,"a":2}'), "appears twice"),
    "NaN": (metadata(b'{"a":NaN}'), "NaN is not"),
    "infinity": (metadata(b'{"a":-Infinity}'), "Infinity is not"),
    "infinity in digits": (metadata(b'{"a":1e999}'), "beyond the range"),
    "5,000 digits": (metadata(b'{"a":' + b"9" * 5000 + b"}"), "digits"),
    "lone surrogate": (metadata(b'{"a":"\\ud800"}'), "UTF-8"),
    "lone surrogate in a key": (metadata(b'{"\\uDFFF":1}'), "UTF-8"),
    "bytes that are no UTF-8": (metadata(b'{"a":"\xff"}'), "UTF-8"),
    "byte order mark": (metadata(b"\xef\xbb\xbf{}"), "not valid JSON"),
    "UTF-16": (metadata("{}".encode("utf-16")), "not valid JSON"),
    "pickle as metadata": (metadata(PICKLE), "not valid JSON"),
}
ARRAYS = {
    "codec pickle": (array("codecs", to=[{"name": "pickle"}]), "does not describe"),
    "codec numcodecs.pickle": (array(*SHARDING, "codecs", 1, "name", to="numcodecs.pickle"), "/codecs/0"),
    "codec vlen-utf8": (array(*SHARDING, "codecs", 0, to={"name": "vlen-utf8"}), "/codecs/0"),
    "codec transpose": (
        array(*SHARDING, "codecs", 0, to={"name": "transpose", "configuration": {"order": [1, 0]}}),
        "/codecs/0",
    ),
    "big-endian": (array(*SHARDING, "codecs", 0, "configuration", "endian", to="big"), "big"),
    "no codecs": (array("codecs", to=[]), "does not describe"),
    "20,000 codecs": (array(*SHARDING, "codecs", to=[{"name": "crc32c"}] * 20_000), "/codecs"),
    "v2 filters": (array("filters", to=[{"id": "pickle"}]), "filters is unknown"),
    "zarr format 2": (array("zarr_format", to=2), "zarr_format"),
    "object dtype": (array("data_type", to="object"), "data_type"),
    "string dtype": (array("data_type", to="string"), "data_type"),
    "structured dtype": (array("data_type", to={"name": "structured", "configuration": {"fields": []}}), "data_type"),
    "fill value 0": (array("fill_value", to=0.0), "fill_value"),
    "storage transformers": (array("storage_transformers", to=[{"name": "x"}]), "storage_transformers"),
    "must understand": (array("plugin", to={"must_understand": False}), "plugin"),
    "key with an escape": (array(ESCAPE, to=1), "is unknown"),
    "consolidated metadata": (
        lambda it: (it.change(it.part() / META, ["consolidated_metadata"], {}), it.seal()),
        "consolidated",
    ),
    "consolidated root": (
        lambda it: (it.change(it.path / META, ["consolidated_metadata"], {}), it.seal()),
        "consolidated",
    ),
    "shape beyond 2**63": (array("shape", to=[1 << 40, 1 << 40]), "chunks of|declares"),
    "shape of 2**70": (array("shape", to=[1 << 70, 23]), "whole number"),
    "shape of a petabyte": (array("shape", to=[1 << 39, 23]), "chunks of|declares"),
    "shape of a gigabyte": (array("shape", to=[1 << 24, 23]), "chunks of"),
    "rank 9": (array("shape", to=[3] * 9), "rank"),
    "rank 1": (array("shape", to=[3]), "rank"),
    "rank 20,000": (array("shape", to=[1] * 20_000), "rank"),
    "shape 0": (array("shape", to=[0, 23]), "whole number"),
    "negative shape": (array("shape", to=[-3, 23]), "whole number"),
    "shape of floats": (array("shape", to=[3.0, 23]), "whole number"),
    "shape true": (array("shape", to=[True, 23]), "whole number"),
    "shape that is text": (array("shape", to="33"), "does not describe"),
    "shape null": (array("shape", to=None), "does not describe"),
    "huge chunks": (array(*SHARDING, "chunk_shape", to=[1 << 40, 1 << 20]), "chunks of"),
    "other chunks": (array(*SHARDING, "chunk_shape", to=[8, 23]), "chunks of"),
    "rank 1 of probing actions": (array("shape", to=[3], name="probe_actions"), "rank"),
    "index in front": (array(*SHARDING, "index_location", to="start"), "index_location"),
    "index outside": (shard(bytes(CHUNK), index=[1 << 40, CHUNK + 4]), "index"),
    "index that overlaps": (shard(bytes(CHUNK), index=[0, CHUNK + 20]), "index"),
    "missing chunk": (shard(bytes(CHUNK), index=[(1 << 64) - 1] * 2), "index"),
    "two chunks": (shard(bytes(CHUNK), bytes(CHUNK)), "cannot hold"),
    "flags of any byte": (lambda it: shard_of_flags(it), "neither false nor true"),
}


def shard_of_flags(it: Any) -> None:
    shard(bytes([2, 255] * 3) + bytes(26), name="terminated")(it)


PACKED = {  # of a compressed data set
    "bomb of 1 GiB": (shard(frame(1 << 30)), "declared size"),
    "bomb that declares little": (shard(frame(1 << 30, CHUNK)), "do not unpack"),
    "bomb that declares nothing": (shard(frame(1 << 30, None)), "declared size"),
    "chunk that declares nothing": (shard(frame(CHUNK, None)), "declared size"),
    "frame that holds less": (shard(frame(CHUNK - 4, CHUNK)), "do not unpack"),
    "two frames": (shard(frame(CHUNK) + frame(1 << 20)), "do not unpack"),
    "skippable frame first": (shard(SKIPPABLE + frame(CHUNK)), "declared size"),
    "truncated frame": (shard(frame(CHUNK)[:-1]), "do not unpack"),
    "dictionary": (shard(frame(CHUNK, CHUNK, b"\x07")), "do not unpack"),
    "no frame": (shard(PICKLE), "declared size"),
    "empty frame": (shard(b""), "cannot hold"),
    "lengths that overflow": (shard(*[frame(CHUNK)] * 1, index=[0, (1 << 63) + 9]), "index"),
    "level of text": (array(*SHARDING, "codecs", 1, "configuration", "level", to="3"), "level"),
    "checksums of zstd": (array(*SHARDING, "codecs", 1, "configuration", "checksum", to=True), "checksum"),
    "packed shape of a petabyte": (array("shape", to=[1 << 39, 23]), "chunks of|declares"),
}

CHAIN = {
    "no seal": (lambda it: (it.path / "commits" / "00000000.json").write_bytes(b"{}"), "own checksum"),
    "number of another": (
        lambda it: (it.seal(), it.write(1, {**it.records[1], "number": 0})),
        "does not follow|not a commit",
    ),
    "no parent": (
        lambda it: (it.seal(), it.write(1, {**it.records[1], "number": 1, "parent": None})),
        "does not follow",
    ),
    "parent is itself": (lambda it: it.write(0, {**it.records[0], "parent": "0" * 64}), "does not follow"),
    "root of another": (lambda it: it.write(0, {**it.records[0], "root": "0" * 64}), "was written for another"),
    "gap": (
        lambda it: (it.path / "commits" / "00000000.json").rename(it.path / "commits" / "00000007.json"),
        "missing",
    ),
    "huge number": (lambda it: it.write(0, {**it.records[0], "number": 10**30}), "whole number"),
    "record that is a list": (lambda it: sealed(it, b"[0"), "own checksum|JSON"),
    "a part twice": (record(lambda all: all[1]["add"].append(all[0]["add"][0])), "unknown or repeated|cannot"),
    "a part twice in one": (record(lambda all: all[0]["add"].append(all[0]["add"][0])), "unknown or repeated|cannot"),
    "removal of a stranger": (record(lambda all: all[1].update(remove=["0" * 32])), "unknown or repeated|cannot"),
    "removal of itself": (
        record(lambda all: all[1].update(remove=[all[1]["add"][0]["id"]])),
        "unknown or repeated|cannot",
    ),
    "removal twice": (
        record(lambda all: all[1].update(remove=[all[0]["add"][0]["id"]] * 2)),
        "unknown or repeated|cannot",
    ),
    "20,000 removals": (record(lambda all: all[1].update(remove=["0" * 32] * 20_000)), "unknown or repeated|cannot"),
    "removals that are text": (record(lambda all: all[1].update(remove="")), "no list"),
    "parts that are an object": (record(lambda all: all[1].update(add={})), "no list"),
    "negative rows": (record(lambda all: all[0]["add"][0].update(rows=-1)), "whole number"),
    "no rows": (record(lambda all: all[0]["add"][0].update(rows=0)), "/rows is"),
    "rows that overflow sums": (
        record(lambda all: [record["add"][0].update(rows=1 << 62) for record in all]),
        "whole number",
    ),
    "2 billion rows": (record(lambda all: all[0]["add"][0].update(rows=1 << 31)), "/rows is"),
    "rows true": (record(lambda all: all[0]["add"][0].update(rows=True)), "whole number"),
    "rows as text": (record(lambda all: all[0]["add"][0].update(rows="3" * 20_000)), "whole number"),
    "no files": (record(lambda all: all[0]["add"][0].update(files={})), "in no commit"),
    "files that are a list": (record(lambda all: all[0]["add"][0].update(files=[])), "no object"),
    "file sizes of text": (
        record(lambda all: all[0]["add"][0]["files"].update({"x": ["1", "0" * 64]})),
        "whole number",
    ),
    "huge file size": (
        record(lambda all: all[0]["add"][0]["files"].update({"x": [1 << 70, "0" * 64]})),
        "whole number",
    ),
    "probe of another": (record(lambda all: all[0]["add"][0].update(probe="0" * 64)), "does not name"),
    "probe without states": (lambda it: (shutil.rmtree(it.probe()), it.seal()), "missing"),
    "probe with other files": (
        record(lambda all: [files.update(x=[1, "0" * 64]) for files in all[0]["probes"].values()]),
        "missing",
    ),
    "newer format": (record(lambda all: all[0].update(format_version=2)), "format version 2"),
    "newer root": (
        lambda it: (it.change(it.path / META, (*ATTRIBUTES, "format_version"), 7), it.seal()),
        "format version 7",
    ),
    "provenance of text": (record(lambda all: all[0].update(provenance="")), "no object"),
    "created as a number": (record(lambda all: all[0].update(created=5)), "no time"),
    "8,000 parts": (lambda it: many_parts(it, 8_000), "missing"),
}


def sealed(it: Any, body: bytes) -> None:
    seal = hashlib.sha256(body).hexdigest().encode()
    (it.path / "commits" / "00000000.json").write_bytes(body + b',"sha256":"' + seal + b'"}')


def many_parts(it: Any, count: int) -> None:
    """As many parts as fit into a record, and another record that replaces them by as many."""
    first = it.records[0]["add"][0]

    def parts(start: int) -> list[dict[str, Any]]:
        return [{**first, "id": f"{number:032x}", "files": {}, "probe": None} for number in range(start, start + count)]

    it.records[0].update(add=parts(0), probes={})
    it.records[1].update(add=parts(count), remove=[part["id"] for part in parts(0)], probes={})
    it.seal()


IDENTITY = {
    "horizon of text": (env("horizon", "10"), "right type"),
    "horizon of text, long": (env("horizon", ESCAPE * 100_000), "right type"),
    "negative horizon": (env("horizon", -1), "horizon is -1"),
    "huge horizon": (env("horizon", 10**30), "horizon"),
    "horizon true": (env("horizon", True), "right type"),
    "shorter horizon": (env("horizon", 5), "outside 0 to the horizon of 5"),
    "negative size": (env("observation_size", -4), "observation_size"),
    "other size": (env("observation_size", 5), "does not fit|numbers; 5"),
    "huge size": (env("action_size", 10**39), "action_size"),
    "no time": (env("timestep", 0), "timestep"),
    "name that is a list": (env("name", ["toy"]), "right type"),
    "details that are a list": (env("details", []), "right type"),
    "digest of another": (env("digest", "0" * 64), "environment is"),
    "digest of text": (env("digest", ESCAPE), "no SHA-256"),
    "no name": (env("name", ...), "exactly the fields"),
    "unknown field": (env(ESCAPE, 1), "exactly the fields"),
}
LAYER = ("layers", 0)
POLICIES = {
    "unknown activation": (policy(*LAYER, "activation", to="os.system"), "activation"),
    "activation with escapes": (policy(*LAYER, "activation", to=ESCAPE * 1000), "activation"),
    "activation that is a list": (policy(*LAYER, "activation", to=["tanh"] * 1000), "activation"),
    "sizes of text": (policy("observation_size", to="4"), "observation_size"),
    "sizes true": (policy("action_size", to=True), "action_size is True"),
    "size 23.0": (policy("size", to=23.0), "another policy|/policy|/size"),
    "negative width": (policy(*LAYER, "tensors", "kernel", "shape", to=[4, -3]), "hidden"),
    "huge width": (policy(*LAYER, "tensors", "kernel", "shape", to=[4, 10**30]), "from 1 to 65,536"),
    "offsets that overlap": (policy("layers", 1, "tensors", "kernel", "offset", to=0), "contradicts"),
    "no layers": (policy("layers", to=[]), "cannot be read"),
    "layers that are text": (policy("layers", to="layers"), "cannot be read"),
    "layers that are an object": (policy("layers", to={"a": 1}), "cannot be read"),
    "normaliser of text": (policy("normaliser", to={"mean": "0000", "std": "1111", "clip": 1}), "finite means"),
    "normaliser of huge numbers": (policy("normaliser", to={"mean": [10**400], "std": [1], "clip": 1}), "digits"),
    "another policy": (policy("layers", 1, "activation", to="relu"), "output is"),
    "5,000 layers": (lambda it: many_layers(it, 5_000), "hidden layers"),
}


def many_layers(it: Any, count: int) -> None:
    """A policy of very many layers of one neuron, which adds up."""
    shape, layers, at = [4, 1], [], 0
    for number in range(count):
        if number == count - 1:
            shape = [1, 2]
        size = shape[0] * shape[1]
        tensors = {"kernel": {"offset": at, "shape": shape}, "bias": {"offset": at + size, "shape": shape[1:]}}
        layers.append({"name": f"layer_{number}", "activation": "tanh", "tensors": tensors})
        at += size + shape[1]
        shape = [1, 1]
    it.change(it.part() / META, (*ATTRIBUTES, "policy", "size"), at)
    policy("layers", to=layers)(it)


ATTRIBUTE = {
    "simulation of text": (attribute("simulation", to=ESCAPE), "simulation"),
    "discount of text": (attribute("discount", to="0.9"), "discount"),
    "discount 7": (attribute("discount", to=7), "discount"),
    "other rows": (attribute("rows", to=4), "/rows"),
    "unknown attribute": (attribute(ESCAPE, to=4), "attributes"),
    "no vocabularies": (attribute("vocabularies", to={}), "vocabularies"),
    "words that are numbers": (words("source", lambda old: [1, 2]), "words"),
    "words that are text": (attribute("vocabularies", "source", to="ab"), "words"),
    "words twice": (words("source", lambda old: old[:1] * 2), "repeats"),
    "too few words": (words("source", lambda old: old[:1]), "vocabulary of 1 words"),
    "no words": (words("base", lambda old: []), "vocabulary of 0 words"),
}
HARMLESS = {  # odd, but what they say can be read, in bounded time and memory
    "20,000 words": (words("base", lambda old: old + [f"w{i}" for i in range(20_000)]), None),
    "a word of 10 MB": (words("source", lambda old: ["x" * (10 << 20), *old[1:]]), None),
    "words with escapes": (words("source", lambda old: [ESCAPE, *old[1:]]), None),
    "name with escapes": (env("name", ESCAPE), None),
    "provenance with escapes": (record(lambda all: all[0].update(provenance={ESCAPE: [ESCAPE]})), None),
    "hard link to a shard": (linked("PART", "params", "c", "0", "0", hard=True), None),  # as backups make them
    "hard link to the root metadata": (linked(META, hard=True), None),
    "hard link to a record": (linked("commits", "00000000.json", hard=True), None),
    "litter that is a link": (lambda it: (it.part() / ".DS_Store").symlink_to(outside(it) / "secret"), None),
    "litter with links in it": (
        lambda it: [
            (it.path / folder / ".snapshot").mkdir() or (it.path / folder / ".snapshot" / "x").symlink_to("/etc/passwd")
            for folder in (".", "commits", "parts", "staging")
        ],
        None,
    ),
    "details of 1 MB": (env("details", {"x": ["y" * 50] * 20_000}), None),
    "unknown member of a record": (record(lambda all: all[0].update({ESCAPE: ESCAPE})), None),
    "pickles beside the root": (file(".zattrs", PICKLE, lambda it: it.path), "does not belong"),
    "v2 group at the root": (file(".zgroup", b'{"zarr_format":2}', lambda it: it.path), "does not belong"),
    "a card that is a link": (lambda it: (it.path / "README.md").symlink_to(outside(it) / "secret"), "does not belong"),
    "foreign file in parts": (file("x.pkl", PICKLE, lambda it: it.path / "parts"), "does not belong"),
    "100 foreign files in parts": (
        lambda it: [(it.path / "parts" / f"x{i}").touch() for i in range(100)],
        "more entries",
    ),
}
CORPUS = NAMES | LINKS | JSON | ARRAYS | CHAIN | IDENTITY | POLICIES | ATTRIBUTE
