"""`epvf-data render` as a person meets it."""

import json

import numpy as np

from epvf_data import save_policy
from epvf_data.policies.spec import PolicySpec


def test_render_from_the_shell(in_tmp, shell):
    spec = PolicySpec(4, 1, ())
    save_policy("pole.safetensors", spec, np.ones(spec.size, np.float32))
    refused = shell("render", "pole.safetensors", code=2)
    assert "--env" in refused.stderr
    words = ("render", "pole.safetensors", "--env", "cartpole", "--width", "160", "--height", "90", "--out", "film.mp4")
    made = shell(*words, "--json", "--quiet")
    assert made.stderr == ""
    told = json.loads(made.stdout)
    assert {"policy", "env", "return", "length", "video", "strip"} <= set(told)
    assert (told["policy"], told["env"], told["video"]) == ("pole.safetensors", "cartpole", "film.mp4")
    assert told["return"] == told["length"] > 0
    assert {path.name for path in in_tmp.iterdir()} == {"pole.safetensors", "film.mp4", "film.png"}
    assert (in_tmp / "film.png").read_bytes().startswith(b"\x89PNG")
