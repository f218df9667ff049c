"""Hostile recipes, TOML files and policy files: name → bytes. Everything in them is refused in one sentence."""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

from epvf_data.policies.spec import PolicySpec

SPEC = PolicySpec(4, 1, (4,))
ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"
DIGITS = "9" * 5000


def _levels(count: int) -> str:
    return "[" * count + "]" * count


# What is no TOML of ours, whoever reads it.
TOML: dict[str, bytes] = {
    "no TOML": b"a = [",
    "binary": bytes(range(256)),
    "not UTF-8": b'a = "\xff"',
    "a bomb of dots": b".".join([b"a"] * 300_000) + b" = 1",
    "a bomb of numbers and dots": b".".join([b"11"] * 200_000) + b" = 1",
    "a bomb of quoted dots": b".".join([rb'"\""'] * 150_000) + b" = 1",
    "a bomb of tables": b"[" + b".".join([b"a"] * 300_000) + b"]",
    "deep lists": f"env = {_levels(100_000)}".encode(),
    "deep tables": b"a = " + b"{ a = " * 100_000 + b"1" + b"}" * 100_000,
    "deep, and closed": f"env = {_levels(60)}".encode(),
    "two megabytes": b"# comment\n" * 200_000,
    "digits": f"seed = {DIGITS}".encode(),
    "digits, in hexadecimal": f"seed = 0x{DIGITS}".encode(),
    "the same key twice": b"seed = 1\nseed = 2",
    "an unknown word": b"sede = 1",
    "an unknown word with escapes": f"{json.dumps(ESCAPE)} = 1".encode(),
    "an unknown word of a megabyte": b'"' + b"x" * 10**6 + b'" = 1',
    "code": b'env = "evil.py:make"',
    "a module": b'env = "evil:make"',
    "an environment with escapes": f"env = {json.dumps(ESCAPE)}".encode(),
    "an environment of half a megabyte": b'env = "' + b"x" * 500_000 + b'"',
    "an environment that is a path": b'env = "../../ant"',
    "a table for text": b"env = { a = 1 }",
    "a list for text": b'env = ["ant"]',
    "a date for text": b"env = 2026-01-01",
    "text for a number": b'seed = "one"',
    "a list of lists for a number": b"seed = [[1]]",
    "NaN for a number": b"horizon = nan",
    "a truth for a number": b"horizon = true",
    "no steps": b"horizon = 0",
    "too many steps": b"horizon = 1_000_000_000_000",
    "too many worlds": b"envs = 1_000_000_000_000",
    "too many episodes": b"episodes = 1_000_000_000_000",
    "a seed of 100 bits": b"seed = 1267650600228229401496703205376",
    "a backend that is none": f"backend = {json.dumps(ESCAPE)}".encode(),
}
_RECIPE = '[architectures.a]\nhidden = [4]\n[sources.r]\nkind = "random"\n'


def _recipe(text: str) -> bytes:
    return f'env = "cartpole"\npolicies = 8\nenvs = 8\nhorizon = 10\n{text}'.encode()


def _source(text: str) -> bytes:
    return _recipe(f"[architectures.a]\nhidden = [4]\n[sources.s]\n{text}\n")


_ONLINE = 'kind = "online"\npreset = "cartpole-es"\n'
RECIPES: dict[str, bytes] = {
    "no architectures": _recipe('[sources.r]\nkind = "random"'),
    "architectures that are a number": _recipe("architectures = 3"),
    "sources that are a list": _recipe('sources = ["r"]\n[architectures.a]\nhidden = [4]'),
    "an architecture that is a number": _recipe('architectures.a = 3\n[sources.r]\nkind = "random"'),
    "a source that is text": _recipe('sources.s = "random"\n[architectures.a]\nhidden = [4]'),
    **{
        f"a {table} called {name!r:.20}": _recipe(
            f"[architectures.{json.dumps(name) if table == 'architecture' else 'a'}]\nhidden = [4]\n"
            f'[sources.{json.dumps(name) if table == "source" else "s"}]\nkind = "random"\n'
        )
        for table in ("architecture", "source")
        for name in (
            "/etc/cron.d/x",
            "../../x",
            "a/b",
            "",
            ".",
            "..",
            ".hidden",
            "-rf",
            ESCAPE,
            "x" * 10_000,
            "a b",
            "ä",
        )
    },
    "sources that differ in case": _recipe(
        '[architectures.a]\nhidden = [4]\n[sources.s]\nkind = "random"\n[sources.S]\nkind = "random"\n'
    ),
    "architectures that differ in case": _recipe(
        '[architectures.a]\nhidden = [4]\n[architectures.A]\nhidden = [5]\n[sources.s]\nkind = "random"\n'
    ),
    "a thousand sources": _recipe(
        "[architectures.a]\nhidden = [4]\n" + "".join(f'[sources.s{i}]\nkind = "random"\n' for i in range(1000))
    ),
    "a thousand architectures": _recipe(
        '[sources.s]\nkind = "random"\n' + "".join(f"[architectures.a{i}]\nhidden = [{i + 1}]\n" for i in range(1000))
    ),
    "a width of 10^12": _recipe('[architectures.a]\nhidden = [1_000_000_000_000]\n[sources.r]\nkind = "random"'),
    "a width of 0": _recipe('[architectures.a]\nhidden = [0]\n[sources.r]\nkind = "random"'),
    "widths of 10^9 numbers": _recipe('[architectures.a]\nhidden = [65536, 65536]\n[sources.r]\nkind = "random"'),
    "widths of 10^8 numbers, twice": _recipe(
        "[architectures.a]\nhidden = [8000, 8000]\n[architectures.b]\nhidden = [8001]\n"
        '[architectures.c]\nhidden = [8000, 800]\n[sources.r]\nkind = "random"'
    ),
    "5,000 layers": _recipe(f"[architectures.a]\nhidden = {[1] * 5000}\n[sources.r]\nkind = 'random'"),
    "300,000 layers": _recipe(f"[architectures.a]\nhidden = {[1] * 300_000}\n[sources.r]\nkind = 'random'"),
    "an architecture like a folder": _recipe('[architectures.a]\nlike = "/"\n[sources.r]\nkind = "random"'),
    "an architecture like a device": _recipe('[architectures.a]\nlike = "/dev/zero"\n[sources.r]\nkind = "random"'),
    "a name with NUL": _recipe('[architectures.a]\nlike = "a\\u0000b"\n[sources.r]\nkind = "random"'),
    "no kind": _source("weight = 1.0"),
    "a kind that is a list": _source('kind = ["random"]'),
    "a kind with escapes": _source(f"kind = {json.dumps(ESCAPE)}"),
    "a weight of 0": _source('kind = "random"\nweight = 0.0'),
    "a weight of 10^308": _source('kind = "random"\nweight = 1e308'),
    "an infinite weight": _source('kind = "random"\nweight = inf'),
    "a weight that is none": _source('kind = "random"\nweight = nan'),
    "a scale of lists": _source('kind = "random"\nscale = [[1.0], [2.0]]'),
    "a scale downwards": _source('kind = "random"\nscale = [2.0, 1.0]'),
    "bases that are a device": _source('kind = "perturbed"\nbases = ["/dev/zero"]'),
    "bases that are a folder": _source('kind = "perturbed"\nbases = ["."]'),
    "bases that are a FIFO": _source('kind = "perturbed"\nbases = ["fifo"]'),
    "bases that are this recipe": _source('kind = "perturbed"\nbases = ["file"]'),
    "a base of a long name": _source('kind = "perturbed"\nbases = ["' + "x" * 4000 + '"]'),
    "20,000 bases": _source('kind = "perturbed"\nbases = [' + '"bundled", ' * 20_000 + "]"),
    "radii to infinity": _source('kind = "perturbed"\nradii = [inf]'),
    "radii without end": _source('kind = "perturbed"\nradii = [' + "0.1, " * 20_000 + "]"),
    "snapshots without end": _source(_ONLINE + "snapshots = 1_000_000_000_000"),
    "an objective that is code": _source(_ONLINE + 'objective = "py:make"'),
    "a teacher's code": _source(_ONLINE + 'settings = { env = "evil.py:make" }'),
    "a preset that is a device": _source('kind = "online"\npreset = "/dev/zero"'),
    "a preset that is no file": _source('kind = "online"\npreset = "' + "x" * 4000 + '"'),
    "a preset with itself as preset": _source('kind = "online"\npreset = "loop.toml"'),
    "teachers' settings that are a list": _source(_ONLINE + "settings = [1]"),
    "teachers' settings that are dates": _source(_ONLINE + "settings = { iterations = 2026-01-01 }"),
    "iterations of 10^18": _source(_ONLINE + "settings = { iterations = 1_000_000_000_000_000_000 }"),
    "a teacher that starts from a device": _source(_ONLINE + 'settings = { iterations = 1, start = "/dev/zero" }'),
    "a library's widths": _source('kind = "library"\nsettings = { envs = 1_000_000_000_000 }'),
    "a population of 10^12": _source('kind = "evolution"\npopulation = 1_000_000_000_000'),
    "pairs of 10^12": _source('kind = "between"\nof = ["s"]\npairs = 1_000_000_000_000'),
    "between itself": _source('kind = "between"\nof = ["s"]'),
    "policies of 10^12": f"policies = 1_000_000_000_000\n{_RECIPE}".encode(),
    "probes of 10^12": f"probes = 1_000_000_000_000\n{_RECIPE}".encode(),
    "a discount of 2": f"discount = 2.0\n{_RECIPE}".encode(),
}

COLLECT: dict[str, bytes] = {
    "policies of 10^12": b"policies = 1_000_000_000_000",
    "probes of 10^12": b"probes = 1_000_000_000_000",
    "a discount of 2": b"discount = 2.0",
    "a policy that is a number": b"policy = 3",
    "a width of 10^12": b"perturbed.bases = ['random']\npolicy.hidden = [1_000_000_000_000]",
    "a width of a list": b"policy.hidden = [[4]]",
    "more policies than there is memory": b"env = 'cartpole'\nenvs = 1_000_000\nperturbed.bases = ['random']\n"
    b"perturbed.random_bases = 1\npolicy.hidden = [8000, 8000]",
    "random bases of 10^12": b"perturbed.random_bases = 1_000_000_000_000",
    "bases that are a FIFO": b"perturbed.bases = ['fifo']",
    "bases that are a device": b"perturbed.bases = ['/dev/zero']",
    "states of a device": b"env = 'cartpole'\nperturbed.bases = ['random']\nprobe_file = '/dev/zero'",
    "states of a FIFO": b"env = 'cartpole'\nperturbed.bases = ['random']\nprobe_file = 'fifo'",
    "states that claim 10^12 numbers": b"env = 'cartpole'\nperturbed.bases = ['random']\nprobe_file = 'bomb.npy'",
    "states of a pickle": b"env = 'cartpole'\nperturbed.bases = ['random']\nprobe_file = 'pickle.npy'",
    "an infinite scale": b"perturbed.scales = [inf]",
    "scales of a megabyte": b"perturbed.scales = [" + b"0.1," * 200_000 + b"]",
    "a share of 2": b"random.share = 2.0",
}

ONLINE: dict[str, bytes] = {
    "itself as preset": b'preset = "file.toml"',
    "a path as preset": b'preset = "/dev/zero"',
    "a list as preset": b'preset = ["ant-cpu"]',
    "code over a preset": b'preset = "ant-cpu"\nenv = "evil.py:make"',
    "no end": b'env = "cartpole"',
    "iterations of 10^18": b'preset = "cartpole-es"\niterations = 1_000_000_000_000_000_000',
    "seeds of 10^9": b'preset = "cartpole-es"\nseeds = 1_000_000_000',
    "a seed beyond 32 bits": b'preset = "cartpole-es"\nseed = 4_294_967_296',
    "rows of 10^12": b'preset = "cartpole-es"\nreplay.capacity = 1_000_000_000_000',
    "updates of 10^12": b'preset = "ant-cpu"\nimprovement.steps = 1_000_000_000_000',
    "a rate that is infinite": b'preset = "ant-cpu"\nimprovement.learning_rate = inf',
    "a start that is a FIFO": b'preset = "cartpole-es"\niterations = 1\nstart = "fifo"',
    "a start that is this file": b'preset = "cartpole-es"\niterations = 1\nstart = "file.toml"',
}

IMPORT: dict[str, bytes] = {
    "tensors that are a list": b"tensors = [1]",
    "a tensor of no layer": b'tensors."../x" = "a"',
    "a tensor that is a number": b'tensors."layer_0/kernel" = 3',
    "patterns without end": b"ignore = [" + b'"*a*b*c*d*", ' * 5000 + b"]",
    "an epsilon below 0": b"normaliser.epsilon = -1.0",
    "a normaliser that is text": b'normaliser = "mine"',
    "an activation that is a list": b'activation = ["tanh"]',
    "an infinite action": b"action_low = [-inf]\naction_high = [inf]",
}


def safetensors(head: Any, numbers: bytes = b"") -> bytes:
    """A file of this header, which may be any bytes."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def policy(spec: str, dtype: str = "F32", width: int = 4, notes: Mapping[str, Any] | None = None) -> bytes:
    """A policy file with tensors that fit `SPEC`, and whatever specification."""
    head: dict[str, Any] = {"__metadata__": {"spec": spec, "env": "cartpole", **(notes or {})}}
    at = 0
    for name, slot in SPEC.tensors.items():
        head[name] = {"dtype": dtype, "shape": list(slot.shape), "data_offsets": [at, at + width * slot.size]}
        at += width * slot.size
    return safetensors(head, bytes(at))


def changed(**settings: Any) -> str:
    return json.dumps({**SPEC.to_dict(), **settings})


def tensor(**settings: Any) -> bytes:
    """A policy file, one tensor of which is described otherwise."""
    data = policy(SPEC.to_json())
    length = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + length])
    head["layer_0/bias"] = {**head["layer_0/bias"], **settings}
    return safetensors(head, data[8 + length :])


_LAYER = {"name": "layer_0", "activation": "tanh", "tensors": {"kernel": {"offset": 0, "shape": [4, 4]}}}
POLICIES: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "text": b"hello, this is no policy",
    "a header beyond the file": struct.pack("<Q", 1 << 20) + b"{}",
    "a header of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "a header that is a list": safetensors([1]),
    "a header that nests": safetensors(b"[" * 100_000 + b"]" * 100_000),
    "a header that nests, in objects": safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a header of digits": safetensors(b'{"a":' + DIGITS.encode() + b"}"),
    "a header with NaN": safetensors(b'{"a":NaN}'),
    "a header with a key twice": safetensors(b'{"a":1,"a":1}'),
    "a header that is not UTF-8": safetensors(b'{"\xff":1}'),
    "a header with half a character": safetensors(b'{"\\ud800":1}'),
    "a header of nine megabytes": safetensors(b'{"a":"' + b" " * (9 << 20) + b'"}'),
    "a million notes": safetensors({"__metadata__": {str(n): "" for n in range(400_000)}}),
    "a million lists": safetensors(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"),
    "notes that are a list": safetensors({"__metadata__": [1]}),
    "notes that are numbers": safetensors({"__metadata__": {"spec": 3}}),
    "20,000 tensors": safetensors(
        {str(n): {"dtype": "F32", "shape": [], "data_offsets": [4 * n, 4 * n + 4]} for n in range(20_000)},
        bytes(80_000),
    ),
    "a tensor that is a number": safetensors({"a": 3}),
    "a tensor without a place": safetensors({"a": {"dtype": "F32", "shape": [1]}}),
    "a tensor's name of a megabyte": safetensors(
        {"x" * 10**6: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "8-bit floats": policy(SPEC.to_json(), "F8_E4M3", 1),
    "whole numbers": policy(SPEC.to_json(), "I32", 4),
    "an unknown kind": policy(SPEC.to_json(), "F4", 4),
    "a kind that is a list": tensor(dtype=["F32"]),
    "a shape of text": tensor(shape=["4"]),
    "a shape below 0": tensor(shape=[-4]),
    "a shape of truth": tensor(shape=[True]),
    "a shape of 10^18": tensor(shape=[10**18]),
    "a shape of nothing and 2^62": tensor(shape=[0, 1 << 62]),
    "a shape of 100 dimensions": tensor(shape=[1] * 100),
    "places of text": tensor(data_offsets="04"),
    "places beyond the end": tensor(data_offsets=[64, 1 << 62]),
    "places over each other": tensor(data_offsets=[0, 16]),
    "places backwards": tensor(data_offsets=[80, 64]),
    "three places": tensor(data_offsets=[64, 80, 80]),
    "no specification": safetensors({}),
    "a specification that nests": policy("[" * 100_000),
    "a specification that nests, and ends": policy(_levels(100_000)),
    "a specification of digits": policy('{"observation_size":' + DIGITS + "}"),
    "a specification with a key twice": policy('{"kind":"mlp","kind":"mlp"}'),
    "a specification that is a list": policy("[1]"),
    "a specification that is text": policy("mlp"),
    "an empty specification": policy("{}"),
    "observations of 10^12": policy(changed(observation_size=10**12)),
    "observations of truth": policy(changed(observation_size=True)),
    "observations of text": policy(changed(observation_size="4")),
    "actions below 0": policy(changed(action_size=-1)),
    "70,000 layers": policy(changed(layers=[_LAYER] * 70_000)),
    "10,000 layers": policy(changed(layers=[_LAYER] * 10_000)),
    "layers that are a table": policy(changed(layers={"0": _LAYER})),
    "layers that are text": policy(changed(layers="layers")),
    "a layer of size 0": policy(
        changed(layers=[{**_LAYER, "tensors": {"kernel": {"offset": 0, "shape": [4, 0]}}}] * 2)
    ),
    "a layer of size 10^12": policy(
        changed(layers=[{**_LAYER, "tensors": {"kernel": {"offset": 0, "shape": [4, 10**12]}}}] * 2)
    ),
    "layers of 10^9 numbers": policy(
        changed(layers=[{**_LAYER, "tensors": {"kernel": {"offset": 0, "shape": [4, 65_536]}}}] * 3)
    ),
    "an activation with escapes": policy(changed(layers=[{**_LAYER, "activation": ESCAPE}] * 2)),
    "an activation that is a table": policy(changed(layers=[{**_LAYER, "activation": {"a": 1}}] * 2)),
    "a normaliser that is text": policy(changed(normaliser="mean")),
    "a normaliser of texts": policy(changed(normaliser={"mean": ["a"] * 4, "std": [1.0] * 4, "clip": 10.0})),
    "a normaliser of 10^39": policy(changed(normaliser={"mean": [10**39] * 4, "std": [1.0] * 4, "clip": 10.0})),
    "a normaliser of 2^40": policy(changed(normaliser={"mean": [1 << 40] * 4, "std": [1.0] * 4, "clip": 10.0})),
    "a normaliser of 10^-300": policy(changed(normaliser={"mean": [0.0] * 4, "std": [1e-300] * 4, "clip": 10.0})),
    "a normaliser of 100,000 numbers": policy(
        changed(normaliser={"mean": [0.5] * 100_000, "std": [0.5] * 100_000, "clip": 10.0})
    ),
    "a Gaussian that is text": policy(changed(gaussian="mean")),
}


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return file.getvalue()


def _torch(pickle: bytes, compression: int = zipfile.ZIP_DEFLATED, **storages: bytes) -> bytes:
    return zipped({"a/data.pkl": pickle, **{f"a/data/{key}": data for key, data in storages.items()}}, compression)


_TEXT = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)  # a word of a megabyte
_MANY = b"\x91" * 31 + b"\xdd" + struct.pack(">I", 1 << 31)  # lists in lists, the last of 2^31 values


@functools.cache
def foreign() -> dict[str, bytes]:
    """Files of other frameworks; large, and made when they are asked for."""
    return {
        "Torch: millions of tables": _torch(b"\x80\x02" + b"}" * (15 << 20) + b"."),
        "Torch: millions of marks": _torch(b"\x80\x02" + b"(" * (15 << 20) + b"."),
        "Torch: millions of memories": _torch(b"\x80\x02" + b"}\x94" * (7 << 20) + b"."),
        "Torch: a word of a megabyte in 1,000 names": _torch(
            b"\x80\x02}" + _TEXT + b"q\x00}" + b"".join(b"(K" + bytes([n % 256]) + b"}u" for n in range(1000)) + b"s."
        ),
        "Torch: a table with itself in it": _torch(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
        "Torch: no end": _torch(b"\x80\x02}"),
        "Torch: an empty stack": _torch(b"\x80\x02."),
        "Torch: compressed otherwise": _torch(b"\x80\x02}.", zipfile.ZIP_LZMA),
        "a Zip of many names": zipped({str(n): b"" for n in range(11_000)}),
        "a Zip of zeros": zipped({"a/data.pkl": b"\x80\x02" + bytes(64 << 20)}),
        "SB3: a bomb in it": zipped({"data": b"{}", "policy.pth": zipped({"a/data.pkl": b"(" * (60 << 20)})}),
        "SB3: a text that nests": zipped({"data": b"[" * 100_000, "policy.pth": _torch(b"\x80\x02}.")}),
        "SB3: a text of digits": zipped(
            {"data": b'{"a":' + DIGITS.encode() + b"}", "policy.pth": _torch(b"\x80\x02}.")}
        ),
        "msgpack: a list of 2^31": b"\x81\xa1a\xdd" + struct.pack(">I", 1 << 31),
        "msgpack: lists of 2^31 in lists": b"\x81\xa1a" + _MANY,
        "msgpack: a table of 2^32": b"\xdf" + b"\xff" * 4,
        "msgpack: bytes of 2^32": b"\x81\xa1a\xc6" + b"\xff" * 4,
        "msgpack: a million tables": b"\x81\xa1a\xdd" + struct.pack(">I", 10**6) + b"\x80" * 10**6,
        "msgpack: deep": b"\x81\xa1a" * 100_000,
        "msgpack: a key that is a list": b"\x81\x90\x01",
        "msgpack: a key twice": b"\x82\xa1a\x01\xa1a\x01",
        "msgpack: an unknown byte": b"\x81\xa1a\xc1",
        "msgpack: text that is none": b"\x81\xa1\xff\x01",
        "msgpack: an array of texts": b"\x81\xa1a\xc7\x16\x01\x93\x92\xa4aaaa\xce\x7f\xff\xff\xff\xa7float32\xc4\x00",
        "msgpack: an array of the kind 2^31": b"\x81\xa1a\xc7\x0a\x01\x93\x91\x01\xce\x7f\xff\xff\xff\xc4\x00",
        "msgpack: an array in arrays": b"\x81\xa1a" + b"\xc7\x12\x01" * 5000,
        "msgpack: left over": b"\x80\x80",
        "a pickle": b"\x80\x04\x95" + bytes(20),
    }
