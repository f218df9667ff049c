"""finalize: one collection made by many processes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epvf_data.cli.app import Debug, Json, Quiet, app, plural, print_json, say, working
from epvf_data.cli.places import own

if TYPE_CHECKING:
    from epvf_data.curation.finalize import FinalizeReport

MOST = 20  # gaps that are told


@app.command(
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data finalize ant.zarr` · `epvf-data finalize ant.zarr shard-*.zarr --compact`",
)
def finalize(
    out: Annotated[
        Path, typer.Argument(help="The data set of all rows.", show_default=False, parser=own, metavar="OUT")
    ],
    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Data sets of single shards, if each has its own.",
            show_default=False,
            parser=own,
            metavar="[SHARDS]...",
        ),
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Take rows of different settings, versions or devices.")
    ] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Then join small parts into large ones, as the verb `compact` does.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make shards of a collection one data set: complete, every row once, in order. Exits with 1 when rows are missing.

    The shards' files are linked, not copied, where they lie on the same file system as OUT. Rows that several shards
    hold are taken once. The same command goes on after an interruption, and when missing rows have been made.
    """
    from epvf_data.curation.finalize import finalize as run

    with working("finalize", quiet, "what is there is whole, the same command goes on", "parts") as progress:
        report = run(out, shards or [], mixed=mixed, progress=progress)
    parts = None
    if compact and not report.missing:
        from epvf_data.provenance import provenance
        from epvf_data.store.compact import compact as join

        with working("compact", quiet, "what is joined stays joined, the same command goes on") as progress:
            parts = join(out, provenance=provenance(verb="compact", arguments={}), progress=progress).parts_after
    if json:
        print_json(asdict(report))
    else:
        _tell(out, report, parts)
    if report.missing:
        raise typer.Exit(1)


def _tell(out: Path, report: FinalizeReport, parts: int | None) -> None:
    taken = f"; {report.rows_adopted:,} came from {plural(len(report.shards), 'shard')}" if report.shards else ""
    doubled = f"; {report.rows_doubled:,} were in two shards and are kept once" if report.rows_doubled else ""
    say(f"{out}: {report.rows:,} of {report.rows_wanted:,} rows{taken}{doubled}.")
    if report.bytes_copied:
        say(f"{report.bytes_copied / 1e6:,.1f} MB could not be linked and were copied.")
    for gap in report.missing[:MOST]:
        whose = f" of {gap.architecture}" if gap.architecture else ""
        rows = f"rows {gap.first:,} to {gap.end - 1:,}{whose}" if gap.run else f"all rows{whose}"
        say(f"missing: {rows}")
    if len(report.missing) > MOST:
        say(f"… and {len(report.missing) - MOST:,} more gaps")
    if report.missing:
        say("Give the `collect` command of the missing shards again, then this one; what is there stays.")
        return
    joined = f", in {plural(parts, 'part')}" if parts else ""
    say(f"No row is missing, none is there twice, and they are in order{joined}.")
    if report.parts_moved or parts:
        say(f"The old names of files stay for those who read them now; epvf-data gc {out} removes them after a day.")
