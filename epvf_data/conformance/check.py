"""Finds the usual mistakes of an environment: one finding for each rule, in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from epvf_data.conformance.finding import Broken, Finding, look, need
from epvf_data.envs.base import Env, Physics
from epvf_data.envs.model import compile_model
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout

POLICIES = 32  # that are rolled out, fresh initialisations of scales from 0.3 to 3
STEPS = 100  # of them at most
APART = 0.05  # of the spread of returns: what backends may differ by in half of the policies


def check_env(env: Env, backends: tuple[str, ...] = ("native", "mjx")) -> list[Finding]:
    """What was found, rule by rule. Rules about episodes are left out where the functions are broken already."""
    found: list[Finding] = []
    state = look(found, "reset", lambda: _reset(env), "one start for a key")
    if state is None:
        return found
    rules: list[tuple[str, Callable[[], str]]] = [
        ("model", lambda: _model(env, state)),
        ("sizes", lambda: _sizes(env, state)),
        ("pure functions", lambda: _pure(env, state)),
    ]
    for rule, check in rules:
        look(found, rule, check)
    if all(finding.ok for finding in found):
        backend = backends[0] if env.xml is not None else "mjx"
        outcomes = look(found, "finite numbers", lambda: _episodes(env, backend), "no NaN, no infinity")
        if outcomes is not None:
            look(found, "episodes", lambda: _lengths(env, outcomes))
            if env.xml is not None and len(backends) > 1:
                look(found, "backends agree", lambda: _agree(env, backends))
    return found


def _filled(state: Physics) -> Physics:
    return state._replace(moved=jnp.zeros_like(state.qpos))


def _reset(env: Env) -> Physics:
    """The start of key 0, after it was looked at."""
    starts = [env.reset(jax.random.key(number)) for number in (0, 0, 1)]
    need(
        isinstance(starts[0], Physics), f"reset gives {type(starts[0]).__name__}; expected Physics(qpos, qvel, action)."
    )
    one, again, other = ([np.asarray(part) for part in start[:3]] for start in starts)
    for name, value in zip(("qpos", "qvel", "action"), one, strict=True):
        need(value.ndim == 1, f"reset's {name} has the shape {value.shape}; expected one axis.")
        need(value.dtype == np.float32, f"reset's {name} is {value.dtype}; expected float32.")
        need(np.isfinite(value).all(), f"reset's {name} has numbers that are not finite.")
    need(_same(one, again), "reset gives different starts for the same key; draw from jax.random with that key alone.")
    need(not one[2].any(), "reset's action is not zero; no action has led there yet.")
    if env.random_start:
        need(not _same(one, other), "reset gives the same start for two keys, but random_start is True.")
    else:
        need(_same(one, other), "reset gives different starts for two keys, but random_start is False.")
    return _filled(starts[0])


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _model(env: Env, state: Physics) -> str:
    """The model against the record. Environments with their own dynamics have none."""
    control = np.asarray(env.control(jnp.zeros(env.action_size)))
    if env.xml is None:
        assert env.dynamics is not None
        qpos, qvel = env.dynamics(state, jnp.asarray(control))
        shapes = (qpos.shape, qvel.shape)
        need(shapes == (state.qpos.shape, state.qvel.shape), f"dynamics gives the shapes {shapes}; expected reset's.")
        return "dynamics of its own"
    model = compile_model(env)
    step = model.opt.timestep
    need(abs(step - env.timestep) < 1e-9, f"timestep is {env.timestep}; the model's is {step:g} s.")
    for name, got, wanted in (("qpos", state.qpos, model.nq), ("qvel", state.qvel, model.nv)):
        need(len(got) == wanted, f"reset's {name} has {len(got)} numbers; the model needs {wanted}.")
    need(control.shape == (model.nu,), f"control gives the shape {control.shape}; the model has {model.nu} actuators.")
    low, high = (np.asarray(env.control(jnp.full(env.action_size, sign))) for sign in (-1.0, 1.0))
    limits, bounded = model.actuator_ctrlrange, model.actuator_ctrllimited.astype(bool)
    reached = np.maximum(np.abs(low), np.abs(high))[bounded]
    beyond = reached > 1.001 * np.abs(limits[bounded]).max(1, initial=0.0)
    need(not beyond.any(), f"control reaches {reached.max(initial=0.0):g}, beyond the actuators' ctrlrange.")
    return (
        f"{model.nq} positions, {model.nv} velocities, {model.nu} actuators, {env.substeps} × {step:g} s a control step"
    )


def _sizes(env: Env, state: Physics) -> str:
    """What the functions give."""
    seen, gain, over = env.observe(state), env.reward(state, state), env.terminated(state)
    need(len(state.action) == env.action_size, f"reset's action has {len(state.action)} numbers, not action_size.")
    shape = jnp.shape(seen)
    need(
        shape == (env.observation_size,),
        f"observe gives the shape {shape}; observation_size is {env.observation_size}.",
    )
    need(jnp.shape(gain) == (), f"reward gives the shape {jnp.shape(gain)}; expected one number.")
    need(jnp.shape(over) == (), f"terminated gives the shape {jnp.shape(over)}; expected one truth value.")
    need(jnp.asarray(over).dtype == bool, f"terminated gives {jnp.asarray(over).dtype}; expected a truth value.")
    for name, value in (("observe", seen), ("reward", gain)):
        need(jnp.asarray(value).dtype == jnp.float32, f"{name} gives {jnp.asarray(value).dtype}; expected float32.")
    need(not bool(over), "the episode has ended where it begins: terminated is true of reset's state.")
    return f"{env.observation_size} observations, {env.action_size} actions, horizon {env.horizon}"


def _pure(env: Env, state: Physics) -> str:
    """The same arguments give the same result, plain and compiled, now and later."""
    action = jnp.full(env.action_size, 0.3)
    later = state._replace(qpos=state.qpos + 0.01, action=action)
    for name, call in _calls(env, state, later, action):
        with jax.checking_leaks():
            results = [call(), call(), jax.jit(call)(), jax.jit(lambda call=call: call())()]
        first, *rest = ([np.asarray(leaf) for leaf in jax.tree.leaves(result)] for result in results)
        for place, other in enumerate(rest):
            close = all(
                np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in zip(first, other, strict=True)
            )
            how = "the second time" if place == 0 else "when it is compiled"
            need(close, f"{name} gives another result for the same arguments {how}; no randomness, no global state.")
    return "same arguments, same results"


def _calls(env: Env, state: Physics, later: Physics, action: Array) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "reset", lambda: env.reset(jax.random.key(3))[:3]
    yield "observe", lambda: env.observe(later)
    yield "reward", lambda: env.reward(state, later)
    yield "terminated", lambda: env.terminated(later)
    yield "control", lambda: env.control(action)


def _policies(env: Env) -> tuple[PolicySpec, np.ndarray, np.ndarray]:
    spec = PolicySpec(env.observation_size, env.action_size, (16,))
    keys = jax.random.split(jax.random.key(0), POLICIES)
    scales = jnp.geomspace(0.3, 3.0, POLICIES)
    params = jax.vmap(lambda key, scale: mlp.init(key, spec, scale))(keys, scales)
    return spec, np.asarray(params), np.asarray(jax.vmap(jax.random.key_data)(keys))


def _episodes(env: Env, backend: str) -> Any:
    """Short episodes of random policies."""
    short = env.with_horizon(min(STEPS, env.horizon))
    spec, params, seeds = _policies(env)
    outcomes = rollout(short, spec, params, reset_seed=seeds, backend=backend)
    bad = ~outcomes.finite[:, 0]
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise Broken(
            f"{int(bad.sum())} of {POLICIES} random policies met NaN or infinity, the first after "
            f"{int(outcomes.lengths[row, 0])} steps: look at reward, observe, and whether the physics diverges."
        )
    return outcomes


def _lengths(env: Env, outcomes: Any) -> str:
    """Episodes that say something."""
    returns, lengths = outcomes.returns[:, 0], outcomes.lengths[:, 0]
    need(lengths.max() > 1, "every episode ends in its first step.")
    need(np.ptp(returns) > 0, f"all {POLICIES} random policies get the return {returns[0]:g}; a critic learns nothing.")
    return (
        f"{POLICIES} random policies: {lengths.mean():.0f} steps and a return of {returns.mean():.3g} on average, "
        f"{returns.min():.3g} to {returns.max():.3g}"
    )


def _agree(env: Env, backends: tuple[str, ...]) -> str:
    """The same episodes on both backends."""
    short = env.with_horizon(min(20, env.horizon))
    spec, params, seeds = _policies(env)
    one, other = (rollout(short, spec, params, reset_seed=seeds, backend=name).returns[:, 0] for name in backends)
    apart, spread = np.abs(one - other), max(float(np.std(one)), 1e-6)
    median, most = np.median(apart), apart.max()
    need(
        median <= APART * spread,
        f"{backends[0]} and {backends[1]} give returns that differ by {median:.3g} in the median policy, while "
        f"policies differ by {spread:.3g}: a feature of the model that MJX does otherwise?",
    )
    return f"returns of {short.horizon} steps differ by {median:.2g} in the median, {most:.2g} at most"
