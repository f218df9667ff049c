"""info, plot, validate: what is in a data set and whether it is in order; what an online run has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli.app import (
    MAX_ROWS,
    Debug,
    Force,
    Json,
    Plot,
    Quiet,
    app,
    check_plot,
    plural,
    print_json,
    print_table,
    say,
    visible,
    working,
)
from epvf_data.cli.choices import Backend, OwnEnv, OwnPolicy
from epvf_data.cli.learning import Csv, check_dataset_flags, info_run, plot_curves
from epvf_data.cli.places import Dataset, readable
from epvf_data.errors import ConfigError
from epvf_data.trainers.rundir import check_there, is_run

FACTS = {"who": "by", "command": "command", "made": "made", "versions": "versions", "git": "package", "seed": "seed"}


@app.command(
    rich_help_panel="Look at data sets",
    epilog="Examples: `epvf-data info ant.zarr --plot returns.png` · `epvf-data info ant.zarr --commits` · "
    "`epvf-data info cartpole-paper-run`",
)
def info(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="A data set's folder or URL, or a run of `train-online`.",
            show_default=False,
            parser=readable,
            metavar="DATASET|RUN",
        ),
    ],
    plot: Plot = None,
    commits: Annotated[
        bool, typer.Option("--commits", help="List who made what, with what, and when (EPVF_AUTHOR, EPVF_LAB).")
    ] = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What is in a data set; how far an online run is, and what its policies earn."""
    from epvf_data.store import reader
    from epvf_data.store.identity import mixed

    if is_run(dataset):
        if commits:
            raise ConfigError(f"{dataset} is a run; --commits lists those of a data set.")
        info_run(dataset, plot, force, json)
        return
    check_plot(plot, force)
    opened = reader.open(dataset)
    if commits:
        from epvf_data.curation.history import history

        _print_commits(dataset, history(opened), json)
        return
    summary = opened.summary()
    if plot is not None:
        from epvf_data.cards.histogram import plot_returns

        plot_returns(opened, plot, force=force)
    if json:
        print_json(summary)
        return
    made = plural(summary["commits"], "commit")
    say(f"{dataset}: {summary['rows']:,} rows in {made}, format {summary['format_version']}")
    if summary["revision"]:
        say(f"revision sha256:{summary['revision']}")
    environment = {key: visible(value) for key, value in summary["env"].items()}
    say(f"environment {environment['name']}, horizon {environment['horizon']}, digest {environment['digest'][:12]}")
    if len(parts := mixed(opened.env)) > 1:
        names = (f"{part.name} (horizon {part.horizon}, digest {part.digest[:12]})" for part in parts)
        say(f"rows of several environments: {', '.join(names)}")
    several = list(zip(summary["architectures"], opened.architectures, strict=True))
    for found, architecture in several[:MAX_ROWS]:
        size = f"{found['rows']:,} rows of {found['params']:,} parameters"
        if found["withheld"]:
            size += f", withheld in {found['withheld']:,} rows"
        say(f"policies {visible(architecture.spec)} ({found['id'][:8]}): {size}")
    if len(several) > MAX_ROWS:
        say(f"… and {len(several) - MAX_ROWS:,} more architectures")
    _print_coverage(summary)
    _print_returns(opened, summary["returns"])
    if plot is not None:
        say(f"histogram written to {plot}")


def _print_coverage(summary: dict[str, Any]) -> None:
    """Rows of each source in each architecture, and the sources' returns."""
    if len(summary["architectures"]) <= 1 or len(summary["sources"]) == 1:
        say("sources " + ", ".join(f"{visible(name)} {rows:,}" for name, rows in summary["sources"].items()))
        return
    found = {(line["source"], line["architecture"]): line for line in summary["coverage"]}
    ids = [architecture["id"] for architecture in summary["architectures"]]
    rows = []
    for name, count in sorted(summary["sources"].items(), key=lambda item: -item[1]):
        lines = [found.get((name, one)) for one in ids]
        known = [line for line in lines if line and line["return_mean"] is not None]
        mean = sum(line["rows"] * line["return_mean"] for line in known) / max(1, sum(line["rows"] for line in known))
        top = max((line["return_max"] for line in known), default=float("nan"))
        cells = [f"{line['rows']:,}" if line else "" for line in lines]
        rows.append([visible(name), *cells, f"{count:,}", f"{mean:.1f}", f"{top:.1f}"])
    print_table(["rows by source", *(one[:8] for one in ids), "all", "mean return", "best"], rows)


@app.command(
    rich_help_panel="Look at data sets",
    epilog="Examples: `epvf-data plot ant.zarr --out ant.png` · "
    "`epvf-data plot es-0 es-1 epvf --out es.pdf --csv es.csv`",
)
def plot(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="A data set's folder or URL, or runs of `train-online`.",
            show_default=False,
            parser=readable,
            metavar="DATASET|RUN…",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The picture.  [default: DATASET.png, RUN-curves.png]", metavar="FILE.png|pdf|svg"),
    ] = None,
    csv: Csv = None,
    seed: Annotated[int, typer.Option(help="Of the draw, where there are more rows than are drawn.")] = 0,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw a data set: returns by source, norm against return, and a map of what the policies do. Or learning curves.

    Runs of equal settings and other seeds are one curve: the median over seeds, with a 95 % interval from three on.
    """
    from epvf_data.cards.portrait import plot_dataset
    from epvf_data.store import reader

    if len(inputs) > 1:  # of one data set, the reader says more
        check_there(inputs)
    if all(map(is_run, inputs)):
        plot_curves(inputs, out, csv, force, json)
        return
    check_dataset_flags(inputs, csv)
    (dataset,) = inputs
    target = out or Path(f"{dataset.resolve().stem}.png")
    check_plot(target, force)
    seen = plot_dataset(reader.open(dataset), target, seed, force=force)
    if json:
        print_json({"picture": str(target), "rows_drawn": len(seen.returns), "variance_shown": list(seen.explained)})
        return
    share = f"; the map shows {sum(seen.explained):.0%} of the actions' variance" if any(seen.explained) else ""
    say(f"{target}: {len(seen.returns):,} of {seen.rows:,} policies{share}.")


def _print_commits(dataset: Path, events: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json(events)
        return
    for event in events:
        indent = "    from " if event["origin"] else ""
        rows = f"{event['rows']:,} rows" + (f", {event['removed']:,} parts replaced" if event["removed"] else "")
        say(f"{indent}commit {event['commit']} · {visible(event['created'] or '?')} · {rows}")
        if event["rows_of"]:
            several = [f"{count:,} of commit {number}" for number, count in event["rows_of"][:MAX_ROWS]]
            more = "" if len(several) == len(event["rows_of"]) else f", … {len(event['rows_of']):,} commits in all"
            say(f"  holds    {', '.join(several)}{more}, listed above")
        for key, name in FACTS.items():
            if event[key]:
                say(f"{' ' * len(indent)}  {name:8} {visible(event[key], 2000)}")  # a command is to be typed again
    say(f"{dataset}: {plural(sum(not event['origin'] for event in events), 'commit')}.")


def _print_returns(opened: Any, episodes: dict[str, Any], bins: int = 12, width: int = 44) -> None:
    """Range and mean of the policies' returns, of single episodes where they differ, and text bars of their number."""
    import numpy as np

    from epvf_data.cards.histogram import bin_edges

    tables = [opened.table(architecture.id) for architecture in opened.architectures]
    every = np.concatenate([table.mean_returns() for table in tables]) if tables else np.zeros(0)
    every = every[np.isfinite(every)]
    if not every.size:
        return
    say(f"returns {every.min():.2f} to {every.max():.2f}, {every.mean():.2f} on average")
    if any(part.layout("returns").shape[1] > 1 for table in tables for part in table.parts):
        say(f"  (means over a policy's episodes; single episodes {episodes['min']:.2f} to {episodes['max']:.2f})")
    counts, edges = np.histogram(every, bins=bin_edges(every, bins))
    say(f"  policies by return; bars on a linear scale, the longest is {counts.max():,}")
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        eighths = -(-8 * width * int(count) // int(counts.max()))  # rounded up, so that one policy is seen
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        say(f"{low:9.1f} to {high:7.1f}  {bar:<{width}} {count:,}")


@app.command(
    rich_help_panel="Look at data sets", epilog="Example: `epvf-data validate ant.zarr --deep --resimulate 64`"
)
def validate(
    dataset: Dataset,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and check every checksum.")] = False,
    resimulate: Annotated[int, typer.Option(min=0, help="Roll out this many rows again and compare returns.")] = 0,
    backend: Backend = None,
    env: OwnEnv = None,
    policy: OwnPolicy = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a data set. Exits with 1 when a problem was found."""
    from epvf_data.store import reader
    from epvf_data.store.validate import leftovers
    from epvf_data.store.validate import validate as check

    reader.open(dataset)
    with working("validate", quiet, "nothing was changed", "MB" if deep else "parts") as progress:
        problems = check(dataset, deep=deep, progress=progress)
    values: dict[str, Any] = {"ok": True, "rows": 0, "problems": problems, "resimulated": 0, "max_return_error": None}
    values["notes"] = leftovers(dataset) if not problems else []
    result = None
    if not problems:
        opened = reader.open(dataset)
        values["rows"] = opened.rows
        if resimulate:
            from epvf_data.collectors.resimulate import resimulate as again
            from epvf_data.runtime import prepare

            prepare()
            result = again(opened, resimulate, backend=backend, env=env, policy=policy)
            problems += result.problems
            values.update(resimulated=result.rows, max_return_error=result.max_error)
            values["rank_correlation"] = result.rank_correlation
    values["ok"] = not problems
    if json:
        print_json(values)
    else:
        for problem in problems:
            say(f"problem: {visible(problem, 1000)}")
        for note in values["notes"]:
            say(f"note: {visible(note, 1000)}")
        checked = "every byte" if deep else "metadata, sizes and commit chain (--deep reads every byte)"
        say(f"{dataset}: {plural(len(problems), 'problem') if problems else 'no problem found'}; checked {checked}.")
        if result is not None:
            say(result.describe())
    if problems:
        raise typer.Exit(1)
