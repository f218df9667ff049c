"""Finds the usual mistakes of a policy architecture: one finding for each rule, in plain words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data.code import Function
from epvf_data.conformance.finding import Finding, look, need
from epvf_data.policies.loading import PolicyCode, own_spec
from epvf_data.policies.own import Architecture, OwnSpec

POLICIES = 8  # fresh ones, on which all is tried
STATES = 16  # observations, standard normal
FAR = (0.0, 1e4, -1e4)  # numbers of an observation far from all that is usual
WIDE = 10.0  # times a fresh policy's parameters: as far as perturbations and training go


def check_policy(policy: PolicyCode, observation_size: int = 4, action_size: int = 1) -> list[Finding]:
    """What was found, rule by rule, for a task of these sizes; the first rule that is broken ends it.

    `policy` is `FILE.py:FUNCTION`, or a function `make(observation_size, action_size)` itself, that gives an
    `Architecture`. Raises FileError where its file is not there, ConfigError where it cannot be loaded.
    """
    found: list[Finding] = []
    make = Function.of(policy)
    again = lambda: own_spec(make, observation_size, action_size)  # noqa: E731
    spec: OwnSpec | None = look(found, "architecture", again)
    if spec is None:
        return found
    assert spec.code is not None
    found[-1] = found[-1]._replace(text=f"{spec.size:,} parameters, id {spec.id[:12]}")
    tried = _Tried(spec.code, observation_size)
    rules: list[tuple[str, Callable[[], Any]]] = [
        ("one architecture", lambda: _same(spec, again())),
        ("parameters", tried.parameters),
        ("seeds", tried.seeds),
        ("pure functions", tried.pure),
        ("actions", tried.actions),
        ("policies", tried.policies),
        ("batches", tried.batches),
        ("gradients", tried.gradients),
        ("extreme inputs", tried.extremes),
    ]
    for rule, check in rules:
        if look(found, rule, check) is None:
            return found
    return found


def _same(spec: OwnSpec, other: OwnSpec) -> str:
    """Equal functions are one object, see `own_spec`."""
    need(
        spec == other,
        "the function gives another architecture when it is called again; no randomness, no clock, no memory.",
    )
    return "the same whenever it is made"


def _close(one: Any, other: Any) -> bool:
    return np.allclose(one, other, rtol=1e-4, atol=1e-5)


class _Tried:
    """An architecture, some fresh policies of it and some observations."""

    def __init__(self, made: Architecture, observation_size: int):
        self.made = made
        self.keys = jax.random.split(jax.random.key(0), POLICIES)
        self.seen = jax.random.normal(jax.random.key(1), (STATES, observation_size))
        self.compiled = jax.jit(made.apply)
        self.slopes = jax.jit(jax.grad(lambda theta, seen: jnp.sum(made.apply(theta, seen))))  # with respect to θ
        over_states = jax.vmap(made.apply, in_axes=(None, 0))
        self.over_policies = jax.jit(jax.vmap(over_states, in_axes=(0, None)))

    @cached_property
    def theta(self) -> jax.Array:
        return jax.jit(jax.vmap(self.made.init))(self.keys)

    def everywhere(self, theta: jax.Array, seen: jax.Array) -> np.ndarray:
        """Actions [n, K, A] of n policies in K states, as rollouts and probing compute them."""
        return np.asarray(self.over_policies(theta, seen))

    def parameters(self) -> str:
        need(np.isfinite(self.theta).all(), "init gives parameters that are not finite.")
        spread = np.asarray(self.theta).std(0)
        still = int((spread == 0).sum())
        return f"finite; {still:,} of them start at the same number in all policies"

    def seeds(self) -> str:
        one, again, other = (np.asarray(self.made.init(self.keys[place])) for place in (0, 0, 1))
        need(np.array_equal(one, again), "init gives other parameters for the same key; draw from jax.random with it.")
        need(not np.array_equal(one, other), "init gives the same parameters for two keys: all policies are alike.")
        need(_close(one, self.theta[0]), "init gives other parameters when it is compiled (jax.jit, jax.vmap).")
        return "one policy for a key, another for the next"

    def pure(self) -> str:
        theta, seen = self.theta[0], self.seen[0]
        with jax.checking_leaks():
            plain, again = (np.asarray(self.made.apply(theta, seen)) for _ in range(2))
            compiled = np.asarray(self.compiled(theta, seen))
        need(np.array_equal(plain, again), "apply gives another action the second time; no randomness, no memory.")
        need(_close(plain, compiled), "apply gives another action when it is compiled (jax.jit).")
        return "same arguments, same actions, compiled or not"

    def actions(self) -> str:
        for scale in (1.0, WIDE):
            found = self.everywhere(scale * self.theta, self.seen)
            told = "fresh policies" if scale == 1 else f"policies of {scale:g} times their parameters"
            need(np.isfinite(found).all(), f"apply gives {told} actions that are not finite.")
            need(
                not self.made.bounded or np.abs(found).max() <= 1,
                f"apply gives {told} actions up to {np.abs(found).max():.3g}; end in jnp.tanh or jnp.clip, or say "
                "Architecture(init, apply, bounded=False).",
            )
        return f"finite{' and in [-1, 1]' if self.made.bounded else ', not bounded'}, also of wide policies"

    def policies(self) -> str:
        found = self.everywhere(self.theta, self.seen)
        need(np.ptp(found, axis=0).max() > 0, f"apply gives {POLICIES} policies the same actions: it does not read θ.")
        need(
            np.ptp(found, axis=1).max() > 0,
            f"apply gives a policy the same action in {STATES} states: it does not read the observation.",
        )
        return f"actions differ by up to {np.ptp(found, axis=0).max():.2g} between policies"

    def batches(self) -> str:
        alone = np.stack([[self.compiled(one, seen) for seen in self.seen[:3]] for one in self.theta])
        together = self.everywhere(self.theta, self.seen)[:, :3]
        need(_close(alone, together), "apply gives a policy another action beside others (jax.vmap) than by itself.")
        return "a policy's action is its own, whatever stands beside it"

    def gradients(self) -> str:
        found = np.stack([self.slopes(self.theta[0], seen) for seen in self.seen])
        need(np.isfinite(found).all(), "the gradient of actions with respect to θ is not finite.")
        need(found.any(), "the gradient of actions with respect to θ is zero; is there a round, sign or stop_gradient?")
        unread = int((~found.any(axis=0)).sum())
        return f"finite; {unread:,} of {found.shape[1]:,} parameters move no action"

    def extremes(self) -> str:
        for far in FAR:
            for theta in (self.theta[0], jnp.zeros_like(self.theta[0])):
                seen = jnp.full_like(self.seen[0], far)
                told = f"where all numbers of an observation are {far:g}{'' if theta.any() else ' and all of θ are 0'}"
                need(np.isfinite(self.compiled(theta, seen)).all(), f"apply gives NaN or infinity {told}.")
                need(np.isfinite(self.slopes(theta, seen)).all(), f"a gradient is NaN or infinite {told}.")
        return f"finite where all numbers of an observation are {', '.join(f'{far:g}' for far in FAR)}"
