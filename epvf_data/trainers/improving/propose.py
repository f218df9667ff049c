"""Candidates by a named method, and what critics that it did not climb say of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from epvf_data.critics.value import combine
from epvf_data.improvement.ascent import ascend
from epvf_data.improvement.controls import averages, distance, random_steps
from epvf_data.improvement.judging import choose, sure, where_to_stop
from epvf_data.improvement.problem import Problem, ask
from epvf_data.improvement.search import cma_es, evolve
from epvf_data.trainers.improving.settings import ImproveConfig
from epvf_data.trainers.offline.fitted import FittedSplit

_ROWS = 10_000  # of those that critics were fitted on, of which judges are asked
Returns = Callable[[Float[np.ndarray, "n P"], int], Float[np.ndarray, "n"]]


class Look(NamedTuple):
    """What critics say after so many steps, on average over candidates, in units of the return."""

    steps: int
    promised: float  # by the critics that are climbed
    judged: float  # by the others: mean less deviation


class Pool(NamedTuple):
    """Proposals, the one that is surest to be good first."""

    theta: Float[np.ndarray, "n P"]
    origin: Int[np.ndarray, "n"]  # number of the start that each began from
    distance: Float[np.ndarray, "n"]  # from there, in units of the parameters' spread
    promised: Float[np.ndarray, "n"] | None  # V of the critics that were climbed; None without critics
    judged: Float[np.ndarray, "n"] | None  # what the others are sure of
    looks: list[Look]
    stop: int | None  # steps up to which the critics that were not climbed are believed
    spent: int  # real episodes that the method took itself
    steps: Int[np.ndarray, "n"] | None = None  # of each proposal


class Critics(NamedTuple):
    """V of one policy by every critic; the first half climbs, the others judge. A single one does both.

    Where critics of several seeds lie side by side, `own` are the members of one.
    """

    fitted: FittedSplit
    place: int
    own: tuple[int, int] | None = None  # first member, and the one after the last

    @property
    def members(self) -> tuple[int, int]:
        """The first member, and the one after the last."""
        return self.own or (0, 1 if self.fitted.config.closed else self.fitted.config.members)

    def highest(self) -> float:
        """What the judges are surest of among the rows that they were fitted on (an even choice of _ROWS at most)."""
        fit = self.fitted.ground.fit
        rows = fit[np.linspace(0, len(fit) - 1, min(_ROWS, len(fit))).astype(int)]
        first, last = self.members
        found = self.fitted.members(rows).reshape(-1, len(rows))[first:last]
        judges = found[self.climbers.stop - first :]
        return float(sure(judges if len(judges) else found).max())

    @property
    def climbers(self) -> slice:
        """The members that are climbed."""
        first, end = self.members
        return slice(first, first + (end - first + 1) // 2)

    def table(self, theta: Float[np.ndarray, "n P"]) -> tuple[Float[np.ndarray, "C n"], Float[np.ndarray, "J n"]]:
        """V of many policies, by those that climb and those that judge."""
        first, last = self.members
        found = np.asarray(_table(self.fitted, self.place)(jnp.asarray(theta), jnp.arange(first, last)), np.float64).T
        split = self.climbers.stop - self.climbers.start
        return found[:split], found[split:] if len(found) > split else found


@lru_cache(maxsize=2)
def _table(fitted: FittedSplit, place: int) -> Callable[[Array, Array], Float[Array, "n M"]]:
    """V of many policies by members of these numbers, compiled once."""
    return jax.jit(jax.vmap(partial(fitted.each, place), in_axes=(0, None)))


@lru_cache(maxsize=2)
def _bound(fitted: FittedSplit, place: int, bound: str) -> Callable[[Array, Array], Float[Array, ""]]:
    """What members of these numbers say together of one policy: an object for each critic, so that it compiles once."""
    return lambda theta, members: combine(fitted.each(place, theta, members)[:, None], bound, 0)[0]


def propose(
    config: ImproveConfig,
    starts: Float[np.ndarray, "n P"],
    spread: Float[np.ndarray, "P"],
    count: int,
    critics: Critics | None,
    returns: Returns | None,
    rows: int,
    problem: Callable[[], Problem] | None = None,
) -> Pool:
    """At most `count` candidates from these starts, the best start first.

    `returns` gives real returns to the method that spends `rows` episodes, those of the data set, itself; `problem`
    is what a method of the user's is given.
    """
    kind = config.recipe.climbs
    if kind == "own":
        assert problem is not None
        return _nearest(ask(config.recipe, problem()), starts, spread)
    if kind == "random":
        return _random(config, starts, spread, count)
    if kind == "none":
        counts = sorted({size for size in (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64) if size <= len(starts)} | {1})
        found = averages(starts, counts)[:count]
        return _plain(found, starts, spread, 0)
    if kind == "spend":
        assert returns is not None
        path = evolve(returns, starts[0], spread, rows, seed=config.seed)
        some = np.unique(np.linspace(len(path) // 2, len(path) - 1, min(count, len(path))).astype(int))[::-1]
        return _plain(np.stack([path[one] for one in some]), starts, spread, (len(path) - 1) * 64)
    assert critics is not None
    return _climbed(config, starts, spread, count, critics)


def _nearest(theta: Float[np.ndarray, "n P"], starts: np.ndarray, spread: np.ndarray) -> Pool:
    """Proposals of which nobody says from where they come: from the start that is nearest."""
    away = np.stack([distance(np.broadcast_to(one, starts.shape), starts, spread) for one in theta])
    origin = away.argmin(1)
    return Pool(theta, origin, away[np.arange(len(theta)), origin], None, None, [], None, 0)


def _random(config: ImproveConfig, starts: Float[np.ndarray, "n P"], spread: np.ndarray, count: int) -> Pool:
    """Random steps from the starts in turn, as long as the climbs after so many steps at most."""
    origin = np.arange(count) % len(starts)
    lengths = np.minimum(np.array(config.steps) * config.step, config.radius) * spread.size**0.5
    away = lengths[(np.arange(count) // len(starts)) % len(lengths)]
    theta = random_steps(starts[origin], spread, away, np.random.default_rng([config.seed, 1]))
    return Pool(theta, origin, away, None, None, [], None, 0)


def _plain(theta: Float[np.ndarray, "n P"], starts: np.ndarray, spread: np.ndarray, spent: int) -> Pool:
    """Proposals of methods that know no critic; all of them count from the best start."""
    origin = np.zeros(len(theta), int)
    return Pool(theta, origin, distance(theta, starts[origin], spread), None, None, [], None, spent)


def _climbed(
    config: ImproveConfig, starts: Float[np.ndarray, "n P"], spread: np.ndarray, count: int, critics: Critics
) -> Pool:
    """Where the climbs lead, ranked by the critics that were not climbed: half of the proposals from where these say to
    stop, the others from shorter climbs, and from farther on as long as they promise more; only trying can tell.
    """
    paths, origin = _paths(config, starts, spread, count, critics)
    tables = [critics.table(path) for path in paths]
    judged = np.stack([sure(judges) for _, judges in tables])
    promised = [climbers.mean(0) for climbers, _ in tables]
    climbed, others = critics.table(starts)
    known = sure(others)
    looks = [Look(0, float(climbed.mean()), float(known.mean()))]
    looks += [
        Look(steps, float(one.mean()), float(said.mean()))
        for steps, one, said in zip(config.steps, promised, judged, strict=True)
    ]
    stop, end = (where_to_stop(judged, float(known[origin].mean()), top) for top in (critics.highest(), np.inf))
    others = [look for look in range(end + 1) if look != stop]
    shares = [len(part) for part in np.array_split(np.arange(count // 2), len(others))] if others else []
    picks = [(stop, count - sum(shares)), *zip(others, shares, strict=True)]
    picked = [(look, one) for look, share in picks for one in choose(judged[look], share)]
    at, order = np.array(picked).T
    theta = np.stack([paths[look][one] for look, one in picked])
    away = distance(theta, starts[origin[order]], spread)
    said, sureness, steps = np.stack(promised)[at, order], judged[at, order], np.array(config.steps)[at]
    return Pool(theta, origin[order], away, said, sureness, looks, config.steps[stop], 0, steps)


def _paths(
    config: ImproveConfig, starts: Float[np.ndarray, "n P"], spread: np.ndarray, count: int, critics: Critics
) -> tuple[list[Float[np.ndarray, "m P"]], Int[np.ndarray, "m"]]:
    """Candidates after each number of steps, and the start of each: the same ones at every look."""
    recipe, root, climbers = config.recipe, spread.size**0.5, critics.climbers
    length, radius = config.step * root, config.radius * root
    members = jnp.arange(climbers.start, climbers.stop)
    if recipe.climbs == "search":
        mean = _bound(critics.fitted, critics.place, "mean")
        paths = cma_es(
            lambda theta: mean(theta, members), starts[0], spread, config.step, config.steps, count, config.seed
        )
        return paths, np.zeros(len(paths[0]), int)
    rate = critics.fitted.config.climb_rate * root / float(critics.fitted.ground.scales[critics.place].return_std)
    step = {"length": rate if recipe.plain else length, "plain": recipe.plain, "radius": radius}
    alone = recipe.climbs == "one"
    value = _bound(critics.fitted, critics.place, "mean" if alone else recipe.climbs)
    groups = jnp.split(members, len(members)) if alone else [members]
    each = [ascend(value, starts, spread, looks=config.steps, data=group, **step) for group in groups]
    paths = [np.concatenate([np.asarray(path[look]) for path in each]) for look in range(len(config.steps))]
    return paths, np.tile(np.arange(len(starts)), len(groups))
