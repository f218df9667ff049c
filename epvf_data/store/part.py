"""One part, or one set of probing states: a folder whose metadata is checked before its arrays are read."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from epvf_data import untrusted
from epvf_data.errors import ConfigError, CorruptDatasetError
from epvf_data.policies.kinds import Spec, from_dict
from epvf_data.store import guard
from epvf_data.store.commit import PartEntry
from epvf_data.store.folders import PARTS, PROBES, ROOT, Files
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.schema import COLUMNS, OPTIONAL, PROBE_STATES, Column, EnvIdentity, probe_id
from epvf_data.store.shard import Layout, Shard, allocate
from epvf_data.untrusted import printable

_POINTER_BYTES = 1024  # files below may be pointers of version control
_ATTRIBUTES = {"architecture", "policy", "environment", "simulation", "probe", "vocabularies", "discount", "rows"}


Layouts = dict[tuple[str, str], Layout]  # (SHA-256 of an array's metadata, column) → what it says
Find = Callable[[str], Path]  # a file's name inside a folder of the format → where it lies on this machine


class Far(Protocol):
    """The files of a data set that lies elsewhere: each is fetched when it is needed, and verified."""

    def find(self, folder: str, files: Files) -> Find:
        """Gives the files of one folder, such as `parts/<id>`, of which these are all."""
        ...


@dataclass(frozen=True)
class Group:
    """A folder's attributes and the layouts of its arrays, after the guard has seen all of its metadata."""

    path: Path
    attributes: Mapping[str, Any]
    layouts: Mapping[str, Layout]
    find: Find

    def open(self, name: str) -> Shard:
        """Maps one array."""
        file = f"{name}/{self.layouts[name].file}"
        with untrusted.open_regular(self.find(file)) as descriptor:
            return Shard(descriptor, self.layouts[name], str(self.path / file))


def read_group(
    folder: Path,
    files: Files,
    columns: Mapping[str, Column],
    known: Layouts | None = None,
    find: Find | None = None,
) -> Group:
    """Checks a folder against the files that its commit names and parses its metadata; reads no array.

    `known` remembers what metadata files said, by their SHA-256: thousands of parts share a few. Such a file is only
    looked at for its size; `validate` reads every one. `find` is for folders that lie elsewhere or are not whole yet:
    it gives the files.
    """
    if find is None:
        _compare(folder, files)
        find = folder.__truediv__
    names = sorted(name[: -len(ROOT) - 1] for name in files if name.endswith(f"/{ROOT}"))
    unknown = [name for name in names if name not in columns]
    if unknown or ROOT not in files or len(files) > guard.MAX_FILES:
        raise CorruptDatasetError(f"{folder} lacks {ROOT} or holds unknown arrays: {unknown[:4]}.")
    where = folder / ROOT
    attributes = guard.group_attributes(_metadata(find, ROOT, files, where), where)
    known = {} if known is None else known
    layouts = {name: _layout(find, name, files, columns[name], known, folder) for name in names}
    expected = {ROOT, *(f"{name}/{ROOT}" for name in names), *(f"{name}/{item.file}" for name, item in layouts.items())}
    if set(files) != expected:
        raise CorruptDatasetError(
            f"{folder} holds other files than its arrays need: {sorted(set(files) ^ expected)[:4]}."
        )
    for name, layout in layouts.items():
        size = files[f"{name}/{layout.file}"][0]
        if not layout.fits(size):
            raise CorruptDatasetError(f"{folder / name} has {size} bytes, which cannot hold {list(layout.shape)}.")
    return Group(folder, attributes, layouts, find)


def _compare(folder: Path, files: Files) -> None:
    """Raises CorruptDatasetError unless a folder of this machine holds these files, of these sizes, and no others."""
    found = guard.scan(folder)
    for name in sorted({*found, *files}):
        if name not in files:
            raise CorruptDatasetError(
                f"{folder / name} is in no commit; nothing may be added to a published folder: remove it."
            )
        if name not in found:
            raise CorruptDatasetError(f"{folder / name} is missing; fetch this file again.")
        if found[name] != files[name][0]:
            if found[name] < _POINTER_BYTES:
                untrusted.read_bytes(folder / name)  # raises for a pointer
            raise CorruptDatasetError(f"{folder / name} has {found[name]} bytes; {files[name][0]} are expected.")


def _layout(find: Find, name: str, files: Files, column: Column, known: Layouts, folder: Path) -> Layout:
    key, file = (files[f"{name}/{ROOT}"][1], name), f"{name}/{ROOT}"
    if key not in known:
        known[key] = guard.array_layout(_metadata(find, file, files, folder / file), column, folder / file)
    return known[key]


def _metadata(find: Find, name: str, files: Files, where: Path) -> dict[str, Any]:
    data = untrusted.read_bytes(find(name))
    if hashlib.sha256(data).hexdigest() != files[name][1]:
        raise CorruptDatasetError(f"{where} does not match its commit's SHA-256; fetch this file again.")
    return untrusted.parse_json(data, where)


@dataclass
class Part:
    """Rows of one architecture, committed together. Metadata is read on first use; arrays are mapped on first use."""

    root: Path
    env: EnvIdentity
    entry: PartEntry
    probe_files: Files | None = None  # of the probing states that the entry names
    known: Layouts | None = None  # what metadata files of other parts said; None reads every file
    mapped: Mapped = field(default_factory=lambda: Mapped())
    far: Far | None = None  # where the files lie, if not here

    @cached_property
    def group(self) -> Group:
        """Attributes and layouts, in agreement with the commit record and the root. Raises CorruptDatasetError."""
        folder = self.root / PARTS / self.entry.id
        find = self.far.find(f"{PARTS}/{self.entry.id}", self.entry.files) if self.far else None
        group = read_group(folder, self.entry.files, COLUMNS, self.known, find)
        missing = set(COLUMNS) - set(OPTIONAL) - set(group.layouts)
        if missing:
            raise CorruptDatasetError(f"{folder} lacks the arrays {sorted(missing)}.")
        self.check_attributes(group.attributes, folder / ROOT)
        return group

    def check_attributes(self, attributes: Mapping[str, Any], where: Path) -> None:
        """Raises CorruptDatasetError unless they are those of a part, in agreement with the commit and the root."""
        if set(attributes) != _ATTRIBUTES:
            names = printable(sorted(attributes), 300)
            raise CorruptDatasetError(f"{where} has the attributes {names}; expected {sorted(_ATTRIBUTES)}.")
        agree = {
            "architecture": self.entry.architecture,
            "probe": self.entry.probe,
            "rows": self.entry.rows,
            "environment": self.env.digest,
        }
        guard.expect({key: attributes[key] for key in agree}, agree, where)
        simulation, discount = attributes["simulation"], attributes["discount"]
        if not isinstance(simulation, dict):
            raise CorruptDatasetError(f"{where}: simulation is '{printable(simulation)}'; an object is expected.")
        if discount is not None and (type(discount) not in (int, float) or not 0 <= discount <= 1):
            raise CorruptDatasetError(
                f"{where}: discount is '{printable(discount)}'; null or a number from 0 to 1 is expected."
            )

    @cached_property
    def spec(self) -> Spec:
        """The policy architecture of all rows, after the arrays' shapes were compared with it."""
        where = self.group.path / ROOT
        try:
            spec = from_dict(self.group.attributes["policy"])
        except ConfigError as error:
            raise CorruptDatasetError(f"{where}: {printable(error, 300)}") from error
        if spec.id != self.entry.architecture:
            raise CorruptDatasetError(f"{where} describes another policy than the architecture it names.")
        self._check_shapes(spec)
        return spec

    def _check_shapes(self, spec: Spec) -> None:
        layouts, path = self.group.layouts, self.group.path
        sizes = {"row": self.entry.rows, "parameter": spec.size, "word": 2, "action": spec.action_size}
        sizes["episode"] = layouts["returns"].shape[-1]
        if ("probe_actions" in layouts) != (self.entry.probe is not None):
            raise CorruptDatasetError(f"{path} has probing actions or names probing states, but not both.")
        if ("discounted_returns" in layouts) != (self.group.attributes["discount"] is not None):
            raise CorruptDatasetError(f"{path} has discounted returns or a discount, but not both.")
        if "params" not in layouts and "probe_actions" not in layouts:
            raise CorruptDatasetError(f"{path} has neither parameters nor probing actions.")
        if "probe_actions" in layouts:
            sizes["probe"] = layouts["probe_actions"].shape[1]
        for name, layout in layouts.items():
            shape = tuple(sizes[dim] for dim in COLUMNS[name].dims)
            if layout.shape != shape:
                raise CorruptDatasetError(f"{path / name} has shape {list(layout.shape)}; {list(shape)} is expected.")

    @cached_property
    def vocabularies(self) -> dict[str, tuple[str, ...]]:
        """Vocabulary column → its words."""
        value = self.group.attributes["vocabularies"]
        if not isinstance(value, dict) or set(value) != set(VOCABULARIES):
            raise CorruptDatasetError(f"{self.group.path / ROOT} lacks vocabularies.")
        for name, words in value.items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise CorruptDatasetError(f"{self.group.path / ROOT}: the vocabulary {name} is not a list of words.")
        return {name: tuple(words) for name, words in value.items()}

    def check_indices(self, name: str, values: np.ndarray) -> None:
        """Raises CorruptDatasetError where a column says words that its vocabulary does not have."""
        words = len(self.vocabularies[name]) if name in VOCABULARIES else None
        if words is not None and values.size and (int(values.max()) >= words or int(values.min()) < -1):
            where = self.group.path / name
            raise CorruptDatasetError(f"{where} holds indices outside its vocabulary of {words} words.")

    @property
    def probe_states(self) -> Float32[np.ndarray, "probes observations"] | None:
        """The probing states behind `probe_actions`, or None."""
        if self.entry.probe is None or self.probe_files is None:
            return None
        return read_probe(self.root, self.entry.probe, self.probe_files, self.far)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that this part has, in the format's order."""
        return tuple(name for name in COLUMNS if name in self.group.layouts)

    def layout(self, name: str) -> Layout:
        """Shape and chunking of one column, after all shapes were checked."""
        _ = self.spec
        return self.group.layouts[name]

    def shard(self, name: str) -> Shard:
        """The mapped column; it stays mapped for a while."""
        return self.mapped.shard(self, name)

    def open(self, name: str) -> Shard:
        """Maps a column for one use."""
        _ = self.layout(name)
        return self.group.open(name)


class Mapped:
    """The columns of a data set that were mapped last: each holds a file open, and a process may open so many."""

    def __init__(self) -> None:
        self.most = max(8, min(_openable() // 4, 1024))
        self._shards: dict[tuple[str, str], Shard] = {}

    def __len__(self) -> int:
        return len(self._shards)

    def shard(self, part: Part, name: str) -> Shard:
        """The column, mapped anew if others were needed since; threads may ask side by side."""
        key = (part.entry.id, name)
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = part.open(name)
            for oldest in list(self._shards)[: -self.most]:
                self._shards.pop(oldest, None)
        return shard


def read_probe(root: Path, name: str, files: Files, far: Far | None = None) -> np.ndarray:
    """The probing states `name`, float32 [probes, observations], checked against their id."""
    folder = root / PROBES / name
    find = far.find(f"{PROBES}/{name}", files) if far else None
    group = read_group(folder, files, {"states": PROBE_STATES}, None, find)
    guard.expect(group.attributes, {"probe": name}, folder / ROOT)
    layout = group.layouts["states"]
    states = allocate(layout.shape, "float32", folder)
    group.open("states").read(0, layout.shape[0], states)
    if probe_id(states) != name:
        raise CorruptDatasetError(f"{folder} holds other states than its name says; fetch it again.")
    return states


def _openable() -> int:
    """How many more files this process may open."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        return most - sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:  # not there, or no file can be opened any more
        return most // 2
