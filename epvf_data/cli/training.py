"""train-offline and critics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli.app import Config, Debug, Json, Quiet, Seed, Set, app, only_dataset, print_json, resume_command
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
    from epvf_data.trainers.offline import train_offline as run
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
        print(_describe_split(name, result))
    print(f"picture: {target / 'predicted_vs_true.png'}   report: {target / 'report.json'}")


def _describe_split(name: str, result: dict[str, Any]) -> str:
    """A split's table: the critic and its controls, then the verdict."""
    if not result["available"]:
        return f"{name}: not available. {result['reason']}\n"
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
    return "\n".join([*lines, f"  {result['verdict']}", ""])


@app.command(
    "critics",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data critics` · `epvf-data critics --env cartpole --hidden 32,32 --set probes=64`",
)
def critics(
    env: Annotated[str, typer.Option(help="The environment whose policies are read.")] = "ant",
    hidden: Annotated[str, typer.Option(help="Hidden widths of the policies.")] = "64,64",
    set_: Set = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the critics, with their sizes and what one policy costs them."""
    from epvf_data import config as configuration
    from epvf_data.critics import CRITICS, CriticSettings
    from epvf_data.critics.cost import cost
    from epvf_data.envs import make
    from epvf_data.errors import ConfigError
    from epvf_data.policies.spec import PolicySpec
    from epvf_data.runtime import prepare

    prepare()
    try:
        widths = tuple(int(width) for width in hidden.split(",") if width)
    except ValueError:
        raise ConfigError(f"got hidden widths {hidden!r}; write whole numbers with commas between them.") from None
    task = make(env)
    spec = PolicySpec(task.observation_size, task.action_size, widths)
    settings = configuration.build(CriticSettings, configuration.parse_overrides(set_ or []))
    found = {name: cost(name, settings, spec) for name in CRITICS}
    if json:
        print_json({name: {**one._asdict(), "about": CRITICS[name].about} for name, one in found.items()})
        return
    print(f"for policies {spec} of {spec.size:,} parameters; operations of one policy, forward and backward")
    print(f"{'critic':16}{'parameters':>12}{'operations':>12}  ")
    for name, one in found.items():
        print(
            f"{name:16}{one.parameters:12,}{_count(one.operations):>12}  {CRITICS[name].about} ({CRITICS[name].source})"
        )


def _count(number: float) -> str:
    """1234567.0 → "1.2 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"
