"""Architectures of the user's own: what is kept of them, what is refused, and by which code they act."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data import Architecture, load_policy, own_spec, save_policy
from epvf_data.envs import ENVS
from epvf_data.errors import ArchitectureMismatchError, ConfigError, FileError
from epvf_data.policies import acting, template
from epvf_data.policies.kinds import from_json, mlp_of
from epvf_data.policies.loading import bind
from epvf_data.policies.own import OwnSpec
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec

SPEC = OwnSpec(4, 1, 192, "mine.py:make", "0" * 64)


IDS = {  # of 0.1.0
    PolicySpec(4, 1): "a2c21fa5a59749a75f6993923bc068b21e986825a3f2cd9f4d7749cd666e41d7",
    PolicySpec(3, 2, (5,), "relu", "clip", layer_norm=True, gaussian="mean"): (
        "6372453331fbf7fc0c4665cdeeecfebcbed706bb758b9fcbf4f26d9be099ea30"
    ),
}


def test_ids_of_mlps_are_what_they_were():
    assert {spec: spec.id for spec in IDS} == IDS


def test_the_json_is_canonical_and_comes_back():
    assert SPEC.to_json() == (
        '{"action_size":1,"bounded":true,"dtype":"float32","kind":"own","name":"mine.py:make","observation_size":4,'
        f'"sha256":"{"0" * 64}","size":192}}'
    )
    assert from_json(SPEC.to_json()) == SPEC
    assert from_json(PolicySpec(4, 1).to_json()) == PolicySpec(4, 1)
    assert SPEC.id == hashlib.sha256(SPEC.to_json().encode()).hexdigest()
    assert (str(SPEC), SPEC.sampled, SPEC.bounded) == ("4-mine.py:make-1", False, True)
    assert replace(SPEC, code=Architecture(len, max)).id == SPEC.id


HOSTILE = {
    "a folder": {"name": "../mine.py:make"},
    "no function": {"name": "mine.py"},
    "two functions": {"name": "mine.py:make:x"},
    "a line": {"name": "mine.py:make\n"},
    "markup": {"name": "<b>.py:make"},
    "no text": {"name": ["mine.py:make"]},
    "an endless name": {"name": "m" * 10_000 + ".py:make"},
    "no hash": {"sha256": "0" * 63},
    "capitals": {"sha256": "A" * 64},
    "other digits": {"sha256": "٠" * 64},
    "no size": {"size": 0},
    "a huge size": {"size": 1 << 40},
    "a fraction": {"size": 192.0},
    "true": {"size": True},
    "wide": {"observation_size": 1 << 20},
    "no actions": {"action_size": 0},
    "half bounded": {"bounded": 1},
    "another type": {"dtype": "float64"},
    "another kind": {"kind": "mine"},
    "a list as kind": {"kind": ["own"]},
    "more": {"code": "import os"},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_we_would_not_write_is_refused_in_one_sentence(change):
    with pytest.raises(ConfigError) as told:
        from_json(json.dumps(SPEC.to_dict() | change))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


def test_every_key_is_needed():
    for missing in SPEC.to_dict():
        with pytest.raises(ConfigError):
            from_json(json.dumps({name: value for name, value in SPEC.to_dict().items() if name != missing}))


def test_a_file_gives_policies_that_act(in_tmp):
    text = Path(template.__file__).read_text()
    (in_tmp / "sub").mkdir()
    for place in ("mine.py", "sub/mine.py"):
        (in_tmp / place).write_text(text)
    spec = own_spec("mine.py:make", 4, 2)
    assert (spec.name, spec.size) == ("mine.py:make", 32 * 7)
    assert spec.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert own_spec("sub/mine.py:make", 4, 2) == spec  # the very code, so that nothing is compiled twice
    assert replace(own_spec(template.make, 4, 2), name=spec.name) == spec
    theta = acting.init(jax.random.key(0), spec, 2.0)
    np.testing.assert_array_equal(theta, 2.0 * spec.code.init(jax.random.key(0)))
    assert probe(spec, theta, jnp.ones((3, 4))).shape == (3, 2)
    drawn = jax.vmap(spec.code.init)(jax.random.split(jax.random.key(1), 500))
    units = np.asarray(jax.vmap(lambda one: acting.relative(spec, one))(drawn))
    assert abs(units.mean()) < 0.1
    assert abs(units.std() - 1.0) < 0.1
    save_policy("a.safetensors", spec, np.asarray(theta), env="x")
    bare, stored = load_policy("a.safetensors")
    np.testing.assert_array_equal(stored, theta)
    assert bare == replace(spec, code=None)
    with pytest.raises(ConfigError, match=r"make-2 act by code that is not stored, .* with --policy, or pass"):
        probe(bare, theta, jnp.ones((3, 4)))
    with pytest.raises(ConfigError, match=r"critic x reads the layers of an MLP, and policies 4-mine.py:make-2 are"):
        mlp_of(bare, "critic x", "take mlp")


def test_only_the_same_code_is_bound(in_tmp):
    text = Path(template.__file__).read_text()
    (in_tmp / "mine.py").write_text(text + "\nother = make\n")
    bare = replace(own_spec("mine.py:make", 4, 1), code=None)
    (in_tmp / "mine.py").rename("renamed.py")
    assert bind(bare, "renamed.py:make").code is not None
    assert bind(bare, "renamed.py:make").id == bare.id
    assert bind(bare, None) == bare
    assert bind(PolicySpec(4, 1), "renamed.py:make") == PolicySpec(4, 1)
    with pytest.raises(ArchitectureMismatchError, match="name make of that file"):
        bind(bare, "renamed.py:other")
    with pytest.raises(ArchitectureMismatchError, match=r"SHA-256 of template.py is \w{12}…, .* as it was then"):
        bind(bare, template.make)


def test_an_object_needs_a_source():
    names: dict = {"make": None, "template": template}
    exec("def make(observations, actions):\n    return template.make(observations, actions)", names)
    with pytest.raises(ConfigError, match="there is no source of .*; put it in a file"):
        own_spec(names["make"], 4, 1)


WRONG = {
    "no record": ("def make(o, a): return 3", "gives int; expected an epvf_data.Architecture"),
    "no sizes": ("def make(): return 3", "TypeError"),
    "a tree": ("init=lambda key: {'w': jnp.ones(3)}", "init of .* gives dict; expected one flat vector"),
    "a matrix": ("init=lambda key: jnp.ones((3, 2))", r"float32 of the shape \[3, 2\]; .* the shape \[P\]"),
    "whole numbers": ("init=lambda key: jnp.ones(3, int)", "gives int32 of the shape"),
    "an action too many": ("apply=lambda t, x: x", r"apply of .* the shape \[4\]; expected an action, .* \[1\]"),
    "a scalar": ("apply=lambda t, x: jnp.sum(x)", r"of the shape \[\]; expected an action"),
    "NumPy": ("apply=lambda t, x: np.tanh(np.asarray(x))[:1]", "TracerArrayConversionError in line"),
}


@pytest.mark.parametrize(("code", "told"), WRONG.values(), ids=WRONG)
def test_what_is_no_architecture_is_told(in_tmp, code, told):
    head = "import jax.numpy as jnp\nimport numpy as np\nfrom epvf_data import Architecture\n"
    if not code.startswith("def"):
        parts = {"init": "lambda key: jnp.ones(3)", "apply": "lambda t, x: jnp.tanh(x[:1] * t[0])"}
        name, _, other = code.partition("=")
        parts[name] = other
        code = f"def make(o, a):\n    return Architecture({parts['init']}, {parts['apply']})\n"
    (in_tmp / "bad.py").write_text(head + code)
    with pytest.raises(ConfigError, match=told):
        own_spec("bad.py:make", 4, 1)


def test_a_file_that_is_not_there():
    with pytest.raises(FileError, match="no.py:make gives no function: there is no such file"):
        own_spec("no.py:make", ENVS["cartpole"].observation_size, 1)
