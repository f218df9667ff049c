"""How a collection is spread: as one shard, over an executor, or as a job script."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epvf_data.cli.app import resume_command, say
from epvf_data.errors import ConfigError, DatasetError, EpvfError, StoppedError

if TYPE_CHECKING:
    from epvf_data.collectors.collect import CollectReport
    from epvf_data.collectors.setting import CollectConfig
    from epvf_data.collectors.shards import Shard
    from epvf_data.launch.calls import Runs
    from epvf_data.recipes.settings import RecipeConfig


def executor_option(what: str) -> dict[str, Any]:
    """The option --executor of a verb, whose calls are `what`."""
    there = "N processes of this machine, SLURM (the extra `slurm`), or Ray (the extra `ray`)"
    return {"help": f"{what} there: {there}.", "metavar": "local:N|slurm|ray"}


def check_executor(name: str | None) -> None:
    """Raises ConfigError for the name of no executor, MissingPackageError where its package is missing."""
    if name is not None:
        from epvf_data.launch.executors import parse

        parse(name)


@contextlib.contextmanager
def workers(name: str | None, place: Path) -> Iterator[Runs | None]:
    """The executor of that name while the block lasts, None without one; logs of jobs go beside `place`."""
    if name is None:
        yield None
        return
    from epvf_data.launch.executors import opened, parse

    with opened(parse(name), place) as found:
        yield found


SHARD: dict[str, Any] = {
    "help": "Make shard I (from 0) of N of the rows; auto: as SLURM_ARRAY_TASK_ID and _COUNT, JOB_COMPLETION_INDEX and "
    "JOB_COMPLETIONS, or RANK and WORLD_SIZE say.",
    "metavar": "I/N|auto",
}


def shard_of(shard: str | None, shards: int | None, executor: str | None, print_sbatch: bool) -> Shard | None:
    """Which shard this process makes; None where that is not what was asked for. Raises ConfigError."""
    from epvf_data.collectors.shards import parse

    if sum((shard is not None, executor is not None, print_sbatch)) > 1:
        raise ConfigError("of --shard, --executor and --print-sbatch one can be given at a time.")
    if shards is not None and executor is None and not print_sbatch:
        raise ConfigError("--shards goes with --executor or --print-sbatch; one shard of N is --shard I/N.")
    return parse(shard) if shard is not None else None


def print_job(
    recipe: str | None,
    flags: dict[str, Any],
    config: str | None,
    changes: list[str],
    bases: list[str],
    out: Path | None,
    shards: int | None,
) -> None:
    """A job script for SLURM on stdout, once the settings are known to be possible."""
    from epvf_data.collectors.shards import checked
    from epvf_data.launch.executors import SHARDS
    from epvf_data.launch.sbatch import AT_ONCE, script

    count = checked(0, shards or SHARDS, f"--shards is {shards}").count
    target = recipe_of(recipe, flags, changes, out)[1] if recipe else configured(flags, config, changes, bases, out)[1]
    words = [word for word in sys.argv[1:] if word != "--print-sbatch" and not word.startswith("--shards=")]
    if "--shards" in words:
        place = words.index("--shards")
        del words[place : place + 2]
    words = words if out else [*words, "--out", str(target)]
    for line in script(words, target, count, min(count, AT_ONCE)).splitlines():
        say(line)


def spread(
    executor: str,
    shards: int | None,
    recipe: str | None,
    flags: dict[str, Any],
    config: str | None,
    changes: list[str],
    bases: list[str],
    out: Path | None,
    mixed: bool,
    quiet: bool,
) -> CollectReport:
    """All shards on an executor, and the teachers of a recipe before; a bar over the rows that are there."""
    from epvf_data.launch.executors import SHARDS, opened, parse
    from epvf_data.progress import Bar

    wanted = parse(executor)
    count = shards or wanted.workers or SHARDS

    def show(rows: int, total: int, done: int) -> None:
        bar.update(rows, total, rows, "rows", f" · {done}/{count} shards")

    def trained(done: int, total: int) -> None:
        bar.update(0, 1, note=f" · {done}/{total} teachers trained")

    if recipe is None:
        from epvf_data.launch.fan_out import fan_out

        settings, target = configured(flags, config, changes, bases, out)
        run = partial(fan_out, settings, target, shards=count, mixed=mixed, progress=show)
    else:
        from epvf_data.recipes.fan_out import fan_out_recipe

        settings, target = recipe_of(recipe, flags, changes, out)
        run = partial(fan_out_recipe, settings, target, shards=count, trained=trained, progress=show)
    try:
        with Bar("collect", "rows", quiet, waiting="starting workers") as bar, opened(wanted, target) as found:
            return run(found)
    except KeyboardInterrupt:
        raise interrupted(target, shlex.join(["epvf-data", *sys.argv[1:]])) from None


def configured(
    flags: dict[str, Any], config: str | None, changes: list[str], bases: list[str], out: Path | None
) -> tuple[CollectConfig, Path]:
    """The settings, and the data set's folder."""
    from epvf_data.collectors.setting import configure
    from epvf_data.envs import full_name

    settings = configure(config, changes, flags, bases)
    return settings, out or Path(f"{full_name(settings.env)}.zarr")


def recipe_of(recipe: str, flags: dict[str, Any], changes: list[str], out: Path | None) -> tuple[RecipeConfig, Path]:
    """The same of a recipe."""
    from epvf_data.config import merge, parse_overrides
    from epvf_data.envs import full_name
    from epvf_data.recipes.tables import build, read

    typed = merge(parse_overrides(changes), flags)
    settings = build(read(recipe, typed.get("env"), typed), typed)
    return settings, out or Path(f"{full_name(settings.env)}-{Path(recipe).stem}.zarr")


def interrupted(target: Path, again: str | None = None) -> EpvfError:
    from epvf_data.store import reader

    try:
        kept = f"{reader.open(target).rows:,} rows are committed in {target}"
    except DatasetError:
        return StoppedError("interrupted before the first commit; nothing was written.")
    return StoppedError(f"interrupted: {kept}; continue with: {again or resume_command()}")
