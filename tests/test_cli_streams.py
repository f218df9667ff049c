"""Where output goes and what stops a verb: encodings, pipes, full disks, narrow terminals, signals."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from store import conftest as store

from epvf_data.progress import Bar, on_signal
from epvf_data.store import reader
from epvf_data.store.writer import Writer

EPVF = f"{shlex.quote(sys.executable)} -m epvf_data"


def sh(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `epvf` is the command line; its exit code is that of the first program that failed."""
    script = f'set -o pipefail; epvf() {{ {EPVF} "$@"; }}; {line}'
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | variables
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, encoding="latin-1", env=env, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_that_is_full_is_told_in_a_sentence(small, unbuffered):
    done = sh(f"epvf info {small} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written (No space left on device); what it tells of is done.\n"


def test_a_reader_that_has_seen_enough_is_no_error(small):
    done = sh(f"epvf info {small} --json | true")
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_streams_that_are_closed_lead_nowhere(small):
    assert sh(f"epvf info {small} >&-").returncode == 0
    assert sh(f"epvf compact {small} 2>&-").returncode == 0  # nothing of what is written gets descriptor 2
    assert sh("epvf info nowhere 2>/dev/full").returncode == 1
    assert epvf_rows(small) == 126


def epvf_rows(path: Path) -> int:
    return reader.open(path).rows


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_what_an_encoding_lacks_is_written_in_plain_letters(small, variables):
    done = sh(f"epvf info {small}; COLUMNS=20 epvf collect --help", **variables)
    assert done.returncode == 0
    assert "##########" in done.stdout


def test_files_are_utf_8_whatever_the_locale_is(in_tmp):
    """Every file that the package opens as text says its encoding."""
    command = [Path(sys.executable).parent / "ruff", "check", "--preview", "--select", "PLW1514"]
    done = subprocess.run([*command, Path(reader.__file__).parent.parent], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def kill(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.1)  # the handler runs before it ends


@pytest.fixture
def heeded():
    """Signals that end a process are not ignored, as they are under nohup."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_the_first_signal_waits_for_the_step_and_the_second_does_not(number, capsys):
    with Bar("train", "steps", patient=True) as bar:
        kill(number)
        with pytest.raises(KeyboardInterrupt):
            bar.update(1, 2)
    assert "train: stopping after this step" in capsys.readouterr().err
    with Bar("train", "steps", patient=True):
        kill(number)
        with pytest.raises(KeyboardInterrupt):
            kill(number)
    with on_signal(), pytest.raises(KeyboardInterrupt):
        kill(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_job_that_was_started_to_ignore_a_signal_ignores_it(number):
    """As bash starts jobs in the background, and nohup all of them."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with on_signal(), Bar("collect", "rows") as bar:
            os.kill(os.getpid(), number)
            bar.update(1, 2)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_work_goes_on_when_nobody_reads_its_progress(monkeypatch):
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full, Bar("collect", "rows") as bar:
        with pytest.raises(OSError, match="No space left"):
            full.write("x")
        monkeypatch.setattr(sys, "stderr", full)
        bar.update(2, 2)
        monkeypatch.undo()


def terminated_when(there: Path, run, number: int = signal.SIGTERM) -> subprocess.CompletedProcess[str]:
    """What a verb in this process tells when a cluster's signal comes as soon as a file is there."""

    def wait() -> None:
        while not (there.exists() and there.stat().st_size) and not done:
            time.sleep(0.01)
        if not done:
            os.kill(os.getpid(), number)

    done: list[bool] = []
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        return run()
    finally:
        done.append(True)
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_signal_keeps_what_was_collected(in_tmp, shell, number):
    pytest.importorskip("jax")
    words = ("collect", "--env", "cartpole", "--envs", "8", "--horizon", "5", "--policies", "100000", "--quiet")
    told = terminated_when(
        in_tmp / "cartpole.zarr/commits/00000000.json", lambda: shell(*words, code=75), number
    ).stderr
    rows = epvf_rows(in_tmp / "cartpole.zarr")
    assert f"{rows} rows are committed" in told.replace(",", "")
    again = shlex.split(told.split("continue with: ")[1])[1:]
    again[again.index("100000")] = str(rows + 8)
    shell(*again)
    assert epvf_rows(in_tmp / "cartpole.zarr") == rows + 8


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.soak)])
def test_a_scheduler_signal_saves_an_offline_run(in_tmp, shell, number):
    pytest.importorskip("jax")
    with Writer.open("a.zarr", store.ENV) as writer:
        writer.commit(store.build_rows(60), {})
    words = [
        "train-offline",
        "a.zarr",
        "--critic",
        "mlp",
        "--split",
        "iid",
        "--set",
        "widths=[4]",
        "--set",
        "resamples=5",
        "--quiet",
    ]
    words += ["--set", "epochs=100", "--set", "patience=100", "--set", "seeds=1"]
    told = terminated_when(in_tmp / "run/metrics.jsonl", lambda: shell(*words, "--out", "run", code=75), number).stderr
    epochs = len(Path("run/metrics.jsonl").read_text().splitlines())
    assert 0 < epochs < 100
    assert [path.name for path in Path("run/checkpoints/iid/epochs").iterdir()] == [str(epochs)]
    shell(*shlex.split(told.split("continue with: ")[1])[1:])
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 100
    assert Path("run/report.json").exists()
