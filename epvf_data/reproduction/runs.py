"""Runs the variants of a figure one after another. What is finished is kept, what was interrupted goes on."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from epvf_data import outputs, untrusted
from epvf_data.config import flatten, to_dict
from epvf_data.errors import CorruptDatasetError, DatasetError, EpvfError, RunError
from epvf_data.launch.calls import Runs, patiently, run_calls
from epvf_data.progress import COMPILING, Bar
from epvf_data.reproduction.figures import Variant
from epvf_data.reproduction.plan import Job
from epvf_data.trainers import rundir
from epvf_data.trainers.rundir import differences
from epvf_data.trainers.startedwith import PACED, grown, paced
from epvf_data.untrusted import printable

Train = Callable[..., Any]
_SEED = re.compile(r"seed-[0-9]{1,10}", re.ASCII)
FREE = frozenset(
    {"checkpoint_seconds", "backend"}
)  # may change between two calls; a run itself refuses another backend


def parts(directory: Path) -> list[Path]:
    """The run directories of a variant: its own, or those of its seeds where each is a run by itself."""
    if os.path.lexists(directory / rundir.CONFIG) or not directory.is_dir():
        return [directory] if directory.is_dir() else []
    return sorted(path for path in directory.iterdir() if _SEED.fullmatch(path.name) and path.is_dir())


def status(directory: Path) -> str:
    """What there is of a variant: "finished", "unfinished" or "missing"."""
    found = parts(directory)
    if not found:
        return "missing"
    return "finished" if all(read(part / "report.json").get("finished") is True for part in found) else "unfinished"


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or where a kill left half of it. Raises RunError."""
    try:
        if os.path.lexists(path):
            return untrusted.parse_json(untrusted.read_bytes(path, what="run directory"), path)
    except CorruptDatasetError:
        pass
    except DatasetError as error:
        raise RunError(str(error)) from error
    return {}


def stored_config(directory: Path, settings: type) -> dict[str, Any]:
    """The run's settings with dotted keys; empty where there is no run. Raises RunError for an unreadable file.

    `settings` is their dataclass: those that an earlier version did not know are there at their defaults.
    """
    if not os.path.lexists(directory / rundir.CONFIG):
        return {}
    return flatten(rundir.read_run(directory, settings)["config"])


def check_same(directory: Path, config: Any) -> frozenset[str]:
    """The budgets that are larger than those of the run in `directory`, which can go on to them.

    Raises RunError, naming what differs, where it holds a run with other settings than these.
    """
    before, now = stored_config(directory, type(config)), flatten(json.loads(json.dumps(to_dict(config))))
    ours = before.keys() >= PACED.keys()  # a library's agent cannot go on
    longer = frozenset(grown(before, now) if ours and not paced(before) else ())
    changes = before and differences(before, now, FREE | longer)
    if changes:
        raise RunError(
            f"{directory} was started with {changes}; give the same settings, another --out, or remove that folder."
        )
    return longer


def to_do(directory: Path, config: Any) -> bool:
    """Whether anything is left of a run with these settings. Raises RunError where it was started with others."""
    return bool(check_same(directory, config)) or status(directory) != "finished"


def check_all(jobs: Mapping[str, list[Job]], folder: Path) -> bool:
    """Whether anything is left to run. Raises RunError where one of the directories holds a run of other settings."""
    left = [to_do(folder / job.path, job.config) for found in jobs.values() for job in found]
    return any(left)


def run_all(
    chosen: list[Variant],
    jobs: Mapping[str, list[Job]],
    folder: Path,
    quiet: bool = True,
    debug: bool = False,
    executor: Runs | None = None,
) -> dict[str, str]:
    """Brings every job to its end below `folder`. Returns what went wrong, one sentence a variant that failed.

    The traceback of a failure is in `folder`/NAME.failed.txt; with `debug` the first failure is raised. With an
    `executor` each job is a call on it, and seeds that a variant trains side by side stay together.
    """
    chosen = [variant for variant in chosen if variant.name in jobs]
    if executor is not None:
        return _spread(chosen, jobs, folder, executor, quiet)
    failed = {}
    for place, variant in enumerate(chosen, 1):
        title = f"{place}/{len(chosen)} {variant.name}"
        note = folder / f"{variant.folder}.failed.txt"
        try:
            for job in jobs[variant.name]:
                _run(variant, job, folder, title, quiet)
        except Exception as error:  # whatever breaks one run must not cost the others
            if debug:
                raise
            outputs.write_bytes(note, traceback.format_exc().encode(errors="replace"), force=True)
            failed[variant.name] = _sentence(error)
            _say(f"{title}: failed: {failed[variant.name]}", quiet)
        else:
            if note.is_file():
                note.unlink()
    return failed


def _spread(
    chosen: list[Variant], jobs: Mapping[str, list[Job]], folder: Path, executor: Runs, quiet: bool
) -> dict[str, str]:
    """`run_all` on an executor."""
    every = [(variant, job) for variant in chosen for job in jobs[variant.name]]
    failed: dict[str, str] = {}
    ended = [0]

    def told(number: int, found: tuple[str, str] | None) -> None:
        variant, job = every[number]
        ended[0] += 1
        if found is not None:
            failed.setdefault(variant.name, found[0])
            outputs.write_bytes(folder / f"{variant.folder}.failed.txt", found[1].encode(errors="replace"), force=True)
        _say(f"{ended[0]}/{len(every)} {job.path}: {'ended' if found is None else f'failed: {found[0]}'}", quiet)

    run_calls([(_tried, variant, job, str(folder.absolute())) for variant, job in every], executor, told=told)
    for variant in chosen:
        if variant.name not in failed:
            (folder / f"{variant.folder}.failed.txt").unlink(missing_ok=True)
    return failed


def _tried(variant: Variant, job: Job, folder: str) -> tuple[str, str] | None:
    """One job, in a worker: what went wrong, as a sentence and as a traceback, or None."""
    directory = Path(folder) / job.path
    try:
        if to_do(directory, job.config):
            with patiently() as step:
                _train(variant, job, directory, step)
    except Exception as error:  # whatever breaks one run must not cost the others
        return _sentence(error), traceback.format_exc()
    return None


def _run(variant: Variant, job: Job, folder: Path, title: str, quiet: bool) -> None:
    """Starts or resumes one run, unless it is finished."""
    directory = folder / job.path
    title += f" {directory.name}" if directory.name != variant.folder else ""
    if not to_do(directory, job.config):
        _say(f"{title}: finished before", quiet)
        return
    began = time.perf_counter()
    with Bar(title, "env steps", quiet, waiting=COMPILING) as bar:
        report = _train(variant, job, directory, bar.run)
    returned = getattr(report, "return_perturbed", None)
    result = "" if returned is None else f"return {returned:.1f} "
    _say(f"{title}: {result}after {time.perf_counter() - began:,.0f} s", quiet)


def _train(variant: Variant, job: Job, directory: Path, progress: Callable[[Mapping[str, Any]], None]) -> Any:
    """Starts or resumes one run, and gives its report."""
    resume = variant.kind != "baseline" and (directory / "config.json").is_file()  # baselines begin again
    return _trainer(variant)(job.config, directory, progress=progress, **({"resume": True} if resume else {}))


def _trainer(variant: Variant) -> Train:
    if variant.kind == "baseline":
        from epvf_data.baselines.train import train_baseline

        return train_baseline
    from epvf_data.trainers.online.run import train_online

    return train_online


def _sentence(error: Exception) -> str:
    """What went wrong, on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EpvfError) and text else f"{type(error).__name__}: {text or 'no message'}"[:500]


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(printable(line, 1000), file=sys.stderr, flush=True)
