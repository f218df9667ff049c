"""Names that a flag takes: --help lists them, Tab completes them, and each is checked before anything else is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from epvf_data import code, envs
from epvf_data.cli.app import visible
from epvf_data.config import BACKENDS, check_one_of
from epvf_data.critics.families import CRITICS, check_name
from epvf_data.critics.settings import LOSSES
from epvf_data.errors import ConfigError
from epvf_data.store.pick import NAMED, check_row
from epvf_data.trainers import trackers
from epvf_data.trainers.offline.settings import SPLITS, check_splits

Check = Callable[[str], object]
SHORT = 24  # characters of a list of names that stands beside its flag; longer ones stand in the sentence


def choice(
    what: str, names: Iterable[str], help: str, *, others: str = "", several: bool = False, check: Check | None = None
) -> dict[str, Any]:
    """Arguments of `typer.Option` for one of `names`, or `several` with commas; `others` says what else can be given.

    `help` may end with a default in brackets. `check` raises ConfigError for a wrong value, by default for all but the
    names.
    """
    known = tuple(names)
    look = check or (lambda value: check_one_of(what, value, known))

    def checked(value: Any) -> Any:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                look(one)
        return value

    def complete(incomplete: str) -> list[str]:
        *before, last = incomplete.split(",") if several else [incomplete]
        return [",".join((*before, name)) for name in known if name.startswith(last)]

    metavar = "|".join((*known, *others.split()))
    if len(metavar) > SHORT:
        metavar = what.split()[-1].upper()
        sentence, bracket, default = help.partition("  [")
        help = f"{sentence} One of {', '.join(known)}{', or ' if others else ''}{others}.{bracket}{default}"
    return {"help": help, "metavar": metavar, "autocompletion": complete, "callback": checked}


def environment(help: str) -> dict[str, Any]:
    """Arguments of `typer.Option` for an environment."""
    return choice("env", sorted(envs.ENVS), help, others="FILE.py:FUNCTION", check=_check_env)


def _check_env(name: str) -> None:
    envs.check_name(name)
    if code.names_code(name):
        code.check_there(name, "environment")


def hidden_widths(text: str) -> tuple[int, ...]:
    """ "64,64" as widths of layers. Raises ConfigError."""
    words = [width.strip() for width in text.split(",") if width]
    if len(words) > 32 or not all(word.isdecimal() and len(word) <= 5 for word in words):
        raise ConfigError(
            f"got hidden widths '{visible(text)}'; write at most 32 whole numbers below 100,000, with commas."
        )
    return tuple(int(word) for word in words)


def check_metrics(names: list[str] | None) -> list[str] | None:
    """The names, or FileError where a file is not there."""
    for name in names or ():
        code.check_there(name, "metric")
    return names


def check_critic_there(name: str) -> None:
    """Raises ConfigError for a name of no critic, FileError for a file that is not there."""
    check_name(name)
    if code.names_code(name):
        code.check_there(name, "critic")


def check_policy_there(name: str) -> None:
    """Raises ConfigError for a policy architecture that names no code, FileError for a file that is not there."""
    if not code.names_code(name):
        raise ConfigError(f"the policy's architecture is '{visible(name)}'; expected FILE.py:FUNCTION.")
    code.check_there(name, "policy")


def own_policy(help: str) -> dict[str, Any]:
    """Arguments of `typer.Option` for a policy architecture of the user's own."""
    found = choice("architecture", (), help, check=check_policy_there)
    found["metavar"] = "FILE.py:FUNCTION"
    return found


Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        **own_policy("An architecture of your own, in place of the MLP; `new-policy` writes one."),
    ),
]
OwnPolicy = Annotated[
    str | None,
    typer.Option("--policy", **own_policy("The code of policies whose architecture is your own.")),
]
Backend = Annotated[
    str | None, typer.Option(**choice("backend", BACKENDS, "What steps: MuJoCo C, or JAX (mjx).  [default: auto]"))
]
OwnEnv = Annotated[
    str | None,
    typer.Option(
        "--env",
        help="FILE.py:FUNCTION, where the data set is of an environment of your own.",
        metavar="ENV",
        callback=environment("")["callback"],
    ),
]
Row = Annotated[
    str,
    typer.Option(**choice("row", NAMED, "Of a data set, by mean return.", others="NUMBER", check=check_row)),
]
TRACKED = choice(
    "tracker",
    (*trackers.PACKAGES, "none"),
    "Where metrics go beside metrics.jsonl, several with commas.",
    several=True,
    check=lambda text: trackers.check(trackers.parse(text)),
)
Track = Annotated[str | None, typer.Option("--track", **TRACKED)]
Critic = Annotated[
    str | None,
    typer.Option(
        **choice(
            "critic",
            CRITICS,
            "`epvf-data critics` tells about them.  [default: ridge-actions]",
            others="FILE.py:FUNCTION",
            check=check_critic_there,
        )
    ),
]
OwnCritic = Annotated[
    str | None,
    typer.Option(
        "--critic",
        help="FILE.py:FUNCTION, where the run's critic is your own.",
        metavar="CRITIC",
        callback=choice("critic", (), "", check=check_critic_there)["callback"],
    ),
]
OwnCritics = Annotated[
    list[str] | None,
    typer.Option(
        "--critic",
        help="FILE.py:FUNCTION, where a run's critic is your own; repeat for more.",
        metavar="CRITIC",
        callback=choice("critic", (), "", check=check_critic_there)["callback"],
    ),
]
Loss = Annotated[str | None, typer.Option(**choice("loss", LOSSES, "What is minimised.  [default: mse]"))]
Split = Annotated[
    str | None, typer.Option(**choice("split", SPLITS, "Whose critics are judged.  [default: lineage, else the first]"))
]
Splits = Annotated[
    str | None,
    typer.Option(
        **choice(
            "split",
            (*SPLITS, "both", "all"),
            "What is held out, several with commas; both: iid and lineage.  [default: both]",
            several=True,
            check=check_splits,
        )
    ),
]
