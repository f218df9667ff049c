"""Whose code runs: what the user typed or passed from Python, and nothing that a file or a data set says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import epvf_data
from epvf_data import code, envs
from epvf_data.baselines.settings import baseline_config
from epvf_data.cli import load
from epvf_data.collectors.setting import CollectConfig, configure
from epvf_data.envs import template
from epvf_data.errors import ConfigError, EpvfError
from epvf_data.recipes.tables import build, read
from epvf_data.store.writer import Writer
from epvf_data.trainers.online.settings import online_config

app = load()

EVIL = "open('trace', 'w').close()\nraise SystemExit"
RECIPE = '[architectures.a]\nhidden = [4]\n[sources.r]\nkind = "random"\n'
STATED = "names the code 'evil.py:make' as its {0}, and no file's word runs code; name it yourself with --{1}."


@pytest.fixture(autouse=True)
def settings_of_jax_stay(monkeypatch):
    monkeypatch.setattr("epvf_data.runtime.prepare", lambda: None)


@pytest.fixture
def evil(in_tmp):
    """A folder with a file that leaves a trace when it is run, and files that name it."""
    (in_tmp / "evil.py").write_text(EVIL)
    (in_tmp / "c.toml").write_text('env = "evil.py:make"\n')
    (in_tmp / "o.toml").write_text('preset = "ant-cpu"\nenv = "evil.py:make"\niterations = 1\n')
    (in_tmp / "b.toml").write_text('env = "evil.py:make"\n')
    (in_tmp / "r.toml").write_text(f'env = "evil.py:make"\n{RECIPE}')
    (in_tmp / "t.toml").write_text(
        RECIPE + '[sources.t]\nkind = "online"\npreset = "ant-cpu"\nsettings = { env = "evil.py:make" }\n'
    )
    (in_tmp / "f.toml").write_text('critic = "evil.py:make"\n')
    (in_tmp / "i.toml").write_text('fit = { critic = "evil.py:make" }\n')
    (in_tmp / "p.toml").write_text('perturbed = { bases = ["random", "evil.py:make"] }\n')
    (in_tmp / "m.toml").write_text('env = "evil:make"\n')  # a module
    return in_tmp


def forged(folder, env, make_rows):
    """A data set that was made by a recipe of a stranger."""
    recipe = {"env": "evil.py:make", "architectures": {"a": {"hidden": [4]}}, "sources": {"r": {"kind": "random"}}}
    with Writer.open(folder / "theirs.zarr", env) as writer:
        writer.commit(make_rows(3), {"config": {"recipe": recipe}})
    return "theirs.zarr"


DOORS = {
    "collect": lambda: configure("c.toml", [], {}),
    "collect a module": lambda: configure("m.toml", [], {}),
    "train-online": lambda: online_config("o.toml"),
    "a baseline": lambda: baseline_config("b.toml"),
    "a recipe": lambda: read("r.toml"),
    "a teacher": lambda: read("t.toml"),
    "the shell's collect": lambda: app(["collect", "--config", "c.toml", "-q"], standalone_mode=False),
    "the shell's recipe": lambda: app(["collect", "--recipe", "r.toml", "-q"], standalone_mode=False),
    "the shell's train-online": lambda: app(["train-online", "--config", "o.toml", "-q"], standalone_mode=False),
    "the shell's train-offline": lambda: app(["train-offline", "x", "--config", "f.toml", "-q"], standalone_mode=False),
    "the shell's improve": lambda: app(["improve", "x", "--config", "i.toml", "-q"], standalone_mode=False),
    "bases": lambda: configure("p.toml", [], {}),
    "other flags": lambda: app(["collect", "--config", "c.toml", "--set", "envs=3", "-q"], standalone_mode=False),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_word_of_a_file_runs_code(evil, door):
    with pytest.raises(ConfigError) as caught:
        DOORS[door]()
    setting = {"the shell's train-offline": "critic", "the shell's improve": "critic", "bases": "bases"}.get(
        door, "env"
    )
    told = STATED.format(setting, "base" if setting == "bases" else setting)
    assert told.replace("evil.py", "evil" if door == "collect a module" else "evil.py") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (evil / "trace").exists()
    assert "evil" not in sys.modules


def test_no_word_of_a_data_set_runs_code(evil, env, make_rows):
    theirs = forged(evil, env, make_rows)
    with pytest.raises(ConfigError, match="no file's word runs code"):
        read(theirs)
    with pytest.raises(ConfigError, match="no file's word runs code"):
        app(["collect", "--recipe", theirs, "-q"], standalone_mode=False)
    assert read(theirs, "ant")["env"] == "ant"
    assert not (evil / "trace").exists()


TYPED = {
    "a flag": ["collect", "--env", "evil.py:make"],
    "a setting": ["collect", "--set", "env=evil.py:make"],
    "a flag beside a file": ["collect", "--config", "c.toml", "--env", "evil.py:make"],
    "a setting beside a recipe": ["collect", "--recipe", "r.toml", "--set", "env=evil.py:make"],
    "a flag beside a run's file": ["train-online", "--config", "o.toml", "--env", "evil.py:make"],
    "check-env": ["check-env", "evil.py:make"],
}


@pytest.mark.parametrize("words", TYPED)
def test_what_is_typed_runs(evil, words):
    with pytest.raises(ConfigError, match="evil.py:make gives no environment: SystemExit in line 2 of evil.py"):
        app(TYPED[words], standalone_mode=False)
    assert (evil / "trace").exists()


def test_a_file_that_names_code_serves_for_another_environment(evil):
    assert configure("c.toml", ["env=cartpole"], {}).env == "cartpole"
    assert configure("c.toml", [], {"env": "cartpole"}).env == "cartpole"
    assert online_config("o.toml", env="ant").env == "ant"
    assert build(read("r.toml", "ant")).env == "ant"
    assert build(read("r.toml", typed={"env": "ant"}), {"env": "ant"}).env == "ant"
    assert not (evil / "trace").exists()


def test_python_passes_what_it_likes(in_tmp):
    (in_tmp / "mine.py").write_text(Path(template.__file__).read_text().replace("my-pendulum", "swing"))
    for config in (epvf_data.collect_config("mine.py:make"), CollectConfig(env="mine.py:make")):
        assert envs.make(config.env).name == "swing"
    assert online_config("body", env="mine.py:make", horizon=5).env == "mine.py:make"
    (in_tmp / "r.toml").write_text(RECIPE)
    assert build(read("r.toml", "mine.py:make")).env == "mine.py:make"
    assert envs.make("mine.py:make") is envs.make("mine.py:make")  # compiled functions are reused


def test_modules_that_merely_lie_here_are_not_taken_for_installed_ones(in_tmp):
    """`--env json:make` means the installed json, whoever left a json.py in the working directory."""
    for name in ("json", "mine"):
        (in_tmp / f"{name}.py").write_text("open('trace', 'w').close()\n")
    before = list(sys.path)
    with pytest.raises(ConfigError, match="json:make gives no environment: it has no function 'make'"):
        envs.make("json:make")
    with pytest.raises(ConfigError, match="no module 'zarr_of_nobody', neither here nor installed"):
        envs.make("zarr_of_nobody:make")
    assert not (in_tmp / "trace").exists()
    with pytest.raises(ConfigError, match="mine:make gives no environment"):
        envs.make("mine:make")
    assert (in_tmp / "trace").exists()
    assert sys.path == before
    del sys.modules["mine"]


def test_a_fault_in_what_the_user_names_is_told_with_its_line(in_tmp):
    (in_tmp / "mine.py").write_text("def make(made):\n    return len(made)\n")
    thing, origin = code.find("mine.py:make", "critic")
    assert (thing([1, 2]), origin.path, origin.text) == (2, str(in_tmp / "mine.py"), (in_tmp / "mine.py").read_bytes())
    with (
        pytest.raises(
            ConfigError, match="mine.py:make gives no critic: TypeError in line 2 of mine.py: object of type"
        ),
        code.blamed("mine.py:make", "critic"),
    ):
        thing(3)
    titles = {
        "a/my_critic.py:make": "my_critic",
        "a.b:fit": "fit",
        "a.b:make": "b",
        "m:f.<locals>.g": "g",
        "mlp": "mlp",
    }
    assert {name: code.title(name) for name in titles} == titles


@pytest.mark.parametrize(
    ("name", "is_code"),
    [
        *[("a.py:make", True), ("package.module:make", True), ("https://x/a.py:make", True), (":", True)],
        *[("ant", False), ("ant.standing", False), ("playground:CheetahRun", False), (3, False), (["a:b"], False)],
    ],
)
def test_names_of_code(name, is_code):
    assert code.names_code(name) is is_code


@pytest.mark.parametrize("name", ["playground:../x.py:make", "playground:os:getcwd", "", "\x1b[2J", "x" * 10**6, "."])
def test_names_that_only_look_like_ours_load_nothing(in_tmp, name):
    with pytest.raises(ConfigError) as caught:
        envs.make(name)
    assert len(str(caught.value)) < 600


def test_settings_that_are_stated_again_are_the_users_own():
    stated = {"env": "a.py:make", "sources": {"p": {"env": "b.py:make", "n": 1}}}
    assert code.untyped(stated, {"env": "ant"}) == {"sources.p.env": "b.py:make", "sources.p.n": 1}
    code.check_stated(stated, {"env": "a.py:make", "sources": {"p": {"env": "none"}}}, "x")
    with pytest.raises(ConfigError, match="x names the code 'b.py:make'"):
        code.check_stated(stated, {"env": "a.py:make", "sources": {"p": {"n": 2}}}, "x")


def test_an_environment_of_another_name_than_ours_is_refused(in_tmp):
    text = Path(template.__file__).read_text()
    (in_tmp / "mine.py").write_text(text.replace("my-pendulum", "ant"))
    with pytest.raises(EpvfError, match="called 'ant', as one of this package"):
        envs.make("mine.py:make")
    assert replace(template.make(), name="other").name == "other"
