"""Laws that spread parameters around a base policy, and the weight clip. Each takes one policy; `vmap` for many."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data import code
from epvf_data.code import Function
from epvf_data.errors import ConfigError
from epvf_data.policies.config import LAWS
from epvf_data.policies.kinds import Spec


def check_law(law: str) -> str:
    """The law's name, or ConfigError."""
    if law not in LAWS:
        raise ConfigError(f"there is no perturbation law {law!r}; choose one of {', '.join(LAWS)}.")
    return law


def own_law(given: str | Function, spec: Spec) -> Function:
    """A law of the user's, `law(key, base, scale)`, traced once for policies of `spec`; what it names is loaded.

    Raises ConfigError where it fails, or gives anything but float32 of the base's shape.
    """
    law = Function.of(given)
    base, scale = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((spec.size,), ()))
    with code.blamed(law.name, "noise"):
        found = jax.eval_shape(lambda key, base, scale: law.call(key, base, scale), jax.random.key(0), base, scale)
    shape, kind = getattr(found, "shape", None), getattr(found, "dtype", None)
    if (shape, kind) != (base.shape, base.dtype):
        told = "no array" if shape is None else f"{kind} of the shape {list(shape)}"
        raise ConfigError(f"{law.name} gives {told} as noise; expected float32 of the shape {list(base.shape)}.")
    return law


def noise(
    law: str | Function,
    key: PRNGKeyArray,
    base: Float[Array, "P"],
    scale: Float[Array, ""] | float,
    floor: float = 0.0,
) -> Float[Array, "P"]:
    """The vector to be added to `base`.

    - `uniform_scaled`: |θ| · U(−scale, scale), the law of Bohlinger & Peters, "Massively Scaling Explicit
      Policy-conditioned Value Functions";
    - `gaussian`: N(0, scale²), the law of Faccio et al. (2021);
    - `gaussian_scaled`: |θ| · N(0, scale²).

    `floor` is the least magnitude the scaled laws take a parameter to have: above 0, zero parameters move too. A law of
    the user's, see `own_law`, gives the vector itself.
    """
    if isinstance(law, Function):
        return law.call(key, base, jnp.asarray(scale, jnp.float32))
    check_law(law)
    unit = (
        jax.random.uniform(key, base.shape, minval=-1.0, maxval=1.0)
        if law == "uniform_scaled"
        else jax.random.normal(key, base.shape)
    )
    magnitude = 1.0 if law == "gaussian" else jnp.maximum(jnp.abs(base), floor)
    return scale * magnitude * unit


def perturb(
    law: str | Function,
    key: PRNGKeyArray,
    base: Float[Array, "P"],
    scale: Float[Array, ""] | float,
    sign: Float[Array, ""] | float = 1.0,
    floor: float = 0.0,
) -> Float[Array, "P"]:
    """`base` plus `sign` times the noise: two calls with one key and signs +1 and −1 give an antithetic pair."""
    return base + sign * noise(law, key, base, scale, floor)


def clip_weights(flat: Float[Array, "*batch P"], limit: float | None) -> Float[Array, "*batch P"]:
    """The weight clip: every parameter into [−limit, limit]; None leaves them alone."""
    return flat if limit is None else jnp.clip(flat, -limit, limit)
