"""Every verb that writes a file: nothing of the user's is replaced without --force, and nothing through a link."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from store import conftest as store

from epvf_data.cli import main
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.writer import Writer


@pytest.fixture
def verb(monkeypatch, capsys):
    """Runs a verb in this process: exit code, standard output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["epvf-data", *words])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run


@pytest.fixture
def folder(in_tmp) -> Path:
    """A data set, a policy of CartPole, and one of another framework."""
    with Writer.open("a.zarr", store.ENV) as writer:
        writer.commit(store.build_rows(20, probes=2), {})
    spec = PolicySpec(4, 1, (4,))
    save_policy("pole.safetensors", spec, np.zeros(spec.size, np.float32), env="cartpole")
    shapes = {"0.weight": (4, 4), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, "actor.safetensors")
    return in_tmp


TANH = ("--set", "output=tanh", "--set", "activation=tanh")
FILM = ("--width", "64", "--height", "64", "--frames", "2", "--horizon", "2", "-q")
# What a verb is told, and the files that it writes: under default names where no --out is given.
WRITING = {
    "plot": (("plot", "a.zarr"), ["a.png"]),
    "plot --out": (("plot", "a.zarr", "--out", "b.png"), ["b.png"]),
    "info --plot": (("info", "a.zarr", "--plot", "r.png"), ["r.png"]),
    "export-npz": (("export-npz", "a.zarr", "-q"), ["a.npz"]),
    "export-hdf5": (("export-hdf5", "a.zarr", "-q"), ["a.h5"]),
    "export-policy": (("export-policy", "a.zarr", "--row", "3"), ["a-3.safetensors", "a-3.py"]),
    "import-policy": (("import-policy", "actor.safetensors", *TANH), ["actor-policy.safetensors"]),
    "render": (("render", "pole.safetensors", *FILM, "--webp"), ["pole.mp4", "pole.png", "pole.webp"]),
    "render --out": (("render", "pole.safetensors", "--out", "walk.mp4", *FILM), ["walk.mp4", "walk.png"]),
    "new-env": (("new-env", "my-task"), ["my_task.py"]),
}
EVERY = [(name, number) for name, (_, files) in WRITING.items() for number in range(len(files))]


@pytest.mark.parametrize(("name", "number"), EVERY)
def test_a_file_that_is_there_is_refused_or_replaced_on_demand(folder, verb, name, number):
    words, files = WRITING[name]
    if name == "export-hdf5":
        pytest.importorskip("h5py")
    mine = folder / files[number]
    mine.write_text("mine")
    before = sorted(folder.iterdir())
    code, _, told = verb(*words)
    assert (code, mine.read_text()) == (1, "mine")
    assert told == f"error: {mine.name} exists already; choose another name, remove it first, or add --force.\n"
    assert sorted(folder.iterdir()) == before
    assert verb(*words, "--force")[0] == 0
    assert mine.read_bytes() != b"mine"
    assert sorted(folder.iterdir()) == sorted({*before, *(folder / file for file in files)})


@pytest.mark.parametrize(("name", "number"), EVERY)
@pytest.mark.parametrize("kind", ["link", "dangling", "folder"])
def test_nothing_is_written_through_a_link(folder, verb, name, number, kind):
    words, files = WRITING[name]
    if name == "export-hdf5":
        pytest.importorskip("h5py")
    if name == "export-npz" and kind == "folder":
        pytest.skip("takes a folder, and puts a file of another name into it")
    (folder / "home").mkdir()
    thesis, mine = folder / "home" / "thesis.txt", folder / files[number]
    if kind == "folder":
        mine.mkdir()
    else:
        mine.symlink_to("home/thesis.txt")
    if kind == "link":
        thesis.write_text("years")
    before = sorted(folder.rglob("*"))
    for more in ((), ("--force",)):
        code, _, told = verb(*words, *more)
        assert code == 1
        assert "exists already" in told or "is a link, a folder or a special file" in told
        assert sorted(folder.rglob("*")) == before
    assert kind != "link" or thesis.read_text() == "years"


def test_pictures_of_runs_keep_to_the_rule(folder):
    """compare and reproduce, which would need runs: they look at the place first."""
    pytest.importorskip("jax")
    from epvf_data.errors import DatasetError
    from epvf_data.reproduction.reproduce import reproduce
    from epvf_data.trainers.evaluation.compare import compare

    (folder / "mine.png").write_text("mine")
    with pytest.raises(DatasetError, match="mine.png exists already"):
        compare(["run"], "mine.png")
    (folder / "project").mkdir()
    for name in ("data.json", "figure.png", "report.md"):
        (folder / "project" / name).write_text("mine")
        with pytest.raises(DatasetError, match=f"{name} exists already"):
            reproduce("fig1", "smoke", folder / "project")
        assert (folder / "project" / name).read_text() == "mine"
        (folder / "project" / name).unlink()
    assert list((folder / "project").iterdir()) == []


def test_the_card_replaces_its_own_and_nobody_elses(folder, verb):
    assert verb("card", "a.zarr", "--out", "page", "-q")[0] == 0
    assert verb("card", "a.zarr", "--out", "page", "-q")[0] == 0
    (folder / "page" / "README.md").write_text("mine")
    code, _, told = verb("card", "a.zarr", "--out", "page", "-q")
    assert (code, (folder / "page" / "README.md").read_text()) == (1, "mine")
    assert "was not written by this command" in told


def test_the_policy_and_the_lines_that_run_it_are_two_files(folder, verb):
    code, _, told = verb("export-policy", "a.zarr", "--out", "both.py")
    assert (code, "both" in told, (folder / "both.py").exists()) == (2, True, False)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a b", ".hidden", "x" * 200, 'a"b', "5"])
def test_an_environment_of_ones_own_has_a_plain_name(folder, verb, name):
    before = sorted(folder.parent.iterdir()), sorted(folder.iterdir())
    assert verb("new-env", name)[0] == 2
    assert (sorted(folder.parent.iterdir()), sorted(folder.iterdir())) == before


NINES, MANY = "9" * 5000, "9" * 4000
TYPED = [
    *(("sample", "a.zarr", "--rows", text) for text in (NINES, MANY, "9" * 19)),
    *(("sample", "a.zarr", "--rows", "3", "--seed", text) for text in (NINES, MANY, "9" * 19, "-1")),
    ("split", "a.zarr", "--seed", MANY),
    ("split", "a.zarr", "--seed", "-1"),
    ("split", "a.zarr", "--test-fraction", NINES),
    ("plot", "a.zarr", "--seed", MANY),
    ("plot", "a.zarr", "--seed", "-1"),
    ("compact", "a.zarr", "--part-mb", MANY),
    ("gc", "a.zarr", "--grace", "-1"),
    ("validate", "a.zarr", "--resimulate", MANY),
    ("export-policy", "a.zarr", "--row", NINES),
    ("export-policy", "a.zarr", "--row", "-1"),
    ("filter", "a.zarr", "--where", f"return > {NINES}"),
    ("filter", "a.zarr", "--where", f"return > {'1' * 20_000}"),
    ("filter", "a.zarr", "--where", f"{'(' * 9000}"),
    *(("render", "pole.safetensors", flag, MANY) for flag in ("--horizon", "--seed", "--episode", "--fps", "--width")),
    *(("import-policy", "pole.safetensors", "--set", f"{key}={NINES}") for key in ("hidden", "normaliser.clip", "a.b")),
    ("import-policy", "pole.safetensors", "--set", f"{'a.' * 5000}b=1"),
    ("import-policy", "pole.safetensors", "--set", f"a={'[' * 5000}"),
    ("collect", "--env", "cartpole", "--set", f"perturbed.scales=[{NINES}]"),
    ("collect", "--env", "cartpole", "--seed", MANY),
    ("train-offline", "a.zarr", "--ensemble", MANY),
    ("train-online", "--env", "cartpole", "--iterations", MANY),
    ("critics", "--hidden", NINES),
    ("critics", "--hidden", ",".join("9" * 100)),
    ("reproduce", "fig1", "--seeds", MANY),
]


@pytest.mark.parametrize("words", TYPED, ids=lambda words: " ".join(word[:20] for word in words))
def test_numbers_that_no_computer_has_give_one_sentence(folder, verb, words):
    pytest.importorskip("jax")
    before = sorted(folder.iterdir())
    code, out, told = verb(*words)
    assert code in (1, 2)
    assert out == ""
    assert told.startswith("Usage: ") or (told.startswith("error: ") and told.count("\n") == 1)
    assert len(told) < 1000
    assert sorted(folder.iterdir()) == before


def test_gc_tells_what_it_leaves_alone(folder, verb):
    (folder / "a.zarr" / "staging" / "thesis\x1b[2J").mkdir()
    code, told, _ = verb("gc", "a.zarr", "--grace", "0", "-q")
    assert (code, told.splitlines()[1]) == (
        0,
        r"left alone, for no writer of ours makes such things: staging/thesis\x1b[2J.",
    )
    assert "which no writer makes" in verb("validate", "a.zarr", "-q")[1]
