"""What a task is: a frozen record of pure functions over one world. It knows no policy and no backend."""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epvf_data import code
from epvf_data.envs.model import embed
from epvf_data.errors import ConfigError


class Physics(NamedTuple):
    """The state of one world after a control step, as far as a task may look at it."""

    qpos: Float[Array, "nq"]  # generalised positions (m, rad, unit quaternions)
    qvel: Float[Array, "nv"]  # generalised velocities (m/s, rad/s)
    action: Float[Array, "A"]  # the action that led here, in [−1, 1]; zeros after a reset
    # The change of qpos in that step, free of rounding. A reset leaves it out; it is 0 when anything else looks at it.
    moved: Float[Array, "nq"] = None  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True, eq=False)
class Env:
    """One task. Functions take and give one world; backends `vmap` them. Compare environments by `digest`.

    MuJoCo tasks carry their model as `xml`; other tasks carry `dynamics`, (state, control) → (qpos, qvel) of the next.
    """

    name: str
    version: str
    observation_size: int
    action_size: int
    horizon: int  # control steps until truncation
    timestep: float  # seconds a physics step
    reset: Callable[[PRNGKeyArray], Physics]
    observe: Callable[[Physics], Float[Array, "O"]]
    reward: Callable[[Physics, Physics], Float[Array, ""]]  # (before, after) one control step
    terminated: Callable[[Physics], Bool[Array, ""]]
    control: Callable[[Float[Array, "A"]], Float[Array, "nu"]]  # action → actuator controls
    random_start: bool  # False: one episode tells a deterministic policy's return exactly
    substeps: int = 1  # physics steps a control step
    xml: str | None = None  # with what it includes, once this record is made
    dynamics: Callable[[Physics, Float[Array, "nu"]], tuple[Array, Array]] | None = None
    # Files that the model names, as it names them; the others are read beside the code. Then all of them, by content.
    assets: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.xml is None) == (self.dynamics is None):
            raise ConfigError(f"environment {self.name} needs exactly one of `xml` and `dynamics`.")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", self.name):
            raise ConfigError(
                f"an environment is called {self.name[:80]!r}; expected up to 64 letters, digits, '_', '.', '-'."
            )
        for name in ("observation_size", "action_size", "horizon", "substeps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of environment {self.name} is {getattr(self, name)}; it must be at least 1.")
        if self.xml is not None:
            xml, assets = embed(self.xml, code.folder(), self.assets)
            object.__setattr__(self, "xml", xml)
            object.__setattr__(self, "assets", assets)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What defines the task, as JSON values. `version` stands for the functions: raise it when they change.

        The model stands for its files: their contents are in its text.
        """
        return {
            "name": self.name,
            "version": self.version,
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "horizon": self.horizon,
            "timestep": self.timestep,
            "substeps": self.substeps,
            "model_sha256": None if self.xml is None else hashlib.sha256(canonical_xml(self.xml).encode()).hexdigest(),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the identity's canonical JSON: rows of two digests never merge silently."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_horizon(self, horizon: int) -> Env:
        """The same task truncated after `horizon` control steps: another digest, since returns differ.

        Equal arguments give the same object, so that compiled functions are reused.
        """
        return self if horizon == self.horizon else _with_horizon(self, horizon)


@lru_cache(maxsize=64)
def _with_horizon(env: Env, horizon: int) -> Env:
    return replace(env, horizon=horizon)


def model_xml(name: str) -> str:
    """The text of one of the models that come with the package."""
    return resources.files("epvf_data.envs").joinpath("models", f"{name}.xml").read_text("utf-8")


def canonical_xml(text: str) -> str:
    """The XML without comments, attribute order and white space, so that only its meaning enters the digest."""
    return ElementTree.canonicalize(text, strip_text=True, with_comments=False)
