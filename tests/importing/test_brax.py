"""Policies of brax itself, as its training returns and saves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brax")

from brax.training.acme import running_statistics
from brax.training.agents.ppo import checkpoint as ppo_checkpoint
from brax.training.agents.ppo import networks as ppo
from brax.training.agents.sac import checkpoint as sac_checkpoint
from brax.training.agents.sac import networks as sac
from flax.serialization import to_bytes

from epvf_data.baselines import library
from epvf_data.importing.run import import_policy


@pytest.mark.parametrize(("name", "normalise"), [("ppo", True), ("ppo", False), ("sac", True)])
@pytest.mark.filterwarnings("ignore")  # brax's own
def test_acts_as_at_home(tmp_path, acts, name, normalise):
    module, checkpoint = (ppo, ppo_checkpoint) if name == "ppo" else (sac, sac_checkpoint)
    make = ppo.make_ppo_networks if name == "ppo" else sac.make_sac_networks
    preprocess = running_statistics.normalize if normalise else lambda x, _: x
    networks = make(5, 2, preprocess_observations_fn=preprocess)
    draw = np.random.default_rng(0)
    states = jnp.asarray(draw.normal(1, 2, (64, 5)), jnp.float32)
    seen = jnp.asarray(draw.normal(2, 3, (100, 5)), jnp.float32)
    parts = [networks.policy_network] + ([networks.value_network] if name == "ppo" else [])
    with library.ready():
        statistics = running_statistics.update(running_statistics.init_state(jnp.zeros(5)), seen)
        params = (statistics, *(part.init(jax.random.PRNGKey(1)) for part in parts))
        act = module.make_inference_fn(networks)(params, deterministic=True)
        home = act(states, jax.random.PRNGKey(0))[0]
        checkpoint.save(tmp_path / "run", 7, params, checkpoint.network_config(5, 2, normalise, make))
    report = import_policy(tmp_path / "run", tmp_path / "p")
    assert report.layout == f"brax {name.upper()}"
    assert report.normaliser == normalise
    np.testing.assert_allclose(acts(tmp_path / "p", states), home, atol=1e-5)
    (tmp_path / "a").write_bytes(to_bytes(params))
    stated = {} if normalise else {"normaliser": "none"}
    import_policy(tmp_path / "a", tmp_path / "q", settings=stated)
    np.testing.assert_allclose(acts(tmp_path / "q", states), home, atol=1e-5)
