"""The command line as a person meets it: real processes, their output and exit codes."""

import json
import subprocess
import sys

import pytest

from epvf_data.envs import ENVS

COLLECT = [
    "collect",
    "--envs",
    "32",
    "--horizon",
    "10",
    "--set",
    "policy.hidden=[8]",
    "--set",
    "perturbed.bases=random",
]


def run(*words, check=True):
    process = subprocess.run([sys.executable, "-m", "epvf_data", *words], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in process.stderr, process.stderr
    if check:
        assert process.returncode == 0, process.stderr
    return process


def test_the_main_job_from_the_shell(in_tmp, shell):
    made = json.loads(run(*COLLECT, "--policies", "256", "--json", "--quiet").stdout)  # a process of its own
    assert made["dataset"] == "ant.zarr"
    keys = {"dataset", "rows", "commits", "env_steps", "physics_steps", "seconds", "env_steps_per_second"}
    assert keys | {"return_mean", "return_max"} <= set(made)
    info = json.loads(shell("info", "ant.zarr", "--json", "--plot", "returns.png").stdout)
    described = {
        "format_version",
        "rows",
        "commits",
        "revision",
        "env",
        "architectures",
        "sources",
        "coverage",
        "returns",
    }
    assert set(info) == described
    assert (info["rows"], info["env"]["name"], sum(info["sources"].values())) == (256, "ant", 256)
    assert (in_tmp / "returns.png").read_bytes().startswith(b"\x89PNG")
    checked = json.loads(shell("validate", "ant.zarr", "--deep", "--json").stdout)
    assert checked["ok"]
    trained = json.loads(shell("train-offline", "--json", "--quiet").stdout)
    assert trained["critic"] == "ridge-actions"
    assert {"run", "critic", "rows_train", "rows_test", "spearman", "kendall", "r2", "seconds"} <= set(trained)
    text = shell("info", "ant.zarr").stdout
    assert "256 rows in 8 commits" in text
    assert "█" in text


def test_envs_and_doctor(in_tmp, shell):
    listed = json.loads(shell("envs", "--json").stdout)
    assert set(ENVS) == {env["name"] for env in listed}
    assert set(listed[0]) == {"name", "observation_size", "action_size", "horizon", "digest", "objectives"}
    assert "cartpole" in shell("envs").stdout
    found = json.loads(shell("doctor", "--json").stdout)
    assert set(found) == {"versions", "devices", "backends", "problems", "notes"}
    assert set(found["backends"]) == {"native", "mjx"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["collect", "--env", "antt"], 2, "no environment 'antt'"),
        (["collect", "--envs", "0"], 2, "envs is 0"),
        (["collect", "--env", "cartpole", "--backend", "native"], 1, "not a MuJoCo model"),
        (["collect", "--backend", "cuda"], 2, "choose one of auto, mjx, native"),
        (["collect", "--set", "random.shar=1"], 2, "did you mean random.share?"),
        (["collect", "--config", "missing.toml"], 1, "no configuration file missing.toml"),
        (["collect", "--base", "missing.safetensors"], 1, "there is no policy file missing.safetensors"),
        (["collect", "--out", "a_file"], 1, "a_file"),
        (["collect", "--resume"], 1, "leave --resume out"),
        (["collect", "--polices", "3"], 2, "No such option"),
        (["info", "missing.zarr"], 1, "missing.zarr"),
        (["info", "a_file"], 1, "a_file"),
        (["validate", "."], 1, "."),
        (["train-offline"], 1, "no data set in this folder"),
        (["train-offline", "missing.zarr"], 1, "missing.zarr"),
        (["nonsense"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_sentence_and_the_exit_code_of_the_contract(in_tmp, words, code, message, shell):
    (in_tmp / "a_file").write_text("something of the user's")
    before = sorted(in_tmp.iterdir())
    process = run(*words, check=False) if words == ["nonsense"] else shell(*words, code=None)
    assert process.returncode == code
    assert message in process.stderr
    if "No such" not in message:
        assert process.stderr.startswith("error: ")
        assert process.stderr.count("\n") == 1
    assert sorted(in_tmp.iterdir()) == before
    assert (in_tmp / "a_file").read_text() == "something of the user's"


def test_a_renderer_that_does_not_load_is_named(in_tmp, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    process = run("doctor", check=False)
    if process.returncode == 0:
        pytest.skip("OSMesa is installed here")
    assert process.stderr == "error: MUJOCO_GL=osmesa names an OpenGL library that does not load here; unset it.\n"


def test_reading_needs_no_jax_and_little_time(in_tmp, shell):
    shell(*COLLECT, "--quiet")
    script = (
        "import sys, time; t = time.process_time(); import epvf_data; d = epvf_data.open('ant.zarr');"
        "rows = len(d.table().column('returns')); seconds = time.process_time() - t;"
        "assert rows == 32, rows; assert seconds < 1, seconds;"
        "bad = {'jax', 'mujoco', 'flax', 'optax', 'orbax'} & {name.split('.')[0] for name in sys.modules};"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_help_waits_for_no_arrays():
    script = (
        "import sys, epvf_data.cli; epvf_data.cli.load();"
        "bad = {'numpy', 'jaxtyping', 'zarr', 'jax'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_training_online_does_not_wait_for_what_it_does_not_need():
    script = (
        "import sys, epvf_data.trainers.online.run, epvf_data.recipes.collect;"
        "bad = {'matplotlib', 'scipy.stats'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_help_shows_examples(in_tmp, shell):
    for verb in ("collect", "info", "validate", "train-offline", "doctor", "envs"):
        assert "Example" in shell(verb, "--help").stdout
