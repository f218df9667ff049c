"""Executors by name: processes of this machine, SLURM through submitit, Ray."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from epvf_data.errors import BackendError, ConfigError, StoppedError, require
from epvf_data.launch.calls import Handle, Runs, Worker
from epvf_data.launch.sbatch import WARNING
from epvf_data.untrusted import shown

NAMES = ("local:N", "slurm", "ray")
PACKAGES = {"slurm": "submitit", "ray": "ray"}
MAX_WORKERS = 4096
HOURS = 4  # of a job, where SBATCH_TIMELIMIT says nothing; what needs longer is queued again
ENDED = 120  # seconds in which SLURM ends a job that it has told to stop
RETRIES = 3  # of a shard whose worker died
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"  # of nearly all memory of a GPU, when JAX starts
SHARDS = 16  # where nobody says how many


class Wanted(NamedTuple):
    """An executor's kind, and how many workers a local one has."""

    kind: str
    workers: int


def parse(text: str) -> Wanted:
    """`local:8`, `slurm` or `ray`. Raises ConfigError for another name, MissingPackageError without its package."""
    local = re.fullmatch(r"local:([0-9]{1,6})", text)
    if local and 1 <= int(local[1]) <= MAX_WORKERS:
        return Wanted("local", int(local[1]))
    if text not in PACKAGES:
        raise ConfigError(f"--executor is {shown(text)}; expected local:N (N from 1 to {MAX_WORKERS}), slurm or ray.")
    require(PACKAGES[text])
    return Wanted(text, 0)


@contextlib.contextmanager
def opened(wanted: Wanted, out: Path) -> Iterator[Runs]:
    """The executor; its workers end with the block, those of SLURM's queue excepted."""
    with {"local": _local, "slurm": _slurm, "ray": _ray}[wanted.kind](wanted, out) as executor:
        yield executor


@contextlib.contextmanager
def _local(wanted: Wanted, out: Path) -> Iterator[Runs]:
    """Spawned processes, each with its share of the cores and, where there are some, one GPU."""
    spawn, devices = multiprocessing.get_context("spawn"), gpus()
    eager = PREALLOCATE not in os.environ
    if devices:  # this process needs little of a GPU, a worker all of it
        os.environ.setdefault(PREALLOCATE, "false")
    pinned = spawn.Value("i", 0), wanted.workers, devices, eager
    pool = ProcessPoolExecutor(wanted.workers, spawn, initializer=_pin, initargs=pinned)
    try:
        yield pool
    except BaseException:
        _end(pool)
        raise
    pool.shutdown()


def _end(pool: ProcessPoolExecutor) -> None:
    """Tells the workers to stop, which save what they have, and waits for that; a second signal ends them at once."""
    workers = multiprocessing.active_children()
    for process in workers:
        process.terminate()
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        for process in workers:
            process.kill()  # commits and checkpoints are whole or not there
        raise


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; JAX is not started for that."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        told = subprocess.check_output(["nvidia-smi", "-L"], text=True, timeout=60, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in told.splitlines()))]


def _pin(counter: Any, workers: int, devices: list[str], eager: bool) -> None:
    """Before JAX starts in a worker: one GPU, and cores that others of this pool do not use.

    Ctrl-C goes to all processes of a terminal, and is left to the one that began this, which tells the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker.pooled = True
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    if eager:
        os.environ.pop(PREALLOCATE, None)
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    cores = sorted(os.sched_getaffinity(0))
    if workers <= len(cores):
        place = number % workers
        os.sched_setaffinity(0, cores[place * len(cores) // workers : (place + 1) * len(cores) // workers])


class _SlurmCall:
    """A job of submitit as a handle."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self.done, self.cancel = job.done, job.cancel

    def result(self) -> Any:
        try:
            return self._job.result()
        except Exception as error:  # submitit's own, with the text of a traceback in it
            said = [line for line in str(error).splitlines() if line.strip()]
            why = said[-1].strip() if said else type(error).__name__
            raise BackendError(
                f"job {self._job.job_id} of SLURM is incomplete: {shown(why)}; its log is {self._job.paths.stderr}. "
                "What it saved stays, and the same command goes on."
            ) from error


class SlurmExecutor:
    """submitit's behind `submit`. A job that reaches its time limit saves, is queued again, and goes on where it was.

    submitit would queue again only calls that it can pickle in the middle, three times, and after the five minutes that
    it takes for the time limit where nobody states one.
    """

    def __init__(self, folder: Path) -> None:
        submitit = importlib.import_module("submitit")
        self._executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        options = {"timeout_min": 60 * HOURS, "slurm_signal_delay_s": WARNING}
        self._executor.update_parameters(name="epvf-data", slurm_additional_parameters={"requeue": True}, **options)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Handle:
        return _SlurmCall(self._executor.submit(in_job, fn, *args))


def in_job(function: Callable[..., Any], *arguments: Any) -> Any:
    """The call, in a job of SLURM. One that is stopped gives no result: SLURM ends it, and begins it again where it was
    the warning before the time limit (SIGUSR2, submitit's) or SLURM itself that stopped it."""
    try:
        return function(*arguments)
    except StoppedError:
        if Worker.told == signal.SIGUSR2:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        time.sleep(ENDED)
        raise


@contextlib.contextmanager
def _slurm(wanted: Wanted, out: Path) -> Iterator[Runs]:
    """submitit's, whose scripts and logs lie beside the data set, in OUT.jobs.

    What a cluster wants to know (partition, time, cores) is read from SBATCH_* variables, as sbatch itself does.
    """
    yield SlurmExecutor(out.absolute().with_name(f"{out.name}.jobs"))


class _RayCall:
    """A call on a Ray cluster as a handle."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def done(self) -> bool:
        return bool(self._ray.wait([self._reference], timeout=0)[0])

    def result(self) -> Any:
        return self._ray.get(self._reference)

    def cancel(self) -> None:
        self._ray.cancel(self._reference, force=True)


class RayExecutor:
    """Ray Core behind `submit`: one process a call, called again by Ray where its worker dies."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of `ray.remote`, as num_cpus and num_gpus."""
        self._ray = importlib.import_module("ray")
        # A process takes one call only: JAX keeps its device and memory until its process ends.
        self._options = {"max_retries": RETRIES, "max_calls": 1, **options}

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Handle:
        return _RayCall(self._ray, self._ray.remote(**self._options)(fn).remote(*args))


@contextlib.contextmanager
def _ray(wanted: Wanted, out: Path) -> Iterator[Runs]:
    """The cluster that RAY_ADDRESS names, else one on this machine that ends with the block."""
    ray = importlib.import_module("ray")
    began = not ray.is_initialized()
    if began:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        yield RayExecutor(**({"num_gpus": 1} if ray.cluster_resources().get("GPU") else {}))
    finally:
        if began:
            ray.shutdown()
