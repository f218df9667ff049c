"""Mistakes are told before anything heavy is imported, the same mistake with the same exit code on every verb."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from epvf_data.config import to_dict
from epvf_data.critics.families import CRITICS
from epvf_data.envs import ENVS
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recipes.tables import shipped
from epvf_data.store import reader
from epvf_data.store.digest import content_hash
from epvf_data.trainers.offline.settings import SPLITS, OfflineConfig
from epvf_data.trainers.online.settings import OnlineConfig, presets

HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "mujoco", "scipy", "matplotlib", "brax")
RUN = """
import contextlib, io, json, os, sys
from epvf_data.cli import main
told = []
for words, variables in json.loads(sys.stdin.read()):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["epvf-data", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.environ.update(variables)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        for name in variables:
            del os.environ[name]
    heavy = sorted({name.split(".")[0] for name in sys.modules} & set(HEAVY))
    told.append([code, out.getvalue(), err.getvalue(), heavy])
print(json.dumps(told))
"""


def run_all(*commands: tuple[str, ...], variables: dict[str, str] | None = None):
    """Exit code, stdout, stderr and heavy modules after each command, one after the other in a fresh process."""
    process = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{RUN}"],
        input=json.dumps([[words, variables or {}] for words in commands]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


# Words after the verb, of verbs that read a data set; a run and a policy file lie beside it.
READERS = {
    **dict.fromkeys(("info", "plot", "validate", "withhold", "compact", "gc", "card", "train-offline"), ()),
    **dict.fromkeys(("export-policy", "export-npz", "export-hdf5", "top", "improve"), ()),
    **{"filter": ("--where", "return > 0"), "sample": ("--rows", "1"), "split": (), "diff": ("small.zarr",)},
    "merge": ("--out", "new.zarr"),
}
MISSING_SET = [(verb, "nothing.zarr", *words) for verb, words in READERS.items()] + [
    ("diff", "small.zarr", "nothing.zarr"),
    ("export-archive", "nothing.zarr", "out"),
    ("merge", "small.zarr", "nothing.zarr", "--out", "new.zarr"),
    ("evaluate", "run", "nothing.zarr"),
    ("evaluate", "run", "--trained-on", "nothing.zarr"),
    ("train-online", "--env", "cartpole", "--warm-start", "nothing.zarr"),
]
MISSING_FILE = [
    ("render", "nothing.safetensors"),
    ("score", "nothing.safetensors"),
    ("score", "p.safetensors", "nothing.safetensors"),
    ("collect", "--env", "cartpole", "--base", "nothing.safetensors"),
    ("collect", "--config", "nothing.toml"),
    ("collect", "--recipe", "nothing.toml"),
    ("collect", "--env", "nothing.py:make"),
    ("check-env", "nothing.py:make"),
    ("train-offline", "small.zarr", "--config", "nothing.toml"),
    ("train-online", "--config", "nothing.toml"),
    ("train-online", "--env", "nothing.py:make"),
    ("import-policy", "nothing.zip"),
    ("import-policy", "nothing.zip", "--spec", "nothing.toml"),
    ("import-hdf5", "nothing.h5"),
]
MISSING_RUN = [
    ("evaluate", "nothing"),
    ("compare", "nothing"),
    ("train-offline", "small.zarr", "--out", "nothing", "--resume"),
    ("train-online", "--env", "cartpole", "--out", "nothing", "--resume"),
]
ELSEWHERE = [  # a thing of another kind than the verb takes
    ("info", "run"),
    ("info", "online"),  # it has logged nothing yet
    ("info", "a_file"),
    ("plot", "run"),
    ("plot", "online", "run"),
    ("compare", "online", "run"),
    ("evaluate", "small.zarr"),
    ("compare", "small.zarr"),
    ("evaluate", "online"),
    ("compare", "online"),
    ("render", "online"),
]
TAKEN = [
    ("collect", "--env", "cartpole", "--out", "a_file"),
    ("merge", "small.zarr", "--out", "a_file"),
    ("merge", "small.zarr", "--out", "small.zarr"),
    ("sample", "small.zarr", "--rows", "1", "--out", "small.zarr"),
    ("train-offline", "small.zarr", "--out", "run"),
    ("improve", "small.zarr", "--out", "run"),
    ("train-online", "--env", "cartpole", "--out", "run"),
    ("train-online", "--config", "ant-ppo-cpu", "--out", "run"),
    ("train-online", "--env", "cartpole", "--record", "a_file"),
    ("info", "small.zarr", "--plot", "a.png"),
    ("plot", "small.zarr", "--out", "a.png"),
    ("compare", "run", "--plot", "a.png"),
    ("evaluate", "run", "--plot", "a.png"),
    ("train-offline", "small.zarr", "--plot", "a.png"),
    ("reproduce", "fig1", "--plot", "a.png"),
    ("render", "p.safetensors", "--out", "a.mp4"),
    ("render", "small.zarr", "--out", "a.mp4"),
    ("export-policy", "small.zarr", "--out", "p.safetensors"),
    ("import-policy", "p.safetensors", "--out", "p.safetensors"),
    ("new-env", "mine", "--out", "a.py"),
]
NOT_THERE = [  # in what lies on the disk
    ("render", "small.zarr", "--row", "99999"),
    ("export-policy", "small.zarr", "--row", "99999"),
    ("sample", "small.zarr", "--rows", "99999"),
    ("filter", "small.zarr", "--where", "return > 1e30"),
    ("evaluate", "run", "--split", "high"),
    ("train-offline", "small.zarr", "--architecture", "ffff"),
    ("render", "small.zarr", "--architecture", "ffff"),
]
PICTURES = [
    ("info", "small.zarr", "--plot", "x.gif"),
    ("plot", "small.zarr", "--out", "x.gif"),
    ("plot", "online", "--out", "x.gif"),
    ("plot", "online", "--csv", "x.txt"),
    ("plot", "small.zarr", "--csv", "x.csv"),
    ("plot", "small.zarr", "online"),
    ("info", "online", "--commits"),
    ("compare", "run", "--csv", "x.csv"),
    ("compare", "run", "--plot", "x"),
    ("evaluate", "run", "--plot", "x.jpg"),
    ("train-offline", "small.zarr", "--plot", "x.gif"),
    ("reproduce", "fig1", "--plot", "x.gif"),
    ("render", "p.safetensors", "--out", "x.gif"),
]
NAMES = [
    ("info", "hg://datasets/a/b"),
    ("pull", "hg://datasets/a/b"),
    ("push", "small.zarr", "ftp://host/a.zarr"),  # unknown, whatever lies on the disk
    ("collect", "--env", "antt"),
    ("train-online", "--env", "antt"),
    ("critics", "--env", "antt"),
    ("check-env", "antt"),
    ("render", "p.safetensors", "--env", "antt"),
    ("import-policy", "p.safetensors", "--env", "antt"),
    ("train-offline", "small.zarr", "--critic", "ml"),
    ("train-online", "--env", "cartpole", "--set", "critic.name=ml"),
    ("train-offline", "small.zarr", "--loss", "ms"),
    ("train-offline", "small.zarr", "--split", "iid,linage"),
    ("evaluate", "run", "--split", "linage"),
    ("train-online", "--config", "cartpole-papr"),
    ("train-online", "--env", "cartpole", "--algorithm", "cma"),
    *((verb, *words, "--backend", "cuda") for verb, words in {"collect": (), "train-online": ()}.items()),
    ("validate", "small.zarr", "--backend", "cuda"),
    ("evaluate", "run", "--backend", "cuda"),
    ("reproduce", "fig1", "--backend", "cuda"),
    ("check-env", "ant", "--backend", "cuda"),
    ("collect", "--set", "random.shar=1"),
    ("train-offline", "small.zarr", "--set", "epoch=1"),
    ("train-online", "--env", "cartpole", "--set", "envz=1"),
    ("evaluate", "run", "--set", "pair=1"),
    ("critics", "--set", "probess=1"),
    ("import-policy", "p.safetensors", "--set", "activatio=relu"),
    ("reproduce", "fig1", "--set", "envz=1"),
    ("reproduce", "fig9"),
    ("reproduce", "fig1", "--scale", "huge"),
    ("reproduce", "fig1", "--settings", "theirs"),
    ("reproduce", "fig1", "--only", "best"),
    ("collect", "--recipe", "divers"),
    ("split", "small.zarr", "--by", "row"),
    ("filter", "small.zarr", "--where", "retrun > 0"),
    ("filter", "small.zarr", "--where", "return >"),
    ("render", "small.zarr", "--row", "bst"),
    ("score", "small.zarr", "--row", "bst"),
    ("score", "p.safetensors", "--env", "cartpol"),
    ("score", "p.safetensors", "--episodes", "0"),
    ("score", "p.safetensors", "--start-noise", "-1"),
    ("top", "small.zarr", "-n", "0"),
    ("improve", "small.zarr", "--method", "comms"),
    ("improve", "small.zarr", "--budget", "0"),
    ("improve", "small.zarr", "--budget", "20"),
    ("improve", "small.zarr", "--set", "fit.epoch=1"),
    ("improve", "small.zarr", "--method", "es", "--no-rollouts"),
    ("top", "small.zarr", "--reroll", "-1"),
    ("export-policy", "small.zarr", "--row", "bst"),
    ("import-policy", "p.safetensors", "--format", "onnx"),
    ("info", "small.zarr", "--jsn"),
]
KINDS = {
    "a data set that is not there": (1, MISSING_SET),
    "a file that is not there": (1, MISSING_FILE),
    "a run that is not there": (1, MISSING_RUN),
    "another kind of thing": (1, ELSEWHERE),
    "a place that is taken": (1, TAKEN),
    "what a data set does not hold": (1, NOT_THERE),
    "a picture of another kind": (2, PICTURES),
    "an unknown name": (2, NAMES),
}


@pytest.fixture
def place(in_tmp, small):
    """A data set, an offline run on it, an online run, a policy, and files of the user's."""
    opened = reader.open("small.zarr")
    run = in_tmp / "run"
    run.mkdir()
    rows = {"path": str(opened.path.absolute()), "content": content_hash(opened)}
    (run / "config.json").write_text(json.dumps({"config": to_dict(OfflineConfig()), "dataset": rows}))
    (in_tmp / "online" / "policies").mkdir(parents=True)
    online = {"config": to_dict(OnlineConfig(iterations=1)), "env_digest": "d"}
    (in_tmp / "online" / "config.json").write_text(json.dumps(online))
    spec = PolicySpec(4, 1, (2,))
    save_policy("p.safetensors", spec, [0.0] * spec.size, env="cartpole")
    for name in ("a_file", "a.png", "a.mp4", "a.py"):
        (in_tmp / name).write_text("something of the user's")
    return in_tmp


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_one_sentence_at_once_with_one_exit_code(place, kind):
    code, commands = KINDS[kind]
    before = {path: path.stat().st_mtime_ns for path in sorted(place.rglob("*"))}
    for words, (status, out, err, heavy) in zip(commands, run_all(*commands), strict=True):
        assert status == code, (words, status, err)
        assert not heavy, (words, heavy)
        if words != ("info", "small.zarr", "--jsn"):  # typer's own
            assert err.startswith("error: "), (words, err)
            assert err.count("\n") == 1, (words, err)
        assert not out, (words, out)
    assert {path: path.stat().st_mtime_ns for path in sorted(place.rglob("*"))} == before


def test_lists_are_told_without_what_they_are_lists_of(in_tmp):
    commands = [("envs",), ("critics",), ("train-online", "--presets"), ("--help",), ("new-env", "mine")]
    for words, (status, out, err, heavy) in zip(commands, run_all(*commands), strict=True):
        assert (status, err, heavy) == (0, "", []), words
        assert out
    names = dict(zip(commands, (out for _, out, _, _ in run_all(*commands[:3])), strict=False))
    for name in (*ENVS, "playground:"):
        assert name in names["envs",]
    assert all(name in names["critics",] for name in CRITICS)
    assert all(name in names["train-online", "--presets"] for name in presets())


def test_a_run_of_online_training_says_what_takes_it(place):
    words = (
        "`epvf-data compare` and `plot` show its returns",
        "`epvf-data watch online` waits",
        "no best-0.safetensors",
    )
    for told, (_, _, err, _) in zip(words, run_all(*ELSEWHERE[-3:]), strict=True):
        assert told in err


# What Tab gives after these words.
TAB = {
    ("collect", "--env", "ha"): ["halfcheetah"],
    ("train-online", "--env", "cart"): ["cartpole"],
    ("train-online", "--config", "cartpole-p"): ["cartpole-paper"],
    ("train-online", "--config", "ant-sac"): ["ant-sac-paper", "ant-sac-cpu"],
    ("train-online", "--algorithm", "e"): ["epvf", "es"],
    ("train-offline", "--critic", "prob"): ["probing", "probing+raw"],
    ("train-offline", "--loss", ""): ["mse", "hl-gauss", "rank", "listnet", "rank-top"],
    ("train-offline", "--split", "iid,hi"): ["iid,high"],
    ("evaluate", "--split", ""): list(SPLITS),
    ("validate", "--backend", ""): ["auto", "mjx", "native"],
    ("collect", "--recipe", "d"): ["diverse"],
    ("split", "--by", "r"): ["rows"],
    ("reproduce", "fig2-a"): ["fig2-ablations", "fig2-architectures"],
    ("reproduce", "--scale", "c"): ["cpu"],
    ("render", "--row", "m"): ["median"],
    ("import-policy", "--format", "t"): ["torch"],
}


def test_tab_completes_names():
    for words, names in TAB.items():
        line = " ".join(("epvf-data", *words))
        variables = {"_EPVF_DATA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        [[_, out, _, heavy]] = run_all((), variables=variables) if words == next(iter(TAB)) else [_complete(variables)]
        assert out.split() == names, words
        assert not heavy


def _complete(variables):
    """What completion gives, in this process: only the first of the table is tried in one of its own."""
    import contextlib
    import io
    import os

    out, kept = io.StringIO(), dict(os.environ)
    os.environ.update(variables)
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            from epvf_data.cli import load

            app = load()

            app(args=[], prog_name="epvf-data")
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return [0, out.getvalue(), "", []]


def test_each_verb_loads_the_module_that_has_it():
    from epvf_data.cli import VERBS, load

    found = {one.name or one.callback.__name__: one.callback.__module__ for one in load().registered_commands}
    assert {name: module.rpartition(".")[2] for name, module in found.items()} == {
        name: module
        for name, module in VERBS.items()
        if name != "bench"  # a group
    }


def verbs():
    from epvf_data.cli import load

    app = load()

    found = {}
    for name, verb in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found |= {f"{name} {inner}": one for inner, one in getattr(verb, "commands", {}).items()} or {name: verb}
    return found


def test_every_verb_takes_json_quiet_and_debug():
    for name, verb in verbs().items():
        flags = {flag for param in verb.params for flag in param.opts}
        assert {"--json", "--quiet", "-q", "--debug"} <= flags, name


def test_a_flag_means_the_same_on_every_verb():
    """Its kind is the same everywhere, where sentences must differ; --force and --plot are one sentence."""
    kinds: dict[str, dict[str, set[str]]] = {}
    for name, verb in verbs().items():
        for param in verb.params:
            for flag in param.opts:
                if flag.startswith("--"):
                    found = kinds.setdefault(flag, {})
                    found.setdefault(str(getattr(param, "metavar", "")), set()).add(name)
    several = {flag: found for flag, found in kinds.items() if len(found) > 1}
    assert set(several) <= {"--out", "--config", "--backend", "--split"}, several
    assert sum(map(len, kinds["--where"].values())) == 1


def test_help_shows_choices_and_no_kind_for_flags(shell, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = shell("train-offline", "--help").stdout
    assert "mse, hl-gauss, rank, listnet" in " ".join(text.split())
    assert ", ".join(CRITICS)[:60] in text
    assert "<bool>" not in text
    assert "auto|mjx|native" in shell("collect", "--help").stdout
    text = " ".join(shell("--help").stdout.split())
    order = [text.index(f" {verb} ") for verb in ("collect", "train-offline", "evaluate", "compare", "train-online")]
    assert order == sorted(order)


def test_the_recipes_that_tab_knows_are_those_that_ship():
    assert shipped() == ["diverse", "hoppercontroller"]
