"""train-online as a person meets it: real processes, Ctrl-C, exit codes."""

import json
import shlex
import signal
import subprocess
import sys

import pytest

from epvf_data.cli.online import default_out, preset_of
from epvf_data.trainers import checkpoint
from epvf_data.trainers.online.journal import Journal

WORDS = [
    "train-online",
    *("--env", "cartpole", "--envs", "4", "--horizon", "20", "--out", "run"),
    *("--set", "policy.hidden=[8]", "--set", "critic.widths=[8]", "--set", "replay.capacity=40"),
    *("--set", "replay.batch_size=4", "--set", "log_every=1"),
]
LONG = ("--algorithm", "es", "--iterations", "100000")  # which compiles soonest


def test_sigterm_as_ctrl_c_keeps_what_was_done_and_tells_how_to_go_on(in_tmp, shell):
    command = [sys.executable, "-u", "-m", "epvf_data", *WORDS, *LONG]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (in_tmp / "run" / "metrics.jsonl").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == 75, told
    assert "Traceback" not in told
    assert "stopping after this step" in told
    again = told.split("continue from the last checkpoint with: ")[1].strip()
    done = len((in_tmp / "run" / "metrics.jsonl").read_text().splitlines())
    words = shlex.split(again)[1:]
    assert words[-1] == "--resume"
    stopped = json.loads(shell(*words, "--max-minutes", "0", "--json", "--quiet").stdout)
    assert stopped["iterations"] == done + 1
    assert {"run", "iterations", "env_steps", "return_perturbed", "return_unperturbed", "seconds"} <= set(stopped)
    assert not stopped["finished"]
    refused = shell(*WORDS, *LONG, code=None)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--resume" in refused.stderr


def test_presets_are_listed_and_wrong_words_get_one_sentence(in_tmp, shell):
    listed = shell("train-online", "--presets").stdout
    assert "ant-paper" in listed
    assert "OpenAI-ES" in listed
    for words, sentence in (
        (["--config", "ant-papr"], "did you mean ant-paper"),
        (["--config", "ant-cpu", "--set", "critic.nam=mlp"], "did you mean critic.name"),
        (["--env", "hoper"], "did you mean hopper"),
        (["--config", "ant-cpu", "--algorithm", "ess"], "did you mean es"),
        (["--config", "ant-paper", "--record", "run.zarr", "--warm-start", "none.zarr"], "none.zarr"),
    ):
        refused = shell("train-online", *words, code=None)
        assert refused.returncode in (1, 2)
        assert sentence in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
    for limit in ("-1", "nan"):  # nan would never be reached
        refused = shell("train-online", "--env", "swimmer", "--max-minutes", limit, code=2)
        assert "'--max-minutes': Input should be greater than" in refused.stderr
    assert not list(in_tmp.iterdir())


def test_without_config_the_environment_and_the_algorithm_choose():
    assert [preset_of(env, None) for env in ("ant", "hopper", "halfcheetah", "swimmer", "cartpole")] == [
        *("ant-pavf", "body-pavf", "halfcheetah-pavf", "swimmer-pavf", "cartpole-paper")
    ]
    assert (preset_of("hopper", "psvf"), preset_of("ant", "es")) == ("body-pavf", "ant-cpu")
    assert preset_of("humanoid", None) == preset_of("ant-gym", None) == "body-pavf"
    assert preset_of("playground:WalkerWalk", None) == preset_of("playground-WalkerWalk", "pavf") == "halfcheetah-pavf"
    assert (preset_of("hopper", "epvf"), preset_of("own.py:make", None)) == ("body", "body")


def test_runs_of_two_bodies_have_folders_of_their_own():
    assert [str(default_out(preset, "hopper")) for preset in ("body", "body-pavf", "body-sac", "halfcheetah-pavf")] == [
        *("hopper-run", "hopper-pavf-run", "hopper-sac-run", "hopper-pavf-run")
    ]
    assert [str(default_out(preset, "ant")) for preset in ("ant-pavf-gpu", "my/try.toml")] == [
        *("ant-pavf-gpu-run", "try-run")
    ]
    assert str(default_out("my/bodybuilder.toml", "hopper")) == "bodybuilder-run"
    assert str(default_out("ant-gym-try.toml", "ant-gym")) == "ant-gym-try-run"
    assert str(default_out("body-sac", "playground:CartpoleBalance")) == "playground-CartpoleBalance-sac-run"


@pytest.mark.soak
def test_other_bodies_have_a_preset_too(in_tmp, shell):
    words = ("--config", "body", "--env", "swimmer", "--horizon", "10", "--envs", "8", "--set", "critic.probes=4")
    assert (
        "swimmer-run: 3 iterations, 240 env steps"
        in shell("train-online", *words, "--iterations", "3", "--quiet").stdout
    )
    config = json.loads((in_tmp / "swimmer-run" / "config.json").read_text())["config"]
    assert (config["env"], config["critic"]["name"]) == ("swimmer", "probing-ridge")


@pytest.mark.parametrize(("seconds", "done", "told"), [(0, 1, "from the last checkpoint"), (60, 0, "before the first")])
def test_a_second_ctrl_c_while_a_checkpoint_is_written_leaves_the_one_before(
    in_tmp, shell, monkeypatch, seconds, done, told
):
    """The first one comes while the second iteration is logged, the second one between two files of its checkpoint."""
    flush, write, seen = checkpoint.flush, Journal.write, []

    def interrupted_write(journal, lines):
        write(journal, lines)
        seen.append(lines)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    def interrupted_flush(path):
        flush(path)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    words = [*WORDS, *LONG, "--set", f"checkpoint_seconds={seconds}"]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", interrupted_write)
        patch.setattr(checkpoint, "flush", interrupted_flush)
        stopped = shell(*words, code=75)
    assert told in stopped.stderr.splitlines()[-1]
    assert stopped.stderr.count("\n") <= 3, stopped.stderr  # compiling, stopping, interrupted
    kept = in_tmp / "run" / "checkpoints"
    assert (checkpoint.latest(kept) or 0) == done
    assert list(kept.glob(".unfinished-2-*"))
    again = shlex.split(stopped.stderr.split("with: ")[1])[1:]
    report = json.loads(shell(*again, "--max-minutes", "0", "--json", "--quiet").stdout)
    assert (report["iterations"], report["finished"]) == (done + 1, False)
    assert not list(kept.glob(".unfinished*"))
