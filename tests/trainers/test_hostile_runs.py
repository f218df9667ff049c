"""What a stranger's run directory cannot do: each of the corpus is read by every verb that takes a run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from trainers import hostile_runs as corpus

from epvf_data.errors import EpvfError
from epvf_data.trainers import rundir
from epvf_data.trainers.evaluation.compare import compare
from epvf_data.trainers.evaluation.evaluate import evaluate
from epvf_data.trainers.offline.run import evaluate_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.online.run import read_config, train_online
from epvf_data.trainers.online.settings import online_config

MEGABYTES, SECONDS = 300, 30  # beyond what is there before
CONFIG = OfflineConfig(critic="mlp", split="iid", epochs=2, seeds=2, widths=(4,), resamples=5)
ONLINE = online_config("cartpole-paper", envs=4, iterations=2, **{"policy.hidden": [4]})


@pytest.fixture(scope="module")
def good(dataset, tmp_path_factory) -> Path:
    """A folder with a finished run and, outside of it, what nobody named."""
    folder = tmp_path_factory.mktemp("stranger")
    train_offline(dataset, CONFIG, folder / "good")
    return folder / "good"


@pytest.fixture
def spoilt(good, tmp_path):
    """Makes a copy of the good run and spoils it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis.txt").write_text("precious")

    def make(spoil, name: str = "run") -> Path:
        shutil.copytree(good, tmp_path / name)
        spoil(tmp_path / name)
        return tmp_path / name

    return make


def verbs(dataset):
    """Everything that reads a run of offline training."""
    return {
        "evaluate": lambda run: evaluate(run, rollouts=False),
        "evaluate_run": evaluate_run,
        "compare": lambda run: compare([run], run.parent / "compared.png", force=True),
        "train-offline --resume": lambda run: train_offline(dataset, CONFIG, run, resume=True),
        "train-online --resume": lambda run: train_online(ONLINE, run, resume=True),
        "read_config": read_config,
    }


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (status.st_size, status.st_mtime_ns, status.st_mode) for path, status in found}


def refusal(verb, run: Path) -> str | None:
    """The sentence with which a verb refuses a run within the limits; None where it goes through."""
    with corpus.Watch() as watch:
        try:
            verb(run)
            text = None
        except EpvfError as error:
            text = str(error)
    assert watch.seconds < SECONDS
    assert watch.megabytes < MEGABYTES
    if text is not None:
        assert text.isprintable(), repr(text)
        assert len(text) < 800, text
        assert text[-1] in ".…", text
    return text


def refused(spoilt, dataset, spoil, words: str, names: tuple[str, ...]) -> None:
    """Each of the verbs refuses the run and leaves everything as it is; one at least says the words."""
    run, texts = spoilt(spoil), []
    before = snapshot(run.parent)
    for name in names:
        texts.append(refusal(verbs(dataset)[name], run))
        assert texts[-1] is not None, name
        assert snapshot(run.parent) == before, name
    assert any(re.search(words, text) for text in texts), texts
    assert (run.parent / "outside" / "thesis.txt").read_text() == "precious"


EVERY = tuple(verbs(None))
OFFLINE = EVERY[:4]


@pytest.mark.parametrize("name", corpus.FILES)
def test_links_special_files_and_unknown_shapes_are_refused_before_anything_is_read(spoilt, dataset, name):
    refused(spoilt, dataset, *corpus.FILES[name], EVERY)


@pytest.mark.parametrize("name", ["report.json", "metrics.jsonl", "predicted_vs_true.png"])
def test_the_other_name_of_a_hard_link_stays_as_it_is(spoilt, dataset, name):
    run = spoilt(lambda run: (run / name).unlink() or (run / name).hardlink_to(run / corpus.THESIS))
    for verb in OFFLINE:
        refusal(verbs(dataset)[verb], run)
    assert (run.parent / "outside" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("name", corpus.CONFIG)
def test_settings_that_no_run_has(spoilt, dataset, name):
    refused(spoilt, dataset, *corpus.CONFIG[name], EVERY)


@pytest.mark.parametrize("name", corpus.ROWS)
def test_data_sets_that_a_run_names(spoilt, dataset, name):
    refused(spoilt, dataset, *corpus.ROWS[name], OFFLINE[:2])


@pytest.mark.parametrize("name", corpus.REPORTS)
def test_reports_of_strangers(spoilt, dataset, name):
    refused(spoilt, dataset, *corpus.REPORTS[name], ("compare",))


@pytest.mark.parametrize("name", corpus.CHECKPOINTS)
def test_checkpoints_of_strangers(spoilt, dataset, name):
    refused(spoilt, dataset, *corpus.CHECKPOINTS[name], ("evaluate_run",))


@pytest.mark.parametrize("name", corpus.HARMLESS)
def test_what_is_no_attack(spoilt, dataset, name):
    run = spoilt(corpus.HARMLESS[name])
    (run.parent / "linked").symlink_to(run)  # the user's own link to the run itself
    for verb in OFFLINE:
        assert refusal(verbs(dataset)[verb], run.parent / "linked") is None


def test_too_many_files(spoilt, dataset, monkeypatch):
    monkeypatch.setattr(rundir, "MAX_FILES", 20)
    refused(spoilt, dataset, lambda run: None, "more than 20 files", EVERY)
