"""The environment of a data set or a policy file, to roll policies out again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epvf_data import envs
from epvf_data.errors import ArchitectureMismatchError, ConfigError, EnvironmentMismatchError, EpvfWarning
from epvf_data.policies.files import read_notes
from epvf_data.policies.kinds import Spec
from epvf_data.policies.own import OwnSpec
from epvf_data.store.identity import changed, expect, functions_of, mixed
from epvf_data.store.reader import Dataset
from epvf_data.untrusted import shown

if TYPE_CHECKING:
    from epvf_data.envs import Env
    from epvf_data.policies.loading import PolicyCode


def task_of(dataset: Dataset, env: str | None = None) -> Env:
    """The environment that the rows were made in: one of this package, or the user's own one, named by `env`.

    A name in a data set never loads code. Raises EnvironmentMismatchError where the environment is not here, or is
    another one.
    """
    found = dataset.env
    if len(parts := mixed(found)) > 1:
        names = ", ".join(f"{part.name} of horizon {part.horizon}" for part in parts)
        raise EnvironmentMismatchError(
            f"{dataset.path} holds rows of several environments ({names}), so that there is no one task to roll out; "
            "take one of the data sets that it was merged from."
        )
    if env is None and not envs.known(found.name):
        raise EnvironmentMismatchError(
            f"{dataset.path} is of {found.name}, which is none of this package's environments "
            f"({', '.join(envs.ENVS)}); name your own one, as in --env my_env.py:make."
        )
    from epvf_data.recording.rows import env_identity  # imported late, with JAX

    made = envs.make(env or found.name).with_horizon(found.horizon)
    cure = "name the one that it was made with" if env else "install the version that its commits name"
    expect(found, env_identity(made), f"{dataset.path} was made with {found.name} and not with {made.name} here", cure)
    if names := functions_changed(made, functions_of(dataset)):
        warnings.warn(
            f"{dataset.path} was made with another {', '.join(names)} than {made.name} has now, and its version is "
            f"{made.version} as before: returns will differ.",
            EpvfWarning,
            stacklevel=2,
        )
    return made


def with_policy(dataset: Dataset, policy: PolicyCode | None) -> Dataset:
    """The data set with the code that the user names for its policies of an architecture of his own.

    Raises ArchitectureMismatchError for the code of others, ConfigError where all policies are this package's MLPs.
    """
    if policy is None:
        return dataset
    from epvf_data.policies.loading import bind  # imported late, with JAX

    own = [item.spec for item in dataset.architectures if isinstance(item.spec, OwnSpec)]
    if not own:
        raise ConfigError(f"the policies in {dataset.path} are MLPs, which need no code; leave --policy out.")
    found: list[Spec] = []
    for spec in own:
        try:
            found.append(bind(spec, policy))
        except ArchitectureMismatchError:
            if spec is own[-1] and not found:
                raise
    return dataset.acting(found)


def made_by(env: Env) -> dict[str, Any]:
    """What provenance says of the functions of an environment of the user's own; nothing for this package's."""
    from epvf_data.envs.functions import functions  # imported late, with JAX

    return {} if envs.known(env.name) else {"functions": functions(env)}


def functions_changed(env: Env, known: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The functions that no longer are what any of the known ones was; None where they cannot be compared."""
    here = made_by(env).get("functions")
    return changed(known, here) if here else []


def check_target(dataset: Dataset, env: Env, rows: str, flag: str) -> None:
    """Raises EnvironmentMismatchError unless rows of this environment may join the data set's.

    Warns where the environment is the user's own and nothing tells whether its functions are the same.
    """
    from epvf_data.recording.rows import env_identity  # imported late, with JAX

    expect(
        dataset.env,
        env_identity(env),
        f"{dataset.path} holds rows of {dataset.env.name}, {rows} of {env.name}",
        f"give another {flag}",
    )
    known = functions_of(dataset)
    names = functions_changed(env, known) if dataset.rows else []
    if names is None:
        warnings.warn(
            f"nothing tells whether {env.name} computes what it did for the rows in {dataset.path}, which another "
            f"version of {'JAX' if known else 'this program'} made; its own version is {env.version} as before.",
            EpvfWarning,
            stacklevel=2,
        )
    if names:
        raise EnvironmentMismatchError(
            f"{dataset.path} holds rows that another {', '.join(names)} of {env.name} gave, and its version is "
            f"{env.version} as before: raise the version and give another {flag}, or take the change back."
        )


def environment_of(policy: Path, spec: Spec) -> str:
    """The note `env` in the file's header. Raises ConfigError where there is none, and tells what would fit."""
    name = read_notes(policy).get("env")
    if name is not None and envs.known(name):
        return name
    if name is not None:  # a stranger's note must not load code
        raise ConfigError(f"{policy} is of {shown(name)}, which is none of this package's; name yours with --env.")
    sizes = (spec.observation_size, spec.action_size)
    fitting = [one for one, entry in sorted(envs.ENVS.items()) if (entry.observation_size, entry.action_size) == sizes]
    hint = f"the policy has the sizes of {' or '.join(fitting) or 'none here'}"
    raise ConfigError(f"{policy} has no note of its environment; name it with --env ({hint}).")
