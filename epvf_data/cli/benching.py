"""bench list, bench run, bench table."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.benchmark.tasks import DATA, GROUPS, TASKS, methods_of, split_method
from epvf_data.benchmark.tasks import small as small_task
from epvf_data.cli.app import Debug, Force, Json, Quiet, _App, app, print_json, print_table, resume_command, say
from epvf_data.cli.launching import check_executor, executor_option, workers
from epvf_data.config import check_one_of
from epvf_data.errors import RunError

bench = _App(
    name="bench",
    no_args_is_help=True,
    help="A benchmark that others can enter: list its tasks, run a method, make the leaderboard.",
)
app.add_typer(bench, rich_help_panel="Make and learn from rows")


@bench.command("list", epilog="Example: `epvf-data bench list`")
def tasks(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """The tasks: which rows, what is asked, by what it is measured, and the methods that have a name."""
    if json:
        print_json([_told(task) for task in TASKS.values()])
        return
    for group, about in GROUPS.items():
        some = [task for task in TASKS.values() if task.group == group]
        say(f"{group}: {about}")
        for task in some:
            rows = f"; rows: {DATA[task.data].command}" if task.data else f"; {task.steps:,} steps of {task.env}"
            say(f"  {task.name}: {task.about}{rows}")
        say(f"  methods: {', '.join(methods_of(some[0]))}, or FILE.py:FUNCTION")


def _told(task: Any) -> dict[str, Any]:
    rows = None if task.data is None else DATA[task.data]
    return {
        "name": task.name,
        "group": task.group,
        "about": task.about,
        "headline": task.headline,
        "data": task.data,
        "made_by": rows and rows.command,
        "content": rows and rows.content,
        "split": task.split if task.group == "predict" else None,
        "steps": task.steps or None,
        "methods": methods_of(task),
    }


@bench.command(
    "run",
    epilog="Examples: `epvf-data bench run improve-hopper coms` · "
    "`epvf-data bench run improve-hopper mine.py:propose` · "
    "`epvf-data bench run predict-lineage ridge-actions --small`",
)
def run(
    task: Annotated[str, typer.Argument(help="A name that `bench list` says.", show_default=False)],
    method: Annotated[
        str, typer.Argument(help="A name (of a critic too: coms/mlp), or FILE.py:FUNCTION.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="The result.  [default: TASK-METHOD.json]")] = None,
    work: Annotated[Path, typer.Option(help="Folder of the data sets and critics, which methods share.")] = Path(
        "bench"
    ),
    data: Annotated[
        Path | None, typer.Option(help="The task's data set, if it is elsewhere.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many.", min=1, max=100)] = 5,
    small: Annotated[
        bool, typer.Option("--small", help="The task on CartPole, in seconds; its numbers say nothing.")
    ] = False,
    executor: Annotated[str | None, typer.Option(**executor_option("Run the seeds"))] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the seeds that --out holds.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run one method on one task over five seeds, and write a result file that others can compare with theirs.

    The task's data set is made first, in --work, where it is not there yet; that can take many minutes. Methods of your
    own get rows and no rollouts; docs/benchmark.md says what they are given.
    """
    check_executor(executor)
    check_one_of("task", task, TASKS)
    found = small_task(TASKS[task]) if small else TASKS[task]
    split_method(found, method)
    label = method.rpartition(":")[2].replace("/", "-")
    target = out or Path(f"{task}-{label}.json")

    from epvf_data.benchmark.run import run_task
    from epvf_data.progress import COMPILING, Bar
    from epvf_data.runtime import prepare

    prepare()
    try:
        with Bar("bench", "seeds", quiet, waiting=COMPILING) as bar, workers(executor, target) as there:
            ended = itertools.count(1)

            def told(seed: dict[str, Any]) -> None:
                done = next(ended)
                bar.update(done, seeds, done, "seeds")

            result = run_task(
                task,
                method,
                target,
                work=work,
                data=data,
                seeds=seeds,
                quick=small,
                resume=resume,
                executor=there,
                making=lambda done, total, steps: bar.update(done, total, steps, "env steps"),
                told=told,
            )
    except KeyboardInterrupt:
        raise RunError(f"interrupted; {target} holds the seeds so far, continue with: {resume_command()}") from None
    if json:
        print_json(result)
        return
    rows = [[f"  {name}", f"{one['mean']:.3f}", _span(one["interval"])] for name, one in result["measures"].items()]
    print_table([f"  {task}, {method}, {len(result['seeds'])} seeds", "mean", "95 %"], rows, numbers=True)
    say(f"result: {target}   put results side by side: epvf-data bench table *.json --out leaderboard.md")


def _span(interval: list[float] | None) -> str:
    return "–" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


@bench.command("table", epilog="Example: `epvf-data bench table results/*.json --out leaderboard.md`")
def table(
    results: Annotated[list[Path], typer.Argument(help="Files that `bench run` has written.")],
    out: Annotated[Path, typer.Option(help="The leaderboard; a .json of the same name goes beside it.")] = Path(
        "leaderboard.md"
    ),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make the leaderboard of result files: Markdown, and JSON beside it."""
    from epvf_data.benchmark.table import markdown, write

    found = write(results, out, force)
    if json:
        print_json(found)
        return
    for line in markdown(found).splitlines():
        say(line)
    say(f"leaderboard: {out} and {out.with_suffix('.json')}")
