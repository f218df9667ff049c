"""Every usual mistake of a critic is found and named; the template and the package's own have none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data import CriticFamily, check_critic
from epvf_data.critics import template
from epvf_data.critics.families import CRITICS
from epvf_data.critics.settings import CriticSettings
from epvf_data.errors import ConfigError, FileError
from epvf_data.policies.spec import PolicySpec

SPEC = PolicySpec(3, 2, (6,))
SMALL = CriticSettings(widths=(12, 12), probes=7, channels=4, layers=2)
COUNTER = itertools.count()
NOISE = np.random.default_rng(0)


def changed(**parts: Any):
    """The template's critic with other functions, each made of the right one."""

    def make(made):
        good = template.make(made)
        return replace(good, **{name: change(good) for name, change in parts.items()})

    return make


def after(function):
    """`apply` with something done to its outputs."""
    return lambda good: lambda params, row: function(good.apply(params, row), row)


def kept(good):
    """Counts its calls where they are not compiled."""
    return lambda params, row: good.apply(params, row) + jnp.float32(next(COUNTER))


# What is wrong → the critic, the rule that finds it, and words of the finding.
MISTAKES = {
    "another record": (lambda made: (1, 2), "critic", "gives tuple; expected an epvf_data.Critic"),
    "make fails": (lambda made: made.sizes, "critic", "AttributeError in line"),
    "too many numbers": (
        changed(apply=after(lambda out, row: jnp.concatenate([out, out]))),
        "critic",
        "float32 of the shape [22] for a policy; expected float32 of the shape [11]",
    ),
    "one number where the loss reads several": (changed(apply=after(lambda out, row: out[:1])), "critic", "shape [1]"),
    "whole numbers": (changed(apply=after(lambda out, row: out.astype(int))), "critic", "gives int32"),
    "no array": (changed(apply=after(lambda out, row: {"v": out})), "critic", "gives no array"),
    "a branch in Python": (
        changed(apply=after(lambda out, row: out if row.scaled[0] > 0 else -out)),
        "critic",
        "TracerBoolConversionError in line",
    ),
    "nothing to fit": (
        lambda made: replace(
            template.make(made),
            init=lambda key: {},
            apply=lambda params, row: jnp.full(made.outputs, row.scaled.sum()),
        ),
        "parameters",
        "there is nothing to fit",
    ),
    "parameters in whole numbers": (
        changed(init=lambda good: lambda key: {**good.init(key), "bias": jnp.zeros(64, int)}),
        "parameters",
        "int32; expected arrays of float32",
    ),
    "parameters are NaN": (
        changed(init=lambda good: lambda key: {**good.init(key), "bias": jnp.full(64, jnp.nan)}),
        "parameters",
        "not finite",
    ),
    "init draws from NumPy": (
        changed(init=lambda good: lambda key: {**good.init(key), "bias": jnp.float32(NOISE.normal(size=64))}),
        "seeds",
        "other parameters for the same key",
    ),
    "init ignores its key": (
        changed(init=lambda good: lambda key: good.init(jax.random.key(0))),
        "seeds",
        "the same parameters for two keys",
    ),
    "apply has a memory": (changed(apply=kept), "pure functions", "another result the second time"),
    "NaN": (changed(apply=after(lambda out, row: jnp.log(-jnp.square(out)))), "pure functions", "not finite"),
    "it does not look at the policy": (
        changed(apply=lambda good: lambda params, row: params["bias"] @ params["outer"]),
        "policies",
        "8 policies the same number",
    ),
    "a batch has one mean": (
        changed(
            many=lambda good: (
                lambda params, rows: (lambda out: out - out.mean(0)[None])(
                    jax.vmap(good.apply, in_axes=(None, 0))(params, rows)
                )
            )
        ),
        "batches",
        "another number beside others than by itself",
    ),
    "the order of a batch counts": (
        changed(
            many=lambda good: lambda params, rows: jnp.cumsum(jax.vmap(good.apply, in_axes=(None, 0))(params, rows), 0)
        ),
        "batches",
        "many depends on the order of the rows",
    ),
    "a batch is one number": (
        changed(many=lambda good: lambda params, rows: good.apply(params, jax.tree.map(lambda leaf: leaf[0], rows))),
        "batches",
        "the shape [1] for 8 policies",
    ),
    "nothing leads up": (
        changed(apply=lambda good: lambda params, row: jnp.round(good.apply(params, row) * 9) + 0 * params["bias"][:1]),
        "gradients",
        "is zero; is there a round, sign or stop_gradient?",
    ),
    "a root at zero": (
        changed(apply=after(lambda out, row: out + jnp.sqrt(jnp.abs(row.scaled * 0)).sum())),
        "gradients",
        "with respect to θ is not finite",
    ),
    "far away it overflows": (
        changed(apply=after(lambda out, row: out + jnp.exp(row.scaled).mean())),
        "extreme inputs",
        "NaN or infinity for a policy whose numbers are all 10000",
    ),
    "a length has no slope at zero": (
        changed(apply=after(lambda out, row: out * jnp.linalg.norm(row.scaled))),
        "extreme inputs",
        "a gradient is NaN or infinite for a policy whose numbers are all 0",
    ),
}


def wrong(found):
    """The findings about rules that are broken."""
    return [(one.rule, one.text) for one in found if not one.ok]


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_named(name):
    make, rule, words = MISTAKES[name]
    ((broken, text),) = wrong(check_critic(make, SPEC))
    assert broken == rule, text
    assert words in text
    assert "\n" not in text


def test_the_template_keeps_all_rules():
    found = check_critic(template.make, SPEC)
    assert not wrong(found)
    rules = ["critic", "parameters", "seeds", "pure functions", "policies", "batches", "gradients", "extreme inputs"]
    assert [one.rule for one in found] == rules
    for family in (CriticFamily(template.make, reads="probe_actions", mixed=True), "linear"):
        assert not wrong(check_critic(family, SPEC))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] * (name != "probing")) for name in CRITICS if "ridge" not in name],
)
def test_the_critics_of_the_package_keep_them(name):
    assert not wrong(check_critic(name, SPEC, SMALL))


def test_what_is_no_critic_at_all_is_said_at_once(in_tmp):
    (in_tmp / "mine.py").write_text("make = 3\n")
    for critic, words in (
        ("mlq", "there is no critic 'mlq'; did you mean mlp?"),
        ("mine.py:make", "mine.py:make is int; expected a function make\\(made\\)"),
        ("mine.py:other", "mine.py:other gives no critic: it has no function 'other'."),
        (CriticFamily(), "is a family without `make`"),
        (3, "is int; expected a function make"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_critic(critic)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileError, match="there is no such file"):
        check_critic("none.py:make")
    with pytest.raises(ConfigError, match="there is no column of a data set that critics read: 'theta'"):
        CriticFamily(template.make, reads="theta")
    with pytest.raises(ConfigError, match="leave closed at False"):
        CriticFamily(template.make, closed=True)


def test_from_the_shell(in_tmp, shell):
    assert "check-critic mine.py:make" in shell("new-critic", "mine.py").stdout
    done = shell("check-critic", "mine.py:make", "--hidden", "6")
    assert done.stdout.count("ok  ") == 8
    assert "mine.py:make keeps all rules, on policies 4-6-1" in done.stdout
    assert "exists already" in shell("new-critic", "mine.py", code=1).stderr
    assert "cannot be the name of a Python file" in shell("new-critic", "my-critic", code=2).stderr
    (in_tmp / "bad.py").write_text((in_tmp / "mine.py").read_text().replace("split(key)", "split(jax.random.key(0))"))
    told = shell("check-critic", "bad.py:make", "--hidden", "6", "--json", code=1).stdout
    assert '"rule": "seeds", "ok": false' in told
