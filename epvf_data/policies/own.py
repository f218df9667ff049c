"""A policy architecture of the user's own: two pure functions, and what a store keeps of them. Needs no jax."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epvf_data.errors import ConfigError
from epvf_data.policies.spec import MAX_SIZE, MAX_WIDTH, Described, Slot, is_width
from epvf_data.untrusted import printable, shown

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray  # which imports jax

KIND = "own"
THETA = "theta"  # the one tensor that a policy of one's own has, in files and in rollouts
_NAME = re.compile(r"(?=.{3,200}\Z)[A-Za-z0-9_.+-]+:[A-Za-z0-9_]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEYS = {"kind", "observation_size", "action_size", "dtype", "name", "sha256", "bounded", "size"}


def plain(name: str) -> str:
    """A file's or a function's name, in letters that every place takes."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:99]


@dataclass(frozen=True)
class Architecture:
    """What a policy of one's own computes: pure JAX functions of one policy, which are vmapped and compiled.

    `init(key)` gives fresh parameters, one flat vector [P] of float32; `apply(theta, observation)` maps them and an
    observation [O] to an action [A], in [−1, 1] unless `bounded` is False.
    """

    init: Callable[[PRNGKeyArray], Float[Array, "P"]]
    apply: Callable[[Float[Array, "P"], Float[Array, "O"]], Float[Array, "A"]]
    bounded: bool = True


@dataclass(frozen=True)
class OwnSpec(Described):
    """Policies of an architecture of the user's own: the sizes, and the file and function that they come from.

    `name` is `FILE.py:FUNCTION` without folders, `sha256` that of the file. A store keeps no code: where policies act,
    `code` must be there, see `policies.loading`.
    """

    observation_size: int
    action_size: int
    size: int  # parameters P of the flat vector
    name: str
    sha256: str
    bounded: bool = True  # whether actions lie in [−1, 1]
    code: Architecture | None = field(default=None, repr=False)  # part of no id, no file and no store

    def __post_init__(self) -> None:
        for name, size in (("observation_size", self.observation_size), ("action_size", self.action_size)):
            if not is_width(size):
                raise ConfigError(f"{name} is {shown(size)}; a policy needs a whole number from 1 to {MAX_WIDTH:,}.")
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise ConfigError(f"the policy has {shown(self.size)} parameters; expected 1 to {MAX_SIZE:,}.")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(f"the policy's code is called {shown(self.name)}; expected FILE.py:FUNCTION, no folder.")
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise ConfigError(f"the SHA-256 of {self.name} is {shown(self.sha256)}; expected 64 hexadecimal digits.")
        if type(self.bounded) is not bool:
            raise ConfigError(f"bounded is {shown(self.bounded)}; expected true or false.")

    @property
    def sampled(self) -> bool:
        """Actions are functions of the observation."""
        return False

    @property
    def tensors(self) -> Mapping[str, Slot]:
        """The flat vector as its only tensor."""
        return {THETA: Slot(0, (self.size,))}

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values."""
        return {
            "kind": KIND,
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "dtype": "float32",
            "name": self.name,
            "sha256": self.sha256,
            "bounded": self.bounded,
            "size": self.size,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> OwnSpec:
        """Inverse of `to_dict`. Raises ConfigError unless the value describes exactly what we would write ourselves."""
        if set(value) != _KEYS:
            odd = printable(", ".join(sorted(map(str, set(value) ^ _KEYS))), 200)
            raise ConfigError(f"the policy specification has other keys than {', '.join(sorted(_KEYS))}: {odd}.")
        names = ("observation_size", "action_size", "size", "name", "sha256", "bounded")
        spec = cls(*(value[name] for name in names))
        if spec.to_dict() != dict(value):
            raise ConfigError("the policy specification contradicts itself: kind is own, and dtype is float32.")
        return spec

    def __str__(self) -> str:
        return f"{self.observation_size}-{self.name}-{self.action_size}"
