"""The rows of one architecture: which source each is of, and its parameters. Row i depends on recipe and i alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt32

from epvf_data.collectors.lot import Drawn
from epvf_data.collectors.recipe import members
from epvf_data.policies.initial import INITS, draw
from epvf_data.policies.perturb import LAWS, perturb
from epvf_data.policies.spec import PolicySpec
from epvf_data.policies.symmetry import flip, flips, permute
from epvf_data.recipes.settings import Between, RandomPolicies, Renumbered, Source, Spread
from epvf_data.store.schema import Lineage
from epvf_data.streams import stream

GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly however many there are
WAYS = (*INITS, *LAWS, "between", "renumbered")  # how a row comes from its base and its key


@dataclass(frozen=True)
class Bases:
    """The policies of one source, their origin, and where in its training each was taken."""

    params: Float[np.ndarray, "F P"]
    ids: tuple[str, ...]
    run: str | None
    iteration: Int[np.ndarray, "F"]

    @classmethod
    def join(cls, several: Sequence[Bases]) -> Bases:
        """The policies of several sources."""
        return cls(
            np.concatenate([one.params for one in several]),
            tuple(name for one in several for name in one.ids),
            None,
            np.concatenate([one.iteration for one in several]),
        )


class Plan(NamedTuple):
    """What each of n rows of one source is, before any number is drawn."""

    way: Int[np.ndarray, "n"]  # index into WAYS
    base: Int[np.ndarray, "n"]  # −1: none
    first: Int[np.ndarray, "n"]  # rows of equal (first, second) share their noise
    second: Int[np.ndarray, "n"]
    sign: Int[np.ndarray, "n"]  # 0: the base itself
    scale: Float[np.ndarray, "n"]


class Mixture:
    """The rows of an architecture as a mixture of its sources."""

    def __init__(
        self,
        name: str,
        spec: PolicySpec,
        sources: Mapping[str, Source],
        bases: Mapping[str, Bases],
        seed: int,
        run: str,
        batch: int,
    ):
        """`bases` holds the policies of each source that starts from some."""
        self.spec, self.sources, self.bases, self.run, self.batch = spec, sources, bases, run, batch
        self.key = jax.random.fold_in(stream(seed, "recipe"), zlib.crc32(name.encode()))
        self.reset = jax.random.fold_in(stream(seed, "reset"), zlib.crc32(name.encode()))
        self.pool = np.concatenate(
            [np.zeros((1, spec.size), np.float32), *(bases[one].params for one in sources if one in bases)]
        )
        sizes = [len(bases[one].ids) if one in bases else 0 for one in sources]
        self.begin = dict(zip(sources, 1 + np.cumsum([0, *sizes[:-1]]), strict=True))  # row 0 of the pool is no policy

    def draw(self, rows: Int[np.ndarray, "n"]) -> Drawn:
        """The policies of the rows of these numbers."""
        which, number = place(rows, [source.weight for source in self.sources.values()])
        count = len(rows)
        whole = np.zeros((5, count), np.int64)
        planned = Plan(whole[0], whole[1], whole[2], whole[3], whole[4], np.zeros(count))
        other = np.zeros(count, np.int64)
        for index, (name, source) in enumerate(self.sources.items()):
            chosen = which == index
            part, ends = self._plan(name, source, number[chosen])
            for column, values in zip(planned, part, strict=True):
                column[chosen] = values
            other[chosen] = ends
        names = np.array([zlib.crc32(name.encode()) for name in self.sources], np.uint32)
        seeds, uniform, reset = self._keys(names[which], planned.first, planned.second, rows)
        scale = self._scales(which, planned, uniform)
        params = self._make(planned, other, seeds, scale)
        return Drawn(params, reset, self._lineage(which, planned, other, scale, seeds))

    def _plan(self, name: str, source: Source, number: np.ndarray) -> tuple[Plan, np.ndarray]:
        """The plan of a source's rows, and the pool's place of the other end of a line."""
        none, zeros = np.full(len(number), -1), np.zeros(len(number), np.int64)
        if isinstance(source, RandomPolicies):
            law = np.array([WAYS.index(law) for law in source.laws])[number % len(source.laws)]
            return Plan(law, none, number, zeros, zeros, zeros), zeros
        bases, begin = self.bases[name], self.begin[name]
        if isinstance(source, Spread):
            base, pair, sign, radius = members(number, len(bases.ids), source.radii, source.antithetic)
            way = np.full(len(number), WAYS.index(source.law))
            return Plan(way, begin + base, base, pair, sign, radius), zeros
        if isinstance(source, Renumbered):
            base = number % len(bases.ids)
            return Plan(zeros + WAYS.index("renumbered"), begin + base, number, zeros, zeros, zeros), zeros
        assert isinstance(source, Between)
        line = number % source.pairs
        ends = np.stack([_ends(len(bases.ids), name, one) for one in range(source.pairs)])[line]
        return Plan(zeros + WAYS.index("between"), begin + ends[:, 0], number, zeros, zeros, zeros), begin + ends[:, 1]

    def _keys(self, names: np.ndarray, first: np.ndarray, second: np.ndarray, rows: np.ndarray):
        """Raw key data of each row's noise [n, 2], a uniform number [n], and the key data of its start [n, 2]."""
        columns = [self._pad(column.astype(np.uint32)) for column in (names, first, second, rows)]
        return tuple(np.asarray(value)[: len(rows)] for value in _keys(self.key, self.reset, *columns))

    def _scales(self, which: np.ndarray, planned: Plan, uniform: np.ndarray) -> Float[np.ndarray, "n"]:
        """The radius of a perturbation, the scale of a fresh policy, or the way along a line."""
        scale = np.where(planned.way == WAYS.index("between"), uniform, planned.scale)
        for index, source in enumerate(self.sources.values()):
            if isinstance(source, RandomPolicies):
                low, high = np.log(source.scale)
                scale = np.where(which == index, np.exp(low + uniform * (high - low)), scale)
        return scale.astype(np.float32)

    def _make(self, planned: Plan, other: np.ndarray, seeds: np.ndarray, scale: np.ndarray) -> np.ndarray:
        bases = self.pool[np.maximum(planned.base, 0)], self.pool[other]
        columns = (seeds, *bases, scale, planned.sign.astype(np.float32), planned.way.astype(np.int32))
        return np.asarray(_maker(self.spec)(*map(self._pad, columns)))[: len(seeds)]

    def _pad(self, column: np.ndarray) -> np.ndarray:
        """To a whole batch, so that one compiled function serves all."""
        return np.pad(column, ((0, max(0, self.batch - len(column))), *((0, 0),) * (column.ndim - 1)), mode="edge")

    def _lineage(
        self, which: np.ndarray, planned: Plan, other: np.ndarray, scale: np.ndarray, seeds: UInt32[np.ndarray, "n 2"]
    ) -> Lineage:
        ids = [None, *(one for name in self.sources if name in self.bases for one in self.bases[name].ids)]
        origin = [self.bases.get(name) for name in self.sources]
        iteration = np.full(len(self.pool), -1)
        for name in self.sources:
            if name in self.bases:
                found = self.bases[name].iteration
                iteration[self.begin[name] : self.begin[name] + len(found)] = found
        words = [f"init_{way}" if way in INITS else way for way in WAYS]
        law = [
            f"between, to {str(ids[end])[:16]}" if WAYS[way] == "between" else words[way]
            for way, end in zip(planned.way, other, strict=True)
        ]
        flipped = " and flipped" if flips(self.spec) else ""
        titles = [_title(name, source) for name, source in self.sources.items()]
        return Lineage.build(
            len(which),
            source=[titles[index] for index in which],
            base=[ids[max(base, 0)] for base in planned.base],
            run=[(found.run if (found := origin[index]) else None) or self.run for index in which],
            law=[word + flipped if word == "renumbered" else word for word in law],
            scale=scale,
            sign=planned.sign,
            noise_seed=seeds,
            iteration=np.where(planned.base > 0, iteration[np.maximum(planned.base, 0)], -1),
        )


def _title(name: str, source: Source) -> str:
    """What lineage calls a source: `es`, or `es for standing` where its teachers had an objective of another name."""
    objective = getattr(source, "objective", "")
    return name if objective in ("", name) else f"{name} for {objective}"


def _ends(policies: int, name: str, line: int) -> tuple[int, int]:
    """Two different policies of a pool."""
    generator = np.random.default_rng([zlib.crc32(name.encode()), line])
    first, second = generator.choice(policies, 2, replace=policies < 2)
    return int(first), int(second)


def place(rows: Int[np.ndarray, "n"], weights: Sequence[float]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Which source each row is of, and its number among that source's rows: any stretch of rows holds each source by
    its weight."""
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ends = np.cumsum(weights) / np.sum(weights)
    every = np.searchsorted(ends[:-1], np.arange(int(np.max(rows)) + 1) * GOLDEN % 1.0, side="right")
    number = np.zeros(len(every), np.int64)
    for index in range(len(ends)):
        chosen = every == index
        number[chosen] = np.arange(chosen.sum())
    return every[rows], number[rows]


@jax.jit
@partial(jax.vmap, in_axes=(None, None, 0, 0, 0, 0))
def _keys(key, reset, name, first, second, row):
    own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, name), first), second)
    start = jax.random.key_data(jax.random.fold_in(reset, row))
    return jax.random.key_data(own), jax.random.uniform(jax.random.fold_in(own, 1)), start


@lru_cache(maxsize=16)
def _maker(spec: PolicySpec) -> Callable:
    """Parameters of many rows. One after another: each computes its own way only, and an orthogonal kernel is dear."""

    def one(row):
        seed, base, other, scale, sign, way = row
        key = jax.random.wrap_key_data(seed)
        fresh = [lambda law=law: draw(law, key, spec, scale) for law in INITS]
        spread = [lambda law=law: jnp.where(sign == 0, base, perturb(law, key, base, scale, sign)) for law in LAWS]

        def renumbered():
            first, second = jax.random.split(key)
            moved = permute(spec, base, first)
            return flip(spec, moved, second) if flips(spec) else moved

        return jax.lax.switch(way, [*fresh, *spread, lambda: base + scale * (other - base), renumbered])

    return jax.jit(lambda *columns: jax.lax.map(one, columns))
