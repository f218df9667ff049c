"""How policies of any kind act: the one place that tells the package's MLP from architectures of the user's own.

Pure functions over one policy; `vmap` for many. MLPs are unflattened once and then applied as tensors; an architecture
of one's own reads its flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.kinds import Spec
from epvf_data.policies.mlp import Tensors as Tensors
from epvf_data.policies.own import THETA, Architecture, OwnSpec
from epvf_data.policies.spec import PolicySpec

DRAWS = 256  # fresh policies whose spread is the unit of each parameter of an architecture of one's own


def check(spec: Spec) -> None:
    """Raises ConfigError where policies of `spec` cannot act here: their code is the user's, who has not named it."""
    if isinstance(spec, OwnSpec):
        _code(spec)


def _code(spec: OwnSpec) -> Architecture:
    if spec.code is None:
        raise ConfigError(
            f"policies {spec} act by code that is not stored, and no file's word runs code; name {spec.name} of the "
            f"SHA-256 {spec.sha256[:12]}… with --policy, or pass it from Python."
        )
    return spec.code


def init(key: PRNGKeyArray, spec: Spec, scale: Float[Array, ""] | float = 1.0) -> Float[Array, "P"]:
    """A fresh policy: `mlp.init`, or what the user's `init` gives, times `scale`."""
    if isinstance(spec, PolicySpec):
        return mlp.init(key, spec, scale)
    return scale * _code(spec).init(key)


def unflatten(spec: Spec, flat: Float[Array, "P"]) -> Tensors:
    """What `apply` takes of a flat parameter vector."""
    return mlp.unflatten(spec, flat) if isinstance(spec, PolicySpec) else {THETA: flat}


def apply(spec: Spec, tensors: Mapping[str, Array], observation: Float[Array, "O"]) -> Float[Array, "A"]:
    """The action of one policy in one state, without noise. Raises ConfigError where code is missing."""
    if isinstance(spec, PolicySpec):
        return mlp.apply(spec, tensors, observation)
    return _code(spec).apply(tensors[THETA], observation)


def sample(
    spec: Spec, tensors: Mapping[str, Array], observation: Float[Array, "O"], key: PRNGKeyArray
) -> Float[Array, "A"]:
    """The action that a policy takes: drawn with `key` where the specification says `sampled`."""
    if isinstance(spec, PolicySpec) and spec.sampled:
        return mlp.sample(spec, tensors, observation, key)
    return apply(spec, tensors, observation)


def acts(
    spec: Spec, flat: Float[Array, "P"], observation: Float[Array, "B O"]
) -> tuple[Float[Array, "B A"], Float[Array, "B A"]]:
    """The actions of one policy in B states, and what its last layer adds up there before it is squashed.

    Nobody sees into an architecture of one's own: there the second is zeros.
    """
    tensors = unflatten(spec, flat)
    if isinstance(spec, PolicySpec):
        sums = jax.vmap(lambda one: mlp.sums(spec, tensors, one))(observation)
        return mlp.ACTIVATIONS[spec.output](sums), sums
    action = jax.vmap(lambda one: apply(spec, tensors, one))(observation)
    return action, jnp.zeros_like(action)


def relative(spec: Spec, flat: Float[Array, "P"]) -> Float[Array, "P"]:
    """The parameters in units of a fresh policy's spread, around a fresh policy's mean.

    Of an architecture of one's own both are those of `DRAWS` fresh policies; a parameter that always starts at the same
    number has the unit 1.
    """
    if isinstance(spec, PolicySpec):
        return mlp.relative(spec, flat)
    mean, spread = _spread(spec)
    return (flat - mean) / spread


@lru_cache(maxsize=16)
def _spread(spec: OwnSpec) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    with jax.ensure_compile_time_eval():
        drawn = jax.vmap(_code(spec).init)(jax.random.split(jax.random.key(0), DRAWS))
        mean, std = np.asarray(drawn.mean(0)), np.asarray(drawn.std(0))
    return mean, np.where(std > 1e-6 * np.maximum(np.abs(mean), 1.0), std, np.float32(1)).astype(np.float32)
