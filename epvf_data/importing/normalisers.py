"""Normalisers of observations that a file holds beside the layers, by the names that frameworks give their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import and_, eq

from epvf_data.errors import ConfigError
from epvf_data.importing.layouts import BESIDE, words
from epvf_data.importing.limits import Tensors, listing
from epvf_data.importing.settings import ImportSettings, NormaliserSettings, Place
from epvf_data.untrusted import WHOLE, printable, shown

_STATISTIC = re.compile(r"(?<![a-z])(?:running_)?(mean|variance|var|std)(?![a-z])")
_PARAMETER = re.compile(r".*[./](?:weight|bias|kernel)")


@dataclass(frozen=True)
class _Known:
    """(observation − mean) / √(var + epsilon) or / (std + epsilon), clipped; the last two are not in the file."""

    name: str
    module: str  # pattern of what stands before the names
    mean: str
    key: str  # std or var
    spread: str
    mark: str  # another tensor that is there
    epsilon: float
    clip: float | None


_KNOWN = (
    _Known("rsl_rl", r".*", "_mean", "std", "_std", "_var", 0.01, None),
    _Known("rl_games", r".*running_mean_std[./](?:.*[./])?", "running_mean", "var", "running_var", "", 1e-5, 5.0),
    # skrl adds 1e-8 to the deviation: the same where the variance is 0, and nothing elsewhere.
    _Known("skrl", r".*", "running_mean", "var", "running_variance", "", 1e-16, 5.0),
    _Known("brax", r".*", "mean", "std", "std", "summed_variance", 0.0, None),
)


def is_stated(chosen: ImportSettings, places: Iterable[str]) -> bool:
    """Whether it is settled what normalises the observations, or that nothing does."""
    stated = chosen.normaliser
    numbers = stated is None or not (stated.mean is stated.std is stated.var is None)
    return numbers or any(name.startswith("normaliser/") for name in places)


def complete(
    tensors: Tensors, chosen: ImportSettings, places: dict[str, Place], size: int, notes: list[str]
) -> tuple[ImportSettings, dict[str, Place]]:
    """The settings with the normaliser that the file holds for observations of this size.

    Raises ConfigError where there are several, or one of a kind that is not known.
    """
    if is_stated(chosen, places):
        return chosen, places
    used = {place.name for place in places.values()}
    first = places["layer_0/kernel"].name
    own = set().union(*map(words, used))
    found = [(known, module) for known in _KNOWN for module in _modules(tensors, known, own)]
    # Of several, that which is called most like the layers: student_obs_normalizer for student.0.weight.
    alike = [sum(accumulate(map(eq, first, module), and_)) for _, module in found]
    found = [one for one, length in zip(found, alike, strict=True) if length == max(alike)]
    names = [module + known.mean for known, module in found] or statistics(tensors, used, size)
    if not names:
        return chosen, places
    if len(found) != 1:
        mean = min(name for name in names if "mean" in name)
        near = [name for name in names if name != mean]
        raise ConfigError(
            f"{listing(names)} look like normalisers of the observations; name the policy's numbers under [tensors] in "
            f'--spec ("normaliser/mean" = "{printable(mean, WHOLE)}"'
            + (f', "normaliser/{_kind(near[0])}" = "{printable(near[0], WHOLE)}"' if near and not found else "")
            + "), with its epsilon and clip under [normaliser], or --set normaliser=none if it was trained without."
        )
    (known, module), stated = found[0], chosen.normaliser or NormaliserSettings()
    epsilon, clip = stated.epsilon or known.epsilon, known.clip if stated.clip is None else stated.clip
    notes.append(
        f"the observations are normalised by {shown(module)} as {known.name} does it (epsilon {epsilon:g}, "
        f"{'no clip' if clip is None else f'clip {clip:g}'}); state normaliser.epsilon, normaliser.clip if they were "
        "others, normaliser=none if it was trained without"
    )
    more = {"normaliser/mean": Place(module + known.mean), f"normaliser/{known.key}": Place(module + known.spread)}
    return replace(chosen, normaliser=replace(stated, epsilon=epsilon, clip=clip)), {**places, **more}


def statistics(tensors: Tensors, used: set[str], size: int) -> list[str]:
    """The names of what looks like means and deviations of `size` observations, and is no critic's."""
    vectors = [name for name, tensor in tensors.items() if name not in used and tensor.size == size]
    found: dict[str, list[str]] = {}
    for name in sorted(vectors):
        if (
            (said := [*_STATISTIC.finditer(name.lower())])
            and not _PARAMETER.fullmatch(name)
            and not _others(name, used)
        ):
            found.setdefault(name[: said[-1].start()] + "*" + name[said[-1].end() :], []).append(name)
    return [name for names in found.values() if any(_kind(name) == "mean" for name in names) for name in names]


def _modules(tensors: Tensors, known: _Known, own: set[str]) -> list[str]:
    """What stands before the names of a known normaliser, wherever there is one that is no critic's."""
    found = [name.removesuffix(known.mean) for name in tensors if name.endswith(known.mean)]
    return [
        module
        for module in found
        if re.fullmatch(known.module, module)
        and (not module or module[-1] in "./")
        and module + known.spread in tensors
        and (not known.mark or module + known.mark in tensors)
        and words(module).isdisjoint(BESIDE - own)
    ]


def _others(name: str, used: set[str]) -> bool:
    """Whether a tensor is a critic's, or lies between the policy's numbered layers, where batches are normalised."""
    own = set().union(*map(words, used))
    between = re.fullmatch(r"(.*\D|)(\d{1,6})[./]\w+", name)
    inside = between is not None and any(one.startswith(between[1]) for one in used)
    return inside or not words(name).isdisjoint(BESIDE - own)


def _kind(name: str) -> str:
    """mean, std or var."""
    word = str(_STATISTIC.findall(name.lower())[-1])
    return "var" if word == "variance" else word
