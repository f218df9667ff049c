"""The kinds of policies there are: the package's own MLP, and architectures of the user's. Needs no jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epvf_data.errors import ConfigError
from epvf_data.policies.own import KIND, OwnSpec
from epvf_data.policies.spec import PolicySpec, parsed

Spec = PolicySpec | OwnSpec  # what everything takes that only needs sizes, an id, and actions


def from_dict(value: Mapping[str, Any]) -> Spec:
    """A specification of any kind from plain JSON values, which may be a stranger's. Raises ConfigError."""
    if isinstance(value, Mapping) and value.get("kind") == KIND:
        return OwnSpec.from_dict(value)
    return PolicySpec.from_dict(value)


def from_json(text: str) -> Spec:
    """A specification of any kind from its JSON text. Raises ConfigError for what is none."""
    return from_dict(parsed(text))


def mlp_of(spec: Spec, what: str, instead: str) -> PolicySpec:
    """The specification, for `what` looks into layers. Raises ConfigError for an architecture of the user's own."""
    if isinstance(spec, PolicySpec):
        return spec
    raise ConfigError(
        f"{what} reads the layers of an MLP, and policies {spec} are one flat vector of {spec.size:,} parameters to "
        f"it; {instead}."
    )
