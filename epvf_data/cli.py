"""The command line: parse, call, report.

Heavy modules are imported by the verb that needs them, so that help and `info` are instant.
"""

from __future__ import annotations

import json as json_module
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data import __version__
from epvf_data.errors import ConfigError, DatasetError, EpvfError, RunError

app = typer.Typer(
    name="epvf-data",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Collect, store and learn from rows of (policy parameters, probing actions, return).",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all randomness.  [default: 0]")]
Backend = Annotated[str | None, typer.Option(help="auto, mjx or native.  [default: auto]")]
Config = Annotated[str | None, typer.Option("--config", help="A TOML file with settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help="Change one setting; repeat for more.")]
Dataset = Annotated[Path, typer.Argument(help="The data set's folder.", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"epvf-data {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Data sets of policies and their returns, and critics that read a policy and predict its return."""


@app.command(epilog="Example: `epvf-data doctor --json`")
def doctor(json: Json = False, debug: Debug = False) -> None:
    """Versions, devices, backends that work here, and known-bad combinations. Exits with 1 when there is a problem."""
    from epvf_data.doctor import examine
    from epvf_data.runtime import prepare

    prepare()
    found = examine()
    if json:
        _print_json({key: found[key] for key in ("versions", "devices", "backends", "problems")})
    else:
        print("versions  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version))
        print("devices   " + ", ".join(f"{device['platform']} ({device['kind']})" for device in found["devices"]))
        print(f"processor {found['processor']}, {found['cores']} cores")
        print(f"backends  {', '.join(found['backends']) or 'none'}")
        print(f"cache     {found['cache']}")
        print("\n".join(f"problem   {problem}" for problem in found["problems"]) or "No problem found.")
    if found["problems"]:
        raise typer.Exit(1)


@app.command("envs", epilog="Example: `epvf-data envs`")
def list_envs(json: Json = False, debug: Debug = False) -> None:
    """The environments."""
    from epvf_data import envs

    keys = ("name", "observation_size", "action_size", "horizon", "digest")
    found = [{key: getattr(envs.make(name), key) for key in keys} for name in sorted(envs.ENVS)]
    if json:
        _print_json(found)
        return
    _print_table(
        ["environment", "observations", "actions", "horizon", "digest"],
        [[*(str(env[key]) for key in keys[:-1]), env["digest"][:12]] for env in found],
    )


@app.command(
    epilog="Examples: `epvf-data collect --env ant --envs 4096` · "
    "`epvf-data collect --env cartpole --policies 1000 --out poles.zarr` · "
    "`epvf-data collect --base walker.safetensors --set perturbed.scales=[0.01,0.05]`"
)
def collect(
    env: Annotated[str | None, typer.Option(help="Environment; see `epvf-data envs`.  [default: ant]")] = None,
    envs: Annotated[int | None, typer.Option(help="Worlds at once, and rows a commit.  [default: 4096]")] = None,
    policies: Annotated[int | None, typer.Option(help="Policies in all.  [default: as many as --envs]")] = None,
    out: Annotated[Path | None, typer.Option(help="The data set's folder.  [default: ENV.zarr]")] = None,
    base: Annotated[list[str] | None, typer.Option(help="Perturb around this policy file; repeat for more.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes a policy.  [default: 1; 8 where starts vary]")] = None,
    horizon: Annotated[int | None, typer.Option(help="Control steps an episode.  [default: the environment's]")] = None,
    seed: Seed = None,
    backend: Backend = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue or extend a collection in --out.")] = False,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow another architecture beside those in --out.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Roll out many policies and commit their parameters, probing actions and returns to a data set.

    The rows come from random initialisations and from perturbations around base policies. Every commit is durable:
    Ctrl-C or a crash loses at most the batch in flight, and `--resume` continues.
    """
    from epvf_data.collectors.collect import collect as run
    from epvf_data.collectors.setting import configure
    from epvf_data.progress import Bar
    from epvf_data.runtime import prepare

    prepare()
    flags = {
        "env": env,
        "envs": envs,
        "policies": policies,
        "episodes": episodes,
        "horizon": horizon,
        "seed": seed,
        "backend": backend,
    }
    settings = configure(
        config, set_ or [], {key: value for key, value in flags.items() if value is not None}, base or []
    )
    target = out or Path(f"{settings.env}.zarr")
    try:
        with Bar("collect", "episodes", quiet) as bar:
            report = run(
                settings,
                target,
                resume=resume,
                mixed=mixed,
                progress=lambda done, total, steps: bar.update(done, total, steps, "env steps"),
            )
    except KeyboardInterrupt:
        raise _interrupted(target) from None
    values = asdict(report)
    if json:
        _print_json(values)
        return
    if not report.rows:
        print(f"{report.dataset} holds all {report.rows_total:,} rows already; nothing to do.")
        return
    commits = _plural(report.commits, "commit")
    print(
        f"{report.dataset}: {report.rows:,} rows in {commits} ({report.rows_total:,} in all), "
        f"{report.env_steps:,} env steps in {report.seconds:.1f} s ({report.env_steps_per_second:,.0f} a second)"
    )
    print(f"return: {report.return_mean:.2f} on average, {report.return_max:.2f} at most")
    if report.rows_not_finite:
        print(f"{report.rows_not_finite} policies gave NaN or infinity; their episodes ended there and are flagged.")


def _interrupted(target: Path) -> EpvfError:
    from epvf_data.store import reader

    try:
        kept = f"{reader.open(target).rows:,} rows are committed in {target}"
    except DatasetError:
        return DatasetError("interrupted before the first commit; nothing was written.")
    return DatasetError(f"interrupted: {kept}; continue with: {_resume_command()}")


def _resume_command() -> str:
    """The command line at hand, with --resume."""
    return shlex.join(["epvf-data", *(word for word in sys.argv[1:] if word != "--resume"), "--resume"])


@app.command(epilog="Example: `epvf-data info ant.zarr --plot returns.png`")
def info(
    dataset: Dataset,
    plot: Annotated[Path | None, typer.Option(help="Also write a histogram of returns to this PNG.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What is in a data set."""
    from epvf_data.store import reader

    opened = reader.open(dataset)
    summary = opened.summary()
    if plot is not None:
        from epvf_data.collectors.histogram import plot_returns

        plot_returns(opened, plot)
    if json:
        _print_json(summary)
        return
    commits = _plural(summary["commits"], "commit")
    print(f"{dataset}: {summary['rows']:,} rows in {commits}, format {summary['format_version']}")
    environment = summary["env"]
    print(f"environment {environment['name']}, horizon {environment['horizon']}, digest {environment['digest'][:12]}")
    for found, architecture in zip(summary["architectures"], opened.architectures, strict=True):
        size = f"{found['rows']:,} rows of {found['params']:,} parameters"
        print(f"policies {architecture.spec} ({found['id'][:8]}): {size}")
    print("sources " + ", ".join(f"{name} {rows:,}" for name, rows in summary["sources"].items()))
    returns = summary["returns"]
    if summary["rows"]:
        print(f"returns {returns['min']:.2f} to {returns['max']:.2f}, {returns['mean']:.2f} on average")
        _print_histogram(opened)
    if plot is not None:
        print(f"histogram written to {plot}")


@app.command(epilog="Example: `epvf-data validate ant.zarr --deep --resimulate 64`")
def validate(
    dataset: Dataset,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and check every checksum.")] = False,
    resimulate: Annotated[int, typer.Option(min=0, help="Roll out this many rows again and compare returns.")] = 0,
    backend: Backend = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a data set. Exits with 1 when a problem was found."""
    from epvf_data.progress import Bar
    from epvf_data.store import reader
    from epvf_data.store.validate import validate as check

    reader.open(dataset)
    with Bar("validate", "bytes", quiet) as bar:
        problems = check(dataset, deep=deep, progress=bar.update)
    values: dict[str, Any] = {"ok": True, "rows": 0, "problems": problems, "resimulated": 0, "max_return_error": None}
    comparable = True
    if not problems:
        opened = reader.open(dataset)
        values["rows"] = opened.rows
        if resimulate:
            from epvf_data.collectors.resimulate import resimulate as again
            from epvf_data.runtime import prepare

            prepare()
            result = again(opened, resimulate, backend=backend)
            comparable = result.comparable
            problems += result.problems
            values.update(resimulated=result.rows, max_return_error=result.max_error)
    values["ok"] = not problems
    if json:
        _print_json(values)
    else:
        for problem in problems:
            print(f"problem: {problem}")
        checked = "every byte" if deep else "metadata, sizes and commit chain (--deep reads every byte)"
        print(f"{dataset}: {_plural(len(problems), 'problem') if problems else 'no problem found'}; checked {checked}.")
        if values["resimulated"]:
            note = "" if comparable else " (made elsewhere or with other versions: small differences are expected)"
            print(f"rolled out {result.rows} rows again: returns differ by at most {result.max_error:.3g}{note}.")
    if problems:
        raise typer.Exit(1)


@app.command(
    "train-offline",
    epilog="Examples: `epvf-data train-offline` · `epvf-data train-offline ant.zarr --critic ridge` · "
    "`epvf-data train-offline ant.zarr --out long --set epochs=200 --set seeds=5`",
)
def train_offline(
    dataset: Annotated[
        Path | None, typer.Argument(help="The data set.  [default: the only one in this folder]")
    ] = None,
    critic: Annotated[str | None, typer.Option(help="mlp or ridge, on raw parameters.  [default: mlp]")] = None,
    split: Annotated[str | None, typer.Option(help="iid, lineage or both.  [default: both]")] = None,
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
    related policies (none was). Ridge regression and the mean return stand beside the critic as controls.
    """
    from epvf_data import config as configuration
    from epvf_data.progress import Bar
    from epvf_data.runtime import prepare
    from epvf_data.trainers.offline import train_offline as run
    from epvf_data.trainers.settings import OfflineConfig

    prepare()
    flags = {"critic": critic, "split": split, "architecture": architecture, "seed": seed}
    stated = configuration.read_toml(config) if config else {}
    changes = configuration.parse_overrides(set_ or [])
    settings = configuration.build(OfflineConfig, stated, changes, {k: v for k, v in flags.items() if v is not None})
    source = dataset or only_dataset()
    target = out or Path(f"{source.resolve().stem}-{settings.critic}")
    try:
        with Bar("train", "epochs", quiet) as bar:
            report = run(source, settings, target, resume, progress=bar.epoch)
    except KeyboardInterrupt:
        raise RunError(f"interrupted; continue with: {_resume_command()}") from None
    if json:
        _print_json(report.to_dict())
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


def only_dataset() -> Path:
    """The only data set in the working directory, or DatasetError."""
    found = sorted(path.parent for path in Path().glob("*/commits") if (path.parent / "zarr.json").is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise DatasetError("there is no data set in this folder; name one, or make one with `epvf-data collect`.")
    raise DatasetError(f"there are {len(found)} data sets in this folder ({', '.join(map(str, found))}); name one.")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _print_json(value: Any) -> None:
    print(json_module.dumps(value, allow_nan=False))


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_histogram(opened: Any, bins: int = 12, width: int = 44) -> None:
    """Returns as text bars, their length on a logarithmic scale since most policies are poor."""
    import numpy as np

    every = np.concatenate(
        [opened.table(architecture.id).column("returns").mean(axis=1) for architecture in opened.architectures]
    )
    counts, edges = np.histogram(every, bins=bins)
    scale = width / np.log1p(counts.max())
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        print(f"{low:9.1f} to {high:7.1f}  {'█' * round(scale * np.log1p(count)):<{width}} {count:,}")


def main() -> None:
    """Entry point. Our errors are one sentence on stderr: exit 2 for wrong usage, 1 for the rest."""
    try:
        app()
    except EpvfError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
