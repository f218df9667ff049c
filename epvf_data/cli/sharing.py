"""push, pull, sign, verify: data sets from lab to lab."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli.app import Debug, Json, Quiet, app, plural, print_json, say, working
from epvf_data.cli.places import Own

PANEL = "From lab to lab"
Place = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="A folder, file://, s3://, gs://, az://, hf://datasets/OWNER/NAME; to read also https://.",
        show_default=False,
    ),
]


SIGNERS: dict[str, Any] = {"metavar": "FILE", "show_default": False}
SIGNERS["help"] = "Whose signatures count: OpenSSH's allowed signers, or the public key of minisign or model-signing."
Signers = Annotated[Path | None, typer.Option(**SIGNERS)]


@app.command(rich_help_panel=PANEL, epilog="Example: `epvf-data push ant.zarr s3://lab/ant.zarr`")
def push(dataset: Own, url: Place, json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
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
    if not report.rows_file and report.commits:
        say("note: no rows.parquet is there for viewers: pyarrow is missing (`pip install 'epvf-data[parquet]'`).")
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
    signers: Signers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring a data set here, or the commits that are new there. Every file is verified as it is written.

    URL@sha256:REVISION brings it as it was then. What is on the disk is never fetched twice, and never replaced.
    """
    from epvf_data.sharing.pull import pull as run

    with working("pull", quiet, "what was pulled stays, the same command goes on", "MB") as progress:
        report = run(url, dataset, signers=signers, progress=progress)
    if json:
        print_json(asdict(report))
        return
    new = plural(report.commits_new, "new commit")
    say(f"{report.dataset}: {new}, {report.bytes_new / 1e6:,.1f} MB; {report.rows:,} rows in all, every byte verified.")
    if report.signed is not None:
        name, number, created = report.signed
        say(f"signed by {name} up to commit {number}, made {created}")
    say(f"revision sha256:{report.revision}")


@app.command(
    "export-archive",
    rich_help_panel=PANEL,
    epilog="Example: `epvf-data export-archive ant.zarr ant-archive`, and back: `epvf-data pull ant-archive ant.zarr`",
)
def export_archive(
    dataset: Own,
    out: Annotated[Path, typer.Argument(help="The folder for the zip files.", show_default=False)],
    size: Annotated[str, typer.Option(help="The most that one zip may have.", metavar="SIZE")] = "40GB",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a data set as zip files under a size, for Zenodo and other archives, and read every byte back.

    `pull` makes the data set of the folder again; so does `unzip`.
    """
    from epvf_data.sharing.archive import export_archive as run
    from epvf_data.sharing.archive import parse_size

    most = parse_size(size)
    with working("archive", quiet, "whole zip files stay, the same command goes on", "MB") as progress:
        report = run(dataset, out, size=most, progress=progress)
    if json:
        print_json(asdict(report))
        return
    kept = f" ({report.zips_there_before} were there)" if report.zips_there_before else ""
    zips = plural(len(report.zips), "zip file")
    say(f"{report.out}: {zips}{kept}, {report.bytes / 1e6:,.1f} MB, {report.rows:,} rows, every byte read back.")
    say(f"revision sha256:{report.revision}")


@app.command(rich_help_panel=PANEL, epilog="Example: `epvf-data sign ant.zarr --key ~/.ssh/id_ed25519`")
def sign(
    dataset: Own,
    key: Annotated[
        Path,
        typer.Option(
            help="Of SSH (its public half, if an agent has the other), minisign or model-signing.", show_default=False
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Sign a data set as it is now: its newest commit, and with it all before. The signature travels with it."""
    from epvf_data.sharing.signatures import sign as run

    signature, commit = run(dataset, key)
    if json:
        print_json(
            {"dataset": str(dataset), "commit": commit.number, "revision": commit.sha256, "kind": signature.kind}
        )
    else:
        say(f"{dataset}: commits 0 to {commit.number} are signed; revision sha256:{commit.sha256}")


@app.command(
    rich_help_panel=PANEL,
    epilog="Example: `epvf-data verify ant.zarr --signers labs.txt`, with lines such as `ada@lab ssh-ed25519 AAAA…`",
)
def verify(
    dataset: Own,
    signers: Annotated[Path, typer.Option(**SIGNERS)],
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read every byte, and say which rows are signed by whom. Exits with 1 unless all are and nothing is wrong."""
    from epvf_data.sharing.signatures import verify as run

    with working("verify", quiet, "nothing was changed", "MB") as progress:
        report = run(dataset, signers, progress=progress)
    if json:
        print_json(asdict(report))
    else:
        for one in report.signatures:
            say(f"signature {one['number']} {one['told']}")
        for problem in report.problems:
            say(f"problem: {problem}")
        covered = ", ".join(f"{first} to {end - 1}" for first, end in report.covered) or "none"
        say(f"{dataset}: {report.rows_signed:,} of {report.rows:,} rows are signed ({covered}).")
        if report.commits_signed < report.commits:
            unsigned = plural(report.commits - report.commits_signed, "newer commit")
            say(f"{unsigned} of {report.commits} {'are' if report.commits - report.commits_signed > 1 else 'is'} not.")
    if not report.ok:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL, epilog="Examples: `epvf-data cache` · `epvf-data cache --clear`")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything that it holds.")] = False,
    trim: Annotated[bool, typer.Option("--trim", help="Remove what was used longest ago, down to the limit.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What reading from URLs has left in the cache folder, and how much it may be (EPVF_CACHE_GB, by default 20)."""
    from epvf_data.places.cache import Cache

    found = Cache()
    if clear:
        found.clear()
    elif trim:
        found.trim()
    report = found.report()
    if json:
        print_json(asdict(report))
    else:
        say(f"{report.folder}: {plural(report.files, 'file')}, {report.bytes / 1e9:,.2f} of {report.limit / 1e9:g} GB")
