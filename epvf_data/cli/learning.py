"""What the verbs tell of runs that learn online."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli.app import plural, print_json, print_table, say, visible
from epvf_data.errors import ConfigError, RunError

Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv", help="Also write the curves' numbers, of online runs.", metavar="FILE.csv", show_default=False
    ),
]
HEADS = ["", "last return of θ", "best return of θ", "last, perturbed", "env steps", "minutes"]
RETURNS = ("final_return", "best_return", "perturbed_return")
ABOUT = "θ: the unperturbed policy, judged at log entries. perturbed: the mean of an iteration's perturbed policies."
INTERVALS = "95 %: bootstrap interval of the median over seeds, from three seeds on."


def print_group(found: dict[str, Any]) -> None:
    """What an experiment is, and its table: a line for each seed, their median and its interval."""
    horizon = f", episodes of at most {found['horizon']:,} steps" if found["horizon"] else ""
    done = "finished" if found["finished"] else "not finished"
    say(
        f"{visible(found['name'])}: {visible(found['algorithm'], 20)} on {visible(found['env'], 60)}{horizon}; {done}, "
        f"{plural(found['iterations'], 'iteration')}, {plural(len(found['seeds']), 'seed')}"
    )
    digits = dict.fromkeys(RETURNS, 2) | {"env_steps": 0, "minutes": 1}
    rows = [
        [f"  seed {seed}", *(_cell(found[name]["per_seed"][place], digits[name]) for name in digits)]
        for place, seed in enumerate(found["seeds"])
    ]
    if len(rows) > 1:
        rows.append(["  median", *(_cell(found[name]["median"], digits[name]) for name in digits)])
    if found["final_return"]["interval"] is not None:
        sides = (found[name]["interval"] for name in RETURNS)
        rows.append(["  95 %", *("–" if one is None else "[{:.2f}, {:.2f}]".format(*one) for one in sides), "", ""])
    print_table(HEADS, rows, numbers=True)


def tell_runs(run: Path) -> None:
    """How a run stands, or those that a pattern such as run/seed-* names, where they have logged anything."""
    from epvf_data.trainers.curves.history import grouped, read_run
    from epvf_data.trainers.curves.summary import summarise

    runs = [read_run(one, empty=True) for one in (sorted(run.parent.glob(run.name)) if "*" in run.name else [run])]
    for group in grouped([found for found in runs if found.curves]):
        print_group(summarise(group))
        say(ABOUT)


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def info_run(run: Path, plot: Path | None, force: bool, json: bool) -> None:
    """`info` of a run."""
    from epvf_data.trainers import rundir
    from epvf_data.trainers.curves.history import read_groups
    from epvf_data.trainers.curves.plot import check, plot_runs
    from epvf_data.trainers.curves.policy import best_policy
    from epvf_data.trainers.curves.summary import summarise

    rundir.check_kind(run, "online")
    check(plot, None, force)
    (group,) = read_groups([run])
    try:
        policy = best_policy(run)
    except RunError:  # before its first checkpoint
        policy = None
    found = {"kind": "online", **summarise(group), "policy": policy and str(policy)}
    if plot is not None:
        plot_runs(run, plot, force=force)
    if json:
        print_json(found)
        return
    print_group(found)
    say(ABOUT)
    if policy is not None:
        say(f"best policy: {policy}; `epvf-data render {run}` plays it, `epvf-data score` rolls it out again")
    say(f"learning curves written to {plot}" if plot else f"learning curves: `epvf-data plot {run}`")


def plot_curves(runs: list[Path], out: Path | None, table: Path | None, force: bool, json: bool) -> None:
    """`plot` of runs."""
    from epvf_data.trainers import rundir
    from epvf_data.trainers.curves.plot import plot_runs

    for run in runs:
        rundir.check_kind(run, "online")
    target = out or Path(f"{runs[0].resolve().name}-curves.png" if len(runs) == 1 else "curves.png")
    numbers = plot_runs(runs, target, table=table, force=force)
    experiments = list(dict.fromkeys(line["experiment"] for line in numbers))
    if json:
        print_json({"picture": str(target), "table": table and str(table), "experiments": experiments})
        return
    say(f"{target}: learning curves of {', '.join(experiments)}.")
    if table is not None:
        say(f"{table}: their numbers, {plural(len(numbers), 'line')}.")


def check_dataset_flags(inputs: list[Path], table: Path | None) -> None:
    """Raises ConfigError for what `plot` does with runs alone."""
    if len(inputs) > 1:
        raise ConfigError(
            f"got {len(inputs)} things that are not all runs of train-online; draw one data set at a time."
        )
    if table is not None:
        raise ConfigError("--csv writes learning curves of online runs; a data set has none.")


def print_comparison(found: dict[str, Any]) -> None:
    """`compare` of online runs."""
    if not found["same_task"]:
        say("These runs are of different tasks (environment or horizon): their returns are not to be compared.")
    for group in found["groups"]:
        print_group(group)
        say()
    for one in found["differences"]:
        last, best = (_difference(one[name]) for name in ("final_return", "best_return"))
        say(f"{visible(one['of'])} minus {visible(one['from'])}: last return of θ {last}; best {best}")
    for line in (ABOUT, INTERVALS):
        say(line)


def _difference(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "–"
    if found["interval"] is None:
        return f"{found['value']:+.2f} (no interval with fewer than three seeds each)"
    told = "higher" if found["value"] > 0 else "lower"
    told = told if found["apart"] else "cannot be told from zero"
    return "{:+.2f} [{:+.2f}, {:+.2f}], {}".format(found["value"], *found["interval"], told)
