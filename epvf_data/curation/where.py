"""Conditions on rows, as in `return > 100 and source == 'perturbed'`: a closed little language that runs no code.

It has comparisons (`== != < <= > >=`, also `0 < return < 10`), `in ('a', 'b')` and `not in`, `and or not`, parentheses,
`+ - * /`, numbers, 'texts', `true`, `false` and `none`. A comparison with NaN is false, `!=` and `not in` too. A number
that is compared with a float32 column is rounded to float32 first, so `scale == 0.1` finds what was stored as 0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from epvf_data.curation.grammar import MAX_CHARACTERS, Among, Chain, Column, Junction, Literal, Node, Not, Parser
from epvf_data.errors import ConfigError

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}


@dataclass(frozen=True)
class Words:
    """A column of words: `indices` into `vocabulary`, one a row; −1 means none."""

    indices: Int[np.ndarray, " rows"]
    vocabulary: tuple[str, ...]


@dataclass(frozen=True)
class Expression:
    """A condition whose names and kinds are checked. `names` are the columns that it reads."""

    text: str
    names: frozenset[str]
    _root: Node

    def mask(self, columns: Mapping[str, np.ndarray | Words]) -> Bool[np.ndarray, " rows"]:
        """Which rows fulfil the condition. `columns` has at least `names`, each one value a row.

        Raises ConfigError where a column is missing or they differ in length.
        """
        used = {name: columns[name] for name in self.names if name in columns}
        sizes = {name: np.shape(value.indices if isinstance(value, Words) else value) for name, value in used.items()}
        if set(used) != self.names or len(set(sizes.values())) != 1 or any(len(size) != 1 for size in sizes.values()):
            raise ConfigError(
                f"the condition needs the columns {', '.join(sorted(self.names))} with one value a row; got {sizes}."
            )
        with np.errstate(all="ignore"):
            found = _evaluate(self._root, used)
        return np.broadcast_to(found, next(iter(sizes.values()))).astype(bool)


def parse(text: str, columns: Mapping[str, str]) -> Expression:
    """Reads a condition. `columns` maps each name to its kind: number, words, or flag (true or false).

    Raises ConfigError, which points at the place, for all that is not in the language, unknown columns, comparisons
    of different kinds, texts over MAX_CHARACTERS and nesting over MAX_NESTING.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the condition has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed.")
    parser = Parser(text, columns)
    root = parser.read()
    return Expression(text, frozenset(parser.names), root)


def _evaluate(node: Node, columns: Mapping[str, np.ndarray | Words]) -> Any:
    """The value of a node: an array [rows] or a scalar; Words, a string or None for text."""
    match node:
        case Literal(_, value):
            return np.float64(value) if node.kind == "number" else value
        case Column(_, name):
            return columns[name]
        case Not(item):
            return np.logical_not(_evaluate(item, columns))
        case Junction(word, items):
            join = np.logical_and if word == "and" else np.logical_or
            return reduce(join, (_evaluate(item, columns) for item in items))
        case Among(item, values, negated):
            return _among(_evaluate(item, columns), [_evaluate(value, columns) for value in values], negated)
        case Chain("number", first, rest):
            total = np.asarray(_evaluate(first, columns), np.float64)
            for operator, item in rest:
                total = _OPERATORS[operator](total, np.asarray(_evaluate(item, columns), np.float64))
            return total
        case Chain(_, first, rest):
            left, found = _evaluate(first, columns), np.True_
            for operator, item in rest:
                right = _evaluate(item, columns)
                found = np.logical_and(found, _compare(operator, left, right))
                left = right
            return found


def _compare(operator: str, left: Any, right: Any) -> np.ndarray:
    if isinstance(right, Words):
        left, right = right, left
    if isinstance(left, Words):
        same = _is_word(left, right)
        return same if operator == "==" else ~same
    left, right = np.asarray(left), np.asarray(right)
    left, right = _rounded(left, right), _rounded(right, left)
    found = _OPERATORS[operator](left, right)
    return found & (left == left) & (right == right) if operator == "!=" else found  # NaN is unequal to itself


def _rounded(value: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A single number beside a float32 column, as float32."""
    single = value.astype(np.float32)
    return single if value.ndim == 0 and other.ndim and other.dtype == np.float32 and np.isfinite(single) else value


def _among(item: Any, values: list[Any], negated: bool) -> np.ndarray:
    found = reduce(np.logical_or, (_compare("==", item, value) for value in values))
    if not negated:
        return found
    return ~found if isinstance(item, Words) else ~found & ~np.isnan(item)


def _is_word(column: Words, word: str | None) -> np.ndarray:
    if word is None:
        return column.indices < 0
    if word not in column.vocabulary:
        return np.zeros(column.indices.shape, bool)
    return column.indices == column.vocabulary.index(word)
