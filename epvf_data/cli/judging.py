"""evaluate and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli import choices
from epvf_data.cli.app import (
    Debug,
    Force,
    Json,
    Plot,
    Quiet,
    Seed,
    Set,
    app,
    check_plot,
    plural,
    print_json,
    print_table,
    say,
    visible,
)
from epvf_data.cli.choices import Backend, OwnCritic, OwnEnv, OwnPolicy, Split
from epvf_data.cli.learning import Csv, print_comparison
from epvf_data.cli.places import readable
from epvf_data.errors import StoppedError

ABOUT = (  # what stands in the tables of `compare`, below the last one
    "Spearman: rank correlation of predicted and true returns of held-out policies; mean over seeds, 95 % interval.",
    "IQM: its interquartile mean over seeds. within: Spearman among policies of one held-out family, mean of families.",
    "top tenth: Spearman on the tenth of highest return.",
    "regret@10: the best held-out return minus the best among the ten predicted highest.",
    "gradient: cosine of ∇V and the ES gradient. gain: mean return after gradient ascent on V, less that at its start,",
    "and less that after random steps of the same length. –: not measured; `evaluate RUN --split SPLIT` does.",
)
PANEL = "Make and learn from rows"


@app.command(
    "evaluate",
    rich_help_panel=PANEL,
    epilog="Examples: `epvf-data evaluate ant-mlp` · `epvf-data evaluate ant-mlp other.zarr --no-rollouts` · "
    "`epvf-data evaluate ant-mlp --split iid --set starts=64 --set pairs=256`",
)
def evaluate(
    run: Annotated[Path, typer.Argument(help="The directory of an offline run.", show_default=False)],
    dataset: Annotated[
        Path | None,
        typer.Argument(help="Another data set, all of whose rows are predicted.", parser=readable, metavar="DATASET"),
    ] = None,
    split: Split = None,
    trained_on: Annotated[
        Path | None, typer.Option(help="The run's own data set, if it has moved.", show_default=False)
    ] = None,
    rollouts: Annotated[
        bool, typer.Option("--rollouts/--no-rollouts", help="For gradients and gradient ascent.")
    ] = True,
    seed: Seed = None,
    backend: Backend = None,
    env: OwnEnv = None,
    critic: OwnCritic = None,
    policy: OwnPolicy = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A measure of yours, FILE.py:FUNCTION of (predicted, true); repeat for more.",
            callback=choices.check_metrics,
        ),
    ] = None,
    set_: Set = None,
    plot: Plot = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Judge a critic: prediction, calibration, the direction of its gradient, and gradient ascent on it.

    The gradient is compared with that of evolution strategies at some training policies; policies after gradient ascent
    are rolled out for real, beside random steps of the same length. RUN gets evaluation-SPLIT.png and evaluation.json,
    in which what was measured of other splits stays.
    """
    from epvf_data import config as configuration
    from epvf_data.trainers.evaluation.inputs import check_inputs
    from epvf_data.trainers.evaluation.settings import PICTURE, RESULT, EvaluationConfig

    flags = {"split": split, "seed": seed, "backend": backend, "env": env}
    changes = configuration.parse_overrides(set_ or [])
    settings = configuration.build(EvaluationConfig, changes, {k: v for k, v in flags.items() if v is not None})
    check_plot(plot, force)
    check_inputs(run, dataset, settings, trained_on, critic)  # before anything heavy is imported

    from epvf_data.progress import COMPILING, Bar
    from epvf_data.runtime import prepare
    from epvf_data.trainers.evaluation.evaluate import evaluate as judge

    prepare()
    try:
        with Bar("evaluate", "episodes", quiet, waiting=COMPILING if rollouts else "starting") as bar:
            progress = lambda done, total, steps: bar.update(done, total, steps, "env steps")  # noqa: E731
            found = judge(
                run,
                dataset,
                settings,
                trained_on,
                rollouts,
                progress,
                critic=critic,
                policy=policy,
                metrics=metric or (),
                plot=plot,
                force=force,
            )
    except KeyboardInterrupt:
        raise StoppedError("interrupted; the run is as it was.") from None
    if json:
        print_json(found)
        return
    for line in _describe(found):
        say(line)
    say(f"picture: {plot or run / PICTURE.format(found['split'])}   everything: {run / RESULT}")


@app.command(
    "compare",
    rich_help_panel=PANEL,
    epilog="Examples: `epvf-data compare ant-mlp ant-probing ant-unf` · `epvf-data compare ant-* --plot ant.pdf` · "
    "`epvf-data compare cartpole-es-run cartpole-paper-run --csv curves.csv`",
)
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Directories of offline or of online runs.", show_default=False)],
    plot: Plot = None,
    csv: Csv = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Put runs side by side.

    Offline runs: what each predicts of policies that it never saw, the best first. Online runs: last and best returns
    by seed, and how far the others are from the first; those of equal settings and other seeds are taken together.
    """
    from epvf_data.trainers.compare import compare as side_by_side

    found = side_by_side(runs, plot, table=csv, force=force)
    if json:
        print_json(found)
        return
    if "groups" in found:
        print_comparison(found)
        for path in filter(None, (plot, csv)):
            say(f"learning curves: {path}")
        return
    from epvf_data.trainers.evaluation.compare import label

    if not found["same_rows"]:
        say("These runs were not judged on the same rows: data sets, seeds, test fractions or architectures differ.")
    for name, lines in found["splits"].items():
        say(f"{visible(name, 60)}:")
        head = ["", "Spearman", "95 %", "IQM", "R²", "within", "top tenth", "regret@10", "gradient"]
        own = sorted({metric for line in lines for metric in line["metrics"]})
        head += ["gain over start", "over random", *(visible(one, 30) for one in own)]
        print_table(head, [_row(label(line), line, own) for line in lines], numbers=True)
    for line in ABOUT:
        say(line)
    if plot is not None:
        say(f"picture: {plot}")


def _row(name: str, line: dict[str, Any], own: list[str]) -> list[str]:
    """One line of `compare`'s table, the user's `own` measures last; – for what was not measured."""
    keys = {
        "spearman": 3,
        "iqm": 3,
        "r2": 3,
        "within": 3,
        "top_tenth_spearman": 3,
        "regret_10": 2,
        "gradient_cosine": 3,
    }
    keys |= {"improvement_over_start": 2, "improvement": 2}
    cells = ["–" if line[key] is None else f"{line[key]:.{digits}f}" for key, digits in keys.items()]
    return [f"  {visible(name, 60)}", cells[0], "[{:.2f}, {:.2f}]".format(*line["interval"]), *cells[1:]] + [
        f"{line['metrics'][one]:.3f}" if one in line["metrics"] else "–" for one in own
    ]


def _describe(found: dict[str, Any]) -> list[str]:
    """The parts of an evaluation, a line or two each."""
    lines = [f"{name}: {split['verdict']}" for name, split in found["splits"].items() if split["available"]]
    if (there := found["calibration"]) is not None:
        lines.append(
            f"calibration ({found['split']}): {100 * there['coverage']['0.95']:.0f} % of errors within 1.96 deviations "
            f"of {there['members']} critics (a calibrated one has 95 %); Spearman of error and deviation "
            f"{there['error_spread_spearman']:.2f}"
        )
    for name, one in found["metrics"].items():
        lines.append(f"{name} ({found['split']}): {one['value']:.3f}, mean of {plural(len(one['per_seed']), 'seed')}")
    before = dict.fromkeys(found["kept"], ", measured by an earlier call")
    if (there := found["labels"]) is not None:
        low, high = there["interval"]
        apart = f", starts moved by {there['start_noise']:g}" if there["start_noise"] else ""
        lines.append(
            f"ceiling ({found['split']}{before.get('labels', '')}): {there['policies']} held-out policies rolled out "
            f"again ({plural(there['episodes'], 'episode')} each{apart}) rank as their stored returns with Spearman "
            f"{there['spearman']:.2f} [{low:.2f}, {high:.2f}]: what a critic that knew every mean return would reach"
        )
    if (there := found["gradient"]) is not None:
        low, high = there["interval"]
        ceiling = (
            f"the true gradient would reach about {there['ceiling']:.3f}"
            if there["ceiling"]
            else (f"{there['pairs']} pairs are too few to tell a gradient from noise")
        )
        lines.append(
            f"gradient ({found['split']}{before.get('gradient', '')}): cosine of ∇V and the ES gradient "
            f"{there['cosine']:.3f} [{low:.3f}, {high:.3f}]; {ceiling}, chance is ±{there['chance']:.3f}"
        )
    if (there := found["improvement"]) is not None:
        lines += _describe_ascent(there, f"{found['split']}{before.get('improvement', '')}")
    elsewhere = found["elsewhere"] or {"dataset": "", "architectures": {}}
    for one in elsewhere["architectures"].values():
        said = one.get("reason") or f"Spearman {one['spearman']:.2f}, R² {one['r2']:.2f}"
        where = f"{elsewhere['dataset']} ({found['split']}), policies {one['policies']}, {one['rows']:,} rows"
        lines.append(f"{where}: {said}")
    return lines


def _describe_ascent(found: dict[str, Any], where: str) -> list[str]:
    """Returns at the start, after gradient ascent and after random steps, side by side."""
    stop = found["stopped"]
    random = next((one for one in found["random"] if one["steps"] == stop["steps"]), {"best": float("nan")})
    columns = (("start", "after ascent", "after random steps"), (15, 15, 21))
    rows = {
        "mean return": (found["start_mean"], stop["mean"], stop["mean"] - stop["gain"]),
        "best return": (found["best_in_data"], stop["best"], random["best"]),
    }
    table = ["".join(f"{head:>{width}}" for head, width in zip(*columns, strict=True))]
    for numbers in rows.values():
        table.append("".join(f"{number:{width}.2f}" for number, width in zip(numbers, columns[1], strict=True)))
    return [
        f"gradient ascent on V ({where}): {plural(stop['steps'], 'step')} from the best {found['starts']} training "
        "policies; the number was chosen without rollouts",
        *(f"  {name:13}{line}" for name, line in zip(("", *rows), table, strict=True)),
        f"  gain: {stop['mean'] - found['start_mean']:+.2f} over the start, {stop['gain']:+.2f} over random steps; "
        f"V predicted a mean return of {stop['predicted']:.2f}",
    ]
