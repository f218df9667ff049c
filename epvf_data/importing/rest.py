"""The tensors of a file that are not the imported policy's: nothing that it acts with may be left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from epvf_data.errors import ConfigError
from epvf_data.importing import normalisers
from epvf_data.importing.layers import Layers
from epvf_data.importing.layouts import WIDTHS, Layout, beside, chains, module_of, words
from epvf_data.importing.limits import Tensors, is_weight, listing
from epvf_data.importing.settings import ImportSettings, Place
from epvf_data.untrusted import WHOLE, printable, shown

_NUMBERED = re.compile(r"(.*\D|)(\d{1,6})[./]\w+")
_NAME_LAYERS = 'name the policy\'s layers themselves under [tensors] in --spec ("layer_0/kernel" = "…")'


def oriented(name: str, matrix: np.ndarray, transpose: bool | None) -> np.ndarray:
    """A layer's matrix as [inputs, outputs]; where nothing is said, those that are called weight are turned."""
    return matrix.T if (name.endswith("weight") if transpose is None else transpose) else matrix


def check(
    tensors: Tensors,
    layers: Layers,
    chosen: ImportSettings,
    places: Mapping[str, Place],
    layout: Layout,
    named: bool,
) -> None:
    """Raises ConfigError for tensors that the policy would lose, also by `prefix` and `ignore`.

    With `named`, somebody named all layers one by one; then only what nobody spoke of is refused.
    """
    used = {place.name for place in places.values()}
    kernels = {place.name for ours, place in places.items() if ours.endswith("/kernel")}
    own, prefix = set().union(*map(words, kernels)), chosen.prefix or ""
    rest = {name: tensor for name, tensor in tensors.items() if name not in used}
    known = {name for name in rest if name.startswith(prefix) and _matches(name.removeprefix(prefix), layout.ignore)}
    if normalisers.is_stated(chosen, places):
        spoken = {place.name for ours, place in places.items() if ours.startswith("normaliser/")}
        known |= _normalising(rest, spoken | {*normalisers.statistics(rest, used, layers.sizes[0])})
    ignored = {name: rest[name] for name in rest if _matches(name, chosen.ignore)}
    open_ = {name: tensor for name, tensor in rest.items() if name not in known and name not in ignored}
    extras = {name: tensor for name, tensor in open_.items() if not beside(name, own)}
    if not named:
        _check_ignored(ignored, kernels, own)
        others = _other_modules(extras, used) if prefix else []
        elsewhere = {name: one for name, one in extras.items() if name.startswith(tuple(others))}
        for several in (ignored, elsewhere):
            _check_path({name: one for name, one in several.items() if not beside(name, own)}, layers, chosen)
        extras = {name: one for name, one in extras.items() if name not in elsewhere}
    if extras:
        raise _lost(extras, layers, chosen, named)
    for name, tensor in open_.items():
        _check_width(name, tensor, layers)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _normalising(rest: Tensors, found: set[str]) -> set[str]:
    """Names of the statistics of a normaliser, and of what lies beside them."""
    modules = tuple(module for name in found if (module := re.sub(r"[^./]*$", "", name)))
    return {name for name in rest if name in found or (name.startswith(modules) and not is_weight(name))}


def _check_width(name: str, tensor: np.ndarray, layers: Layers) -> None:
    """Raises ConfigError for widths of other actions than the layers give: those run on into another network."""
    actions = layers.sizes[-1]
    if tensor.ndim == 1 and words(name) & WIDTHS and tensor.size not in (1, actions, actions // 2):
        raise ConfigError(
            f"{printable(name, 60)} has {tensor.size} numbers and the layers give {actions} actions: one of the layers "
            f"is another network's; {_NAME_LAYERS}."
        )


def _check_ignored(ignored: Tensors, used: set[str], own: set[str]) -> None:
    """Raises ConfigError where `ignore` takes something from among the policy's layers."""
    last: dict[str, int] = {}  # of the numbered layers, by what stands before the number
    for match in filter(None, map(_NUMBERED.fullmatch, used)):
        last[match[1]] = max(int(match[2]), last.get(match[1], 0))
    parents = {re.sub(r"[^./]+[./][^./]+$", "", name) for name in used}
    for name, tensor in sorted(ignored.items()):
        match = _NUMBERED.fullmatch(name)
        after = match is not None and int(match[2]) > last.get(match[1], int(match[2]))
        inside = re.search(r"[./]", name) and re.sub(r"[^./]+[./][^./]+$", "", name) in parents
        if inside and tensor.ndim and not after and not beside(name, own):
            raise ConfigError(
                f"ignore leaves out {printable(name, 60)}, which lies among the policy's layers: without it the policy "
                f"may act otherwise; if it does not need it, {_NAME_LAYERS}."
            )


def _other_modules(extras: Tensors, used: set[str]) -> list[str]:
    """The modules of other networks than the policy's."""
    return [module_of(stack, [*used]) for stack in chains(extras) if not any(name.startswith(stack) for name in used)]


def _check_path(tensors: Tensors, layers: Layers, chosen: ImportSettings) -> None:
    """Raises ConfigError where one of these networks gives what the policy takes, or takes what it gives."""
    takes, gives = layers.sizes[0], layers.sizes[-1]
    for kernels in chains(tensors).values():
        first, last = (oriented(name, tensors[name], chosen.transpose).shape for name in (kernels[0], kernels[-1]))
        if takes != gives and (last[1] == takes or first[0] == gives):
            side = f"gives the {takes} numbers that the layers take" if last[1] == takes else "takes what they give"
            name = kernels[-1] if last[1] == takes else kernels[0]
            raise ConfigError(f"{printable(name, 60)}, which is left out, {side}; {_NAME_LAYERS}.")


def _lost(extras: Tensors, layers: Layers, chosen: ImportSettings, named: bool) -> ConfigError:
    """The error for tensors that nobody spoke of."""
    told = f"{listing(extras)} would be lost"
    if named:
        patterns = ", ".join(f'"{printable(name, WHOLE)}"' for name in sorted(extras)[:4])
        return ConfigError(f"{told}; if the named layers act without, say so: --set 'ignore=[{patterns}]'.")
    heads = [
        re.sub(r"[./][^./]+$", "", name)
        for name, tensor in extras.items()
        if tensor.ndim == 2 and oriented(name, tensor, chosen.transpose).shape[0] == layers.sizes[-1]
    ]
    if heads:
        choice = " or ".join(f"head={shown(head, WHOLE)}" for head in sorted(heads)[:4])
        return ConfigError(f"{told}: take the policy's last layer along with --set {choice}.")
    return ConfigError(
        f"{told}: a policy here is fully connected layers alone, without normalisation, convolution or memory; if it "
        f"acts without them, {_NAME_LAYERS}, and them under ignore."
    )
