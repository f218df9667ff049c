"""Whether shards were made by one collection: its settings, its versions of packages, its devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from epvf_data.errors import DatasetError
from epvf_data.untrusted import shown

_FREE = ("envs", "policies", "backend")  # settings that rows do not depend on, or that `simulation` says better
MOST = 5  # differences that are named


def labels(made: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Which of its recipe's architectures a commit is of, and which there are; None and none without a recipe."""
    config = made.get("config")
    recipe = config.get("recipe") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(recipe, Mapping):
        return None, []
    names = recipe.get("architectures")
    return str(config.get("architecture")), [str(name) for name in names] if isinstance(names, Mapping) else []


def check_alike(made: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raises DatasetError unless these commits, each with the data set that holds it, are of one collection."""
    first: dict[str | None, tuple[str, Mapping[str, Any]]] = {}
    seen: set[str] = set()
    for where, one in made:
        label = labels(one)[0]
        known, other = first.setdefault(label, (where, one))
        aspects = {key: one.get(key) for key in ("run", "versions", "simulation")}
        if (key := repr((label, aspects))) in seen:
            continue
        seen.add(key)
        same = {name: one.get(name) == other.get(name) for name in aspects}
        if all(same.values()) and (label is None) == (None in first):
            continue
        found = list(_differences(_facts(other), _facts(one)))
        if not same["run"] and not any(name.startswith("config.") for name, *_ in found):
            found.append(("base policies, probing states or teachers", "some", "others"))
        told = ", ".join(f"{name} {old} and {new}" for name, old, new in found[:MOST]) or "a recipe and none"
        more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
        places = f"{known} and {where} hold" if known != where else f"{known} holds"
        raise DatasetError(
            f"{places} rows that were not made alike ({told}{more}); leave out what does not belong, or add --mixed to "
            "take rows of different settings, versions and devices."
        )


def _facts(made: Mapping[str, Any]) -> dict[str, Any]:
    config = made.get("config")
    kept = {name: value for name, value in config.items() if name not in _FREE} if isinstance(config, Mapping) else {}
    return {"config": kept, "versions": made.get("versions"), "simulation": made.get("simulation")}


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two JSON values differ: a dotted name, and both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, shown(old), shown(new)
