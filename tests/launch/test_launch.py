"""One collection on executors and as a job script, at the smallest size; `benchmarks/cluster.py` has the engines."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from launch import stragglers

import epvf_data
from epvf_data.curation.finalize import finalize
from epvf_data.errors import BackendError, ConfigError, DatasetError, MissingPackageError, StoppedError
from epvf_data.launch import executors
from epvf_data.launch.fan_out import fan_out
from epvf_data.launch.sbatch import script
from epvf_data.store.digest import content_hash

BENCH = Path(__file__).parents[2] / "benchmarks"
WORDS = ("--env", "cartpole", "--envs", "8", "--horizon", "5", "--policies", "40", "--set", "policy.hidden=[4]")
WORDS += ("--set", "perturbed.bases=random")


@pytest.fixture(scope="module")
def config():
    pytest.importorskip("jax")
    return epvf_data.collect_config(
        "cartpole", envs=8, horizon=5, policies=40, **{"policy.hidden": [4], "perturbed.bases": ["random"]}
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "w"
    epvf_data.collect(config, path)
    return content_hash(epvf_data.open(path))


def test_any_executor_makes_the_rows_of_one_process(in_tmp, config, whole):
    seen: list[tuple[int, int, int]] = []
    with ThreadPoolExecutor(1) as pool:
        report = fan_out(config, "a.zarr", pool, shards=3, progress=lambda *counts: seen.append(counts))
        again = fan_out(config, "a.zarr", pool, shards=5)
    assert (report.rows, report.rows_total, again.rows, again.return_mean) == (40, 40, 0, None)
    assert report.env_steps == epvf_data.open("a.zarr").table().column("lengths").sum()
    assert report.return_mean == pytest.approx(epvf_data.open("a.zarr").table().column("returns").mean(), rel=1e-6)
    assert all(rows <= wanted == 40 and done <= 3 for rows, wanted, done in seen)
    assert finalize("a.zarr").missing == []
    assert content_hash(epvf_data.open("a.zarr")) == whole


def test_shards_of_others_batches_and_numbers_make_the_same(in_tmp, config, whole):
    """N and the batch change between launches, and one shard never ran."""
    from dataclasses import replace

    from epvf_data.collectors.shards import Shard

    epvf_data.collect(config, "a.zarr", shard=Shard(2, 3))
    epvf_data.collect(replace(config, envs=5), "a.zarr", shard=Shard(0, 4))
    assert [(gap.first, gap.end) for gap in finalize("a.zarr").missing] == [(10, 27)]
    for index in range(2):
        epvf_data.collect(replace(config, envs=7), "a.zarr", shard=Shard(index, 2))
    assert finalize("a.zarr").missing == []
    assert content_hash(epvf_data.open("a.zarr")) == whole
    with pytest.raises(DatasetError, match="none comes from these settings, which all shards of a collection share"):
        epvf_data.collect(replace(config, seed=1), "a.zarr", shard=Shard(0, 3))


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_told_and_what_another_raised_too(in_tmp, config):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=dies) as pool, pytest.raises(BackendError, match="a worker died"):
        fan_out(config, "a.zarr", pool, shards=2)

    class Fails:
        def submit(self, fn, *args):
            future: Future = Future()
            future.set_exception(DatasetError("this one"))
            return future

    with pytest.raises(DatasetError, match="this one"):
        fan_out(config, "a.zarr", Fails(), shards=2)
    (in_tmp / "b").write_text("")
    with pytest.raises(DatasetError, match="b is a file"):
        fan_out(config, "b", Fails(), shards=2)
    with pytest.raises(ConfigError, match="0 shards"):
        fan_out(config, "a.zarr", Fails(), shards=0)


@pytest.mark.soak
def test_local_workers_are_spawned_and_share_the_cores(in_tmp, config, whole, shell):
    told = shell("collect", *WORDS, "--executor", "local:2", "--shards", "3", "--json", "--quiet", "--out", "a.zarr")
    assert json.loads(told.stdout)["rows"] == 40
    assert finalize("a.zarr").missing == []
    assert content_hash(epvf_data.open("a.zarr")) == whole


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--executor", "many"), "expected local:N .*, slurm or ray"),
        (("--executor", "local:0"), "expected local:N"),
        (("--executor", "local:99999"), "N from 1 to 4096"),
        (("--shard", "0/2", "--print-sbatch"), "one can be given at a time"),
        (("--shards", "4"), "one shard of N is --shard I/N"),
        (("--executor", "local:2", "--recipe", "diverse", "--mixed"), "goes with a collection without --recipe"),
        (("--print-sbatch", "--policies", "0"), "policies"),
        (("--print-sbatch", "--shards", "9999999"), "at most 1,048,576"),
    ],
)
def test_what_cannot_be_asked_for(in_tmp, shell, words, told):
    import re

    assert re.search(told, shell("collect", "--env", "cartpole", *words, code=2).stderr)
    assert list(in_tmp.iterdir()) == []


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("epvf_data.errors.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'epvf-data\[slurm\]'"):
        executors.parse("slurm")


def test_gpus_are_counted_without_jax(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert executors.gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert executors.gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo '  MIG 1g'; echo 'GPU 1: NVIDIA H100'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert executors.gpus() == ["0", "1"]


def test_the_table_of_stragglers_is_what_the_simulation_gives():
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    assert page.split("<!-- stragglers -->\n")[1].startswith("\n".join(stragglers.table()))


class Job:
    """submitit's, of which one gives a result and the other ended without."""

    job_id, paths = "7", type("Paths", (), {"stderr": "7.err"})

    def __init__(self, error: Exception | None):
        self.error = error

    def done(self):
        return True

    def cancel(self):
        pass

    def result(self):
        if self.error is not None:
            raise self.error
        return 3


def test_a_job_without_a_result_is_told_as_incomplete():
    assert executors._SlurmCall(Job(None)).result() == 3
    with pytest.raises(
        BackendError, match=r"job 7 of SLURM is incomplete: 'no memory'; its log is 7.err. What it saved"
    ):
        executors._SlurmCall(Job(RuntimeError("Traceback\n\n  no memory\n"))).result()


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_a_job_is_queued_again_by_the_warning_alone(in_tmp, monkeypatch, number, requeued):
    """Once the call has saved, and no result is written: SLURM ends the job, here by an error of `sleep`."""
    (in_tmp / "scontrol").write_text(SCHEDULER)
    (in_tmp / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{in_tmp}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(executors, "ENDED", -1)

    def stopped():
        monkeypatch.setattr(executors.Worker, "told", number)
        raise StoppedError("stopped")

    assert executors.in_job(pow, 2, 3) == 8
    with pytest.raises(ValueError, match="sleep length"):
        executors.in_job(stopped)
    assert (in_tmp / "told").exists() == requeued
    if requeued:
        assert (in_tmp / "told").read_text().endswith("scontrol requeue 7\n")


SCHEDULER = """#!/bin/sh
echo "$0 $@" >> told
"""
SHARD = """
import signal, sys, time
def stop(number, frame):
    sys.exit({code})
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, stop)
open("ready", "w").close()
time.sleep({seconds})
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("number", "code", "requeued", "ends"),
    [
        (signal.SIGUSR1, 75, True, 0),  # the warning before the time limit
        (signal.SIGUSR1, 138, True, 0),  # it came before Python had begun
        (signal.SIGTERM, 75, False, 75),  # scancel: it shall not come back
        (signal.SIGUSR1, 1, False, 1),  # it failed in the same moment
        (None, 0, False, 0),
        (None, 1, False, 1),
    ],
)
def test_the_job_script_passes_signals_on(in_tmp, monkeypatch, number, code, requeued, ends):
    """Run by a real shell, with a shard that ends as `collect` does, and `scontrol` that only tells."""
    (in_tmp / "shard.py").write_text(SHARD.format(code=code, seconds=0 if number is None else 30))
    monkeypatch.setattr("epvf_data.launch.sbatch.program", lambda: f"exec {shlex.quote(sys.executable)} shard.py")
    text = script(["collect", "--out", "a b.zarr"], Path("a b.zarr"), 32, 8)
    assert "#SBATCH --array=0-31%8 " in text
    assert "--out 'a b.zarr' --shard \"$SLURM_ARRAY_TASK_ID/32\"" in text
    (in_tmp / "job.sh").write_text(text)
    (in_tmp / "scontrol").write_text(SCHEDULER)
    (in_tmp / "scontrol").chmod(0o755)
    variables = {**os.environ, "PATH": f"{in_tmp}:{os.environ['PATH']}"}
    variables |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "77"}
    job = subprocess.Popen(["bash", "job.sh"], env=variables)
    if number is not None:
        while not (in_tmp / "ready").exists():
            time.sleep(0.01)
        job.send_signal(number)
    assert job.wait(60) == ends
    told = (in_tmp / "told").read_text() if (in_tmp / "told").exists() else ""
    assert ("requeue 77_3\n" in told) == requeued


def test_the_printed_job_is_this_command_and_what_the_page_shows(in_tmp, shell, monkeypatch):
    told = shell("collect", *WORDS, "--print-sbatch", "--shards", "5").stdout
    assert f"collect {shlex.join(WORDS)} --out cartpole.zarr --shard" in told
    assert "--array=0-4%5" in told
    assert "--print-sbatch" not in told
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    shown = page.split("<!-- the script -->\n```bash\n")[1].split("```")[0]
    words = shlex.split(page.split("```sh\nepvf-data ")[1].split(" > ant.sh")[0])
    monkeypatch.setattr("epvf_data.launch.sbatch.program", lambda: "epvf-data")
    assert shell(*words).stdout == shown
    assert list(in_tmp.iterdir()) == []


PRINTED = """#!/bin/sh
for task in 1 0; do SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task bash "$1" || exit; done
"""


@pytest.mark.soak
def test_the_five_commands_of_the_page_run_as_typed(in_tmp):
    """With small numbers, a folder that is here, and an `sbatch` that runs an array's tasks one after the other."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    typed = page.split("```sh\n")[1].split("```")[0]
    assert len(typed.splitlines()) == 5
    small = {"--env ant --policies 1000000": shlex.join(WORDS), "/scratch/me": str(in_tmp), "--shards 64": "--shards 2"}
    for words, others in small.items():
        assert words in typed
        typed = typed.replace(words, others)
    programs = {"sbatch": PRINTED, "epvf-data": f'#!/bin/sh\nexec {sys.executable} -m epvf_data "$@"\n'}
    for name, text in programs.items():
        (in_tmp / "bin").mkdir(exist_ok=True)
        (in_tmp / "bin" / name).write_text(text)
        (in_tmp / "bin" / name).chmod(0o755)
    variables = {**os.environ, "PATH": f"{in_tmp / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e"], input=typed, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No row is missing, none is there twice, and they are in order" in done.stdout
    assert epvf_data.open(in_tmp / "ant.zarr").rows == 40


ENGINES = ("slurm", "ray", "same")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_real_engines_did_is_on_record(engine):
    found = json.loads((BENCH / "results" / f"cluster-{engine}.json").read_text())
    assert (found["rows_missing"], found["rows_double"], found["problems"]) == (0, 0, [])
    assert found["hash_equals_one_run"] is True


@pytest.mark.soak
@pytest.mark.parametrize("engine", ENGINES)
def test_real_engines(tmp_path, engine):
    pytest.importorskip("jax")
    if engine == "ray":
        pytest.importorskip("ray")
    if engine == "slurm" and (shutil.which("sbatch") is None or subprocess.run(["sinfo"], check=False).returncode):
        pytest.skip("no SLURM answers here")
    command = [sys.executable, str(BENCH / "cluster.py"), engine, "--folder", str(tmp_path), "--out", "-"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert (found["rows_missing"], found["rows_double"], found["problems"]) == (0, 0, [])
    assert found["hash_equals_one_run"] is True
