"""How well directions found from one iteration's rollouts predict the returns of fresh perturbations: one JSON line.

python benchmarks/fidelity.py                    # two fresh and four bundled Ant policies, 1,024 perturbations each

A critic is worth as much as its gradient. For a policy θ, every method gets the same 1,024 antithetic perturbations
(Gaussian, σ 0.05) and gives one direction d in parameter space: ES its gradient, a critic ∇V(θ). The figure is the
correlation of d · ε with the return over 4,096 other perturbations ε, which grows with the cosine of d and the true
gradient of the smoothed return. At equal noise the samples needed go with its inverse square.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from epvf_data import envs
from epvf_data.collectors.bundled import bundled_files
from epvf_data.critics.base import Row
from epvf_data.critics.mlp import mlp
from epvf_data.critics.probing import action_value, ridge_on_actions
from epvf_data.policies.files import load_policy
from epvf_data.policies.mlp import init
from epvf_data.recording.probes import probing_states
from epvf_data.rollout import rollout
from epvf_data.runtime import prepare
from epvf_data.trainers.fit import Batch, critic_step, init_state
from epvf_data.trainers.online.learners import centred_ranks

SIGMA, TEST = 0.05, 4096


def antithetic(generator: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Standard normal noise [count, size] whose second half mirrors the first."""
    half = generator.standard_normal((count // 2, size)).astype(np.float32)
    return np.concatenate([half, -half])


def raw_ridge(noise: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge on raw parameters, in its dual form."""
    kernel = noise @ noise.T
    level = penalty * np.mean(np.square(noise)) * noise.shape[1]
    return noise.T @ np.linalg.solve(kernel + level * np.eye(len(noise)), targets - targets.mean())


def by_gradient(widths: tuple[int, ...], steps: int, zero_last: bool) -> Callable:
    """∇V of an MLP on (θ' − θ) / σ after full-batch Adam steps from a fresh initialisation."""

    def direction(noise: np.ndarray, targets: np.ndarray) -> np.ndarray:
        critic, optimiser = mlp(noise.shape[1], widths, zero_last), optax.adam(1e-3)
        state = init_state(critic, optimiser, jax.random.key(0))
        rows = Row(jnp.asarray(noise), jnp.asarray(noise))
        batch = Batch((rows,), jnp.asarray((targets - targets.mean()) / targets.std()), jnp.ones(len(noise)))
        step = jax.jit(lambda state: critic_step(critic, optimiser, state, batch)[0])
        for _ in range(steps):
            state = step(state)
        return np.asarray(jax.grad(lambda row: critic.apply(state.params, Row(row, row))[0])(jnp.zeros(noise.shape[1])))

    return direction


def methods(spec, theta, noise, returns, seen, lengths, shipped) -> dict[str, np.ndarray]:
    """Each method's direction."""
    ranks = np.asarray(centred_ranks(jnp.asarray(returns)))
    generator = np.random.default_rng(1)
    by_time = generator.choice(len(seen), 512, replace=False, p=lengths / lengths.sum())
    by_policy = generator.choice(len(seen), 512, replace=False)

    def plane(states: np.ndarray, penalty: float, pairs: bool) -> np.ndarray:
        rows = jnp.asarray(theta + SIGMA * noise)
        fitted = ridge_on_actions(spec, jnp.asarray(states), rows, jnp.asarray(ranks), penalty, pairs)
        return np.asarray(jax.grad(lambda row: action_value(spec, fitted, row))(jnp.asarray(theta)))

    return {
        "OpenAI-ES, ranks": ranks @ noise,
        "OpenAI-ES, returns": (returns - returns.mean()) @ noise,
        "ridge on raw parameters": raw_ridge(noise, ranks, 10.0),
        "MLP 256-256, 10 steps": by_gradient((256, 256), 10, False)(noise, returns),
        "MLP 256-256, 10 steps, zero last layer": by_gradient((256, 256), 10, True)(noise, returns),
        "MLP 256-256, 100 steps, zero last layer": by_gradient((256, 256), 100, True)(noise, returns),
        "actions in shipped states, pairs, penalty 100": plane(shipped, 100.0, True),
        "actions in 128 visited states, penalty 10": plane(seen[by_policy[:128]], 10.0, False),
        "actions in 128 visited states, pairs, penalty 100": plane(seen[by_time[:128]], 100.0, True),
        "actions in 512 visited states, penalty 100": plane(seen[by_time], 100.0, False),
        "actions in 512 visited states, pairs, penalty 10": plane(seen[by_time], 10.0, True),
        "actions in 512 visited states, pairs, penalty 100": plane(seen[by_time], 100.0, True),
        "actions in 512 visited states, one a policy, pairs, penalty 100": plane(seen[by_policy], 100.0, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=1024)
    parser.add_argument("--horizon", type=int, default=250)
    parser.add_argument("--every", type=int, default=4, help="of the bundled policies, which an ES made")
    parser.add_argument("--fresh", type=int, default=2, help="fresh initialisations before them")
    args = parser.parse_args()
    prepare()
    env = envs.make("ant")
    files = bundled_files(env)[1 :: args.every]
    env = env.with_horizon(args.horizon)
    shipped = probing_states(env, 256)
    table: dict[str, list[float]] = {}
    about = []
    spec = load_policy(files[0])[0]
    fresh = [np.asarray(init(jax.random.key(number), spec)) for number in range(args.fresh)]
    for number, theta in enumerate([*fresh, *(load_policy(file)[1] for file in files)]):
        generator = np.random.default_rng(number)
        train, test = antithetic(generator, args.policies, spec.size), antithetic(generator, TEST, spec.size)
        params = theta + SIGMA * np.concatenate([train, test])
        seeds = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(number), len(params))))
        found = rollout(env, spec, params, reset_seed=seeds, sample=True)
        assert found.observations is not None
        returns, lengths = found.returns[:, 0], found.lengths[: args.policies, 0]
        about.append({"mean": round(float(returns.mean()), 2), "std": round(float(returns.std()), 2)})
        seen = found.observations[: args.policies, 0]
        for name, direction in methods(spec, theta, train, returns[: args.policies], seen, lengths, shipped).items():
            score = np.corrcoef(test @ direction, returns[args.policies :])[0, 1]
            table.setdefault(name, []).append(round(float(score), 4))
    result = {name: {"mean": round(float(np.mean(scores)), 4), "each": scores} for name, scores in table.items()}
    print(json.dumps({"benchmark": "fidelity", **vars(args), "test": TEST, "returns": about, "correlation": result}))


if __name__ == "__main__":
    main()
