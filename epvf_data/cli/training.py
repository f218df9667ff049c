"""train-offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epvf_data.cli.app import (
    Config,
    Debug,
    Force,
    Json,
    Plot,
    Quiet,
    Seed,
    Set,
    app,
    check_plot,
    only_dataset,
    plural,
    print_json,
    print_table,
    resume_command,
    say,
)
from epvf_data.cli.choices import Critic, Loss, OwnPolicy, Splits, Track
from epvf_data.cli.places import readable
from epvf_data.critics.families import READS, name_of
from epvf_data.errors import StoppedError
from epvf_data.trainers import trackers

if TYPE_CHECKING:
    from epvf_data.progress import Bar
    from epvf_data.trainers.offline.settings import OfflineConfig

ABOUT = (  # what stands in the tables, below the last one
    "Spearman, Kendall: rank correlation of predicted and true returns, mean over seeds, 95 % bootstrap interval.",
    "R²: 1 is exact, 0 no better than the mean of these rows. |error|: mean absolute error; also on the best tenth.",
    "ridge: linear regression, on parameters θ or stored actions. mean: the training rows' mean. Both are controls.",
    "within: Spearman among the policies of one family, the mean over families of ten or more.",
)


@app.command(
    "train-offline",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data train-offline` · "
    "`epvf-data train-offline ant.zarr --critic probing+raw --loss hl-gauss --ensemble 5` · "
    "`epvf-data train-offline ant.zarr --critic mine.py:make` · "
    "`epvf-data train-offline ant.zarr --quick` · `epvf-data train-offline ant.zarr --out long --epochs 200`",
)
def train_offline(
    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="The data set's folder or URL.  [default: the only one in this folder]",
            parser=readable,
            metavar="DATASET",
        ),
    ] = None,
    critic: Critic = None,
    policy: OwnPolicy = None,
    loss: Loss = None,
    ensemble: Annotated[int | None, typer.Option(help="Size of the ensemble.  [default: 1]")] = None,
    split: Splits = None,
    seeds: Annotated[int | None, typer.Option(help="Critics from different initialisations.  [default: 5]")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="At most; early stopping ends sooner.  [default: 300 batches, at least 10 epochs]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: one seed, 100 batches or 10 epochs.")] = False,
    out: Annotated[Path | None, typer.Option(help="The run directory.  [default: DATASET-CRITIC]")] = None,
    architecture: Annotated[str | None, typer.Option(help="Id of the policies, where there are several.")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
    track: Track = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    plot: Plot = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a critic on a data set and show how well it predicts returns of policies that it never saw.

    Held-out rows are drawn twice: at random (relatives of every held-out policy were seen), and by whole families of
    related policies (none was); `--split` has more. Ridge regression and the mean return stand beside the critic as
    controls. Each split trains its own critics, --seeds of them, and takes as long again.
    """
    from epvf_data import code
    from epvf_data import config as configuration
    from epvf_data.progress import COMPILING, Bar
    from epvf_data.trainers.offline.inputs import open_inputs
    from epvf_data.trainers.offline.settings import QUICK, OfflineConfig

    flags = {"critic": critic, "loss": loss, "ensemble": ensemble, "split": split, "architecture": architecture}
    flags |= {"seed": seed, "seeds": seeds, "epochs": epochs}
    stated = configuration.read_toml(config) if config else {}
    changes = configuration.parse_overrides(set_ or [])
    given = {key: value for key, value in flags.items() if value is not None}
    code.check_stated(stated, configuration.merge(changes, given), str(config))
    settings = configuration.build(OfflineConfig, QUICK if quick else {}, stated, changes, given)
    source = dataset or only_dataset()
    target = out or Path(f"{source.resolve().stem}-{code.title(name_of(settings.critic))}")
    check_plot(plot, force)
    if settings.closed and (seeds or epochs):
        say(f"{name_of(settings.critic)} is solved in closed form: it has no seeds and no epochs.", error=True)
    open_inputs(source, settings, target, resume)  # before anything heavy is imported

    from epvf_data.runtime import prepare
    from epvf_data.trainers.offline.run import train_offline as run

    prepare()
    try:
        quiet_bar = quiet or settings.closed
        with Bar("train", "epochs", quiet_bar, patient=True, waiting=COMPILING) as bar:
            progress = bar.epoch if quiet else _follow(bar, settings)
            given = {"plot": plot, "force": force, "track": trackers.parse(track or "none"), "policy": policy}
            report = run(source, settings, target, resume, progress, None if json else _teller(bar), **given)
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; continue with: {resume_command()}") from None
    if json:
        print_json(report.to_dict())
        return
    for line in ABOUT:
        say(line)
    bases = {split["ceiling"]["basis"] for split in report.splits.values() if split.get("ceiling")}
    for basis in sorted(bases):
        say(f"ceiling: {basis}")
    say(f"picture: {plot or target / 'predicted_vs_true.png'}   report: {target / 'report.json'}")


def _cost(settings: OfflineConfig, epochs: int) -> str:
    """What is fitted in so many epochs, and how to ask for less."""
    size = f" of {settings.ensemble} critics" if settings.ensemble > 1 else ""
    splits = len(settings.splits)
    asked = f"{name_of(settings.critic)}: {plural(splits, 'split')}{', one after the other' if splits > 1 else ''}, "
    asked += f"{plural(settings.seeds, 'seed')}{size}{' each' if splits > 1 else ''}"
    times = settings.quicker(epochs)
    return asked + (f"; --quick fits {times} times fewer batches" if times > 1 else "")


def _follow(bar: Bar, settings: OfflineConfig) -> Callable[[dict[str, Any]], None]:
    """Shows each epoch, and before the first one the cost: by then nothing was wrong with what was asked for."""
    waiting = [settings]

    def epoch(event: dict[str, Any]) -> None:
        if waiting:
            bar.pause()
            say(_cost(waiting.pop(), event["epochs"]), error=True)
        bar.epoch(event)

    return epoch


def _teller(bar: Bar) -> Callable[[str, dict[str, Any]], None]:
    """Prints the result of each split as soon as it is there."""

    def told(name: str, result: dict[str, Any]) -> None:
        bar.pause()
        _print_split(name, result)

    return told


def _print_split(name: str, result: dict[str, Any]) -> None:
    """A split's table: the critic and its controls, then the verdict."""
    if not result["available"]:
        say(f"{name}: not available. {result['reason']}")
        say()
        return
    if result["folds"] > 1:
        say(f"{name}: {result['rows_test']:,} policies, each held out once with its family ({result['folds']} folds)")
    else:
        say(f"{name}: {result['rows_train']:,} policies to train on, {result['rows_test']:,} held out")
    inside = result["critic"]["within"] is not None
    rows = []
    for who, found in (("critic", result["critic"]), *result["controls"].items()):
        if found is None:  # no ridge; the verdict says why
            continue
        numbers = (found["spearman"], found["kendall"], found["r2"])
        spearman, kendall, r2 = (f"{number:.3f}" for number in numbers)
        errors = (found["mean_absolute_error"], found["top_tenth"]["mean_absolute_error"])
        interval = "[{:.2f}, {:.2f}]".format(*found["interval"]["spearman"])
        label = f"{who} on {READS[result['ridge_reads']]}" if who == "ridge" else who
        rows.append([f"  {label}", spearman, interval, kendall, r2, *(f"{error:.2f}" for error in errors)])
        rows[-1] += [f"{found['within']['spearman']:.3f}"] if inside else []
    heads = ["", "Spearman", "95 %", "Kendall", "R²", "|error|", "on top tenth"]
    print_table([*heads, "within"] if inside else heads, rows, numbers=True)
    ceiling = result["ceiling"]
    if ceiling["r2"] is not None and ceiling["r2"] < 0.9995:
        say(f"  no critic can exceed R² {ceiling['r2']:.3f}")
    say(f"  {result['verdict']}")
    say()
