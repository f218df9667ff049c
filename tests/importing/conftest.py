"""A policy of NumPy arrays, what it does in float64, and what an imported file does."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data.policies import mlp
from epvf_data.policies.files import load_policy

FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "clip": lambda x: np.clip(x, -1, 1),
    "identity": lambda x: x,
}


class Net:
    """Layers drawn at random: kernels [inputs, outputs] and biases, float32."""

    def __init__(self, sizes, seed=0, bias=True):
        draw = np.random.default_rng(seed)
        pairs = list(itertools.pairwise(sizes))
        self.kernels = [draw.normal(0, i**-0.5, (i, o)).astype(np.float32) for i, o in pairs]
        self.biases = [draw.normal(0, 0.5, o).astype(np.float32) if bias else None for _, o in pairs]
        self.states = draw.normal(0, 2, (32, sizes[0])).astype(np.float32)

    def named(self, *names, kernel="kernel", turned=False):
        """{name + kernel: …, name + bias: …}"""
        found = {}
        for name, matrix, bias in zip(names, self.kernels, self.biases, strict=True):
            found[name + kernel] = np.ascontiguousarray(matrix.T) if turned else matrix
            if bias is not None:
                found[name + "bias"] = bias
        return found

    def act(self, activation, output, states=None):
        x = np.asarray(self.states if states is None else states, np.float64)
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = x @ kernel.astype(np.float64) + (0 if bias is None else bias)
            x = FUNCTIONS[output if layer == len(self.kernels) - 1 else activation](x)
        return x


@pytest.fixture(scope="session")
def net():
    return Net


@pytest.fixture(scope="session")
def acts():
    """(policy file, states) → actions of this package."""

    def run(path, states):
        spec, flat = load_policy(path)
        tensors = mlp.unflatten(spec, jnp.asarray(flat))
        return np.asarray(jax.vmap(lambda state: mlp.apply(spec, tensors, state))(jnp.asarray(states, jnp.float32)))

    return run
