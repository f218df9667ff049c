"""Whether rows are of one task: their environments' identities, and the functions that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epvf_data.errors import DatasetError, EnvironmentMismatchError
from epvf_data.provenance import first_hand
from epvf_data.store.schema import EnvIdentity, to_json
from epvf_data.untrusted import shown

if TYPE_CHECKING:
    from epvf_data.store.reader import Dataset

MIXED = "mixed"  # detail of an identity that stands for several: their identities


def differences(one: EnvIdentity, other: EnvIdentity) -> str:
    """What differs between two environments, in words: `horizon 50 and 100, the model`."""
    first, second = ({**item.to_dict(), **item.details} for item in (one, other))
    named = [name for name in first | second if name not in ("digest", "details")]
    names = [name for name in named if first.get(name) != second.get(name)]
    words = {"model_sha256": "the model", MIXED: "what they are mixed of"}
    return ", ".join(
        words.get(name, f"{name} {shown(first.get(name))} and {shown(second.get(name))}") for name in names
    )


def expect(found: EnvIdentity, wanted: EnvIdentity, sentence: str, cure: str) -> None:
    """Raises EnvironmentMismatchError, with what differs between the two, unless they are one task."""
    if found.digest != wanted.digest:
        what, digests = differences(found, wanted), f"digests {found.digest[:12]} and {wanted.digest[:12]}"
        raise EnvironmentMismatchError(f"{sentence}; they differ in {what + ', ' if what else ''}{digests}: {cure}.")


def mixed(identity: EnvIdentity) -> list[EnvIdentity]:
    """The environments that an identity stands for; most stand for one, themselves."""
    found = identity.details.get(MIXED)
    try:
        return [EnvIdentity.from_dict(item) for item in found] if isinstance(found, list) and found else [identity]
    except DatasetError:  # a stranger's
        return [identity]


def join(identities: Iterable[EnvIdentity]) -> EnvIdentity:
    """The identity of rows of all these environments: one that says so, and takes part in nothing that needs one task.

    Where they differ, name and version are those of all, the horizon is the longest, and time step and substeps, which
    cannot be several, are the first one's.
    """
    parts = list({item.digest: item for identity in identities for item in mixed(identity)}.values())
    first = parts[0]
    if len(parts) == 1:
        return first
    digest = hashlib.sha256(to_json({MIXED: sorted(item.digest for item in parts)})).hexdigest()
    return EnvIdentity(
        "+".join(dict.fromkeys(item.name for item in parts)),
        "+".join(dict.fromkeys(item.version for item in parts)),
        digest,
        first.observation_size,
        first.action_size,
        max(item.horizon for item in parts),
        first.timestep,
        first.substeps,
        {MIXED: [item.to_dict() for item in parts]},
    )


def functions_of(dataset: Dataset) -> list[Mapping[str, Any]]:
    """The functions that the data set's rows were made with, each version of them once, where its commits tell."""
    made = (one.get("functions") for commit in dataset.commits for one in first_hand(commit.provenance))
    found = [dict(one) for one in made if isinstance(one, Mapping)]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def changed(known: Sequence[Mapping[str, Any]], functions: Mapping[str, Any]) -> list[str] | None:
    """Which functions are no longer any of the known ones; None where none is of the same version of JAX."""
    alike = [one for one in known if one.get("jax") == functions.get("jax")]
    names = ([name for name in functions if functions[name] != one.get(name)] for one in alike)
    return min(names, key=len, default=None)
