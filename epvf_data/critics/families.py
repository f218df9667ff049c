"""The families of critics by name: what each reads and can do. How one is made says `zoo`; nothing heavy is imported
here, so that names are checked and listed at once."""

from __future__ import annotations

from dataclasses import dataclass

from epvf_data.policies.spec import PolicySpec

MEASURED_ON = PolicySpec(34, 8, (64, 64))  # policies of the ant


@dataclass(frozen=True)
class Family:
    """One line about a critic, what it can do, and what it costs for policies `MEASURED_ON`."""

    about: str
    source: str
    parameters: int
    operations: float  # of the value and its gradient with respect to the critic's parameters, one policy
    reads: str = "params"  # the column of the store that it reads: "params" or "probe_actions"
    mixed: bool = False  # reads policies of several architectures in one data set
    widths: tuple[int, ...] = (256, 256)  # where the settings give none
    online: bool = True  # can be fitted to an iteration's policies by gradient steps
    closed: bool = False  # solved in closed form: one solution, no seeds, no epochs


READS = {"params": "θ", "probe_actions": "actions"}  # column of the store → as people call it

CRITICS: dict[str, Family] = {
    "ridge": Family("a plane in closed form: the control", "textbook", 6921, 27681, online=False, closed=True),
    "ridge-actions": Family(
        "a plane on the stored actions, in closed form",
        "textbook",
        513,
        2049,
        reads="probe_actions",
        mixed=True,
        online=False,
        closed=True,
    ),
    "linear": Family("the same plane by gradient steps", "textbook", 6921, 27681),
    "statistics": Family(
        "MLP on mean, deviation and quartiles of every tensor", "Unterthiner et al. 2020", 77057, 583113
    ),
    "mlp": Family("MLP on θ: the paper's", "Faccio et al. 2021", 1837825, 7482881),
    "simba": Family("residual blocks with LayerNorm on θ", "Lee et al. 2025", 7746561, 39388696, widths=(512, 512)),
    "probing": Family("MLP on actions in learned states", "Faccio et al. 2022", 482705, 8417601, mixed=True),
    "probing+raw": Family("the same with θ beside the actions", "Bohlinger & Peters", 2254225, 19046720),
    "stored-probing": Family(
        "MLP on the stored actions; needs no θ",
        "Harb et al. 2020",
        197377,
        921089,
        reads="probe_actions",
        mixed=True,
        online=False,
    ),
    "unf": Family("symmetric in hidden units", "Zhou et al. 2024", 266497, 48217012, widths=(256,)),
    "unf+raw": Family("the same with θ beside it", "Bohlinger & Peters", 2103809, 59240372),
}
