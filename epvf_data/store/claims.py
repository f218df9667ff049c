"""Which numbered rows of a run a commit says to hold: the same ones are in one commit only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from epvf_data.errors import RowsTakenError

if TYPE_CHECKING:
    from epvf_data.store.commit import CommitRecord


class Claim(NamedTuple):
    """The numbered rows, or iterations, of a run that a commit says to hold, from `first` to before `end`."""

    run: str
    unit: str
    first: int
    end: int


def claim(provenance: Mapping[str, Any]) -> Claim | None:
    """What a commit of this provenance claims; None where it numbers nothing."""
    for unit in ("rows", "iterations"):
        match provenance.get("run"), provenance.get(unit):
            case str(run), [int(first), int(end)]:
                return Claim(run, unit, first, end)
    return None


def claimed(records: Iterable[CommitRecord], wanted: Claim) -> CommitRecord | None:
    """The first of these commits that claims some of the same rows or iterations. None where they are free."""
    for record in records:
        held = claim(record.provenance)
        if held and held[:2] == wanted[:2] and held.first < wanted.end and wanted.first < held.end:
            return record
    return None


def check_unclaimed(known: Sequence[CommitRecord], provenance: Mapping[str, Any], where: str) -> None:
    """Raises RowsTakenError where one of these commits holds some of the numbered rows that a new one would hold."""
    wanted = claim(provenance)
    if wanted and (taken := claimed(known, wanted)):
        raise RowsTakenError(
            f"commit {taken.number} of {where} holds {wanted.unit} {wanted.first} to {wanted.end - 1} of this run, "
            "or some of them; nothing was added."
        )


def gaps(wanted: range, held: Sequence[tuple[int, int]]) -> Iterator[range]:
    """The numbers of `wanted` that are in none of these runs [first, end) of numbers, which are in order."""
    begun = wanted.start
    for begin, end in (*held, (wanted.stop, wanted.stop)):
        if begun < min(begin, wanted.stop):
            yield range(begun, min(begin, wanted.stop))
        begun = max(begun, end)
