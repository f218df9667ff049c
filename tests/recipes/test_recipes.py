"""Recipes on real physics, real training runs and a real store."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import epvf_data
from epvf_data import envs
from epvf_data.curation.finalize import finalize
from epvf_data.errors import (
    ArchitectureMismatchError,
    ConfigError,
    DatasetError,
    EnvironmentMismatchError,
    RunError,
    StorageError,
)
from epvf_data.policies import mlp
from epvf_data.policies.files import save_policy
from epvf_data.policies.initial import INITS, draw
from epvf_data.policies.perturb import perturb
from epvf_data.policies.spec import PolicySpec
from epvf_data.recipes.collect import collect_recipe, lots_of, untrained
from epvf_data.recipes.fan_out import fan_out_recipe
from epvf_data.recipes.rows import place
from epvf_data.recipes.tables import BUNDLED, build, read, to_dict
from epvf_data.store.digest import content_hash
from epvf_data.store.schema import policy_id

QUICK = {"env_steps": 8000, "envs": 16, "horizon": 40, "log_every": 1}
RECIPE = {
    "env": "ant",
    "policies": 120,
    "envs": 32,
    "horizon": 40,
    "architectures": {
        "plain": {"hidden": [8]},
        "norm": {"hidden": [6, 5], "activation": "relu", "output": "clip", "layer_norm": True, "weight": 2.0},
    },
    "sources": {
        "random": {"kind": "random", "weight": 2.0},
        "es": {"kind": "online", "preset": "ant-cpu-es", "snapshots": 3, "settings": QUICK},
        "stand": {
            "kind": "online",
            "preset": "ant-cpu",
            "objective": "standing",
            "architectures": ["plain"],
            "settings": QUICK | {"critic.probes": 8},
        },
        "between": {"kind": "between", "of": ["es"], "pairs": 4},
        "renumbered": {"kind": "renumbered", "of": ["es"]},
    },
}


def changed(**tables):
    """The recipe with some of its tables changed; None takes one out."""
    recipe = copy.deepcopy(RECIPE)
    for name, value in tables.items():
        table, _, key = name.partition("__")
        place = recipe[table] if key else recipe
        if value is None:
            del place[key or name]
        elif isinstance(value, dict) and key in place:
            place[key] = place[key] | value
        else:
            place[key or name] = value
    return recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with ant.zarr and its teachers' runs."""
    folder = tmp_path_factory.mktemp("recipe")
    collect_recipe(build(RECIPE), folder / "ant.zarr")
    return folder


def words(table, name):
    return ["" if index < 0 else table.vocabulary(name)[index] for index in table.column(name)]


def table_of(folder, hidden):
    dataset = epvf_data.open(folder / "ant.zarr")
    return dataset.table(next(item.id for item in dataset.architectures if item.spec.hidden == hidden))


def test_rows_are_of_every_architecture_and_source_by_weight(made):
    dataset = epvf_data.open(made / "ant.zarr")
    assert {item.spec.hidden: item.rows for item in dataset.architectures} == {(8,): 40, (6, 5): 80}
    rows = {(line["source"], line["architecture"]): line["rows"] for line in dataset.summary()["coverage"]}
    plain, norm = table_of(made, (8,)).spec.id, table_of(made, (6, 5)).spec.id
    expected = {"random": 2, "es": 1, "between": 1, "renumbered": 1}
    for name, weight in expected.items():
        assert abs(rows[name, plain] - 40 * weight / 6) <= 2
        assert abs(rows[name, norm] - 80 * weight / 5) <= 2
    assert abs(rows["stand for standing", plain] - 40 / 6) <= 2
    assert ("stand for standing", norm) not in rows


def test_lineage_tells_where_each_row_comes_from(made):
    table = table_of(made, (8,))
    source, law = (np.array(words(table, name)) for name in ("source", "law"))
    runs, iteration = words(table, "run"), table.column("iteration")
    assert set(law[source == "random"]) == {f"init_{law}" for law in INITS}
    assert set(law[source == "es"]) == {"gaussian"}
    assert set(law[source == "renumbered"]) == {"renumbered and flipped"}  # tanh is odd
    assert all(run.startswith("es-plain/") for run, name in zip(runs, source, strict=True) if name == "es")
    assert (iteration[(source == "es") | (source == "between")] > 0).all()
    assert (iteration[source == "random"] == -1).all()
    kept = sorted(int(path.name[3:9]) for path in (made / "ant.runs" / "es-plain" / "policies").glob("at-*"))
    assert len(kept) == 3
    assert set(iteration[source == "es"]) == set(kept)


def test_perturbed_rows_are_their_base_plus_the_noise_of_their_key(made):
    table = table_of(made, (8,))
    source = np.array(words(table, "source"))
    sign, scale = table.column("sign"), table.column("scale")
    bases = {}
    for path in (made / "ant.runs" / "es-plain" / "policies").glob("at-*"):
        spec, flat = epvf_data.load_policy(path)
        bases[policy_id(spec, flat)] = flat
    params, seeds = table.column("params"), table.column("noise_seed")
    names = words(table, "base")
    found = np.flatnonzero(source == "es")
    assert (sign[found] == 0).sum() == 3
    for row in found:
        base = jnp.asarray(bases[names[row]])
        key = jax.random.wrap_key_data(jnp.asarray(seeds[row]))
        again = base if sign[row] == 0 else perturb("gaussian", key, base, float(scale[row]), float(sign[row]))
        np.testing.assert_allclose(params[row], again, atol=1e-7)
    for row in np.flatnonzero(source == "random"):
        key = jax.random.wrap_key_data(jnp.asarray(seeds[row]))
        law = words(table, "law")[row].removeprefix("init_")
        np.testing.assert_allclose(params[row], draw(law, key, table.spec, float(scale[row])), atol=1e-5)


def test_renumbered_policies_do_and_earn_what_their_base_does(made):
    for hidden in ((8,), (6, 5)):
        table = table_of(made, hidden)
        source, names = words(table, "source"), words(table, "base")
        own = {policy_id(table.spec, flat): row for row, flat in enumerate(table.column("params"))}
        pairs = [
            (row, own[names[row]]) for row, name in enumerate(source) if name == "renumbered" and names[row] in own
        ]
        assert len(pairs) >= 3
        for row, base in pairs:
            assert not np.array_equal(table.column("params")[row], table.column("params")[base])
            np.testing.assert_allclose(
                table.column("probe_actions")[row], table.column("probe_actions")[base], atol=1e-5
            )
            np.testing.assert_allclose(
                table.column("returns")[row], table.column("returns")[base], rtol=0.02, atol=0.02
            )


def test_the_recipe_of_a_data_set_makes_its_rows_again(made, tmp_path):
    stored = build(read(str(made / "ant.zarr")))
    assert stored == build(RECIPE)
    collect_recipe(stored, tmp_path / "again.zarr")
    assert content_hash(epvf_data.open(tmp_path / "again.zarr")) == content_hash(epvf_data.open(made / "ant.zarr"))


def test_rows_are_the_same_in_parts_and_out_of_turn(made, tmp_path):
    runs = made / "ant.runs"
    lots = lots_of(build(RECIPE), made / "ant.zarr")
    for lot in lots:
        whole = lot.draw(np.arange(lot.rows))
        some = lot.draw(np.array([3, 17, 30]))
        np.testing.assert_array_equal(some.params, whole.params[[3, 17, 30]])
        np.testing.assert_array_equal(some.reset_seed, whole.reset_seed[[3, 17, 30]])
        assert some.lineage.words("law") == [whole.lineage.words("law")[row] for row in (3, 17, 30)]
    shutil.copytree(runs, tmp_path / "ant.runs")
    collect_recipe(build(changed(policies=50)), tmp_path / "ant.zarr")
    report = collect_recipe(build(RECIPE), tmp_path / "ant.zarr", resume=True)
    assert (report.rows, report.rows_total) == (70, 120)
    assert content_hash(epvf_data.open(tmp_path / "ant.zarr")) == content_hash(epvf_data.open(made / "ant.zarr"))


def test_adding_a_source_leaves_the_policies_of_the_others(made):
    fewer = lots_of(build(changed(sources__between=None)), made / "ant.zarr")[0]
    more = lots_of(build(RECIPE), made / "ant.zarr")[0]
    drawn = [{flat.tobytes() for flat in lot.draw(np.arange(30)).params} for lot in (fewer, more)]
    assert len(drawn[0] & drawn[1]) > 20


@pytest.mark.soak  # a plain collection, through the same door, is killed always
def test_a_killed_collection_goes_on_to_the_same_rows(made, tmp_path):
    lines = json.dumps(RECIPE)
    imports = "import json; from epvf_data.recipes import collect, tables"
    code = f"{imports}; collect.collect_recipe(tables.build(json.loads({lines!r})), 'ant.zarr')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    deadline = time.time() + 120
    while time.time() < deadline and not (tmp_path / "ant.runs" / "es-plain" / "metrics.jsonl").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "ant.zarr").exists()
    collect_recipe(build(RECIPE), tmp_path / "ant.zarr")
    assert content_hash(epvf_data.open(tmp_path / "ant.zarr")) == content_hash(epvf_data.open(made / "ant.zarr"))


def test_teachers_of_other_settings_are_not_taken_for_these(made, tmp_path):
    shutil.copytree(made / "ant.runs", tmp_path / "ant.runs")
    other = changed(sources__es={"settings": QUICK | {"envs": 32}})
    with pytest.raises(RunError, match="envs"):
        collect_recipe(build(other), tmp_path / "ant.zarr")


@given(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=6), st.integers(0, 500), st.integers(1, 300))
def test_every_stretch_holds_each_source_by_its_weight(weights, start, length):
    rows = np.arange(start, start + length)
    which, number = place(rows, weights)
    share = np.bincount(which, minlength=len(weights)) / length
    np.testing.assert_allclose(share, np.array(weights) / sum(weights), atol=8 / length)
    every, _ = place(np.arange(start + length), weights)
    for row, source, own in zip(rows, which, number, strict=True):
        assert own == (every[:row] == source).sum()


@pytest.mark.parametrize("law", INITS)
def test_laws_of_initialisation_have_the_spread_they_say(law):
    spec = PolicySpec(40, 6, (50, 30), layer_norm=True)
    flat = draw(law, jax.random.key(3), spec, 0.7)
    tensors = mlp.unflatten(spec, flat)
    for layer, inputs in enumerate((40, 50, 30)):
        kernel = np.asarray(tensors[f"layer_{layer}/kernel"])
        if law == "orthogonal":
            small = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
            np.testing.assert_allclose(small @ small.T, 0.49 * np.eye(len(small)), atol=1e-5)
        else:
            spread = 0.7 / inputs**0.5 / (3**0.5 if law == "uniform" else 1)
            assert abs(kernel.std() / spread - 1) < 0.15
        assert np.asarray(tensors[f"layer_{layer}/bias"]).std() > 0
    assert abs(np.asarray(tensors["layer_0/norm_scale"]).mean() - 1) < 0.1


def test_files_are_bases_too(tmp_path):
    spec = PolicySpec(34, 8, (8,))
    flat = np.asarray(mlp.init(jax.random.key(1), spec))
    save_policy(tmp_path / "mine.safetensors", spec, flat)
    source = {"kind": "perturbed", "bases": [str(tmp_path / "mine.safetensors")], "architectures": ["plain"]}
    recipe = {**RECIPE, "sources": {"mine": source, "random": {"kind": "random"}}}
    lot = next(lot for lot in lots_of(build(recipe), tmp_path / "ant.zarr") if lot.spec == spec)
    drawn = lot.draw(np.arange(8))
    assert any(np.array_equal(row, flat) for row in drawn.params)
    as_it_is = {**recipe, "architectures": {"plain": {"like": str(tmp_path / "mine.safetensors")}}}
    assert lots_of(build(as_it_is), tmp_path / "ant.zarr")[0].spec == spec
    with pytest.raises(ArchitectureMismatchError, match="environment hopper has 11 observations"):
        lots_of(build({**as_it_is, "env": "hopper"}), tmp_path / "ant.zarr")
    recipe["sources"] = {"mine": source | {"architectures": []}}
    with pytest.raises(ArchitectureMismatchError, match=r"sources.mine: the policy in .* is 34-8-8"):
        lots_of(build(recipe), tmp_path / "ant.zarr")


@pytest.mark.soak
def test_populations_of_cma_es(tmp_path):
    pytest.importorskip("evosax")
    source = {"kind": "evolution", "population": 8, "env_steps": 2000, "horizon": 20, "snapshots": 3, "members": 2}
    recipe = {**RECIPE, "sources": {"cma": source}, "architectures": {"plain": {"hidden": [8]}}, "policies": 30}
    first = lots_of(build(recipe), tmp_path / "one")[0].draw(np.arange(30))
    again = lots_of(build(recipe), tmp_path / "two")[0].draw(np.arange(30))
    np.testing.assert_array_equal(first.params, again.params)
    assert len(list((tmp_path / "one.runs" / "cma-plain" / "policies").iterdir())) == 9
    taken = time.perf_counter()
    lots_of(build(recipe), tmp_path / "one")
    assert len({*first.lineage.words("base")}) == 9
    assert time.perf_counter() - taken < 60


def test_the_recipes_that_ship_are_in_order():
    for path in BUNDLED.glob("*.toml"):
        recipe = build(read(path.stem))
        assert build(json.loads(json.dumps(to_dict(recipe)))) == recipe
        for source in recipe.sources.values():
            objective = getattr(source, "objective", "")
            envs.make(f"{recipe.env}.{objective}" if objective else recipe.env)
    assert read("diverse", "ant")["policies"] == 20_000
    assert "bundled" not in read("diverse", "hopper")["sources"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (changed(sources__random={"kind": "randon"}), "sources.random: there is no kind of source 'randon'; did"),
        (changed(sources__random={"law": ["uniform"]}), "sources.random: there is no setting law; did you mean laws?"),
        (changed(sources__random={"laws": ["unifrom"]}), "did you mean uniform?"),
        (changed(sources__es={"radii": []}), "sources.es: radii is []; it must be above 0."),
        (changed(sources__between={"of": ["ess"]}), "there is no source with policies for sources.between 'ess'"),
        (changed(sources__between={"of": ["random"]}), "sources.between 'random'"),
        (changed(sources__es={"architectures": ["plane"]}), "architecture for sources.es 'plane'; did you mean plain?"),
        (changed(sources__es={"architectures": ["plain"]}), "have none of architectures.norm"),
        (changed(architectures={}), "the recipe has no architectures"),
        (changed(architectures__plain={"hidden": "wide"}), "architectures.plain: hidden is 'wide'"),
        (changed(polices=3), "there is no setting polices; did you mean policies?"),
        (changed(sources=7), "sources is 7; give it tables"),
    ],
)  # fmt: skip
def test_a_mistaken_recipe_gets_one_sentence(recipe, said):
    with pytest.raises(ConfigError) as caught:
        build(recipe)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "online", "objective": "flying"}, "no objective of ant for sources.odd 'flying'; choose one of slow"),
        ({"kind": "online", "preset": "ant-cup"}, "sources.odd: there is no preset 'ant-cup'"),
        ({"kind": "online", "settings": {"env_stepps": 3}}, "did you mean env_steps?"),
        ({"kind": "library", "architectures": ["norm"]}, "ppo trains policies with"),
    ],
)
def test_a_mistaken_teacher_gets_one_sentence_before_anything_is_written(tmp_path, source, said):
    recipe = {**RECIPE, "sources": {"odd": source, "random": {"kind": "random"}}}
    with pytest.raises(ConfigError) as caught:
        collect_recipe(build(recipe), tmp_path / "ant.zarr")
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_collected_is_told_before_anything_is_trained(made, tmp_path, monkeypatch):
    with pytest.raises(EnvironmentMismatchError, match="holds rows of ant, .* give another --out"):
        collect_recipe(build(changed(horizon=20)), made / "ant.zarr", resume=True)
    with pytest.raises(DatasetError, match="to resume; leave --resume out"):
        collect_recipe(build(RECIPE), tmp_path / "ant.zarr", resume=True)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000))
        with pytest.raises(StorageError, match="120 rows need .* free some space"):
            collect_recipe(build(RECIPE), tmp_path / "ant.zarr")
    assert not list(tmp_path.iterdir())
    source = {"kind": "evolution", "settings": {"envs": 3}}
    with pytest.raises(ConfigError, match="sources.cma: there is no setting settings"):
        build(changed(sources__cma=source))


def test_a_body_without_other_objectives_is_told_which_have_some():
    with pytest.raises(ConfigError, match=r"cartpole has none beside its own; give --env one of ant, .*hopper"):
        build(read("diverse", "cartpole"))


def test_a_recipe_from_a_stranger_loads_no_code(made, in_tmp, monkeypatch):
    (in_tmp / "ant.py").write_text("open('trace', 'w')")
    for objective in ("py:make", "standing:make", "../ant"):
        with pytest.raises(ConfigError, match="there is no objective of ant"):
            build(changed(sources__stand={"objective": objective}))
    stranger = epvf_data.open(made / "ant.zarr").commits[0].provenance["config"]["recipe"] | {"env": "ant.py:make"}
    commit = type("Commit", (), {"provenance": {"config": {"recipe": stranger}}})
    monkeypatch.setattr("epvf_data.store.reader.open", lambda path: type("Opened", (), {"commits": [commit]}))
    with pytest.raises(ConfigError, match="names the code 'ant.py:make' as its env.*name it yourself with --env"):
        read(str(made / "ant.zarr"))
    assert read(str(made / "ant.zarr"), "ant")["env"] == "ant"
    assert not (in_tmp / "trace").exists()


def test_names_of_recipes(tmp_path, made):
    with pytest.raises(ConfigError, match="did you mean diverse"):
        read("divers")
    with pytest.raises(ConfigError, match="there is no configuration file"):
        read("none.toml")
    stored = epvf_data.open(made / "ant.zarr").commits[0].provenance["config"]["recipe"]
    assert stored["sources"]["random"]["kind"] == "random"


@pytest.mark.soak
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_policies_along_a_library_run(tmp_path, algorithm):
    pytest.importorskip("brax")
    quick = {"envs": 8, "horizon": 20, "env_steps": 1500, "ppo.unroll_length": 5, "ppo.batch_size": 8}
    quick |= {
        "ppo.num_minibatches": 2,
        "ppo.num_updates_per_batch": 1,
        "sac.min_replay_size": 256,
        "sac.batch_size": 16,
    }
    source = {"kind": "library", "preset": f"ant-{algorithm}-cpu", "snapshots": 3, "settings": quick}
    recipe = {**RECIPE, "sources": {"lib": source}, "architectures": {"plain": {"hidden": [8]}}, "policies": 12}
    report = collect_recipe(build(recipe), tmp_path / "ant.zarr")
    assert report.rows == 12
    table = epvf_data.open(tmp_path / "ant.zarr").table()
    assert set(table.column("iteration")) == {1, 2, 3}
    assert {path.name for path in (tmp_path / "ant.runs" / "lib-plain").iterdir()} >= {"report.json", "policies"}
    assert not (tmp_path / "ant.runs" / "lib-plain" / "brax").exists()


@pytest.mark.soak
def test_each_architecture_is_compiled_once_however_many_commits(made, tmp_path):
    """Compiled programs of a second half of the rows: none."""
    shutil.copytree(made / "ant.runs", tmp_path / "ant.runs")
    counted = []
    collect_recipe(build(changed(policies=120, envs=16)), tmp_path / "ant.zarr")
    names = [one.provenance["config"]["architecture"] for one in epvf_data.open(tmp_path / "ant.zarr").commits]
    assert len(set(names[: len(set(names))])) == len(set(names)) > 1  # a batch of each in turn: half of it is of use
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: counted.append(event) if "backend_compile" in event else None
    )
    try:
        report = collect_recipe(build(changed(policies=360, envs=16)), tmp_path / "ant.zarr", resume=True)
        assert report.commits >= 14
        assert not counted
        jax.jit(lambda x: x * 3 + 1)(np.arange(17.0))  # the listener hears compilations
        assert counted
    finally:
        jax.monitoring.clear_event_listeners()


def test_teachers_and_shards_on_an_executor_make_the_same_rows(made, tmp_path):
    out, seen = tmp_path / "ant.zarr", []
    with ThreadPoolExecutor(1) as pool:
        report = fan_out_recipe(build(RECIPE), out, pool, shards=3, trained=lambda *counts: seen.append(counts))
        assert report.rows == report.rows_total == epvf_data.open(made / "ant.zarr").rows
        assert seen[-1][0] == seen[-1][1] > 0
        assert untrained(build(RECIPE), out) == []
        assert fan_out_recipe(build(RECIPE), out, pool, shards=2).rows == 0
    assert finalize(out).missing == []
    assert content_hash(epvf_data.open(out)) == content_hash(epvf_data.open(made / "ant.zarr"))
