"""Policies that Stable-Baselines3 saved: a Zip archive with a PyTorch file and a JSON text in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from epvf_data.errors import ConfigError
from epvf_data.importing import torch_file
from epvf_data.importing.limits import MAX_TEXT, Tensors
from epvf_data.untrusted import parse_json, printable

STATE, DATA = "policy.pth", "data"
MAX_PRINTED = 1 << 20  # characters of a printed vector
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def read(data: bytes, where: str) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, what the archive says about the policy, as settings of an import).

    Only the readable part of the JSON text is used; the pickles in it are left alone. Raises ConfigError for actions
    that are no vector of numbers.
    """
    archive = torch_file.Archive(data, where)
    tensors = torch_file.read(archive.member(STATE), f"{STATE} in {where}", archive.limit)
    if DATA not in archive.names:
        return tensors, {}
    said = parse_json(archive.member(DATA, MAX_TEXT), f"{DATA} in {where}", infinite=True)
    return tensors, _facts(said, where)


def _facts(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    space, options = said.get("action_space"), said.get("policy_kwargs")
    facts: dict[str, Any] = {}
    if isinstance(options, dict):
        facts["activation"] = "default"
        if isinstance(name := options.get("activation_fn"), str):
            facts["activation"] = name.strip("<>' ").split(".")[-1]
        if options.get("squash_output") is True:
            facts["output"] = "tanh"
    if isinstance(space, dict) and isinstance(kind := space.get(":type:"), str):
        if not kind.endswith(".Box'>"):
            raise ConfigError(
                f"{where} chooses among actions ({printable(kind.split('.')[-1].strip(chr(39) + '>'))}); only policies "
                "whose actions are vectors of numbers can be imported."
            )
        for bound in ("low", "high"):
            if (numbers := _numbers(space.get(bound), space.get("_shape"))) is not None:
                facts[f"action_{bound}"] = numbers
    return facts


def _numbers(text: Any, shape: Any) -> list[float] | None:
    """The numbers of a printed NumPy vector; None where they were shortened or are not all there."""
    if not isinstance(text, str) or "..." in text or len(text) > MAX_PRINTED:
        return None
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return numbers if shape == [len(numbers)] else None
