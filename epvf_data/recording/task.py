"""The environment of a data set, to roll its policies out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epvf_data import envs
from epvf_data.errors import EnvironmentMismatchError
from epvf_data.store.reader import Dataset

if TYPE_CHECKING:
    from epvf_data.envs import Env


def task_of(dataset: Dataset, env: str | None = None) -> Env:
    """The environment that the rows were made in: one of this package, or the user's own one, named by `env`.

    A name in a data set never loads code. Raises EnvironmentMismatchError where the environment is not here, or is
    another one.
    """
    found = dataset.env
    if env is None and not envs.known(found.name):
        raise EnvironmentMismatchError(
            f"{dataset.path} is of {found.name}, which is none of this package's environments "
            f"({', '.join(envs.ENVS)}); name your own one, as in --env my_env.py:make."
        )
    made = envs.make(env or found.name).with_horizon(found.horizon)
    if made.digest != found.digest:
        cure = "name the one that it was made with" if env else "install the version that its commits name"
        raise EnvironmentMismatchError(
            f"{dataset.path} was made with {found.name} of digest {found.digest[:12]}, {made.name} here is "
            f"{made.digest[:12]}; {cure}."
        )
    return made
