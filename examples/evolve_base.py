"""Evolve a policy with OpenAI-ES and save snapshots on the way: bases for `epvf-data collect --base`.

    python examples/evolve_base.py --env ant --out bases --generations 300 --horizon 250

Salimans et al. (2017): antithetic Gaussian noise, centred ranks, Adam. Every generation is one call of `rollout`.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from epvf_data import envs
from epvf_data.policies import mlp
from epvf_data.policies.files import load_policy, save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ant")
    parser.add_argument("--out", type=Path, default=Path("bases"))
    parser.add_argument("--start", type=Path, help="continue from this policy file")
    parser.add_argument("--generations", type=int, default=300)
    parser.add_argument("--population", type=int, default=1024)
    parser.add_argument("--horizon", type=int, default=250)
    parser.add_argument("--episodes", type=int, default=1, help="a policy; all policies meet the same starts")
    parser.add_argument("--sigma", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--every", type=int, default=20, help="generations between snapshots")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    env = envs.make(args.env).with_horizon(args.horizon)
    key = jax.random.key(args.seed)
    if args.start:
        spec, base = load_policy(args.start)
    else:
        spec = PolicySpec(env.observation_size, env.action_size)
        base = mlp.init(jax.random.fold_in(key, 0), spec)
    base = jnp.asarray(base)
    optimiser = optax.adam(args.learning_rate)
    state = optimiser.init(base)

    @jax.jit
    def ask(key, base):
        half = args.sigma * jax.random.normal(key, (args.population // 2, spec.size))
        noise = jnp.concatenate([half, -half])
        return base + noise, noise

    @jax.jit
    def tell(base, state, noise, returns):
        ranks = jnp.argsort(jnp.argsort(returns)) / (returns.size - 1) - 0.5
        updates, state = optimiser.update(-(ranks @ noise) / (returns.size * args.sigma**2), state)
        return optax.apply_updates(base, updates), state

    steps = 0
    for generation in range(args.generations):
        population, noise = ask(jax.random.fold_in(key, generation + 1), base)
        starts = np.tile(jax.random.key_data(jax.random.key(generation)), (args.population, 1))
        outcomes = rollout(env, spec, np.asarray(population), reset_seed=starts, episodes=args.episodes)
        returns = outcomes.returns.mean(axis=1)
        steps += outcomes.env_steps
        if generation % args.every == 0:
            alone = rollout(envs.make(args.env), spec, np.asarray(base)[None], episodes=args.episodes).returns.mean()
            save_policy(
                args.out / f"{args.env}-h{args.horizon}-{generation:04d}.safetensors",
                spec,
                np.asarray(base),
                env=args.env,
            )
            print(
                f"generation {generation}: {steps / 1e6:.1f} M steps, population {returns.mean():.1f} "
                f"(best {returns.max():.1f}), base over the full horizon {alone:.1f}",
                flush=True,
            )
        base, state = tell(base, state, jnp.asarray(noise), jnp.asarray(returns))
    save_policy(args.out / f"{args.env}-h{args.horizon}-last.safetensors", spec, np.asarray(base), env=args.env)


if __name__ == "__main__":
    main()
