import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data import envs
from epvf_data.collectors.recipe import load_bases, parameters, plan
from epvf_data.collectors.setting import PerturbedSource, RandomSource, Recipe
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.files import save_policy
from epvf_data.policies.perturb import perturb
from epvf_data.policies.spec import PolicySpec

ENV = envs.make("cartpole")
SPEC = PolicySpec(4, 1, (3,))


def make(recipe, seed, rows):
    bases = load_bases(recipe, ENV, SPEC, seed)
    planned = plan(recipe, len(bases), seed, rows)
    return bases, planned, parameters(recipe, SPEC, bases, planned)


@given(
    st.floats(0, 1),
    st.integers(0, 9),
    st.lists(st.integers(0, 63), min_size=16, max_size=16),
    st.booleans(),
)
def test_any_part_of_the_rows_is_the_same_made_alone(share, seed, some, antithetic):
    recipe = Recipe(RandomSource(share), PerturbedSource(random_bases=5, antithetic=antithetic))
    _, planned, params = make(recipe, seed, np.arange(64))
    _, mine, part = make(recipe, seed, np.array(some))
    np.testing.assert_array_equal(part, params[some])
    for own, every in zip(mine, planned, strict=True):
        np.testing.assert_array_equal(own, every[some])
    assert abs(planned.fresh.sum() - share * 64) <= 1


def test_lineage_alone_gives_every_parameter_back():
    recipe = Recipe(RandomSource(0.25), PerturbedSource(random_bases=3, law="uniform_scaled", floor=0.01))
    bases, planned, params = make(recipe, 5, np.arange(100))
    for row in range(100):
        key = jax.random.wrap_key_data(planned.noise_seed[row])
        if planned.fresh[row]:
            expected = mlp.init(key, SPEC, float(planned.scale[row]))
        elif planned.sign[row] == 0:
            expected = bases[planned.base[row]]
        else:
            expected = perturb(
                "uniform_scaled",
                key,
                jnp.asarray(bases[planned.base[row]]),
                float(planned.scale[row]),
                float(planned.sign[row]),
                0.01,
            )
        np.testing.assert_allclose(params[row], expected, atol=1e-7)


def test_families_hold_their_base_once_then_antithetic_pairs_of_every_scale():
    recipe = Recipe(RandomSource(0.0), PerturbedSource(random_bases=2, scales=(0.1, 0.2), law="gaussian"))
    bases, planned, params = make(recipe, 0, np.arange(2 * 9))
    for family in range(2):
        mine = planned.base == family
        np.testing.assert_array_equal(planned.sign[mine], [0, 1, -1, 1, -1, 1, -1, 1, -1])
        np.testing.assert_allclose(planned.scale[mine], [0, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.2])
        own = params[mine]
        np.testing.assert_array_equal(own[0], bases[family])
        for pair in range(4):
            np.testing.assert_allclose((own[1 + 2 * pair] + own[2 + 2 * pair]) / 2, bases[family], atol=1e-6)
        assert len(np.unique(own, axis=0)) == 9


def test_streams_are_independent_of_each_other():
    recipe = Recipe(RandomSource(0.5), PerturbedSource(random_bases=2))
    _, planned, _ = make(recipe, 0, np.arange(50))
    words = np.concatenate([planned.reset_seed, planned.noise_seed[planned.fresh]])
    assert len(np.unique(words, axis=0)) == len(words)
    _, other, _ = make(recipe, 1, np.arange(50))
    assert not (other.reset_seed == planned.reset_seed).all(axis=1).any()


def test_random_scales_are_log_uniform():
    recipe = Recipe(RandomSource(1.0, (0.1, 10.0)), PerturbedSource())
    _, planned, _ = make(recipe, 0, np.arange(4000))
    logs = np.log10(planned.scale)
    assert -1 <= logs.min() < -0.99
    assert 0.99 < logs.max() <= 1 + 1e-6
    assert logs.mean() == pytest.approx(0.0, abs=0.03)


def test_policy_files_are_bases_and_other_architectures_are_refused(tmp_path):
    flat = np.asarray(mlp.init(jax.random.key(0), SPEC))
    save_policy(tmp_path / "mine", SPEC, flat)
    recipe = Recipe(perturbed=PerturbedSource(bases=(str(tmp_path / "mine"), "random"), random_bases=2, clip=0.1))
    bases = load_bases(recipe, ENV, SPEC, 0)
    assert bases.shape == (3, SPEC.size)
    np.testing.assert_array_equal(bases[0], np.clip(flat, -0.1, 0.1))
    with pytest.raises(ArchitectureMismatchError, match="perturbed.bases=random"):
        load_bases(recipe, ENV, PolicySpec(4, 1, (5,)), 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Recipe(RandomSource(1.5)), "random.share is 1.5; it must be at most 1"),
        (lambda: Recipe(RandomSource(0.5, (3.0, 1.0))), "two positive numbers"),
        (lambda: Recipe(perturbed=PerturbedSource(scales=())), "must be above 0"),
        (lambda: Recipe(perturbed=PerturbedSource(bases=())), "perturbed.bases is empty"),
        (lambda: Recipe(perturbed=PerturbedSource(law="gausian")), "no perturbation law"),
        (lambda: Recipe(perturbed=PerturbedSource(random_bases=0)), "at least 1"),
    ],
)
def test_bad_recipes_are_refused_in_one_sentence(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("name", ["ant", "cartpole", "hopper", "walker2d", "halfcheetah"])
def test_bundled_policies_are_bases_of_their_environment(name):
    env = envs.make(name)
    bases = load_bases(Recipe(perturbed=PerturbedSource(("bundled",))), env, PolicySpec(*sizes(env)), 0)
    assert len(bases) >= 8
    assert len(np.unique(bases, axis=0)) == len(bases)
    with pytest.raises(ArchitectureMismatchError, match="perturbed.bases=random"):
        load_bases(Recipe(perturbed=PerturbedSource(("bundled",))), env, PolicySpec(*sizes(env), (5,)), 0)


def test_an_environment_without_bundled_policies_says_so():
    env = envs.make("ant-servo")
    with pytest.raises(ConfigError, match="no policies are bundled for ant-servo"):
        load_bases(Recipe(perturbed=PerturbedSource(("bundled",))), env, PolicySpec(*sizes(env)), 0)


def sizes(env):
    return env.observation_size, env.action_size
