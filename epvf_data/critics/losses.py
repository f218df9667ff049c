"""What a critic is fitted to, and how its outputs are read: squared error, a histogram of returns, or an order.

Each loss is a record of pure functions over a batch in standardised units. A weight of zero leaves a padded row out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from epvf_data.critics.base import AnyArray
from epvf_data.critics.settings import LOSSES
from epvf_data.errors import ConfigError

SUPPORT = (-4.0, 6.0)  # of the histogram where no rows say how far returns reach: standard deviations around the mean


class Loss(NamedTuple):
    """`outputs` numbers a row; `loss(outputs [B, outputs], targets [B], weights [B])`; `read(outputs) → V`.

    `calibrated` tells whether V has the targets' units; where not, only its order means something.
    """

    name: str
    outputs: int
    loss: Callable[[Float[AnyArray, "B out"], Float[AnyArray, "B"], Float[AnyArray, "B"]], Float[Array, ""]]
    read: Callable[[Float[AnyArray, "*B out"]], Float[Array, "*B"]]
    calibrated: bool = True


def make_loss(name: str, support: tuple[float, float] = SUPPORT, bins: int = 101) -> Loss:
    """The loss of that name; `support` and `bins` are those of the histogram. Raises ConfigError for unknown names."""
    if name == "mse":
        return Loss(name, 1, lambda outputs, targets, weights: mse(outputs[:, 0], targets, weights), _only)
    if name == "hl-gauss":
        return hl_gauss(support, bins)
    orders = {"rank": rank, "listnet": listnet, "rank-top": rank_top}
    if name in orders:
        order = orders[name]
        return Loss(name, 1, lambda outputs, targets, weights: order(outputs[:, 0], targets, weights), _only, False)
    raise ConfigError(f"there is no loss {name!r}; choose one of {', '.join(LOSSES)}.")


def _only(outputs: Float[AnyArray, "*B 1"]) -> Any:
    return outputs[..., 0]


def mse(
    predictions: Float[AnyArray, "B"], targets: Float[AnyArray, "B"], weights: Float[AnyArray, "B"] | None = None
) -> Float[Array, ""]:
    """Weighted mean of the squared errors, in squared units of the targets; a plain mean without weights."""
    errors = jnp.square(predictions - targets)
    if weights is None:
        return jnp.mean(errors)
    return jnp.sum(weights * errors) / jnp.sum(weights)


def hl_gauss(support: tuple[float, float], bins: int = 101, width: float = 0.75) -> Loss:
    """Cross-entropy with a histogram of the target blurred by a Gaussian (Imani and White 2018).

    The Gaussian's deviation is `width` bins. V is the mean of the bins' centres under the predicted probabilities, so
    that it never leaves the support: leave room above the best return seen (Farebrother et al. 2024). Raises
    ConfigError for an empty support.
    """
    low, high = support
    if bins < 2 or not high > low:
        raise ConfigError(f"a histogram needs at least 2 bins over a range; got {bins} over [{low:g}, {high:g}].")
    edges = np.linspace(low, high, bins + 1)
    centres, deviation = jnp.asarray((edges[:-1] + edges[1:]) / 2, jnp.float32), width * (high - low) / bins
    limits = jnp.asarray(edges, jnp.float32)

    def loss(outputs: Float[AnyArray, "B bins"], targets: Float[AnyArray, "B"], weights: Float[AnyArray, "B"]):
        inside = jnp.clip(targets, low, high)
        below = jax.scipy.special.erf((limits[None] - inside[:, None]) / (np.sqrt(2.0) * deviation))
        mass = below[:, 1:] - below[:, :-1]
        wanted = mass / jnp.maximum(below[:, -1:] - below[:, :1], 1e-6)
        entropy = -jnp.sum(wanted * jax.nn.log_softmax(outputs), axis=-1)
        return jnp.sum(weights * entropy) / jnp.sum(weights)

    def read(outputs: Float[AnyArray, "*B bins"]) -> Float[Array, "*B"]:
        return jnp.asarray(jax.nn.softmax(outputs) @ centres)

    return Loss("hl-gauss", bins, loss, read)


def rank(
    predictions: Float[AnyArray, "B"], targets: Float[AnyArray, "B"], weights: Float[AnyArray, "B"]
) -> Float[Array, ""]:
    """Mean of log(1 + exp(V(worse) − V(better))) over pairs with different targets (RankNet, Burges et al. 2005)."""
    better = (targets[:, None] > targets[None, :]) * weights[:, None] * weights[None, :]
    errors = jax.nn.softplus(predictions[None, :] - predictions[:, None])
    return jnp.sum(better * errors) / jnp.maximum(jnp.sum(better), 1.0)


def listnet(
    predictions: Float[AnyArray, "B"], targets: Float[AnyArray, "B"], weights: Float[AnyArray, "B"]
) -> Float[Array, ""]:
    """Cross-entropy of the batch's softmax(V) with softmax(targets): which row is the best (ListNet, Cao et al. 2007).

    The loss that Tan et al. (2025) found best for offline optimisation. Targets are standardised.
    """
    outside = jnp.where(weights > 0, 0.0, -jnp.inf)
    wanted = jax.nn.softmax(targets + outside)
    logs = jnp.where(weights > 0, jax.nn.log_softmax(predictions + outside), 0.0)
    return -jnp.sum(wanted * logs)


def rank_top(
    predictions: Float[AnyArray, "B"],
    targets: Float[AnyArray, "B"],
    weights: Float[AnyArray, "B"],
    share: float = 0.2,
    inside: float = 0.3,
    margin: float = 0.5,
) -> Float[Array, ""]:
    """Distribution-aware ranking: pairs whose better row is among the best `share` of the batch, and no others.

    A fraction `inside` of the weight is on pairs within the best, the rest on pairs of one of them with one below;
    a pair costs log(1 + exp(margin − (V(better) − V(worse)))). That an optimiser needs the order of near-optimal and
    other designs alone, and the three settings (quantile, ratio within, margin), are of Lyu et al. (2026); their values
    and the logistic form here are ours.
    """
    cut = jnp.nanquantile(jnp.where(weights > 0, targets, jnp.nan), 1 - share)
    best = jnp.asarray(weights * (targets >= cut))
    better = (targets[:, None] > targets[None, :]) * best[:, None]
    errors = jax.nn.softplus(margin - (predictions[:, None] - predictions[None, :]))
    mean = lambda pairs: jnp.sum(pairs * errors) / jnp.maximum(jnp.sum(pairs), 1.0)  # noqa: E731
    return inside * mean(better * best[None, :]) + (1 - inside) * mean(better * (weights - best)[None, :])
