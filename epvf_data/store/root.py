"""The root of a data set: which format and which environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.store import guard
from epvf_data.store.commit import FOLDER_METADATA, FOLDERS, ROOT, STAGING
from epvf_data.store.schema import FORMAT_VERSION, KEY, EnvIdentity


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
    if not path.exists():
        raise DatasetError(f"{path} does not exist; `collect --out {path}` would create it.")
    if not path.is_dir():
        raise DatasetError(f"{path} is a file; a data set is a folder.")
    if not (path / ROOT).exists() and not (path / ROOT).is_symlink():
        if all((path / folder).is_dir() for folder in FOLDERS):
            raise DatasetError(f"{path} is unfinished: what was making it was interrupted; make it again.")
        raise DatasetError(f"{path} is not a data set (it has no {ROOT}).")
    where = path / ROOT
    meta = guard.parse_json(guard.read_bytes(where, path / STAGING), where)
    attributes = meta.get("attributes")
    if not isinstance(attributes, dict) or KEY not in attributes:
        raise DatasetError(f"{path} is a Zarr store, but not a data set of ours (no attributes {KEY!r}).")
    ours = guard.group_attributes(meta, where)
    version = ours.get("format_version")
    if type(version) is not int or version < 1:
        raise CorruptDatasetError(f"{where} has the format version {version!r}; expected a whole number.")
    if version > FORMAT_VERSION:
        raise DatasetError(
            f"{path} has format version {version}; this release reads up to {FORMAT_VERSION}: upgrade epvf-data."
        )
    if set(ours) != {"format_version", "env", "created"}:
        raise CorruptDatasetError(f"{where} has the attributes {sorted(ours)}; expected created, env, format_version.")
    for folder in FOLDERS:
        if folder == STAGING and not (path / folder).exists():
            continue  # holds nothing that a reader needs
        guard.check_directory(path / folder)
        if guard.read_bytes(path / folder / ROOT, path / STAGING) != FOLDER_METADATA:
            raise CorruptDatasetError(f"{path / folder / ROOT} is not the metadata of a plain group.")
    try:
        env = EnvIdentity.from_dict(ours["env"])
    except DatasetError as error:
        raise CorruptDatasetError(f"{where}: {error}") from error
    return Root(version, env, str(ours["created"]))
