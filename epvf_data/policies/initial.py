"""Laws that fresh policies are drawn from. Pure functions over one policy; `vmap` for many."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.config import INITS
from epvf_data.policies.spec import PolicySpec


def draw(law: str, key: PRNGKeyArray, spec: PolicySpec, scale: Float[Array, ""] | float = 1.0) -> Float[Array, "P"]:
    """A fresh policy by one of INITS; all laws give everything but the kernels as `mlp.init` does.

    - `uniform`: `mlp.init`, U(±scale/√fan_in);
    - `normal`: kernels N(0, scale²/fan_in) (LeCun et al. 1998);
    - `orthogonal`: kernels with orthonormal rows or columns times `scale` (Saxe et al. 2014), as PPO's usually start.

    Raises ConfigError for another law.
    """
    if law not in INITS:
        raise ConfigError(f"there is no law of initialisation {law!r}; choose one of {', '.join(INITS)}.")
    first, second = jax.random.split(key)
    if law == "uniform":
        return mlp.init(key, spec, scale)
    tensors = mlp.unflatten(spec, mlp.init(first, spec, scale))
    own = jax.random.split(second, len(tensors))
    for number, (name, slot) in enumerate(spec.tensors.items()):
        if name.endswith("/kernel"):
            if law == "orthogonal":
                tensors[name] = scale * jax.nn.initializers.orthogonal()(own[number], slot.shape)
            else:
                tensors[name] = scale * slot.shape[0] ** -0.5 * jax.random.normal(own[number], slot.shape)
    return mlp.flatten(spec, tensors)
