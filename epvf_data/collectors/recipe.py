"""Where a data set's policies come from. Row i depends on the recipe, the seed and i alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int, UInt32

from epvf_data import code
from epvf_data.code import Function
from epvf_data.collectors.bundled import bundled_files
from epvf_data.collectors.setting import Recipe, is_own
from epvf_data.envs import Env
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies import acting
from epvf_data.policies.files import load_policy
from epvf_data.policies.kinds import Spec
from epvf_data.policies.perturb import clip_weights, perturb
from epvf_data.store.schema import Lineage
from epvf_data.streams import stream

INIT_LAW = "init_uniform"  # the law of rows that are fresh initialisations: U(±scale/√fan_in)


class Plan(NamedTuple):
    """What each of n rows is, before any parameter is drawn."""

    fresh: np.ndarray  # bool [n]: a random initialisation
    base: Int[np.ndarray, "n"]  # family, −1 for fresh rows
    scale: Float[np.ndarray, "n"]
    sign: Int[np.ndarray, "n"]  # +1/−1; 0: the base itself
    noise_seed: UInt32[np.ndarray, "n 2"]
    reset_seed: UInt32[np.ndarray, "n 2"]


def load_bases(recipe: Recipe, env: Env, spec: Spec, seed: int) -> Float[np.ndarray, "F P"]:
    """The parameters of every base, under the weight clip if there is one.

    Raises ArchitectureMismatchError when a file holds another architecture.
    """
    source = recipe.perturbed
    bases: list[np.ndarray] = []
    for name in source.bases:
        if name == "random":
            keys = jax.random.split(stream(seed, "base"), source.random_bases)
            bases.extend(np.asarray(jax.vmap(lambda key: acting.init(key, spec, source.random_scale))(keys)))
            continue
        if is_own(name):
            bases.extend(own_policies(name, spec, seed))
            continue
        for file in bundled_files(env) if name == "bundled" else [str(name)]:
            found, flat = load_policy(file)
            if found.id != spec.id and name == "bundled":
                raise ArchitectureMismatchError(
                    f"the policies that ship for {env.name} are {found}, this collection makes {spec}; perturb random "
                    "policies of that architecture in their place: --set perturbed.bases=random."
                )
            if found.id != spec.id:
                raise ArchitectureMismatchError(
                    f"the policy in {file} is {found} ({found.id[:8]}), this collection makes {spec} ({spec.id[:8]}); "
                    "make policy.hidden and its neighbours, or --policy, match, or set perturbed.bases=random."
                )
            bases.append(flat)
    return np.asarray(clip_weights(jnp.asarray(np.stack(bases), jnp.float32), source.clip))


def own_policies(given: str | Function, spec: Spec, seed: int) -> Float[np.ndarray, "n P"]:
    """What the user's `policies(spec, seed)` gives. Raises ConfigError where it fails or gives something else."""
    source = Function.of(given)
    with code.blamed(source.name, "policies"):
        theta = np.asarray(source.call(spec, seed), np.float32)
    if theta.ndim != 2 or theta.shape[1] != spec.size or not len(theta):
        raise ConfigError(
            f"{source.name} gives policies of the shape {list(theta.shape)}; expected [n, {spec.size}], n ≥ 1, of "
            f"policies {spec}."
        )
    if not np.isfinite(theta).all():
        raise ConfigError(f"{source.name} gives {np.count_nonzero(~np.isfinite(theta))} numbers that are not finite.")
    return theta


def plan(recipe: Recipe, families: int, seed: int, rows: Int[np.ndarray, "n"]) -> Plan:
    """What the rows of these numbers are. Fresh rows are spread evenly among the others; families take turns."""
    rows = np.asarray(rows, np.int64)
    share, source = recipe.random.share, recipe.perturbed
    before = np.floor(rows * share + 1e-9).astype(np.int64)  # fresh rows among the rows before this one
    fresh = np.floor((rows + 1) * share + 1e-9).astype(np.int64) > before
    turn = rows - before  # number among the perturbed rows
    family, pair, sign, scales = members(turn, families, source.scales, source.antithetic)
    drawn = _draw(seed, rows.astype(np.uint32), fresh, family.astype(np.uint32), pair.astype(np.uint32))
    noise_seed, reset_seed, uniform = (np.asarray(value) for value in drawn)
    low, high = np.log(recipe.random.scale)
    return Plan(
        fresh=fresh,
        base=np.where(fresh, -1, family),
        scale=np.where(fresh, np.exp(low + uniform * (high - low)), scales).astype(np.float32),
        sign=np.where(fresh, 0, sign).astype(np.int8),
        noise_seed=noise_seed,
        reset_seed=reset_seed,
    )


def members(
    number: Int[np.ndarray, "n"], families: int, scales: Sequence[float], antithetic: bool
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """Family, pair, sign and scale of numbered rows: families take turns, each its base itself (sign 0), then
    perturbations, the scales in turn; the two halves of an antithetic pair share scale and noise."""
    family, member = number % families, number // families
    pair = np.maximum(member - 1, 0) // (2 if antithetic else 1)
    sign = np.where(member == 0, 0, np.where(antithetic & (member % 2 == 0), -1, 1))
    scale = np.where(sign == 0, np.float32(0), np.asarray(scales, np.float32)[pair % len(scales)])
    return family, pair, sign, scale


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
def _draw(seed, row, fresh, family, pair):
    """Raw key data of a row's noise and reset streams, and a uniform number for a fresh row's scale."""
    own = jax.random.fold_in(stream(seed, "init"), row)
    shared = jax.random.fold_in(jax.random.fold_in(stream(seed, "perturb"), family), pair)
    noise = jnp.where(fresh, jax.random.key_data(own), jax.random.key_data(shared))
    reset = jax.random.key_data(jax.random.fold_in(stream(seed, "reset"), row))
    return noise, reset, jax.random.uniform(jax.random.fold_in(own, 1))


def parameters(recipe: Recipe, spec: Spec, bases: Float[np.ndarray, "F P"], plan: Plan) -> Float[np.ndarray, "n P"]:
    """The flat parameters of the planned rows."""
    source = recipe.perturbed
    make = _maker(spec, source.law, source.floor, source.clip)
    base = bases[np.maximum(plan.base, 0)]
    return np.asarray(make(plan.noise_seed, base, plan.scale, plan.sign.astype(np.float32), plan.fresh))


@lru_cache(maxsize=16)
def _maker(spec: Spec, law: str | Function, floor: float, clip: float | None):
    def one(seed, base, scale, sign, fresh):
        key = jax.random.wrap_key_data(seed)
        spread = clip_weights(perturb(law, key, base, scale, sign, floor), clip)
        return jnp.where(fresh, acting.init(key, spec, scale), jnp.where(sign == 0, base, spread))

    return jax.jit(jax.vmap(one))


def lineage(recipe: Recipe, base_ids: list[str], run: str, plan: Plan) -> Lineage:
    """Where the planned rows come from."""
    source = recipe.perturbed
    law = code.title(source.law.name) if isinstance(source.law, Function) else source.law
    details = "".join(f" {name}={value:g}" for name, value in (("floor", source.floor), ("clip", source.clip)) if value)
    return Lineage.build(
        len(plan.base),
        source=["random" if fresh else "perturbed" for fresh in plan.fresh],
        base=[None if base < 0 else base_ids[base] for base in plan.base],
        run=run,
        law=[INIT_LAW if fresh else law + details for fresh in plan.fresh],
        scale=plan.scale,
        sign=plan.sign,
        noise_seed=plan.noise_seed,
    )
