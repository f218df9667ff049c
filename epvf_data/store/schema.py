"""THE format: names, dtypes and shapes of what a data set holds. See docs/format.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, UInt32

from epvf_data.errors import ArchitectureMismatchError, DatasetError
from epvf_data.policies.kinds import Spec
from epvf_data.store.lineage import Lineage

FORMAT_VERSION = 1
KEY = "epvf_data"  # our only key among a group's attributes
BLOCK_ROWS = 64  # rows of an inner chunk
MAX_PART_ROWS = 65_536
MAX_PART_BYTES = 512 << 20


@dataclass(frozen=True)
class Column:
    """Dtype and named dimensions of one array of a part."""

    dtype: str
    dims: tuple[str, ...]


_EPISODE = ("row", "episode")
COLUMNS: Mapping[str, Column] = {
    "params": Column("float32", ("row", "parameter")),
    "returns": Column("float32", _EPISODE),
    "discounted_returns": Column("float32", _EPISODE),
    "lengths": Column("int32", _EPISODE),
    "terminated": Column("bool", _EPISODE),
    "truncated": Column("bool", _EPISODE),
    "finite": Column("bool", _EPISODE),
    "reset_seed": Column("uint32", ("row", "word")),
    "probe_actions": Column("float32", ("row", "probe", "action")),
    "source": Column("uint16", ("row",)),
    "law": Column("uint16", ("row",)),
    "base": Column("int32", ("row",)),
    "run": Column("int32", ("row",)),
    "scale": Column("float32", ("row",)),
    "sign": Column("int8", ("row",)),
    "noise_seed": Column("uint32", ("row", "word")),
    "iteration": Column("int32", ("row",)),
}
OPTIONAL = ("params", "discounted_returns", "probe_actions")
PROBE_STATES = Column("float32", ("probe", "observation"))


@dataclass(frozen=True)
class EnvIdentity:
    """What a task is. `digest` covers all that defines it: equal digests, and only they, mean the same task."""

    name: str
    version: str
    digest: str
    observation_size: int
    action_size: int
    horizon: int
    timestep: float
    substeps: int
    details: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> EnvIdentity:
        """Inverse of `to_dict`. Raises DatasetError where a field is missing, unknown or of another type."""
        kinds = {"name": str, "version": str, "digest": str, "timestep": (int, float), "details": Mapping}
        names = [item.name for item in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise DatasetError(f"the environment's identity must have exactly the fields {', '.join(names)}.")
        for name in names:
            if not isinstance(value[name], kinds.get(name, int)) or isinstance(value[name], bool):
                got = repr(value[name])[:80]
                raise DatasetError(f"the environment's {name} is {got}, which is not of the right type.")
        return cls(**value)


@dataclass(frozen=True)
class Rows:
    """n policies of one architecture with what their rollouts gave: n rows, P parameters, E episodes, K probe states.

    Returns are undiscounted sums of reward; lengths are control steps. `finite` is False where the physics diverged.
    `reset_seed` is the raw key data of the reset stream. `probe_states` and `probe_actions` come together, and so do
    `discounted_returns` and `discount`. `params` is None where the policies are withheld: then the actions must be
    there. `simulation` says what rolled the rows out (backend, device, dtype, …).
    Raises DatasetError or ArchitectureMismatchError where a dtype or shape disagrees.
    """

    spec: Spec
    params: Float32[np.ndarray, "rows parameters"] | None
    returns: Float32[np.ndarray, "rows episodes"]
    lengths: Int32[np.ndarray, "rows episodes"]
    terminated: Bool[np.ndarray, "rows episodes"]
    truncated: Bool[np.ndarray, "rows episodes"]
    finite: Bool[np.ndarray, "rows episodes"]
    reset_seed: UInt32[np.ndarray, "rows 2"]
    lineage: Lineage
    simulation: Mapping[str, Any]
    probe_states: Float32[np.ndarray, "probes observations"] | None = None
    probe_actions: Float32[np.ndarray, "rows probes actions"] | None = None
    discounted_returns: Float32[np.ndarray, "rows episodes"] | None = None
    discount: float | None = None

    def __post_init__(self) -> None:
        if self.params is None and self.probe_actions is None:
            raise DatasetError("rows need params or probe_actions: without both nothing says what the policies do.")
        if self.params is not None and (self.params.ndim != 2 or self.params.shape[1] != self.spec.size):
            raise ArchitectureMismatchError(
                f"params has shape {list(self.params.shape)}; policy {self.spec} needs [rows, {self.spec.size}]."
            )
        if (self.probe_states is None) != (self.probe_actions is None):
            raise DatasetError("probe_states and probe_actions come together; one of them is missing.")
        if (self.discounted_returns is None) != (self.discount is None):
            raise DatasetError("discounted_returns and discount come together; one of them is missing.")
        if self.returns.ndim != 2 or min(self.returns.shape) < 1:
            raise DatasetError("rows need at least one policy and returns of shape [rows, episodes ≥ 1].")
        if len(self.lineage) != len(self):
            raise DatasetError(f"the lineage has {len(self.lineage)} rows; returns has {len(self)}.")
        for name, value in self.columns().items():
            check_array(name, value, COLUMNS[name], self.sizes)
        if self.probe_states is not None:
            check_array("probe_states", self.probe_states, PROBE_STATES, self.sizes)

    def __len__(self) -> int:
        return len(self.returns)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each named dimension."""
        sizes = {"row": len(self), "parameter": self.spec.size, "episode": self.returns.shape[1], "word": 2}
        if self.probe_states is not None:
            sizes |= {"probe": len(self.probe_states), "action": self.spec.action_size}
            sizes |= {"observation": self.spec.observation_size}
        return sizes

    def columns(self) -> dict[str, np.ndarray]:
        """Column name → array, in the format's order, without the absent ones."""
        lineage = self.lineage.columns()
        values = {name: lineage[name] if name in lineage else getattr(self, name) for name in COLUMNS}
        return {name: value for name, value in values.items() if value is not None}

    def select(self, rows: Int[np.ndarray, " selected"] | slice) -> Rows:
        """Some of the rows, in that order."""
        lineage = self.lineage.select(rows)
        names = set(self.columns()) - set(lineage.columns())
        return replace(self, lineage=lineage, **{name: getattr(self, name)[rows] for name in names})

    @classmethod
    def concatenate(cls, items: Sequence[Rows]) -> Rows:
        """The rows of several items one after another; the caller makes sure that they share all that is no column."""
        first = items[0]
        lineage = Lineage.concatenate([item.lineage for item in items])
        names = set(first.columns()) - set(lineage.columns())
        columns = {name: np.concatenate([getattr(item, name) for item in items]) for name in names}
        return replace(first, lineage=lineage, **columns)


def check_array(name: str, value: np.ndarray, column: Column, sizes: Mapping[str, int]) -> None:
    """Raises DatasetError unless `value` has the column's dtype and the shape that `sizes` gives its dimensions."""
    shape = tuple(sizes[dim] for dim in column.dims)
    if value.dtype != column.dtype or value.shape != shape:
        raise DatasetError(
            f"{name} is {value.dtype}{list(value.shape)}; expected {column.dtype}{list(shape)} "
            f"({' × '.join(column.dims)})."
        )


def policy_id(spec: Spec, params: Float32[np.ndarray, " parameters"]) -> str:
    """Identity of one policy: SHA-256 over `spec.id` (ASCII) and the parameters as little-endian float32 bytes."""
    if params.dtype != np.float32 or params.shape != (spec.size,):
        raise ArchitectureMismatchError(
            f"params is {params.dtype}{list(params.shape)}; policy {spec} needs float32[{spec.size}]."
        )
    return hashlib.sha256(spec.id.encode() + params.astype("<f4").tobytes()).hexdigest()


def probe_id(states: Float32[np.ndarray, "probes observations"]) -> str:
    """Identity of a set of probing states: SHA-256 over its shape as JSON and its little-endian float32 bytes."""
    shape = json.dumps(list(states.shape), separators=(",", ":"))
    return hashlib.sha256(shape.encode() + states.astype("<f4").tobytes()).hexdigest()


def to_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Raises DatasetError for what JSON cannot hold (NaN included)."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise DatasetError(f"a value cannot be written as JSON ({error}); use text, finite numbers, lists.") from error
