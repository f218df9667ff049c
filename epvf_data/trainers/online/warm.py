"""Off-policy restart: fit the critic on stored rows before the first iteration."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.recording.task import check_target
from epvf_data.store import reader
from epvf_data.trainers.online.exploration import noise_scale
from epvf_data.trainers.online.learners import Context, Rows, make_learner, shape_targets
from epvf_data.trainers.online.settings import TEMPORAL, OnlineConfig
from epvf_data.trainers.online.state import State, typed_key

MAX_BYTES = 1 << 30  # of parameters; of larger data sets as many rows as fit are drawn
WARM = 2**32 - 1  # in place of an iteration's number


def warm_up(config: OnlineConfig, env: Env, spec: Spec, state: State, path: Path) -> State:
    """The state after `critic.warm_steps` critic steps on the rows of the data set; every seed sees the same rows.

    Raises ConfigError for an algorithm or critic that has nothing to warm up, EnvironmentMismatchError for another
    environment's rows, DatasetError where no row of this architecture is there.
    """
    from epvf_data.trainers.offline.source import open_source  # it brings SciPy's statistics along

    if config.algorithm != "epvf" or config.critic.name == "probing-ridge":
        if config.algorithm in TEMPORAL:
            raise ConfigError(
                f"{config.algorithm} learns from single steps, of which no row tells; leave --warm-start out."
            )
        name = config.algorithm if config.algorithm != "epvf" else f"critic {config.critic.name}"
        raise ConfigError(f"{name} keeps nothing from one iteration to the next; leave --warm-start out.")
    dataset = reader.open(path)
    check_target(dataset, env, "this run is", "--warm-start")
    source = open_source([dataset.table(architecture=spec.id)], device_bytes=0)
    limit = max(config.batch_size, MAX_BYTES // (4 * spec.size))
    rows = np.arange(len(source.labels))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(config.seed).choice(len(rows), limit, replace=False))
    theta, returns = jnp.asarray(source.read(0, rows)), jnp.asarray(source.labels[rows], jnp.float32)
    targets = shape_targets(config, env, returns, jnp.ones(len(rows)))
    steps = config.critic.warm_steps
    learner = make_learner(config, env, spec, steps)
    batch = min(config.batch_size, len(rows))

    @jax.jit
    @jax.vmap
    def fit(state: State) -> State:
        def draw(key: jax.Array) -> Rows:
            index = jax.random.choice(key, len(rows), (batch,), replace=False)
            return Rows(theta[index], targets[index], jnp.ones(batch))

        context = Context(state.theta[0], jnp.mean(noise_scale(config, state.theta[0])), None)
        fitted, _ = learner.fit(state.inner.learner, draw, context, jax.random.fold_in(typed_key(state.key), WARM))
        return state._replace(inner=state.inner._replace(learner=fitted))

    with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
        return fit(state)
