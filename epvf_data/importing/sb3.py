"""Policies that Stable-Baselines3 saved: a Zip archive with a PyTorch file and a JSON text in it."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from epvf_data.errors import ConfigError
from epvf_data.importing import torch_file
from epvf_data.importing.limits import MAX_TEXT, Tensors
from epvf_data.untrusted import parse_json, printable

STATE, DATA = "policy.pth", "data"
MAX_PRINTED = 1 << 20  # characters of a printed vector
_PICKLED, _FLOATS = ":serialized:", ("float16", "float32", "float64")
_OURS = ("stable_baselines3.", "sb3_contrib.")


def read(data: bytes, where: str) -> tuple[Tensors, dict[str, Any], dict[str, str]]:
    """(tensors, what the archive says about the policy, as settings of an import, what it should say and does not).

    Only the readable part of the JSON text is used; the pickles in it are left alone. Raises ConfigError for actions
    and observations that are no vectors of numbers.
    """
    archive = torch_file.Archive(data, where)
    tensors = torch_file.read(archive.member(STATE), f"{STATE} in {where}", archive.limit)
    said = parse_json(archive.member(DATA, MAX_TEXT), f"{DATA} in {where}", infinite=True)
    _check_observations(said.get("observation_space"), where)
    facts, unknown = _bounds(said.get("action_space"), where)
    options = said.get("policy_kwargs")
    if isinstance(options, dict):
        facts["activation"] = "default"
        if isinstance(name := options.get("activation_fn"), str):
            facts["activation"] = name.strip("<>' ").split(".")[-1]
        if options.get("squash_output") is True:
            facts["output"] = "tanh"
            if said.get("use_sde") is not True:
                unknown["output"] = (
                    f"{where} states squash_output without use_sde, which stable-baselines3 itself refuses, so its "
                    "output cannot be known; state it: --set output=tanh, clip or identity"
                )
    _check_classes(said, where, unknown)
    return tensors, facts, unknown


def _check_observations(space: Any, where: str) -> None:
    """Raises ConfigError for observations of which stable-baselines3 makes others before the policy gets them."""
    kind = _kind(space)
    image = kind == "Box" and space.get("dtype") == "uint8" and len(_shape(space) or ()) == 3
    if kind not in ("", "Box") or image:
        raise ConfigError(
            f"{where} observes {'images' if image else f'a {printable(kind, 40)}'}; a policy here observes one vector "
            "of numbers. If an environment here gives what stable-baselines3 makes of it (the parts one after another, "
            f"one-hot, divided by 255), unpack {STATE} from the archive and import that alone."
        )


def _check_classes(said: Mapping[str, Any], where: str, unknown: dict[str, str]) -> None:
    """Notes where the policy or its first layers are of a class that may do anything."""
    options, kind = said.get("policy_kwargs"), said.get("policy_class")
    extractor = options.get("features_extractor_class") if isinstance(options, dict) else None
    home = kind.get("__module__") if isinstance(kind, dict) else None
    named = isinstance(extractor, str) and "FlattenExtractor" not in extractor
    if named or (isinstance(home, str) and not home.startswith(_OURS)):
        unknown["tensors"] = (
            f"{where} is of the class {printable(extractor if named else home, 80)}, not of stable-baselines3's own: "
            "what it does is not in the file; name its layers under [tensors] in --spec if they are all that it does"
        )


def _bounds(space: Any, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The actions' bounds as (settings, what must be stated). Raises ConfigError for actions that are no vector."""
    if (kind := _kind(space)) not in ("", "Box"):
        raise ConfigError(
            f"{where} chooses among actions ({printable(kind, 40)}); only policies whose actions are vectors of "
            "numbers can be imported."
        )
    found = [_numbers(space, bound) if kind else None for bound in ("low", "high")]
    low, high = (np.asarray(one) if one is not None else None for one in found)
    if low is None or high is None:
        reason = "are not there in full (shortened, rounded or missing)"
    elif np.isfinite([low, high]).all():
        return {"action_low": found[0], "action_high": found[1]}, {}
    elif np.isneginf(low).all() and np.isposinf(high).all():
        return {"unbounded": True}, {}
    else:
        reason = "are infinite in part, and a policy here is bounded in all actions or in none"
    cure = "state them as its environment has them: --set action_low=[…] --set action_high=[…]"
    return {}, {"action_low": f"the bounds of the actions in {where} {reason}; {cure}"}


def _kind(space: Any) -> str:
    """Box, Discrete, Dict, …; empty where nothing is said."""
    said = space.get(":type:") if isinstance(space, dict) else None
    return said.split(".")[-1].strip("'> ") if isinstance(said, str) else ""


def _shape(space: Mapping[str, Any]) -> list[int] | None:
    shape = space.get("_shape", space.get("shape"))
    return shape if isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape) else None


def _numbers(space: Mapping[str, Any], bound: str) -> list[float] | None:
    """The numbers of a printed NumPy array in C order; None where they were shortened, rounded or are not all there."""
    text, short, shape = space.get(bound), space.get(f"{bound}_repr"), _shape(space)
    if shape is None or not isinstance(text, str) or len(text) > MAX_PRINTED or (count := math.prod(shape)) > 1 << 16:
        return None
    try:
        if isinstance(short, str) and len(short) < 40 and "[" not in short:  # one number for all of them, in full
            numbers = [float(short)] * count
        else:
            numbers = [float(word) for word in re.sub(r"[\[\],]", " ", text).split()]
        # The pickle beside the text is not read, but in it must be the same numbers: NumPy prints as it was told to.
        raw = base64.b64decode(space.get(_PICKLED, "")) if (dtype := space.get("dtype")) in _FLOATS else b""
        exact = not raw or np.asarray(numbers, dtype).tobytes() in raw
    except (ValueError, TypeError, OverflowError):
        return None
    return numbers if len(numbers) == count and exact else None
