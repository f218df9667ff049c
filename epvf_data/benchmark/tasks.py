"""The tasks by name: which rows, what is asked, how it is measured. Nothing heavy is imported."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epvf_data import code
from epvf_data.config import check_one_of
from epvf_data.critics.families import CRITICS
from epvf_data.improvement.methods import METHODS, method_of
from epvf_data.trainers.improving.settings import check_method
from epvf_data.trainers.online.settings import presets

GROUPS = {
    "predict": "predict the returns of policies that were held out",
    "improve": "propose better policies from a data set alone",
    "online": "return at a budget of control steps",
}
CRITIC = "stored-probing"  # of the methods that need one and name none


@dataclass(frozen=True)
class Rows:
    """A data set by what makes it: a recipe that ships, or the settings of `collect`."""

    env: str
    policies: int
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    hidden: tuple[tuple[int, ...], ...] = ()  # of architectures with as many rows each; none: that of the settings
    content: str | None = None  # hash of what it was where the leaderboard was made

    @property
    def command(self) -> str:
        """What makes it at a shell."""
        start = f"epvf-data collect{f' --recipe {self.recipe}' if self.recipe else ''} --env {self.env}"
        sets = [shlex.quote(f"{key}={json.dumps(value)}") for key, value in self.settings.items()]
        end = "".join(f" --set {one}" for one in sets)
        if not self.hidden:
            return f"{start} --policies {self.policies}{end}"
        share = self.policies // len(self.hidden)
        return " && ".join(
            f"{start} --envs {share} --seed {seed} --set policy.hidden={json.dumps(hidden, separators=(',', ':'))}{end}"
            + (" --mixed" if seed else "")
            for seed, hidden in enumerate(self.hidden)
        )


@dataclass(frozen=True)
class Task:
    """One task. `headline` is the measure by which methods are ordered; more is better."""

    name: str
    group: str
    about: str
    headline: str
    data: str | None = None  # a name of DATA
    split: str = "iid"
    candidates: int = 128
    episodes: int = 10  # of each, and as many fresh ones of the few that are compared
    env: str = ""  # of online tasks
    steps: int = 0  # control steps that an online method may take


DATA: dict[str, Rows] = {
    "ant": Rows("ant", 4096, content="8f8937b13483468f9fead227131fc804933ae7ba48726587e736b2fa3bb6a01b"),
    "ant-diverse": Rows("ant", 20_000, "diverse"),
    "halfcheetah-diverse": Rows(
        "halfcheetah", 1024, "diverse", content="eafbd31829fa1a477ff09aa2229d19a1499890f452f8250033c0b3afde82ab87"
    ),
    "hoppercontroller": Rows(
        "hopper", 3200, "hoppercontroller", content="3c10ff88fc752c8a4e4d8fc822fb5a47f8b5a678ea22d1432a21e293f50f94f1"
    ),
}
_QUICK = {"horizon": 40, "probes": 8, "episodes": 2, "perturbed.bases": ["random"], "perturbed.random_bases": 6}
SMALL = {
    "small": Rows("cartpole", 96, settings=_QUICK, hidden=((8,),)),
    "small-mixed": Rows("cartpole", 96, settings=_QUICK, hidden=((8,), (6,))),
}

_PREDICT = "Spearman's rank correlation of predicted and stored returns of held-out rows"
_IMPROVE = "return of the best of 128 proposals in fresh episodes, over the best row's"
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("predict-iid", "predict", f"{_PREDICT}, drawn at random", "spearman", "ant", "iid"),
        Task("predict-lineage", "predict", f"{_PREDICT}, whole families", "spearman", "ant", "lineage"),
        Task("predict-source", "predict", f"{_PREDICT}, a source", "spearman", "ant-diverse", "source"),
        Task(
            "predict-architecture",
            "predict",
            f"{_PREDICT}, one architecture",
            "spearman",
            "ant-diverse",
            "architecture",
        ),
        Task("improve-hopper", "improve", f"HopperController made again: {_IMPROVE}", "best", "hoppercontroller"),
        Task("improve-ant", "improve", _IMPROVE, "best", "ant"),
        Task("improve-halfcheetah", "improve", _IMPROVE, "best", "halfcheetah-diverse"),
        Task("improve-diverse-ant", "improve", _IMPROVE, "best", "ant-diverse"),
        Task("online-hopper", "online", "mean return of the last policy", "return", env="hopper", steps=1_000_000),
        Task("online-ant", "online", "mean return of the last policy", "return", env="ant", steps=2_000_000),
    )
}


def small(task: Task) -> Task:
    """The same task on CartPole, over in seconds: to try a method. Its numbers say nothing."""
    mixed = task.split in ("source", "architecture")
    data = task.data and ("small-mixed" if mixed else "small")
    return Task(task.name, task.group, task.about, task.headline, data, task.split, 8, 2, "cartpole", 4000)


def rows_of(name: str) -> Rows:
    """The rows of that name."""
    return (SMALL | DATA)[name]


def methods_of(task: Task) -> list[str]:
    """Names that a task knows beside FILE.py:FUNCTION."""
    return list({"predict": CRITICS, "improve": METHODS, "online": presets()}[task.group])


def split_method(task: Task, name: str) -> tuple[str, str]:
    """(method, critic) of a name such as `coms` or `coms/mlp`; tasks of other groups have no second part.

    Raises ConfigError for names that the task does not know, FileError where a file is not there.
    """
    if code.names_code(name):
        code.check_there(name, "method")
        return name, ""
    if task.group != "improve":
        check_one_of(f"method for {task.name}", name, methods_of(task))
        return name, ""
    method, _, critic = name.partition("/")
    check_method(method)
    if critic or method_of(method).learns:
        check_one_of("critic", critic or CRITIC, CRITICS)
    return method, critic or CRITIC
