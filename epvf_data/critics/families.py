"""The families of critics by name: what each reads and can do. How one is made says `zoo`; nothing heavy is imported
here, so that names are checked and listed at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from epvf_data import code
from epvf_data.config import Part, check_one_of
from epvf_data.errors import ConfigError
from epvf_data.policies.spec import PolicySpec

if TYPE_CHECKING:
    from epvf_data.critics.base import Critic
    from epvf_data.critics.zoo import Made

MEASURED_ON = PolicySpec(34, 8, (64, 64))  # policies of the ant
READS = {"params": "θ", "probe_actions": "actions"}  # column of the store → as people call it


@dataclass(frozen=True)
class Family(Part):
    """Critics of one kind, and what they can do: one of `CRITICS`, or one of your own, of which `make` is all there is.

    `make(made)` gives the `Critic` for what `made` says: `made.size` numbers stand for a policy, the loss reads
    `made.outputs`, policies are `made.spec`; `made.head` is an MLP as the settings have it.
    """

    make: Callable[[Made], Critic] | None = None  # None: `zoo` has it
    about: str = "your own"
    source: str = "you"
    parameters: int = 0  # for policies `MEASURED_ON`, as are the operations
    operations: float = 0.0  # of the value and its gradient with respect to the critic's parameters, one policy
    reads: str = "params"  # the column of the store that it reads: "params" or "probe_actions"
    mixed: bool = False  # reads policies of several architectures in one data set
    widths: tuple[int, ...] = (256, 256)  # where the settings give none
    online: bool = True  # can be fitted to an iteration's policies by gradient steps
    closed: bool = False  # solved in closed form: one solution, no seeds, no epochs
    name: str = ""  # of one of your own, as settings have it
    origin: code.Origin | None = None  # its file; None where it was passed from Python

    def __post_init__(self) -> None:
        check_one_of("column of a data set that critics read:", self.reads, READS)
        if self.make is not None and self.closed:
            raise ConfigError("a critic of your own is fitted by gradient steps; leave closed at False.")

    @classmethod
    def of(cls, given: Any) -> str | Family:
        """See `resolve`."""
        return resolve(given)


def known(*facts: str | float, **more: object) -> Family:
    """One of the package's own."""
    return Family(None, *facts, **more)  # pyright: ignore[reportArgumentType]


CRITICS: dict[str, Family] = {
    "ridge": known("a plane in closed form: the control", "textbook", 6921, 27681, online=False, closed=True),
    "ridge-actions": known(
        "a plane on the stored actions, in closed form",
        "textbook",
        513,
        2049,
        reads="probe_actions",
        mixed=True,
        online=False,
        closed=True,
    ),
    "linear": known("the same plane by gradient steps", "textbook", 6921, 27681),
    "statistics": known(
        "MLP on mean, deviation and quartiles of every tensor", "Unterthiner et al. 2020", 77057, 583113
    ),
    "mlp": known("MLP on θ: the paper's", "Faccio et al. 2021", 1837825, 7482881),
    "simba": known("residual blocks with LayerNorm on θ", "Lee et al. 2025", 7746561, 39388696, widths=(512, 512)),
    "probing": known("MLP on actions in learned states", "Faccio et al. 2022", 482705, 8417601, mixed=True),
    "probing+raw": known("the same with θ beside the actions", "Bohlinger & Peters", 2254225, 19046720),
    "stored-probing": known(
        "MLP on the stored actions; needs no θ",
        "Harb et al. 2020",
        197377,
        921089,
        reads="probe_actions",
        mixed=True,
        online=False,
    ),
    "unf": known("symmetric in hidden units", "Zhou et al. 2024", 266497, 48217012, widths=(256,)),
    "unf+raw": known("the same with θ beside it", "Bohlinger & Peters", 2103809, 59240372),
}


def check_name(critic: str) -> None:
    """Raises ConfigError for what can be no critic's name; code is not looked at."""
    if not code.names_code(critic):
        check_one_of("critic", critic, CRITICS)


def resolve(critic: str | Family | Callable[[Made], Critic]) -> str | Family:
    """A critic as settings take it: the name of one of `CRITICS`, or one of the user's own with its file.

    This runs the code that a `file.py:name` names: the user must have typed it, or passed it from Python. The name is
    that of a function `make(made)`, or of a `Family`. Raises ConfigError and FileError for what is neither.
    """
    origin = None
    if isinstance(critic, str):
        if not code.names_code(critic):
            check_name(critic)
            return critic
        name, (found, origin) = critic, code.find(critic, "critic")
    else:
        if isinstance(critic, Family) and critic.name:
            return critic
        name, found = code.name_of(getattr(critic, "make", critic)), critic
    if not isinstance(found, Family) and callable(found):
        found = Family(found)  # pyright: ignore[reportArgumentType]
    if not isinstance(found, Family) or found.make is None:
        told = "a family without `make`" if isinstance(found, Family) else type(found).__name__
        raise ConfigError(f"{name} is {told}; expected a function make(made), or an epvf_data.CriticFamily of one.")
    return replace(found, name=name, origin=origin)


def family_of(critic: str | Family) -> Family:
    """What settings mean by their critic, once it is resolved: nothing is loaded here."""
    if isinstance(critic, Family):
        return critic
    check_one_of("critic", critic, CRITICS)
    return CRITICS[critic]


def name_of(critic: str | Family) -> str:
    """As reports have it."""
    return critic if isinstance(critic, str) else critic.name
