"""The root of a data set: which format and which environment."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.store import guard
from epvf_data.store.commit import FOLDER_METADATA
from epvf_data.store.folders import COMMITS, FOLDERS, ROOT, STAGING
from epvf_data.store.schema import FORMAT_VERSION, KEY, EnvIdentity

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_SIZE = 1 << 31  # of observations, actions, horizon and substeps


@dataclass(frozen=True)
class Root:
    """What the root's attributes say."""

    format_version: int
    env: EnvIdentity
    created: str


def read_root(path: Path) -> Root:
    """Reads and checks the root's metadata and that of its folders.

    Raises DatasetError where there is no data set or one of a newer format, UnsafeDatasetError or CorruptDatasetError
    where the metadata is not what we write.
    """
    if not os.path.exists(path):  # noqa: PTH110 - also False for a name that the system refuses
        raise DatasetError(f"{path} does not exist; check the name, or make a data set with `epvf-data collect`.")
    if not path.is_dir():
        raise DatasetError(f"{path} is a file; a data set is a folder.")
    if not os.path.lexists(path / ROOT):
        if (path / COMMITS).is_dir():
            raise DatasetError(f"{path} is unfinished (it has no {ROOT}): it is being made, or that was interrupted.")
        raise DatasetError(f"{path} is not a data set (it has no {ROOT}){_if_a_run(path)}.")
    where = path / ROOT
    root = parse_root(untrusted.read_bytes(where), path)
    for folder in FOLDERS:
        if folder != STAGING or os.path.lexists(path / folder):
            untrusted.check_directory(path / folder)
        if folder == STAGING and not os.path.lexists(path / folder / ROOT):
            continue  # some tools drop empty folders; it holds nothing that a reader needs
        if untrusted.read_bytes(path / folder / ROOT) != FOLDER_METADATA:
            raise CorruptDatasetError(f"{path / folder / ROOT} is not the metadata of a plain group.")
    return root


def _if_a_run(path: Path) -> str:
    """What can be done with the directory of a training run, where the path is one."""
    if not os.path.lexists(path / "config.json"):
        return ""
    if os.path.lexists(path / "policies"):
        policy = path / "policies" / "best-0.safetensors"
        return (
            f" but the run of `train-online`; name one of its policies, as {policy}, for `render` or `collect --base`"
        )
    return " but a run's directory; `epvf-data evaluate` and `compare` read those of `train-offline`"


def parse_root(data: bytes, folder: object) -> Root:
    """What the `zarr.json` of the root `folder` says. Raises as `read_root` does; `folder` is for messages alone."""
    where = f"{folder}/{ROOT}"
    meta = untrusted.parse_json(data, where)
    attributes = meta.get("attributes")
    if not isinstance(attributes, dict) or KEY not in attributes:
        raise DatasetError(f"{folder} is a Zarr store, but not a data set of ours (no attributes {KEY!r}).")
    ours = guard.group_attributes(meta, where)
    version = ours.get("format_version")
    if type(version) is not int or version < 1:
        raise CorruptDatasetError(
            f"{where} has the format version '{untrusted.printable(version)}'; expected a whole number."
        )
    if version > FORMAT_VERSION:
        raise DatasetError(
            f"{folder} has format version {version}; this release reads up to {FORMAT_VERSION}: upgrade epvf-data."
        )
    if set(ours) != {"format_version", "env", "created"}:
        raise CorruptDatasetError(f"{where} has other attributes than created, env and format_version.")
    try:
        env = EnvIdentity.from_dict(ours["env"])
    except DatasetError as error:
        raise CorruptDatasetError(f"{where}: {untrusted.printable(error, 300)}") from error
    created = ours["created"]
    if not _is_time(created):
        raise CorruptDatasetError(
            f"{where}: created is '{untrusted.printable(created)}'; a time with its zone is expected."
        )
    _check_env(env, where)
    return Root(version, env, created)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _check_env(env: EnvIdentity, where: object) -> None:
    """Raises CorruptDatasetError where a number of the identity makes no sense."""
    for name in ("observation_size", "action_size", "horizon", "substeps"):
        value = getattr(env, name)
        if not 1 <= value <= _MAX_SIZE:
            raise CorruptDatasetError(
                f"{where}: the environment's {name} is {untrusted.printable(value)}; 1 to {_MAX_SIZE} is expected."
            )
    if not (math.isfinite(env.timestep) and env.timestep > 0):
        raise CorruptDatasetError(f"{where}: the environment's timestep is {env.timestep}; more than 0 s is expected.")
    if not _DIGEST.fullmatch(env.digest):
        raise CorruptDatasetError(
            f"{where}: the environment's digest is '{untrusted.printable(env.digest)}', no SHA-256."
        )
