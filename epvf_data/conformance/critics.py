"""Finds the usual mistakes of a critic: one finding for each rule, in plain words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from epvf_data.conformance.finding import Finding, look, need
from epvf_data.critics.base import Critic, Params, Row
from epvf_data.critics.families import Family, family_of, resolve
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.zoo import Made, make_critic
from epvf_data.policies import mlp
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec

POLICIES = 8  # fresh ones, on which all is tried
STATES = 16  # probing states
BINS = 11  # of a loss that reads several numbers
CARTPOLE = PolicySpec(4, 1, (64, 64))
FAR = (0.0, 1e4, -1e4)  # deviations from the training rows


class _Tried(NamedTuple):
    """A critic with its parameters, and policies."""

    critic: Critic
    params: Params  # fresh ones, moved a little: nothing vanishes because it starts at zero
    rows: Row


def check_critic(
    critic: str | Family | Callable[[Made], Critic], spec: PolicySpec = CARTPOLE, settings: CriticSettings | None = None
) -> list[Finding]:
    """What was found, rule by rule, on fresh policies of `spec`; the first rule that is broken ends it.

    `critic` is a name, `FILE.py:FUNCTION`, a function `make(made)` or a family of one. Raises ConfigError where it is
    none of these, FileError where its file is not there.
    """
    found: list[Finding] = []
    resolved = resolve(critic)
    settings = CriticSettings() if settings is None else settings
    given = look(found, "critic", lambda: _make(resolved, settings, spec), "one number a policy, or many")
    if given is None:
        return found
    made, rows = given
    rules: list[tuple[str, Callable[[], Any]]] = [
        ("parameters", lambda: _parameters(made)),
        ("seeds", lambda: _seeds(made)),
    ]
    for rule, check in rules:
        if look(found, rule, check) is None:
            return found
    tried = _Tried(made, _moved(made.init(jax.random.key(0))), rows)
    rules = [
        ("pure functions", lambda: _pure(tried)),
        ("policies", lambda: _policies(tried)),
        ("batches", lambda: _batches(tried)),
        ("gradients", lambda: _gradients(tried)),
        ("extreme inputs", lambda: _extremes(tried)),
    ]
    for rule, check in rules:
        if look(found, rule, check) is None:
            return found
    return found


def _make(critic: str | Family, settings: CriticSettings, spec: PolicySpec) -> tuple[Critic, Row]:
    """The critic for a loss that reads one number, after it was made for several, and the policies."""
    states = np.asarray(jax.random.normal(jax.random.key(1), (STATES, spec.observation_size)))
    keys = jax.random.split(jax.random.key(2), POLICIES)
    vectors = jax.vmap(lambda key: mlp.init(key, spec))(keys)
    own: PolicySpec | None = spec
    if family_of(critic).reads == "probe_actions":
        own = None
        vectors = jax.vmap(lambda theta: jnp.ravel(probe(spec, theta, jnp.asarray(states))))(vectors)
    size = vectors.shape[1]
    make_critic(critic, settings, spec, BINS, size, states)
    scaled = (vectors - vectors.mean(0)[None]) / vectors.std(0)[None]
    return make_critic(critic, settings, spec, 1, size, states), Row(vectors, scaled, own)


def _parameters(critic: Critic) -> str:
    leaves = jax.tree.leaves(critic.init(jax.random.key(0)))
    need(leaves, "init gives no parameters; there is nothing to fit.")
    for leaf in leaves:
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        need(kind == np.float32, f"init gives parameters of the kind {kind}; expected arrays of float32.")
        need(np.isfinite(leaf).all(), "init gives parameters that are not finite.")
    return f"{sum(leaf.size for leaf in leaves):,} in {len(leaves)} arrays"


def _seeds(critic: Critic) -> str:
    one, again, other = (ravel_pytree(critic.init(jax.random.key(seed)))[0] for seed in (0, 0, 1))
    need(np.array_equal(one, again), "init gives other parameters for the same key; draw from jax.random with the key.")
    if not np.any(one) and not np.any(other):
        return "parameters start at zero: an ensemble of such critics is one critic"
    need(not np.array_equal(one, other), "init gives the same parameters for two keys: seeds and ensembles are alike.")
    return "one start for a key, another for the next"


def _moved(params: Params) -> Params:
    flat, restore = ravel_pytree(params)
    return restore(flat + 0.1 * jax.random.normal(jax.random.key(3), flat.shape))


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    return np.allclose(one, other, rtol=1e-3, atol=1e-4)


def _one(rows: Row, place: int) -> Row:
    return jax.tree.map(lambda leaf: leaf[place], rows)


def _alone(tried: _Tried) -> np.ndarray:
    """Outputs of one policy after the other, none of it compiled."""
    return np.stack([tried.critic.apply(tried.params, _one(tried.rows, place)) for place in range(POLICIES)])


def _together(tried: _Tried, rows: Row) -> np.ndarray:
    """Outputs of a batch, as training computes them."""
    many = tried.critic.many or jax.vmap(tried.critic.apply, in_axes=(None, 0))
    return np.asarray(jax.jit(many)(tried.params, rows))


def _pure(tried: _Tried) -> str:
    row = _one(tried.rows, 0)
    with jax.checking_leaks():
        plain, again = (np.asarray(tried.critic.apply(tried.params, row)) for _ in range(2))
        compiled = np.asarray(jax.jit(tried.critic.apply)(tried.params, row))
    need(np.isfinite(plain).all(), "apply gives numbers that are not finite.")
    need(_close(plain, again), "apply gives another result the second time; no randomness, no memory.")
    need(_close(plain, compiled), "apply gives another result when it is compiled (jax.jit).")
    return "same arguments, same results, compiled or not"


def _policies(tried: _Tried) -> str:
    outputs = _alone(tried)
    need(
        np.ptp(outputs, axis=0).max() > 0,
        f"apply gives {POLICIES} policies the same number: it does not read row.scaled or row.vector.",
    )
    return f"{POLICIES} policies get numbers that differ by {np.ptp(outputs):.2g}"


def _batches(tried: _Tried) -> str:
    alone, together = _alone(tried), _together(tried, tried.rows)
    what = "many" if tried.critic.many is not None else "apply under jax.vmap"
    need(
        together.shape == alone.shape,
        f"{what} gives the shape {list(together.shape)} for {POLICIES} policies; expected {list(alone.shape)}.",
    )
    order = np.random.default_rng(0).permutation(POLICIES)
    permuted = _together(tried, jax.tree.map(lambda leaf: leaf[order], tried.rows))
    need(_close(permuted, together[order]), f"{what} depends on the order of the rows of a batch.")
    need(_close(together, alone), f"{what} gives a policy another number beside others than by itself.")
    return "a policy's number is its own, whatever stands beside it"


def _slopes(tried: _Tried, row: Row) -> tuple[Array, Array]:
    """Gradients of a policy's outputs with respect to parameters, and to what is read of the policy."""

    def value(params: Params, vector: Array, scaled: Array) -> Array:
        return jnp.sum(tried.critic.apply(params, row.replace(vector=vector, scaled=scaled)))  # pyright: ignore

    found = jax.grad(value, argnums=(0, 1, 2))(tried.params, row.vector, row.scaled)
    return ravel_pytree(found[0])[0], jnp.concatenate(found[1:])


def _gradients(tried: _Tried) -> str:
    inner, outer = _slopes(tried, _one(tried.rows, 0))
    for slope, what in ((inner, "the critic's parameters"), (outer, "θ")):
        need(np.isfinite(slope).all(), f"the gradient with respect to {what} is not finite.")
        need(np.any(slope), f"the gradient with respect to {what} is zero; is there a round, sign or stop_gradient?")
    return f"finite; with respect to θ it has the length {np.linalg.norm(outer):.2g}"


def _extremes(tried: _Tried) -> str:
    for far in FAR:
        row = jax.tree.map(lambda leaf, far=far: jnp.full_like(leaf, far), _one(tried.rows, 0))
        told = f"for a policy whose numbers are all {far:g}"
        need(np.isfinite(tried.critic.apply(tried.params, row)).all(), f"apply gives NaN or infinity {told}.")
        inner, outer = _slopes(tried, row)
        finite = np.isfinite(inner).all() and np.isfinite(outer).all()
        need(finite, f"a gradient is NaN or infinite {told}.")
    return f"finite where all numbers of a policy are {', '.join(f'{far:g}' for far in FAR)}"
