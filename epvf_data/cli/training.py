"""train-offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli.app import Config, Debug, Json, Quiet, Seed, Set, app, only_dataset, print_json, resume_command, say
from epvf_data.errors import RunError


@app.command(
    "train-offline",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data train-offline` · "
    "`epvf-data train-offline ant.zarr --critic probing+raw --loss hl-gauss --ensemble 5` · "
    "`epvf-data train-offline ant.zarr --out long --set epochs=200 --set seeds=5`",
)
def train_offline(
    dataset: Annotated[
        Path | None, typer.Argument(help="The data set.  [default: the only one in this folder]")
    ] = None,
    critic: Annotated[str | None, typer.Option(help="A name of `epvf-data critics`.  [default: mlp]")] = None,
    loss: Annotated[str | None, typer.Option(help="mse, hl-gauss or rank.  [default: mse]")] = None,
    ensemble: Annotated[int | None, typer.Option(help="So many critics speak together.  [default: 1]")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="iid, lineage, high, source, architecture, with commas; both or all.  [default: both]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory.  [default: DATASET-CRITIC]")] = None,
    architecture: Annotated[str | None, typer.Option(help="Id of the policies, where there are several.")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a critic on a data set and show how well it predicts returns of policies that it never saw.

    Held-out rows are drawn twice: at random (relatives of every held-out policy were seen), and by whole families of
    related policies (none was); `--split` has more. Ridge regression and the mean return stand beside the critic as
    controls.
    """
    from epvf_data import config as configuration
    from epvf_data.progress import Bar
    from epvf_data.runtime import prepare
    from epvf_data.trainers.offline.run import train_offline as run
    from epvf_data.trainers.offline.settings import OfflineConfig

    prepare()
    flags = {"critic": critic, "loss": loss, "ensemble": ensemble, "split": split, "architecture": architecture}
    flags["seed"] = seed
    stated = configuration.read_toml(config) if config else {}
    changes = configuration.parse_overrides(set_ or [])
    settings = configuration.build(OfflineConfig, stated, changes, {k: v for k, v in flags.items() if v is not None})
    source = dataset or only_dataset()
    target = out or Path(f"{source.resolve().stem}-{settings.critic}")
    try:
        with Bar("train", "epochs", quiet) as bar:
            report = run(source, settings, target, resume, progress=bar.epoch)
    except KeyboardInterrupt:
        raise RunError(f"interrupted; continue with: {resume_command()}") from None
    if json:
        print_json(report.to_dict())
        return
    for name, result in report.splits.items():
        for line in _describe_split(name, result):
            say(line)
    say(f"picture: {target / 'predicted_vs_true.png'}   report: {target / 'report.json'}")


def _describe_split(name: str, result: dict[str, Any]) -> list[str]:
    """A split's table: the critic and its controls, then the verdict."""
    if not result["available"]:
        return [f"{name}: not available. {result['reason']}", ""]
    lines = [f"{name}: {result['rows_train']:,} policies to train on, {result['rows_test']:,} held out"]
    lines.append(f"  {'':8}{'Spearman':>10}{'95 %':>16}{'Kendall':>10}{'R²':>8}{'|error|':>10}{'on top tenth':>14}")
    for who, found in (("critic", result["critic"]), *result["controls"].items()):
        interval = "[{:.2f}, {:.2f}]".format(*found["interval"]["spearman"])
        cells = f"{found['spearman']:10.3f}{interval:>16}{found['kendall']:10.3f}{found['r2']:8.3f}"
        errors = f"{found['mean_absolute_error']:10.2f}{found['top_tenth']['mean_absolute_error']:14.2f}"
        lines.append(f"  {who:8}{cells}{errors}")
    ceiling = result["ceiling"]
    if ceiling["r2"] is not None and ceiling["r2"] < 0.9995:
        lines.append(f"  no critic can exceed R² {ceiling['r2']:.3f}: {ceiling['basis']}")
    return [*lines, f"  {result['verdict']}", ""]
