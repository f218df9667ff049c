"""What the recipe in a stranger's data set may say: what ships with the package. Files are the user's to name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epvf_data import envs
from epvf_data.cli import load
from epvf_data.collectors.collect import gather
from epvf_data.errors import ConfigError, EpvfError
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recipes.collect import collect_recipe, lots_of
from epvf_data.recipes.settings import ArchitectureConfig, RandomPolicies, RecipeConfig
from epvf_data.recipes.tables import build, read
from epvf_data.recipes.teachers import prepare
from epvf_data.recording.rows import env_identity
from epvf_data.store.writer import Writer

app = load()

SPEC = PolicySpec(4, 1, (4,))
SMALL = {"iterations": 1, "envs": 16, "log_every": 1}


@pytest.fixture
def made(in_tmp, env, make_rows, monkeypatch):
    """A function that writes a data set with this recipe in its provenance."""
    monkeypatch.setattr("epvf_data.runtime.prepare", lambda: None)
    (in_tmp / "home").mkdir()
    save_policy(in_tmp / "home" / "private.safetensors", SPEC, np.full(SPEC.size, 0.125, np.float32))
    (in_tmp / "home" / "preset.toml").write_text('preset = "cartpole-es"\n')
    numbers = iter(range(100))

    def make(config):
        path = in_tmp / f"theirs-{next(numbers)}.zarr"
        with Writer.open(path, env) as writer:
            writer.commit(make_rows(3), {"config": config})
        return str(path)

    return make


def recipe(source, **architecture):
    tables = {"architectures": {"a": {"hidden": [4], **architecture}}, "sources": {"p": source}}
    return {"env": "cartpole", "policies": 16, "envs": 16, "episodes": 1, "horizon": 12, **tables}


PRIVATE = "home/private.safetensors"
FILES = {
    "sources.p.bases": recipe({"kind": "perturbed", "bases": [PRIVATE]}),
    "sources.p.bases, among ours": recipe({"kind": "perturbed", "bases": ["bundled", PRIVATE]}),
    "sources.p.bases, as text": recipe({"kind": "perturbed", "bases": PRIVATE}),
    "sources.p.bases, in lists": recipe({"kind": "perturbed", "bases": [[PRIVATE]]}),
    "sources.p.preset": recipe({"kind": "online", "preset": "home/preset.toml", "settings": SMALL}),
    "sources.p.settings.start": recipe(
        {"kind": "online", "preset": "cartpole-es", "settings": SMALL | {"start": PRIVATE}}
    ),
    "architectures.a.like": recipe({"kind": "random"}, like=PRIVATE),
}


@pytest.mark.parametrize("name", FILES)
def test_a_data_sets_recipe_names_no_file_of_the_reader(made, name):
    path, setting = made({"recipe": FILES[name]}), name.split(",")[0]
    for way in (lambda: read(path), lambda: app(["collect", "--recipe", path, "-q"], standalone_mode=False)):
        with pytest.raises(ConfigError) as caught:
            way()
        assert f"says {setting} = " in str(caught.value)
        assert f"state it anew with --set {setting}=" in str(caught.value)


def test_what_ships_may_be_named(made):
    sources = {"kind": "perturbed", "bases": ["bundled"]}
    for named in (
        recipe(sources),
        recipe({"kind": "online", "preset": "cartpole-es", "settings": SMALL | {"start": None}}),
        recipe({"kind": "library", "preset": "ant-ppo-cpu"}),
        recipe({"kind": "random"}, like=None),
    ):
        assert build(read(made({"recipe": named}))) == build(named)


def bases_of(config):
    """The distinct numbers in the policies that a recipe takes from files."""
    files, _ = prepare(config, "a", SPEC, envs.make("cartpole"), Path("runs"))
    return np.unique(files["p"].params).tolist()


def test_files_that_are_stated_again_are_read(made):
    path = made({"recipe": FILES["sources.p.bases"]})
    typed = {"sources": {"p": {"bases": ["home/private.safetensors"]}}}
    assert bases_of(build(read(path, typed=typed), typed)) == [0.125]
    stated = build(read(path, typed={"sources": {"p": {"bases": ["bundled"]}}}), {"sources": {"p": {"bases": ["x"]}}})
    assert stated.sources["p"].bases == ("x",)  # pyright: ignore


def test_a_recipe_file_may_name_files(made, in_tmp):
    (in_tmp / "mine.toml").write_text(
        'env = "cartpole"\n[architectures.a]\nhidden = [4]\n'
        '[sources.p]\nkind = "perturbed"\nbases = ["home/private.safetensors"]\n'
    )
    assert bases_of(build(read("mine.toml"))) == [0.125]


NAMES = ["/abs/x", "../x", "a/b", "..", ".hidden", "", "-x", "a b", "a\n", "x" * 200, "ä"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("table", ["architectures", "sources"])
def test_names_that_become_folders_have_one_grammar(made, in_tmp, name, table):
    tables = {"architectures": {"a": {"hidden": [4]}}, "sources": {"s": {"kind": "random"}}}
    tables[table] = {name: next(iter(tables[table].values()))}
    path = made({"recipe": {"env": "cartpole", **tables}})
    before = sorted(in_tmp.rglob("*"))
    for way in (
        lambda: build(read(path)),
        lambda: app(["collect", "--recipe", path, "-q"], standalone_mode=False),
        lambda: collect_recipe(
            RecipeConfig(
                env="cartpole",
                architectures={name if table == "architectures" else "a": ArchitectureConfig(hidden=(4,))},
                sources={name if table == "sources" else "s": RandomPolicies()},
            ),
            "out.zarr",
        ),
    ):
        with pytest.raises(ConfigError, match=f"one of the {table} is called .* a name has letters, digits"):
            way()
    assert sorted(in_tmp.rglob("*")) == before


@pytest.mark.parametrize(
    "config",
    [None, 3, "text", [], ["recipe"], {}, {"recipe": None}, {"recipe": [1]}, {"recipe": "diverse"}, {"recipe": {}}],
)
def test_provenance_of_any_shape_is_one_sentence(made, config):
    with pytest.raises(EpvfError) as caught:
        build(read(made(config)))
    assert str(caught.value).isprintable()


def test_rows_that_a_commit_claims_are_looked_at(in_tmp, made, env, make_rows):
    """Continuing a collection in a data set whose records say odd things about it."""
    lots = lots_of(build({**recipe({"kind": "random"}), "policies": 4, "envs": 4}), "out.zarr")
    task = env_identity(lots[0].env)
    odd = (None, 3, "01", [0], [0, 1, 2], [1, 0], [-1, 3], [0, 10**12], [0.0, 1.0], {"0": 1}, [[0], [1]])
    for number, rows in enumerate(odd):
        with Writer.open(in_tmp / f"{number}.zarr", task) as writer:
            writer.commit(make_rows(1, spec=SPEC), {"run": lots[0].run, "rows": rows})
        with pytest.raises(EpvfError, match="a commit says to hold the rows"):
            gather(lots, in_tmp / f"{number}.zarr", resume=True)
    other = {"run": [lots[0].run], "rows": [0, 1], "origins": [{"provenance": {"run": {}}}]}
    with Writer.open(in_tmp / "list.zarr", task) as writer:
        writer.commit(make_rows(1, spec=SPEC), other)
    with pytest.raises(EpvfError, match="no row in"):
        gather(lots, in_tmp / "list.zarr", resume=True)
