"""Every usual mistake of a policy architecture is found and named; the template has none."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data import Architecture, check_policy
from epvf_data.errors import FileError
from epvf_data.policies import template

COUNTER = itertools.count()
NOISE = np.random.default_rng(0)


def changed(**parts):
    """The template's policies with other functions, each made of the right one."""

    def make(observations, actions):
        good = template.make(observations, actions, 6)
        return replace(good, **{name: change(good) for name, change in parts.items()})

    return make


def after(function):
    """`apply` with something done to its action."""
    return lambda good: lambda theta, seen: function(good.apply(theta, seen), theta, seen)


def _times(good, number):
    return lambda theta, seen: number * good.apply(theta, seen)


# What is wrong → the function, the rule that finds it, and words of the finding.
MISTAKES = {
    "no record": (lambda o, a: (1, 2), "architecture", "gives tuple; expected an epvf_data.Architecture"),
    "other sizes": (
        lambda o, a: template.make(o, a + 1),
        "architecture",
        "the shape [2]; expected an action",
    ),
    "a tree": (changed(init=lambda good: lambda key: {"w": good.init(key)}), "architecture", "init of"),
    "a branch in Python": (
        changed(apply=after(lambda out, theta, seen: out if seen[0] > 0 else -out)),
        "architecture",
        "TracerBoolConversionError",
    ),
    "chance in make": (
        changed(apply=lambda good: _times(good, np.float32(NOISE.uniform()))),
        "one architecture",
        "another architecture when it is called again",
    ),
    "NaN in init": (changed(init=lambda good: lambda key: good.init(key).at[3].set(jnp.nan)), "parameters", "finite"),
    "the same θ for every key": (
        changed(init=lambda good: lambda key: good.init(jax.random.key(0))),
        "seeds",
        "the same parameters for two keys",
    ),
    "memory": (
        changed(apply=after(lambda out, theta, seen: 0.5 * out + 1e-3 * jnp.float32(next(COUNTER) % 7))),
        "one architecture",
        "no memory",
    ),
    "no end": (
        changed(apply=after(lambda out, theta, seen: 3 * out)),
        "actions",
        "say Architecture(init",
    ),
    "a logarithm": (
        changed(apply=after(lambda out, theta, seen: jnp.tanh(jnp.log(out)))),
        "actions",
        "actions that are not finite",
    ),
    "θ is not read": (changed(apply=lambda good: lambda theta, seen: jnp.tanh(seen[:1])), "policies", "not read θ"),
    "blind": (changed(apply=lambda good: lambda theta, seen: jnp.tanh(theta[:1])), "policies", "read the observation"),
    "steps": (changed(apply=after(lambda out, theta, seen: jnp.sign(out))), "gradients", "is zero"),
    "overflow": (
        changed(apply=after(lambda out, theta, seen: out * jnp.exp(seen[:1] / 50) / jnp.exp(seen[:1] / 50))),
        "extreme inputs",
        "NaN or infinit",
    ),
}


# Each costs what it takes to compile: these are not needed to see every rule broken.
MORE = ("no record", "a tree", "memory", "a logarithm", "blind")


@pytest.mark.parametrize(
    ("make", "rule", "words"),
    [pytest.param(*one, id=name, marks=[pytest.mark.soak] * (name in MORE)) for name, one in MISTAKES.items()],
)
def test_a_mistake_is_found_and_named(make, rule, words):
    found = check_policy(make)
    assert [finding.rule for finding in found if not finding.ok] == [rule]
    assert words in found[-1].text
    assert "\n" not in found[-1].text


def test_the_template_keeps_all_rules():
    found = check_policy(template.make, 3, 2)
    assert [finding.text for finding in found if not finding.ok] == []
    assert len(found) == 10


@pytest.mark.soak
def test_actions_may_have_no_bounds():
    loose = lambda o, a: Architecture(lambda key: jax.random.normal(key, (o * a,)), _plane, bounded=False)  # noqa: E731
    assert all(finding.ok for finding in check_policy(loose))


def _plane(theta, seen):
    return seen @ theta.reshape(seen.size, -1)


def test_from_the_shell(in_tmp, shell):
    assert "check-policy mine.py:make" in shell("new-policy", "mine.py").stdout
    body = [line for line in (in_tmp / "mine.py").read_text().splitlines()[6:] if line.strip()]
    assert len(body) <= 12
    done = shell("check-policy", "mine.py:make")
    assert "mine.py:make keeps all rules, with 4 observations and 1 actions." in done.stdout
    (in_tmp / "bad.py").write_text((in_tmp / "mine.py").read_text().replace("jnp.tanh(", "(", 1))
    told = json.loads(shell("check-policy", "bad.py:make", "--json", code=1).stdout)
    assert (told["ok"], told["findings"][-1]["rule"]) == (False, "actions")
    assert "expected FILE.py:FUNCTION" in shell("check-policy", "mine", code=2).stderr
    with pytest.raises(FileError):
        check_policy("no.py:make")
