"""Every verb on what strangers made, under strace: nothing else is opened, and nothing else is written or removed.

A handful of pairs in `make test`; in `make soak` every verb with everything of the corpora that it takes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hostile_files as files
import numpy as np
import pytest
import traced
from store import conftest as store
from store import corpus, forge
from trainers import hostile_runs

from epvf_data.config import to_dict
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.writer import Writer

HERE = Path(__file__).parent
QUIET = "-q"


pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

# What a stranger sent is called `in`, what the user has `good`, and what is written `out`.
DATA_SETS: dict[str, tuple[str, ...]] = {
    "info": ("info", "in"),
    "info --commits": ("info", "in", "--commits", "--json"),
    "info --plot": ("info", "in", "--plot", "out.png"),
    "validate": ("validate", "in", "--deep", QUIET),
    "validate --resimulate": ("validate", "in", "--resimulate", "1", QUIET),
    "diff": ("diff", "in", "good"),
    "diff, the second": ("diff", "good", "in"),
    "merge": ("merge", "good", "in", "--out", "out", QUIET),
    "filter": ("filter", "in", "--where", "length > 0", "--out", "out", QUIET),
    "sample": ("sample", "in", "--rows", "2", "--out", "out", QUIET),
    "split": ("split", "in", "--train", "out", "--test", "out-test", QUIET),
    "withhold": ("withhold", "in", "--out", "out", QUIET),
    "compact": ("compact", "in", QUIET),
    "gc": ("gc", "in", "--grace", "0", QUIET),
    "plot": ("plot", "in", "--out", "out.png"),
    "card": ("card", "in", QUIET),
    "card --out": ("card", "in", "--out", "out", QUIET),
    "export-npz": ("export-npz", "in", "--out", "out.npz", QUIET),
    "export-hdf5": ("export-hdf5", "in", "--out", "out.h5", QUIET),
    "export-archive": ("export-archive", "in", "out", QUIET),
    "export-policy": ("export-policy", "in", "--out", "out.safetensors"),
    "render": ("render", "in", "--out", "out.mp4", QUIET),
    "collect": ("collect", "--env", "cartpole", "--out", "in", "--envs", "4", QUIET),
    "collect --recipe": ("collect", "--recipe", "in", "--out", "out", QUIET),
    "train-offline": ("train-offline", "in", "--critic", "ridge", "--out", "out", QUIET),
    "train-online --record": ("train-online", "--env", "cartpole", "--record", "in", "--out", "out", QUIET),
    "train-online --warm-start": ("train-online", "--env", "cartpole", "--warm-start", "in", "--out", "out", QUIET),
    "evaluate --trained-on": ("evaluate", "good-run", "--trained-on", "in", "--no-rollouts", QUIET),
    "merge into it": ("merge", "good", "--out", "in", QUIET),
}
IN_PLACE = {"compact", "gc", "card", "collect", "train-online --record", "merge into it"}
RUNS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "in", "--no-rollouts", QUIET),
    "compare": ("compare", "in", "--plot", "out.png"),
    "train-offline --resume": ("train-offline", "good", "--out", "in", "--resume", QUIET),
    "train-online --resume": ("train-online", "--env", "cartpole", "--out", "in", "--resume", QUIET),
    "train-online --resume, its settings": ("train-online", "--out", "in", "--resume", QUIET),
    "reproduce": ("reproduce", "fig1", "--scale", "smoke", "--out", "in", "--draw", QUIET),
    "render": ("render", "in", "--out", "out.mp4", QUIET),
    "import-policy": ("import-policy", "in/checkpoints/iid/ground/0", "--out", "out"),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    "collect --config": ("collect", "--config", "in.toml", "--out", "out", QUIET),
    "collect --recipe": ("collect", "--recipe", "in.toml", "--out", "out", QUIET),
    "train-online --config": ("train-online", "--config", "in.toml", "--out", "out", QUIET),
    "train-offline --config": ("train-offline", "good", "--config", "in.toml", "--out", "out", QUIET),
    "import-policy --spec": ("import-policy", "good.safetensors", "--spec", "in.toml", "--out", "out"),
}
POLICIES: dict[str, tuple[str, ...]] = {
    "render": ("render", "in.safetensors", "--out", "out.mp4", QUIET),
    "collect --base": ("collect", "--env", "cartpole", "--base", "in.safetensors", "--out", "out", QUIET),
    "import-policy": ("import-policy", "in.safetensors", "--out", "out"),
}
FOREIGN: dict[str, tuple[str, ...]] = {
    "import-policy": ("import-policy", "in.pth", "--out", "out", "--set", "activation=tanh", "--set", "output=tanh"),
    "import-hdf5": ("import-hdf5", "in.pth", "--out", "out", QUIET),
    "check-env": ("check-env", "in.pth"),
}


def fake_run(run: Path) -> None:
    """What training leaves, as far as hostile runs change it; the numbers are anybody's."""
    pytest.importorskip("jax")
    from epvf_data.trainers import checkpoint, rundir
    from epvf_data.trainers.offline.settings import OfflineConfig

    where = {"path": str(run.parent / "good"), "content": "c" * 64}
    rundir.create_run(run, {"config": to_dict(OfflineConfig()), "dataset": where})
    rundir.write_json(run / "report.json", {"run": "run", "critic": "mlp", "splits": {}})
    rundir.append_metrics(run, {"split": "iid", "epoch": 1})
    checkpoint.save(run / "checkpoints/iid/ground", 0, {"fit": np.arange(4), "test": np.arange(2)})


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """What is good: two data sets as the store's corpus changes them, a policy, a run."""
    folder = tmp_path_factory.mktemp("sources")
    for name, compression in (("plain", None), ("packed", 3)):
        with Writer.open(folder / name, store.ENV, compression) as writer:
            for seed in range(2):
                writer.commit(store.build_rows(3 - seed, seed, probes=2, discount=0.9), {})
    spec = PolicySpec(4, 1, (4,))
    save_policy(folder / "policy", spec, np.zeros(spec.size, np.float32), env="cartpole")
    fake_run(folder / "run")
    return folder


@pytest.fixture(scope="module")
def trained(sources, tmp_path_factory) -> Path:
    """The same with a run that was really trained."""
    from epvf_data.trainers.offline.run import train_offline
    from epvf_data.trainers.offline.settings import OfflineConfig

    folder = tmp_path_factory.mktemp("trained")
    with Writer.open(folder / "good", store.ENV) as writer:
        writer.commit(store.build_rows(200, 0), {})
    config = OfflineConfig(critic="mlp", split="iid", epochs=2, seeds=2, widths=(4,), resamples=5)
    train_offline(folder / "good", config, folder / "run")
    return folder


@pytest.fixture
def box(sources, tmp_path) -> Callable[[], Path]:
    """Makes folders to work in, with what the user has there: precious files that no command line names."""
    made = []

    def make() -> Path:
        folder = tmp_path / "work" / str(len(made))
        made.append(folder)
        (folder / "outside").mkdir(parents=True)
        for name in ("secret", "thesis.txt"):
            (folder / "outside" / name).write_text("precious")
        (folder / "precious.txt").write_text("precious")
        shutil.copytree(sources / "plain", folder / "good")
        shutil.copyfile(sources / "policy", folder / "good.safetensors")
        return folder

    return make


def data_sets(sources: Path, box, verbs: Mapping[str, tuple[str, ...]], names: Mapping[str, Callable]) -> Iterator:
    for name, change in names.items():
        good = sources / ("packed" if name in corpus.PACKED else "plain")
        for verb, words in verbs.items():
            folder = box()
            forge.forged(good, folder / "in", change)
            if "good-run" in words:
                shutil.copytree(sources / "run", folder / "good-run")
            yield f"{verb}: {name}", traced.Case(folder, words, ("out", *(("in",) if verb in IN_PLACE else ())))


def runs(sources: Path, box, verbs: Mapping[str, tuple[str, ...]], names: Mapping[str, Callable]) -> Iterator:
    for name, spoil in names.items():
        for verb, words in verbs.items():
            folder = box()
            shutil.copytree(sources / "run", folder / "in")
            spoil(folder / "in")
            yield f"{verb}: {name}", traced.Case(folder, words, ("out", "in"), (str(sources / "good"),))


def single(box, verbs: Mapping[str, tuple[str, ...]], names: Mapping[str, bytes], file: str) -> Iterator:
    for name, data in names.items():
        for verb, words in verbs.items():
            folder = box()
            (folder / file).write_bytes(data)
            (folder / "evil.py").write_text("open('trace', 'w').close()\n")
            os.mkfifo(folder / "fifo")
            yield f"{verb}: {name}", traced.Case(folder, words)


def check(cases: Iterator, folder: Path, tmp_path_factory) -> None:
    """Nothing beyond what was named is reached, and every answer is a sentence within the time."""
    listed = list(cases)
    assert listed
    before = {case.folder: kept(case.folder) for _, case in listed}
    cache = tmp_path_factory.mktemp("cache")
    environment = {"XDG_CACHE_HOME": str(cache), "JAX_COMPILATION_CACHE_DIR": str(cache / "xla")}
    wrong = []
    for (name, case), answer in zip(
        listed, traced.run([case for _, case in listed], folder, cache, environment), strict=True
    ):
        if answer.trespasses:
            wrong.append((name, answer.trespasses[:2]))
        if answer.code not in (0, 1, 2) or "Traceback" in answer.told or "Warning" in answer.told:
            wrong.append((name, answer.told[-1500:]))
        if not answer.told.replace("\n", "").isprintable() or answer.seconds > 60:
            wrong.append((name, answer.seconds, answer.told[:500]))
        if kept(case.folder) != before[case.folder]:
            wrong.append((name, "something of the user's has changed"))
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(listed)}: {json.dumps(wrong[:40], indent=1)}", pytrace=False)


def kept(folder: Path) -> dict[str, bytes]:
    """What no verb may touch."""
    paths = (folder / "outside" / "secret", folder / "outside" / "thesis.txt", folder / "precious.txt")
    return {str(path): path.read_bytes() for path in paths} | {"trace": b"1" if (folder / "trace").exists() else b""}


def picked(table: Mapping, *names: str) -> dict:
    return {name: table[name] for name in names}


def changes(table: Mapping[str, tuple[Callable, str | None]]) -> dict[str, Callable]:
    return {name: change for name, (change, _) in table.items()}


def test_a_handful_of_everything(sources, box, tmp_path, tmp_path_factory):
    run_corpus = hostile_runs
    some = changes(corpus.CORPUS)
    pairs = [
        *data_sets(sources, box, picked(DATA_SETS, "validate", "merge", "gc"), picked(some, "linked parts")),
        *data_sets(sources, box, picked(DATA_SETS, "diff", "compact"), picked(some, "linked shard")),
        *data_sets(
            sources, box, picked(DATA_SETS, "info", "filter"), picked(some, "name in a record: '../../outside/secret'")
        ),
        *data_sets(sources, box, picked(DATA_SETS, "card", "withhold", "collect --recipe"), {"good": lambda it: None}),
        *runs(
            sources,
            box,
            picked(RUNS, *(name for name in RUNS if name != "import-policy")),
            {"link": run_corpus.link("report.json")},
        ),
        *runs(sources, box, picked(RUNS, *list(RUNS)[:3]), {"moved": run_corpus.moved("checkpoints")}),
        *runs(
            sources, box, picked(RUNS, "import-policy"), {"a path": run_corpus.keys("../../../../../outside/secret")}
        ),
        *single(box, SETTINGS, picked(files.TOML, "code", "an environment that is a path"), "in.toml"),
        *single(
            box,
            picked(SETTINGS, "collect --recipe"),
            picked(files.RECIPES, "bases that are a device", "a source called '../../x'"),
            "in.toml",
        ),
        *single(box, POLICIES, picked(files.POLICIES, "places beyond the end"), "in.safetensors"),
        *single(box, FOREIGN, picked(files.foreign(), "a pickle"), "in.pth"),
    ]
    check(iter(pairs), tmp_path, tmp_path_factory)


@pytest.mark.soak
@pytest.mark.parametrize("verb", DATA_SETS)
def test_every_hostile_data_set(sources, box, tmp_path, tmp_path_factory, verb):
    names = changes({**corpus.CORPUS, **corpus.PACKED, **corpus.HARMLESS})
    check(data_sets(sources, box, picked(DATA_SETS, verb), names), tmp_path, tmp_path_factory)


TABLES = ("FILES", "CONFIG", "ROWS", "REPORTS", "CHECKPOINTS", "HARMLESS")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("verb", "table"),
    [(verb, table) for verb in RUNS for table in TABLES if verb != "import-policy" or table == "CHECKPOINTS"],
)
def test_every_hostile_run(sources, trained, box, tmp_path, tmp_path_factory, verb, table):
    run_corpus = hostile_runs
    found = getattr(run_corpus, table)
    names = found if table == "HARMLESS" else changes(found)
    check(runs(trained, box, picked(RUNS, verb), names), tmp_path, tmp_path_factory)


@pytest.mark.soak
@pytest.mark.parametrize("table", ["TOML", "RECIPES", "COLLECT", "ONLINE", "IMPORT", "POLICIES", "FOREIGN"])
def test_every_hostile_file(box, tmp_path, tmp_path_factory, table):
    verbs, file = {"POLICIES": (POLICIES, "in.safetensors"), "FOREIGN": (FOREIGN, "in.pth")}.get(
        table, (SETTINGS, "in.toml")
    )
    corpus = files.foreign() if table == "FOREIGN" else getattr(files, table)
    check(single(box, verbs, corpus, file), tmp_path, tmp_path_factory)
