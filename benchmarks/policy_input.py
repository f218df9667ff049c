"""What Q(s, a, θ) knows of policies that it never met, and by which of its inputs: one JSON line a run and lot.

python benchmarks/policy_input.py RUN [RUN …]     # run directories of `train-online --config ant-pavf`, one seed each

Each run's last critic is asked about 512 fresh perturbations of its θ, as many of one size (the middle of the range of
noise) and, on the Ant, the bundled bases, of other trainings. Spearman's correlation of what it says with what
whole episodes then bring (discounted from the start; the mean over states of the replay with the undiscounted return),
where a policy comes with its own action and description z, and where one of the two is another's: θ's for all of them,
or the z of a neighbour. The control is a rank by the size of the perturbation alone, the smaller the better.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data import envs
from epvf_data.collectors.bundled import bundled_files
from epvf_data.physics.loop import start_key
from epvf_data.policies.acting import acts
from epvf_data.policies.files import load_policy
from epvf_data.rollout import rollout
from epvf_data.runtime import prepare
from epvf_data.trainers import checkpoint
from epvf_data.trainers.metrics import spearman
from epvf_data.trainers.online.pavf import make_learner, seen, value
from epvf_data.trainers.online.representation import represent
from epvf_data.trainers.online.run import CHECKPOINTS, read_config, resolve
from epvf_data.trainers.online.standing import begin, restored
from epvf_data.trainers.online.state import fold
from epvf_data.trainers.online.step_iteration import filled, propose
from epvf_data.trainers.online.step_loop import make_step_loop
from epvf_data.trainers.online.transitions import draw

PERTURBED, STATES = 512, 512


def lots(config, spec, state):
    """Name → parameters that act on raw observations, none of which the run has met, and the scale of their noise."""
    middle = float(np.sqrt(np.prod(config.time.sigma)))
    one_size = replace(config, time=replace(config.time, sigma=(middle, middle)))
    found = {"perturbed": _perturbed(config, spec, state), "perturbed, one size": _perturbed(one_size, spec, state)}
    if config.env == "ant":
        bases = [load_policy(path) for path in bundled_files(envs.make("ant"))]
        rows = np.stack([theta for own, theta in bases if own.id == spec.id])
        found["bundled"] = rows, np.ones(len(rows))
    return found


def _perturbed(config, spec, state):
    """Perturbations of θ that iterations to come would begin with, and the scale of each."""
    ahead = range(1, 1 + -(-PERTURBED // config.envs))
    made = jax.jit(lambda own: propose(config, spec, own))
    proposals = [made(state._replace(iteration=state.iteration + k)) for k in ahead]
    params, scale = (np.concatenate([getattr(one, name) for one in proposals]) for name in ("params", "scale"))
    return params[:PERTURBED], scale[:PERTURBED]


def said(learner, env, state, params, states, z):
    """Q of each policy, by its inputs: at the start, and in the mean over states."""
    spec, inner, normaliser = learner.spec, state.inner, state.normaliser
    own = fold(spec, normaliser, inner.average)
    known = represent(learner.config, spec, inner.representation, inner.average, normaliser)

    def each(params, z, where):
        q = lambda p, z: value(learner, inner.critic, seen(normaliser, where), acts(spec, p, where)[0], z).mean()  # noqa: E731
        return np.asarray(jax.lax.map(lambda one: q(one[0], one[1]), (params, z)))

    all_the_same = lambda thing: jnp.broadcast_to(thing, (len(params), len(thing)))  # noqa: E731

    start = env.observe(env.reset(start_key(np.zeros(2, np.uint32), 0)))[None]
    found = {}
    for name, where in (("start", start), ("states", states)):
        found[name] = {
            "own action, own z": each(params, z, where),
            "own action, z of θ": each(params, all_the_same(known), where),
            "own action, a neighbour's z": each(params, jnp.roll(z, 1, axis=0), where),
            "action of θ, own z": each(all_the_same(own), z, where),
        }
    return found


def measure(run: Path) -> list[dict]:
    """What the last critic of a run says, against what comes."""
    config = read_config(run)
    env, spec, backend = resolve(config)
    standing = begin(make_step_loop(config, env, spec, backend).init(), config, spec)
    standing = restored(checkpoint.restore(run / CHECKPOINTS, standing.template()), standing)
    state = jax.tree.map(lambda leaf: leaf[0], standing.state)
    learner = make_learner(config, spec)
    states = draw(state.inner.replay.observation, jax.random.key(1), filled(config, state), STATES)
    described = jax.jit(jax.vmap(partial(represent, config, spec, state.inner.representation, normaliser=None)))
    lines = []
    for lot, (params, scale) in lots(config, spec, state).items():
        z = described(theta=jnp.asarray(params))
        outcomes = rollout(env, spec, params, backend=backend, discount=config.time.discount)
        real = {"start": outcomes.discounted.mean(axis=1), "states": outcomes.returns.mean(axis=1)}
        ranks = {
            name: {inputs: round(spearman(q, real[name]), 3) for inputs, q in by_inputs.items()}
            for name, by_inputs in said(learner, env, state, jnp.asarray(params), states, z).items()
        }
        if np.ptp(scale) > 0:
            for name, by_inputs in ranks.items():
                by_inputs["control: size of the perturbation"] = round(spearman(-scale, real[name]), 3)
        about = {"run": run.name, "seed": config.seed, "env_steps": int(standing.env_steps[0]), "policies": len(params)}
        lines.append({**about, "lot": lot, "return": round(float(real["states"].mean()), 1), **ranks})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    prepare()
    for run in parser.parse_args().runs:
        for line in measure(run):
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
