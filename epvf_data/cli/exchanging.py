"""export-hdf5, import-hdf5, export-npz, export-policy, import-policy, card: for other programs and other people."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Force, Json, Quiet, Set, app, plural, print_json, say, visible, working
from epvf_data.cli.choices import Row, choice, environment
from epvf_data.cli.places import Dataset, Own
from epvf_data.errors import FileError
from epvf_data.importing.settings import FORMATS


@app.command(
    "export-hdf5",
    rich_help_panel="For other programs and people",
    epilog="Example: `epvf-data export-hdf5 ant.zarr --out ant.h5`",
)
def export_hdf5(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="The new file.  [default: DATASET.h5]")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a data set into one HDF5 file, from which `import-hdf5` makes the same data set again."""
    from epvf_data.exchange.hdf5 import export_hdf5 as run

    with working("export", quiet, "no file is left") as progress:
        report = run(dataset, out or Path(f"{dataset.resolve().stem}.h5"), force=force, progress=progress)
    _tell(report, json)


@app.command(
    "import-hdf5",
    rich_help_panel="For other programs and people",
    epilog="Example: `epvf-data import-hdf5 ant.h5 --out ant.zarr`",
)
def import_hdf5(
    file: Annotated[Path, typer.Argument(help="The HDF5 file.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The new data set.  [default: FILE.zarr]")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a data set from a file of `export-hdf5`, which may come from a stranger: another process parses it."""
    from epvf_data.exchange.hdf5 import import_hdf5 as run

    target = out or Path(f"{file.resolve().stem}.zarr")
    with working("import", quiet, "nothing is left of the new data set") as progress:
        report = run(file, target, progress=progress)
    if json:
        print_json(asdict(report))
    else:
        architectures, commits = plural(report.architectures, "architecture"), plural(report.commits, "commit")
        say(f"{target}: {report.rows:,} rows of {architectures} in {commits}.")


@app.command(
    "export-policy",
    rich_help_panel="For other programs and people",
    epilog="Example: `epvf-data export-policy ant.zarr --row best`",
)
def export_policy(
    dataset: Dataset,
    row: Row = "best",
    architecture: Annotated[str | None, typer.Option(help="Id of the policies, where there are several.")] = None,
    out: Annotated[Path | None, typer.Option(help="The new file.  [default: DATASET-ROW.safetensors]")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one row's policy into a file of its own, and beside it a dozen lines of NumPy that run it."""
    from epvf_data.exchange.policy import export_policy as run

    target = out or Path(f"{dataset.resolve().stem}-{row}.safetensors")
    report = run(dataset, target, row=row, architecture=architecture, force=force)
    if json:
        print_json(asdict(report))
    else:
        error = "" if report.standard_error is None else f" ± {report.standard_error:.2f}"
        mean = f"{report.mean_return:.2f}{error} (standard error) over" if error else f"{report.mean_return:.2f} in"
        episodes = plural(report.episodes, "episode")
        runs = f"{report.snippet} runs it" if report.snippet else "the file of its architecture runs it (--policy)"
        say(f"{report.policy}: row {report.row}, return {mean} {episodes}; {runs}.")


@app.command(
    "import-policy",
    rich_help_panel="For other programs and people",
    epilog="Examples: `epvf-data import-policy ppo.zip --env halfcheetah` · "
    "`epvf-data import-policy actor.pth --set activation=relu --set output=tanh` · "
    "`epvf-data import-policy agent.msgpack --spec spec.toml --out mine.safetensors`",
)
def import_policy(
    file: Annotated[
        Path,
        typer.Argument(
            help="safetensors, flax's msgpack, orbax's folder, a PyTorch state dict, a Stable-Baselines3 model.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The new file.  [default: FILE-policy.safetensors]")] = None,
    spec: Annotated[Path | None, typer.Option(help="A TOML file with what FILE does not say.")] = None,
    set_: Set = None,
    env: Annotated[
        str | None, typer.Option(**environment("The environment that it must fit, noted in the new file."))
    ] = None,
    format: Annotated[
        str | None, typer.Option(**choice("format", FORMATS, "The file's kind.  [default: by its contents]"))
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a policy file, as `collect --base` takes it, of a trained policy of another framework. No pickle is run."""
    from epvf_data.importing.settings import read_settings
    from epvf_data.outputs import check_free

    settings = read_settings(str(spec) if spec else None, set_ or [])
    target = out or Path(f"{file.resolve().stem}-policy.safetensors")
    check_free(target, force)
    if not os.path.lexists(file):
        raise FileError(f"there is no policy file {file}.")

    from epvf_data.importing.run import import_policy as run
    from epvf_data.runtime import prepare

    prepare()
    report = run(file, target, settings=settings, env=env, format=format, force=force)
    if json:
        print_json(asdict(report))
        return
    sizes = "-".join(map(str, report.sizes))
    kind = f"{report.activation}, {report.output}{', normalised' if report.normaliser else ''}"
    say(f"{report.policy}: {sizes} ({kind}), {report.parameters:,} parameters, from {visible(report.layout)}")
    for note in report.notes:
        say(f"note: {visible(note, 400)}")


@app.command(
    "export-npz",
    rich_help_panel="For other programs and people",
    epilog="Example: `epvf-data export-npz ant.zarr --out ant.npz`",
)
def export_npz(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="The new file.  [default: DATASET.npz]")] = None,
    architecture: Annotated[str | None, typer.Option(help="Id of the policies, where there are several.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the rows of one architecture into one `.npz` file for `numpy.load`."""
    from epvf_data.exchange.npz import export_npz as run

    target = out or Path(f"{dataset.resolve().stem}.npz")
    with working("export", quiet, "no file is left") as progress:
        report = run(dataset, target, architecture=architecture, force=force, progress=progress)
    _tell(report, json)


@app.command(
    rich_help_panel="For other programs and people",
    epilog='Example: `epvf-data card ant.zarr --license CC-BY-4.0 --author "Ada Lovelace" --title "Ant policies"`',
)
def card(
    dataset: Own,
    out: Annotated[Path | None, typer.Option(help="Folder for the card.  [default: the data set itself]")] = None,
    license: Annotated[
        str | None,
        typer.Option(help="SPDX identifier.  [default: what its card or its sources say, else CC-BY-4.0]"),
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(help="Who made it; repeat for more.  [default: as its commits say]")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the data set.")] = None,
    citation: Annotated[str | None, typer.Option(help="BibTeX to cite it by.")] = None,
    url: Annotated[str | None, typer.Option(help="Where it lies.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another licence.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write README.md (with Hugging Face metadata), croissant.json and returns.png about a data set."""
    from epvf_data.cards.card import write_card

    with working("card", quiet, "earlier files of the card are untouched", "parts") as progress:
        report = write_card(
            dataset,
            out,
            license=license,
            authors=author or (),
            title=title,
            citation=citation,
            url=url,
            force=force,
            progress=progress,
        )
    if json:
        print_json(asdict(report))
    else:
        say(f"card: {', '.join(map(str, report.files))}; licence {', '.join(report.licences)}")


def _tell(report, json: bool) -> None:
    if json:
        print_json(asdict(report))
    else:
        rows = f"{report.rows:,} rows of {plural(report.architectures, 'architecture')}"
        say(f"{report.file}: {rows}, {report.size / 1e6:,.1f} MB.")
