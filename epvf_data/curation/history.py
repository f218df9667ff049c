"""Who made the rows of a data set, with what and when: the provenance of its commits as short lines."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from epvf_data.provenance import WHO, descent
from epvf_data.store.origins import leaves
from epvf_data.store.reader import Dataset

_VERSIONS = ("epvf-data", "python", "jax", "mujoco", "numpy")
_SIMULATION = ("backend", "device", "dtype")
MAX_ORIGINS = 10_000  # events in all: provenance may come from a stranger


def history(dataset: Dataset) -> list[dict[str, Any]]:
    """One event a commit, in order, each followed by those that its rows came from (`origin` true).

    Keys: `commit`, `record` (SHA-256), `origin`, `created`, `rows`, `removed` (parts), `rows_of` (of a compaction: the
    commits whose rows it holds, each with their number), `who`, `command`, `made` (backend and device), `versions`,
    `git` (of the package), `seed`; None where the provenance, which is free-form, does not tell.
    """
    return list(itertools.islice(_events(dataset), MAX_ORIGINS))


def _events(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for commit in dataset.commits:
        head = {"commit": commit.number, "record": commit.sha256, "origin": False, "created": commit.created}
        found = leaves(dataset, commit) if commit.remove else []
        rows_of = [[old.number, rows] for old, rows in found if old is not commit] or None
        sizes = {"rows": commit.rows, "removed": len(commit.remove), "rows_of": rows_of}
        yield {**head, **sizes, **_told(commit.provenance)}
        for item, inner in descent(commit.provenance):
            numbers = {key: value if type(value := item.get(key)) is int else None for key in ("commit", "rows")}
            record = item["record"] if isinstance(item.get("record"), str) else None
            created = inner["ended"] if isinstance(inner.get("ended"), str) else None
            head = {"commit": numbers["commit"], "record": record, "origin": True, "created": created}
            yield {**head, "rows": numbers["rows"] or 0, "removed": 0, "rows_of": None, **_told(inner)}


def _told(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a provenance that people ask for."""
    command, git, seed = provenance.get("command"), provenance.get("git"), provenance.get("seed")
    made, versions = provenance.get("simulation"), provenance.get("versions")
    whole = isinstance(command, list) and all(isinstance(word, str) for word in command)
    stated = provenance.get("who")
    told: dict[str, Any] = {"who": _pick(stated, tuple(WHO), ", ", "{value}") if isinstance(stated, dict) else None}
    told["command"] = shlex.join(command) if whole and command else None
    told["made"] = _pick(made, _SIMULATION, ", ", "{value}") if isinstance(made, dict) else None
    told["versions"] = _pick(versions, _VERSIONS, ", ", "{key} {value}") if isinstance(versions, dict) else None
    told["git"] = None
    if isinstance(git, dict) and isinstance(git.get("commit"), str):
        told["git"] = git["commit"][:12] + (" with local changes" if git.get("dirty") is True else "")
    told["seed"] = str(seed) if type(seed) is int else None
    return told


def _pick(values: Mapping[str, Any], keys: tuple[str, ...], joint: str, form: str) -> str | None:
    found = [form.format(key=key, value=str(values[key])[:80]) for key in keys if values.get(key) is not None]
    return joint.join(found) or None
