"""The table of figures against the real presets: every variant can be configured and changes what it says."""

import pytest

from epvf_data.config import flatten, to_dict
from epvf_data.errors import ConfigError
from epvf_data.reproduction.figures import ABLATIONS, ENVS, FIGURES, PRESETS, SCALES, Variant, variants
from epvf_data.reproduction.plan import SHARED, configure, references

CASES = [(name, scale, settings) for name in FIGURES for scale in SCALES for settings in ("paper", "ours", "both")]


def configured(figure, scale, settings="paper", only=(), overrides=None, seeds=None):
    every = variants(figure, scale, settings)
    chosen = [v for v in variants(figure, scale, settings, only) if v.kind != "baseline"]
    jobs, left_out = configure(figure, scale, chosen, references(every), overrides or {}, seeds)
    return {name: [flatten(to_dict(job.config)) for job in found] for name, found in jobs.items()}, left_out


@pytest.mark.parametrize(("figure", "scale", "settings"), CASES)
def test_every_variant_can_be_configured(figure, scale, settings):
    if (figure == "fig1" and settings != "paper") or (figure == "time" and settings == "both"):
        with pytest.raises(ConfigError, match="settings only; leave --settings out"):
            variants(figure, scale, settings)
        return
    every = variants(figure, scale, settings)
    assert len({variant.name for variant in every}) == len(every)
    found, left_out = configured(figure, scale, settings)
    assert {*found, *left_out} == {variant.name for variant in every if variant.kind != "baseline"}
    for name, configs in found.items():
        assert sum(config["seeds"] for config in configs) == {"smoke": 2, "cpu": 5, "paper": 5}[scale] * (
            1 + (figure == "fig1" and scale != "smoke")
        ), name


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_ablations_change_exactly_one_thing(scale):
    found, left_out = configured("fig2-ablations", scale)
    assert not left_out
    best = found["best"][0]
    envs = best["envs"]
    expected = {
        "multiple-policies": {"exploration.policies": envs},
        "buffer-100x": {"replay.capacity": 100 * envs, "replay.batch_size": envs},
        "fixed-policy-lr": {"improvement.learning_rate": 1e-5, "improvement.final_learning_rate": 1e-5},
        "noise-1": {"exploration.scale": 1.0},
        "no-weight-clip": {"improvement.weight_clip": None},
        "clip-noise": {"exploration.clip_noise": 0.3},
        "clip-perturbed": {"exploration.clip_weights": True},
        "gaussian": {"exploration.law": "gaussian", "exploration.scale": 1.0},
    }
    assert [name for name, _, _ in ABLATIONS] == list(expected)
    for name, changes in expected.items():
        for place, config in enumerate(found[name]):
            apart = {"seeds": 1, "seed": place} if name == "buffer-100x" else {}
            wanted = {key: value for key, value in {**best, **changes, **apart}.items() if value != config[key]}
            assert not wanted, name


@pytest.mark.parametrize(("scale", "overrides", "noise"), [("paper", {}, 0.025), ("cpu", {"scale": 0.01}, 0.01)])
def test_our_ablations_are_multiples_of_our_own_settings(scale, overrides, noise):
    found, _ = configured("fig2-ablations", scale, "ours", overrides={"exploration": overrides})
    best = found["ours-best"][0]
    assert found["ours-twice-the-noise"][0]["exploration.scale"] == 2 * noise
    assert found["ours-half-the-noise"][0]["exploration.scale"] == noise / 2
    assert found["ours-four-times-envs"][0]["envs"] == 4 * best["envs"] == 1024
    rates = ("improvement.learning_rate", "improvement.final_learning_rate")
    assert [found["ours-long-steps"][0][rate] for rate in rates] == [4 * best[rate] for rate in rates]
    assert found["ours-es-ours"][0]["exploration.scale"] == noise
    assert found["ours-es"][0]["exploration.scale"] == 0.05
    constant = {"improvement": {"final_learning_rate": "none"}}
    constant, _ = configured("fig2-ablations", scale, "ours", overrides=constant)
    assert constant["ours-long-steps"][0]["improvement.final_learning_rate"] is None


def test_the_setup_is_what_the_paper_names():
    (best,), _ = configured("fig2-ablations", "paper")[0]["best"], None
    named = {"envs": 4096, "exploration.law": "uniform_scaled", "exploration.scale": 0.3}
    named |= {"improvement.weight_clip": 0.1, "improvement.learning_rate": 1e-3}
    named |= {"improvement.final_learning_rate": 1e-7, "replay.capacity": None, "replay.batch_size": None}
    assert {key: best[key] for key in named} == named


@pytest.mark.parametrize("scale", SCALES)
def test_scaling_varies_environments_at_equal_steps(scale):
    found, _ = configured("fig2-scaling", scale, "both")
    for prefix in ("", "ours-"):
        configs = [found[f"{prefix}envs-{envs}"][0] for envs in ENVS[scale]]
        assert [config["envs"] for config in configs] == list(ENVS[scale])
        assert len({config["env_steps"] for config in configs}) == 1
        assert configs[0]["env_steps"] is not None
        assert all(config["replay.capacity"] is config["replay.batch_size"] is None for config in configs)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("figure", ["fig2-ablations", "fig2-architectures"])
def test_controls_spend_the_same_on_the_same_task_in_both_panels(figure, scale):
    found, _ = configured(figure, scale, "both")
    reference = found[next(iter(found))][0]
    controls = [variant for variant in variants(figure, scale, "both") if variant.kind == "control"]
    for variant in controls:
        (config,) = found[variant.name]
        assert config["algorithm"] == variant.folder.split("-")[0]
        assert {key: config[key] for key in SHARED} == {key: reference[key] for key in SHARED}
        if variant.folder in found:
            assert config == found[variant.folder][0]  # one run directory serves both


def test_own_changes_win_over_overrides_and_these_over_presets():
    overrides = {"exploration": {"scale": 0.2}, "env_steps": 1234, "policy": {"hidden": [8]}, "critic": {"steps": 7}}
    found, _ = configured("fig2-ablations", "cpu", overrides=overrides, seeds=4)
    assert found["noise-1"][0]["exploration.scale"] == 1.0
    assert found["best"][0]["exploration.scale"] == 0.2
    assert found["es"][0]["exploration.scale"] != 0.2  # of another algorithm
    assert {found[name][0]["env_steps"] for name in found} == {1234}
    assert {found[name][0]["critic.steps"] for name in found if name != "es"} == {7}
    assert found["es"][0]["policy.hidden"] == [8]
    assert found["best"][0]["seeds"] == 4
    assert len(found["buffer-100x"]) == 4
    with pytest.raises(ConfigError, match="did you mean critic.steps"):
        configured("fig2-ablations", "cpu", overrides={"critic": {"stepz": 1}})


def test_names_are_checked():
    for arguments, words in (
        (("fig3", "cpu"), "no figure 'fig3'"),
        (("fig1", "huge"), "no scale 'huge'"),
        (("fig2-scaling", "cpu", "mine"), "no set of settings 'mine'"),
        (("fig1", "cpu", "paper", ["envs-3"]), "no variant 'envs-3'; choose from envs-1"),
    ):
        with pytest.raises(ConfigError, match=words):
            variants(*arguments)
    assert [variant.name for variant in variants("fig1", "cpu", only=["envs-8", "envs-1"])] == ["envs-1", "envs-8"]


def test_an_optional_variant_is_left_out_with_its_reason():
    odd = Variant("critic-odd", "odd", PRESETS["ant", "cpu", "paper"], {"critic.name": "odd"}, optional=True)
    best = variants("fig2-architectures", "cpu")[0]
    jobs, left_out = configure("fig2-architectures", "cpu", [best, odd], {"paper": best}, {})
    assert list(jobs) == [best.name]
    assert "no critic 'odd'" in left_out["critic-odd"]


@pytest.mark.parametrize("scale", SCALES)
def test_agents_of_a_library_run_seed_by_seed_or_are_left_out(monkeypatch, scale):
    every = variants("fig2-architectures", scale)
    agents = [variant for variant in every if variant.kind == "baseline"]

    def missing(module):
        raise ConfigError("it is not installed.")

    monkeypatch.setattr("epvf_data.baselines.library.load", missing)
    jobs, left_out = configure("fig2-architectures", scale, agents, references(every), {}, seeds=3)
    assert (jobs, left_out) == ({}, dict.fromkeys(("ppo", "sac"), "it is not installed."))
    monkeypatch.setattr("epvf_data.baselines.library.load", lambda module: None)
    jobs, left_out = configure("fig2-architectures", scale, agents, references(every), {"seed": 7}, seeds=3)
    assert not left_out
    reference = configured("fig2-architectures", scale, seeds=3)[0]["critic-mlp"][0]
    for name, found in jobs.items():
        count = 1 if scale == "smoke" else 3
        assert [job.path for job in found] == [f"{name}/seed-{7 + place}" for place in range(count)]
        for place, job in enumerate(found):
            assert (job.config.algorithm, job.config.seed) == (name, 7 + place)
            assert (job.config.env_steps, job.config.horizon) == (reference["env_steps"], reference["horizon"])


@pytest.mark.parametrize(("scale", "episode", "updates"), [("smoke", 40, 124), ("cpu", 1000, 3968)])
def test_monte_carlo_sums_whole_episodes_and_updates_as_often(scale, episode, updates):
    found = configured("time", scale)[0]
    sums, best = found["psvf-monte-carlo"][0], found["best"][0]
    assert (sums["time.segment"], sums["time.n_step"], sums["time.hold"]) == (episode, episode, 1)
    assert sums["critic.steps"] == updates == 31 * best["critic.steps"]  # an iteration of the Ant is 31.25 as long
    assert found["epvf"][0]["improvement.final_at"] == 1.0  # the rate falls over what a run has, as the others' do
