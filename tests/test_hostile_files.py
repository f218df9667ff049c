"""What a stranger's recipe, TOML file or policy file cannot do: every verb that takes one reads it, within bounds."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import hostile_files as hostile
import numpy as np
import pytest
from safetensors.numpy import save

from epvf_data import config as configuration
from epvf_data.baselines.settings import BaselineConfig, baseline_config
from epvf_data.cli import load
from epvf_data.errors import EpvfError
from epvf_data.importing.run import import_policy
from epvf_data.policies.files import load_policy, read_notes
from epvf_data.recipes.collect import collect_recipe
from epvf_data.recipes.tables import build
from epvf_data.render.render import render_policy
from epvf_data.trainers.online.standing import begin

app = load()

MEGABYTES, SECONDS = 300, 30


def memory(which: str) -> int:
    """Megabytes of this process: VmRSS, or VmHWM, the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) >> 10


@contextlib.contextmanager
def bounded(name: str) -> Iterator[None]:
    """Raises where the block takes more than `SECONDS`, or `MEGABYTES` more than there are."""

    def late(*_):
        raise AssertionError(f"{name}: no answer after {SECONDS} s")

    Path("/proc/self/clear_refs").write_text("5")  # the most memory so far is that of now
    before, former = memory("VmRSS"), [signal.signal(which, late) for which in (signal.SIGALRM, signal.SIGPROF)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: the machine may be busy
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for which, handler in zip((signal.SIGALRM, signal.SIGPROF), former, strict=True):
            signal.signal(which, handler)
    assert memory("VmHWM") - before < MEGABYTES, name


@pytest.fixture
def folder(in_tmp, monkeypatch):
    """What hostile files name: code that leaves a trace, a pipe that nobody writes to, numbers that are not there."""
    monkeypatch.setattr("epvf_data.runtime.prepare", lambda: None)
    (in_tmp / "evil.py").write_text("open('trace', 'w').close()\n")
    os.mkfifo(in_tmp / "fifo")
    (in_tmp / "loop.toml").write_text('preset = "loop.toml"')
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"
    (in_tmp / "bomb.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    np.save(in_tmp / "pickle.npy", np.array([{"a": 1}] * 3), allow_pickle=True)
    (in_tmp / "foreign.safetensors").write_bytes(
        save({"0.weight": np.ones((4, 4), np.float32), "1.weight": np.ones((1, 4), np.float32)})
    )
    return in_tmp


def shell(*words: str) -> Callable[[Path], object]:
    return lambda path: app([str(path) if word == "FILE" else word for word in words], standalone_mode=False)


def refused(folder: Path, cases: dict[str, bytes], ways: dict[str, Callable[[Path], object]], suffix: str) -> None:
    """Each case is refused by each way with one short sentence, and nothing is run or written."""
    path = folder / f"file{suffix}"
    before = sorted(folder.iterdir())
    for name, data in cases.items():
        path.write_bytes(data)
        for way, read in ways.items():
            with bounded(f"{name}, {way}"), pytest.raises(EpvfError) as caught:
                read(path)
            told = str(caught.value)
            assert told.isprintable(), (name, way, told)
            assert len(told) < 800, (name, way, told)
            assert told[-1] in ".?…", (name, way, told)
        path.unlink()
        assert sorted(folder.iterdir()) == before, name


TOML = {
    "collect": shell("collect", "--config", "FILE", "--out", "x.zarr", "-q"),
    "collect, a recipe": shell("collect", "--recipe", "FILE", "--out", "x.zarr", "-q"),
    "train-online": shell("train-online", "--config", "FILE", "--out", "x", "-q"),
    "train-offline": shell("train-offline", "x.zarr", "--config", "FILE", "--out", "x"),
    "import-policy": shell("import-policy", "foreign.safetensors", "--spec", "FILE", "--out", "x"),
    "a baseline": lambda path: baseline_config(path),
}


@pytest.mark.parametrize("way", TOML)
def test_hostile_settings(folder, way, some):
    refused(folder, some(hostile.TOML, list(TOML).index(way)), {way: TOML[way]}, ".toml")


@pytest.mark.parametrize(
    ("cases", "way"),
    [("RECIPES", "collect, a recipe"), ("COLLECT", "collect"), ("ONLINE", "train-online"), ("IMPORT", "import-policy")],
)
def test_hostile_settings_of_one_verb(folder, cases, way, some):
    refused(folder, some(getattr(hostile, cases)), {way: TOML[way]}, ".toml")


def recipe(path: Path, key: str) -> object:
    """A recipe that takes its bases, or an architecture, from the file."""
    source = {"kind": "perturbed", "bases": [str(path)]} if key == "bases" else {"kind": "random"}
    architecture = {"like": str(path)} if key == "like" else {"hidden": [4]}
    tables = {"architectures": {"a": architecture}, "sources": {"s": source}}
    return collect_recipe(build({"env": "cartpole", "policies": 4, "envs": 4, **tables}), "x.zarr")


POLICIES = {
    "Python": load_policy,
    "render": shell("render", "FILE", "--out", "x.mp4", "-q"),
    "render with an environment": lambda path: render_policy(path, "x.mp4", env="cartpole"),
    "collect --base": shell("collect", "--env", "cartpole", "--base", "FILE", "--out", "x.zarr", "-q"),
    "a recipe's bases": lambda path: recipe(path, "bases"),
    "a recipe's architecture": lambda path: recipe(path, "like"),
    "import-policy": lambda path: import_policy(path, "x", settings={"activation": "tanh", "output": "tanh"}),
    "a run's start": lambda path: begin(None, SimpleNamespace(seeds=1, start=str(path)), hostile.SPEC),  # pyright: ignore
}


@pytest.mark.parametrize("way", POLICIES)
def test_hostile_policy_files(folder, way, some):
    refused(folder, some(hostile.POLICIES, list(POLICIES).index(way)), {way: POLICIES[way]}, ".safetensors")


@pytest.mark.parametrize("way", ["Python", "render", "import-policy"])
def test_hostile_files_of_other_frameworks(folder, way):
    refused(folder, hostile.foreign(), {way: POLICIES[way]}, ".pth")


def test_notes_of_hostile_policy_files(folder):
    for name, data in hostile.POLICIES.items():
        (folder / "file").write_bytes(data)
        with bounded(name), contextlib.suppress(EpvfError):
            assert all(isinstance(note, str) for note in read_notes(folder / "file").values()), name


@pytest.mark.parametrize("way", [name for name in (*TOML, *POLICIES) if name != "collect, a recipe"])
@pytest.mark.parametrize("name", ["fifo", "/dev/zero", ".", "missing", pytest.param("x" * 5000, id="long"), "dangling"])
def test_what_is_no_file_is_not_waited_for(folder, way, name):
    (folder / "dangling").symlink_to("nowhere")
    with bounded(name), pytest.raises(EpvfError) as caught:
        (TOML | POLICIES)[way](Path(name))
    assert len(str(caught.value)) < 800


def test_links_that_the_user_made_lead_to_policies(folder):
    (folder / "good").write_bytes(hostile.policy(hostile.SPEC.to_json()))
    (folder / "link").symlink_to("good")
    assert load_policy(folder / "link")[0] == hostile.SPEC
    assert read_notes(folder / "link")["env"] == "cartpole"


def test_policies_that_are_large_take_little_more_than_their_numbers(tmp_path):
    spec = hostile.PolicySpec(4096, 1, (4096,))
    head, at = {"__metadata__": {"spec": spec.to_json()}}, 0
    for name, slot in spec.tensors.items():
        head[name] = {"dtype": "F32", "shape": list(slot.shape), "data_offsets": [at, at + 4 * slot.size]}
        at += 4 * slot.size
    (tmp_path / "large").write_bytes(hostile.safetensors(head, bytes(at)))
    with bounded("large"):
        load_policy(tmp_path / "large")


# Every setting of every table, with values that it does not expect.
SHAPES = {
    "collect": lambda table: configuration.build(configuration_of("collect"), table).recipe,
    "online": lambda table: configuration.build(configuration_of("online"), table),
    "baseline": lambda table: configuration.build(BaselineConfig, table),
    "recipe": build,
    "import": lambda table: configuration_of("import")(table),
}


def configuration_of(name: str):
    from epvf_data.collectors.setting import CollectConfig
    from epvf_data.importing import settings
    from epvf_data.trainers.online.settings import OnlineConfig

    return {"collect": CollectConfig, "online": OnlineConfig, "import": settings.build}[name]


def whole(name: str) -> dict:
    """A table with every setting that there is."""
    from epvf_data.importing.settings import ImportSettings
    from epvf_data.recipes.settings import KINDS, ArchitectureConfig
    from epvf_data.trainers.online.settings import online_config

    if name == "recipe":
        sources = {kind: {"kind": kind, **configuration.to_dict(made(kind))} for kind in KINDS}
        return {
            **{"env": "ant", "policies": 8, "envs": 4, "episodes": 1, "horizon": 9, "seed": 0, "backend": "auto"},
            **{"discount": 0.5, "probes": 3, "architectures": {"a": configuration.to_dict(ArchitectureConfig())}},
            "sources": sources,
        }
    given = {"online": online_config("ant-cpu"), "import": ImportSettings(), "baseline": BaselineConfig()}
    found = configuration.to_dict(given.get(name) or configuration_of(name)())
    return found | {"tensors": {"layer_0/kernel": {"name": "a", "transpose": True}}} if name == "import" else found


def made(kind: str):
    from epvf_data.recipes.settings import KINDS

    return KINDS[kind](of=("online",)) if kind in ("between", "renumbered") else KINDS[kind]()


def walk(value, keys=()) -> Iterator[tuple]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*keys, key)
            yield from walk(inner, (*keys, key))


ODD = [
    None, True, False, 0, -1, 7, 10**12, 10**30, 1 << 200, -(10**39), 0.0, -0.5, 1e-320, 1e308, float("inf"),
    float("nan"), "", "none", "text", hostile.ESCAPE, "x" * 10_000, "a\0b", "\ud800", [], [[]], [1], [0.0], ["text"],
    [None], [[1], [2]], [{}], [1e308, float("nan")], list(range(20_000)), {}, {"x": 1}, {"": {}}, {"a": {"b": [1]}},
    b"bytes", ("random",), {"kind": "random"},
]  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_every_setting_with_every_odd_value_gives_our_errors_only(name, some):
    """Wrong kinds, wrong sizes, missing and additional ones: a configuration, or one sentence."""
    import copy

    good = whole(name)
    SHAPES[name](copy.deepcopy(good))
    began, tried = time.process_time(), 0
    for number, keys in enumerate(walk(good)):
        for odd in (*some(dict(enumerate(ODD)), number).values(), ...):
            table = copy.deepcopy(good)
            place = table
            for key in keys[:-1]:
                place = place[key]
            if odd is ...:
                place[f"{keys[-1]}x"] = place.pop(keys[-1])
            else:
                place[keys[-1]] = odd
            tried += 1
            told = ""
            try:
                SHAPES[name](table)
            except EpvfError as error:
                told = str(error)
            assert "\n" not in told, (keys, odd)
            assert len(told) < 1200, (keys, odd)
    assert tried > 150
    assert time.process_time() - began < SECONDS


def test_pickles_are_no_states(folder):
    (folder / "p.npy").write_bytes(pickle.dumps(np.zeros((3, 4), np.float32)))
    with pytest.raises(EpvfError, match="expected real numbers in a NumPy .npy file"):
        shell("collect", "--env", "cartpole", "--set", "perturbed.bases=random", "--set", "probe_file=p.npy")(folder)
