"""push, pull: data sets from lab to lab."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Dataset, Debug, Json, Quiet, app, plural, print_json, say, working

PANEL = "From lab to lab"
Place = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="A folder, file://, s3://, gs://, az://; to read also https://.",
        show_default=False,
    ),
]


@app.command(rich_help_panel=PANEL, epilog="Example: `epvf-data push ant.zarr s3://lab/ant.zarr`")
def push(dataset: Dataset, url: Place, json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Put a data set, or its new commits, into a bucket or a folder. Others may push there and pull meanwhile.

    Credentials are those of the store's own tools (AWS_…, GOOGLE_…, AZURE_… variables, AWS's profile files).
    """
    from epvf_data.sharing.push import push as run

    with working("push", quiet, "what was pushed stays, the same command goes on", "MB") as progress:
        report = run(dataset, url, progress=progress)
    if json:
        print_json(asdict(report))
        return
    new = plural(report.commits_new, "new commit")
    say(f"{report.target}: {new}, {report.bytes_new / 1e6:,.1f} MB; {report.rows:,} rows in all.")
    if report.renumbered:
        say(
            f"{plural(report.commits_of_others, 'commit')} of others were there before: yours follow under new numbers."
        )
        say(f"to go on from all of them: epvf-data pull {report.target} into a new folder")
    elif report.commits_of_others:
        say(f"{plural(report.commits_of_others, 'commit')} of others are there and not here; `epvf-data pull` them.")
    say(f"revision sha256:{report.revision}")


@app.command(
    rich_help_panel=PANEL,
    epilog="Examples: `epvf-data pull s3://lab/ant.zarr` · `epvf-data pull https://lab.example/ant.zarr mine.zarr`",
)
def pull(
    url: Place,
    dataset: Annotated[
        Path | None, typer.Argument(help="The folder.  [default: the URL's last name]", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring a data set here, or the commits that are new there. Every file is verified as it is written.

    URL@sha256:REVISION brings it as it was then. What is on the disk is never fetched twice, and never replaced.
    """
    from epvf_data.sharing.pull import pull as run

    with working("pull", quiet, "what was pulled stays, the same command goes on", "MB") as progress:
        report = run(url, dataset, progress=progress)
    if json:
        print_json(asdict(report))
        return
    new = plural(report.commits_new, "new commit")
    say(f"{report.dataset}: {new}, {report.bytes_new / 1e6:,.1f} MB; {report.rows:,} rows in all, every byte verified.")
    say(f"revision sha256:{report.revision}")
