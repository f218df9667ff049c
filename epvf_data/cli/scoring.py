"""score and top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epvf_data.cli.app import Debug, Force, Json, Quiet, Seed, app, print_json, print_table, say, working
from epvf_data.cli.choices import Backend, OwnEnv, OwnPolicy, Row, environment
from epvf_data.cli.places import Dataset
from epvf_data.errors import ConfigError

PANEL = "Make and learn from rows"
Horizon = Annotated[int | None, typer.Option(help="Control steps at most.  [default: the environment's]")]
StartNoise = Annotated[
    float | None,
    typer.Option(
        help="Moves positions and velocities of every start.  [default: 0.001 where starts are fixed, else 0]"
    ),
]
Architecture = Annotated[str | None, typer.Option(help="Id of the policies, where there are several.")]


@app.command(
    rich_help_panel=PANEL,
    epilog="Examples: `epvf-data score walker.safetensors --episodes 100` · `epvf-data score ant.zarr --row best` · "
    "`epvf-data score before.safetensors after.safetensors`",
)
def score(
    policies: Annotated[
        list[Path], typer.Argument(help="Policy files (safetensors with their specification), or data sets.")
    ],
    row: Row = "best",
    architecture: Architecture = None,
    episodes: Annotated[int, typer.Option(help="Episodes of each policy.")] = 100,
    env: Annotated[str | None, typer.Option(**environment("Environment.  [default: the file's or data set's]"))] = None,
    code: OwnPolicy = None,
    horizon: Horizon = None,
    start_noise: StartNoise = None,
    seed: Seed = None,
    backend: Backend = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Roll policies out and say how good each is: mean return with standard error and 95 % interval.

    A data set stands for its row `--row`. All policies start from the same states, so that differences owe nothing to
    them; of several, each is compared with the first.
    """
    from epvf_data.scoring.inputs import candidates
    from epvf_data.scoring.settings import ScoreConfig

    settings = ScoreConfig(episodes, seed or 0, backend or "auto", env, horizon, start_noise)
    candidates(policies, row, architecture, env)  # before anything heavy is imported

    from epvf_data.runtime import prepare
    from epvf_data.scoring.score import score as run

    prepare()
    with working("score", quiet, "no file was changed", unit="episodes") as progress:
        advance = _adder(progress, episodes * len(policies))
        report = run(policies, settings, row=row, architecture=architecture, policy=code, progress=advance)
    if json:
        print_json(report.to_dict())
        return
    head = ["policy", "return", "± s.e.", "95 %", "least", "greatest", "steps", "stored", "over the first", "95 %"]
    print_table(head, [_cells(one.to_dict()) for one in report.scores], numbers=True)
    one = report.scores[0]
    say(f"{one.env}, horizon {one.horizon}, {one.found.episodes} episodes a policy. {report.starts}")


def _adder(progress: Any, total: int) -> Any:
    """Adds up what the rollouts' threads report."""
    done = [0]

    def advance(episodes: int, steps: int) -> None:
        done[0] += episodes
        progress(done[0], max(total, done[0]))

    return advance


def _cells(one: dict[str, Any]) -> list[str]:
    from epvf_data.scoring.estimate import span

    gain = one["over_first"]
    number = lambda value, sign="": "–" if value is None else f"{value:{sign}.2f}"  # noqa: E731
    return [
        one["policy"],
        number(one["mean"]),
        number(one["standard_error"]),
        span(one["interval"]) or "–",
        number(one["least"]),
        number(one["greatest"]),
        f"{one['length']:.0f}",
        number(one["stored"]),
        "–" if gain is None else number(gain["mean"], "+"),
        "–" if gain is None else span(gain["interval"], "+"),
    ]


@app.command(
    rich_help_panel=PANEL,
    epilog="Examples: `epvf-data top ant.zarr -n 20 --reroll 100` · `epvf-data top ant.zarr -n 5 --out best`",
)
def top(
    dataset: Dataset,
    count: Annotated[int, typer.Option("--count", "-n", help="So many rows.")] = 20,
    reroll: Annotated[int, typer.Option(help="New episodes of each; 0: none, what is stored is believed.")] = 100,
    architecture: Architecture = None,
    out: Annotated[Path | None, typer.Option(help="The folder of policies.  [default: DATASET-top]")] = None,
    env: OwnEnv = None,
    policy: OwnPolicy = None,
    horizon: Horizon = None,
    start_noise: StartNoise = None,
    seed: Seed = None,
    backend: Backend = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Roll the best rows out again, rank them by that, and write each into a policy file.

    The best of thousands of stored returns owe part of it to luck: the new episodes tell how much. `render`, `score`,
    `collect --base` and `export-policy` take the files.
    """
    from epvf_data.scoring.inputs import best_rows, check_folder
    from epvf_data.scoring.settings import ScoreConfig
    from epvf_data.store import reader

    if reroll < 0:
        raise ConfigError(f"--reroll is {reroll}; it must be at least 0.")
    settings = ScoreConfig(reroll or 1, seed or 0, backend or "auto", env, horizon, start_noise)
    target = out or Path(f"{dataset.resolve().stem}-top")
    check_folder(target, force)
    best_rows(reader.open(dataset), count, architecture)  # before anything heavy is imported

    from epvf_data.runtime import prepare
    from epvf_data.scoring.top import top as run

    prepare()
    with working("top", quiet, "no file is left", unit="episodes") as progress:
        advance = _adder(progress, reroll * count)
        report = run(
            dataset,
            target,
            count,
            settings,
            reroll=bool(reroll),
            architecture=architecture,
            policy=policy,
            force=force,
            progress=advance,
        )
    if json:
        print_json(report.to_dict())
        return
    rows = [_line(one) for one in report.to_dict()["rows"]]
    print_table(["", "row", "stored", "again", "± s.e.", "95 %", "least", "greatest"], rows, numbers=True)
    say(report.verdict)
    if report.starts is not None:
        say(f"{report.episodes} episodes a row. {report.starts}")
    say(f"policies: {report.folder}/")


def _line(one: dict[str, Any]) -> list[str]:
    from epvf_data.scoring.estimate import span

    cells, again = [str(one["rank"]), str(one["row"]), f"{one['stored']:.2f}"], one["again"]
    if again is None:
        return [*cells, *["–"] * 5]
    error = "–" if again["standard_error"] is None else f"{again['standard_error']:.2f}"
    ends = [f"{again[name]:.2f}" for name in ("least", "greatest")]
    return [*cells, f"{again['mean']:.2f}", error, span(again["interval"]) or "–", *ends]
