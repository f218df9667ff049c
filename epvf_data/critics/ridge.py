"""Ridge regression, V(θ) = w·θ + b, in closed form: the control that every other critic has to beat.

With centred rows X [n, P] and targets y [n] the weights are (XᵀX + λI)⁻¹Xᵀy, or equally Xᵀ(XXᵀ + λI)⁻¹y
(Saunders, Gammerman and Vovk 1998). We solve whichever system is smaller, so rows ≪ parameters is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.linalg import cho_factor, cho_solve, get_blas_funcs

from epvf_data.critics.base import Critic, Params, Row

# λ / P. On standardised inputs λ / P is the noise-to-signal ratio that a Bayesian would write down for a linear signal
# spread over all P parameters: 1e-2 is a nearly exact fit, 1e3 nearly the mean.
PENALTIES = (1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
MAX_GRAM = 8192  # side of the largest system solved: up to three float64 matrices of 0.5 GB
BLOCK_BYTES = 64 << 20  # float32 bytes of one block of rows
_SLICE = 1024  # terms summed in float32 before the sum goes on in float64: twice as fast, and as good as needed
(_rank_one,) = get_blas_funcs(("syr",), dtype=np.float64)

Read = Callable[[int, int], Float[np.ndarray, "k P"]]


class RidgeFit(NamedTuple):
    """The fitted plane and how it was chosen."""

    weights: Float[np.ndarray, "P"]
    bias: float
    penalty: float  # the chosen λ / P
    errors: Float[np.ndarray, "L"]  # mean squared validation error of each entry of the grid
    rows: int  # rows that entered the final fit


def ridge(size: int, outputs: int = 1) -> Critic:
    """The plane as a critic with params {"weights" [outputs, size], "bias" [outputs]}; it starts at zero.

    `fit_ridge` gives its params in closed form; by gradient steps it is the linear critic.
    """

    def init(key: PRNGKeyArray) -> Params:
        del key  # the closed form has one solution and needs no randomness
        return {"weights": jnp.zeros((outputs, size)), "bias": jnp.zeros(outputs)}

    def apply(params: Params, row: Row) -> Float[Array, "outputs"]:
        return params["weights"] @ row.scaled + params["bias"]

    return Critic("ridge", init, apply)


def fit_ridge(
    read: Read,
    targets: Float[np.ndarray, "n"],
    validation: Bool[np.ndarray, "n"],
    size: int,
    penalties: tuple[float, ...] = PENALTIES,
    max_gram: int = MAX_GRAM,
    block_bytes: int = BLOCK_BYTES,
) -> RidgeFit:
    """The ridge whose λ predicts the validation rows best, refitted on all rows with that λ; the bias is not penalised.

    `read(start, stop)` gives standardised rows [stop − start, size]; memory holds two systems of min(n, size) unknowns
    and a few blocks. When both n and size exceed `max_gram`, an evenly spaced `max_gram` of the rows is used.
    """
    rows = np.arange(len(targets))
    if min(len(targets), size) > max_gram:
        rows = np.linspace(0, len(targets) - 1, max_gram).astype(np.int64)
    step = max(1, block_bytes // (4 * size))
    blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
    solve = _primal if len(rows) >= size else _dual

    def load(block: np.ndarray) -> Float[np.ndarray, "k P"]:
        return read(int(block[0]), int(block[-1]) + 1)[block - block[0]].astype(np.float32)

    weights, bias, best, errors = solve(load, blocks, targets.astype(np.float64), validation, size, penalties)
    return RidgeFit(weights.astype(np.float32), float(bias), penalties[best], errors, len(rows))


def _primal(load, blocks, targets, validation, size, penalties):
    """Solve P × P systems: first with the fitting rows' Gram matrix, then with the validation rows' added to it."""
    gram, moment, total = np.zeros((size, size), order="F"), np.zeros(size), np.zeros(size)
    label_sum, count = 0.0, 0

    def add(x: np.ndarray, y: np.ndarray) -> None:
        nonlocal gram, moment, total, label_sum, count
        for start in range(0, len(x), _SLICE):
            gram += x[start : start + _SLICE].T @ x[start : start + _SLICE]
        moment += x.T @ y
        total += x.sum(0, dtype=np.float64)
        label_sum += y.sum()
        count += len(y)

    def solve(penalty: float) -> tuple[np.ndarray, float]:
        mean, label = total / count, label_sum / count
        system = _rank_one(-count, mean, a=gram.copy(order="F"), lower=1, overwrite_a=1)
        weights = _solve(system, moment - count * mean * label, penalty * size)
        return weights, float(label - weights @ mean)

    for block in blocks:
        keep = ~validation[block]
        add(load(block)[keep], targets[block][keep])
    planes = [solve(penalty) for penalty in penalties]
    slopes, biases = np.stack([plane[0] for plane in planes], axis=1), np.array([plane[1] for plane in planes])
    squared, held_out = np.zeros(len(penalties)), 0
    for block in blocks:
        keep = validation[block]
        if keep.any():
            x, y = load(block)[keep], targets[block][keep]
            squared += np.square(x @ slopes + biases - y[:, None]).sum(0)
            held_out += len(y)
            add(x, y)
    errors = squared / held_out
    best = int(np.argmin(errors))
    weights, bias = solve(penalties[best])
    return weights, bias, best, errors


def _dual(load, blocks, targets, validation, size, penalties):
    """Solve n × n systems of inner products between rows, built a pair of blocks at a time."""
    rows = np.concatenate(blocks)
    ends = np.cumsum([0, *(len(block) for block in blocks)])
    kernel = np.empty((len(rows), len(rows)))
    for i, block in enumerate(blocks):
        left, here = load(block), slice(ends[i], ends[i + 1])
        for j in range(i + 1):
            there = slice(ends[j], ends[j + 1])
            product = _inner(left, left if j == i else load(blocks[j]))
            kernel[here, there], kernel[there, here] = product, product.T
    held_out, y = validation[rows], targets[rows]
    fitting = np.flatnonzero(~held_out)
    fit_mean, fit_label = kernel[:, fitting].mean(1), y[fitting].mean()
    inner = kernel[np.ix_(fitting, fitting)]
    grand = inner.mean()
    inner += grand - fit_mean[fitting][:, None] - fit_mean[fitting][None, :]
    cross = kernel[np.ix_(held_out, ~held_out)]
    cross += grand - fit_mean[held_out][:, None] - fit_mean[fitting][None, :]
    errors = np.array(
        [
            np.mean(
                np.square(
                    cross @ _solve(inner.copy(order="F"), y[fitting] - fit_label, penalty * size)
                    + fit_label
                    - y[held_out]
                )
            )
            for penalty in penalties
        ]
    )
    del inner, cross
    best = int(np.argmin(errors))
    mean = kernel.mean(0)
    kernel += mean.mean() - mean[:, None] - mean[None, :]
    dual = _solve(kernel, y - y.mean(), penalties[best] * size)
    dual -= dual.mean()  # Xᵀ of centred rows equals the plain Xᵀ of centred coefficients
    weights, centre = np.zeros(size), np.zeros(size)
    for i, block in enumerate(blocks):
        x = load(block)
        weights += x.T @ dual[ends[i] : ends[i + 1]]
        centre += x.sum(0, dtype=np.float64)
    return weights, y.mean() - weights @ centre / len(rows), best, errors


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left rightᵀ of float32 rows, summed over slices of columns in float64."""
    result = np.zeros((len(left), len(right)))
    for start in range(0, left.shape[1], _SLICE):
        result += left[:, start : start + _SLICE] @ right[:, start : start + _SLICE].T
    return result


def _solve(system: np.ndarray, right: np.ndarray, penalty: float) -> np.ndarray:
    """(system + penalty I)⁻¹ right, for a symmetric, positive semi-definite system, which is overwritten."""
    system[np.diag_indices_from(system)] += penalty
    return cho_solve(cho_factor(system, lower=True, overwrite_a=True, check_finite=False), right)
