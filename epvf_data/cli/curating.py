"""merge, filter, sample, split, withhold, compact, gc, diff: data sets from data sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Json, Quiet, app, plural, print_json, print_table, say, working
from epvf_data.cli.choices import choice
from epvf_data.cli.places import Dataset, Own, readable
from epvf_data.errors import ConfigError

Seed = Annotated[int, typer.Option(help="Seed of the draw.")]
NOTHING = "nothing is left of the new data set"


@app.command(
    rich_help_panel="Data sets from data sets",
    epilog="Example: `epvf-data merge monday.zarr tuesday.zarr --out week.zarr`",
)
def merge(
    datasets: Annotated[
        list[Path],
        typer.Argument(help="The data sets, in the order of their rows.", parser=readable, metavar="DATASETS..."),
    ],
    out: Annotated[Path, typer.Option(help="The new data set's folder.", show_default=False)],
    other_environments: Annotated[
        bool, typer.Option("--other-environments", help="Also take rows of another environment.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make one data set of several: all architectures, every row once, lineage and provenance kept.

    Rows with equal architecture, parameters, lineage, seeds and outcomes are one row. The new data set appears when it
    is complete.
    """
    from epvf_data.curation.merge import merge as run

    with working("merge", quiet, NOTHING) as progress:
        report = run(datasets, out, other_environments=other_environments, progress=progress)
    if json:
        print_json(asdict(report))
        return
    repeated = f"; {report.rows_repeated:,} were there twice" if report.rows_repeated else ""
    commits, architectures = plural(report.commits, "commit"), plural(report.architectures, "architecture")
    say(f"{out}: {report.rows:,} rows of {architectures} in {commits}{repeated}.")
    if len(report.licences) > 1:
        say(f"its sources are under {', '.join(report.licences)}; `epvf-data card` lists all of them")


@app.command(
    "filter",
    rich_help_panel="Data sets from data sets",
    epilog="Examples: `epvf-data filter ant.zarr --where \"return > 100 and source == 'perturbed'\"` · "
    '`epvf-data filter ant.zarr --where "finite and 0.01 <= scale < 0.1" --out small.zarr`',
)
def filter_(
    dataset: Dataset,
    where: Annotated[str, typer.Option(help="The condition.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The new data set.  [default: DATASET-filtered.zarr]")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a data set of the rows that fulfil a condition.

    Columns: return, return_min, return_max, length, episodes, finite, terminated, truncated, source, law, base, run,
    scale, sign, iteration, norm, parameters, architecture. `return` and `length` are means over a row's episodes.
    Operators: == != < <= > >= + - * / in, not in, and, or, not, parentheses.
    """
    from epvf_data.curation.select import filter_rows

    target = out or _beside(dataset, "filtered")
    with working("filter", quiet, NOTHING) as progress:
        report = filter_rows(dataset, target, where, progress=progress)
    _tell(report, json)


@app.command(rich_help_panel="Data sets from data sets", epilog="Example: `epvf-data sample ant.zarr --rows 1000`")
def sample(
    dataset: Dataset,
    rows: Annotated[int, typer.Option(help="How many rows.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The new data set.  [default: DATASET-sample.zarr]")] = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a data set of rows drawn at random without replacement."""
    from epvf_data.curation.select import sample as run

    with working("sample", quiet, NOTHING) as progress:
        report = run(dataset, out or _beside(dataset, "sample"), rows, seed=seed, progress=progress)
    _tell(report, json)


@app.command(
    rich_help_panel="Data sets from data sets",
    epilog="Examples: `epvf-data split ant.zarr` · `epvf-data split ant.zarr --by rows --test-fraction 0.2`",
)
def split(
    dataset: Dataset,
    test_fraction: Annotated[float, typer.Option(help="Share of the rows that are held out.")] = 0.1,
    by: Annotated[
        str,
        typer.Option(**choice("split by", ("lineage", "rows"), "lineage keeps relatives together; rows: at random.")),
    ] = "lineage",
    train: Annotated[Path | None, typer.Option(help="[default: DATASET-train.zarr]")] = None,
    test: Annotated[Path | None, typer.Option(help="[default: DATASET-test.zarr]")] = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a train and a test data set."""
    from epvf_data.curation.select import split as run

    targets = train or _beside(dataset, "train"), test or _beside(dataset, "test")
    with working("split", quiet, "nothing is left of the new data sets") as progress:
        report = run(dataset, *targets, test_fraction=test_fraction, by=by, seed=seed, progress=progress)
    _tell(report, json)


@app.command(rich_help_panel="Data sets from data sets", epilog="Example: `epvf-data withhold ant.zarr`")
def withhold(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="The new data set.  [default: DATASET-withheld.zarr]")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a data set without the policies' parameters: their actions in probing states, returns and lineage stay.

    Seeds and provenance stay too. Policies that a public recipe or a public base and a seed can make again are not
    hidden by this; those of a base policy that nobody else has are.
    """
    from epvf_data.curation.select import withhold as run

    with working("withhold", quiet, NOTHING) as progress:
        report = run(dataset, out or _beside(dataset, "withheld"), progress=progress)
    _tell(report, json)


@app.command(
    rich_help_panel="Data sets from data sets",
    epilog="Example: `epvf-data compact ant.zarr && epvf-data gc ant.zarr --grace 0`",
)
def compact(
    dataset: Own,
    part_mb: Annotated[int, typer.Option(help="Size of the parts to make, in MB.")] = 128,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Join many small parts into few large ones. The rows, their order and their provenance stay.

    Others may read and write meanwhile. The old files stay until `epvf-data gc` removes them.
    """
    from epvf_data.provenance import provenance
    from epvf_data.store.compact import compact as run

    if not 1 <= part_mb <= 512:
        raise ConfigError(f"--part-mb is {part_mb}; 1 to 512 is possible.")
    with working("compact", quiet, "what is joined stays joined, the same command goes on") as progress:
        made_by = provenance(verb="compact", arguments={"part_mb": part_mb})
        report = run(dataset, target_bytes=part_mb << 20, provenance=made_by, progress=progress)
    if json:
        print_json(asdict(report))
    elif not report.rows_rewritten:
        say(f"{dataset}: {plural(report.parts_before, 'part')}, none of which can be joined; nothing to do.")
    else:
        size = f"{report.rows_rewritten:,} rows, {report.bytes_rewritten / 1e6:,.1f} MB"
        say(f"{dataset}: {report.parts_before:,} parts became {report.parts_after:,} ({size}).")
        say(f"The old files stay for those who read them now; epvf-data gc {dataset} removes them after a day.")


@app.command(
    rich_help_panel="Data sets from data sets",
    epilog="Examples: `epvf-data gc ant.zarr --dry-run` · `epvf-data gc ant.zarr --grace 0`",
)
def gc(
    dataset: Own,
    grace: Annotated[float, typer.Option(min=0, help="Hours that something must have been in no use.")] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Remove what no commit needs: leftovers of interrupted writes, and parts that `compact` replaced.

    Whatever has no name that a writer gives is left alone, and told.
    The grace period is for readers that opened the data set before a `compact`, and for writers on other machines.
    """
    from epvf_data.store.garbage import collect_garbage

    with working("gc", quiet, "the same command goes on", "things") as progress:
        report = collect_garbage(dataset, grace=grace * 3600, dry_run=dry_run, progress=progress)
    if json:
        print_json(asdict(report))
        return
    verb = "would be removed" if dry_run else "removed"
    things = f"{plural(report.parts, 'part')}, {report.probes:,} probing sets, {report.staging:,} unfinished"
    waiting = f"; {report.waiting:,} more are not {grace:g} hours old" if report.waiting else ""
    say(f"{dataset}: {things} {verb} ({report.bytes / 1e6:,.1f} MB){waiting}.")
    if report.foreign:
        more = ", …" if report.foreign > len(report.names) else ""
        say(f"left alone, for no writer of ours makes such things: {', '.join(report.names)}{more}.")


@app.command(rich_help_panel="Look at data sets", epilog="Example: `epvf-data diff ant.zarr copy.zarr`")
def diff(first: Dataset, second: Dataset, json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Compare two data sets row by row. Exits with 1 when they differ."""
    from epvf_data.curation.diff import diff as run

    with working("diff", quiet, "nothing was changed") as progress:
        report = run(first, second, progress=progress)
    if json:
        print_json(asdict(report))
    elif report.equal:
        say(f"{first} and {second} hold the same {report.rows[0]:,} rows in the same order.")
    else:
        _print_difference(first, second, report)
    if not report.equal:
        raise typer.Exit(1)


def _print_difference(first, second, report) -> None:
    names = [str(first), str(second)]
    if report.environment:
        say(f"the environments differ in {', '.join(report.environment)}")
    table = [["rows", *(f"{count:,}" for count in report.rows)], ["commits", *map(str, report.commits)]]
    table += [[f"policies {name[:8]}", *(f"{n:,}" for n in counts)] for name, counts in report.architectures.items()]
    table += [[f"source {name}", *(f"{n:,}" for n in counts)] for name, counts in report.sources.items()]
    table.append(["rows only here", *(f"{count:,}" for count in report.rows_only)])
    print_table(["", *names], table)
    same = "; the same rows in another order" if not any(report.rows_only) and report.rows[0] == report.rows[1] else ""
    shared = f"; the first {plural(report.commits_shared, 'commit')} are the same" if report.commits_shared else ""
    say(f"{report.rows_in_both:,} rows are in both{shared}{same}.")


def _beside(dataset: Path, word: str) -> Path:
    """`ant-word.zarr` in the working directory."""
    return Path(f"{dataset.resolve().stem}-{word}.zarr")


def _tell(report, json: bool) -> None:
    if json:
        print_json(asdict(report))
        return
    for name, rows in report.datasets.items():
        say(f"{name}: {rows:,} of {report.rows_source:,} rows.")
