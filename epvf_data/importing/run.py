"""A trained policy of another framework, written as a policy file: what `epvf-data import-policy` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from epvf_data import config as configuration
from epvf_data import envs
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.importing import assemble, files, layouts, normalisers, rest
from epvf_data.importing.limits import Tensors, listing
from epvf_data.importing.settings import ImportSettings, Place, build, read_settings
from epvf_data.outputs import check_free
from epvf_data.policies.files import save_policy
from epvf_data.untrusted import shown


@dataclass(frozen=True)
class ImportReport:
    """What was written, and what it was made of."""

    policy: str
    architecture: str
    sizes: tuple[int, ...]  # observation size, hidden widths, action size
    parameters: int
    activation: str
    output: str
    normaliser: bool  # whether the specification has one
    format: str
    layout: str
    notes: tuple[str, ...]  # sentences about what was assumed or left out


def import_policy(
    file: str | Path,
    out: str | Path,
    *,
    spec: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    env: str | None = None,
    format: str | None = None,
    force: bool = False,
) -> ImportReport:
    """Writes the policy in `file` to `out` (safetensors, its specification in the header).

    `file` is of the kind `format`: safetensors, flax's msgpack, a folder of orbax, a state dict of PyTorch, or a model
    of Stable-Baselines3; None tells by its contents. What the file does not say is stated in the TOML file `spec`, or
    in `settings` with dotted names; these win. A Gaussian policy is imported at its mean.

    Raises ConfigError for files and settings that make no policy, ArchitectureMismatchError for shapes that do not fit
    each other or the environment `env`, UnsafeDatasetError for files that would run code or are absurdly large,
    DatasetError where `out` exists and `force` does not replace it.
    """
    target = Path(out)
    check_free(target, force)
    stated = configuration.merge(read_settings(None if spec is None else str(spec), []), _nested(settings or {}))
    world = None if env is None else envs.make(env)
    contents = files.read(Path(file), format)
    chosen, places, layout, notes = _resolve(contents, stated)
    layers = assemble.layers(contents.tensors, chosen, places)
    chosen, places = normalisers.complete(contents.tensors, chosen, places, layers.sizes[0], notes)
    rest.check(contents.tensors, layers, chosen, places, layout, layout.name == "named tensors")
    layers = assemble.actions(layers, chosen, layout.name, notes)
    made, flat = assemble.policy(layers, chosen, assemble.normaliser(contents.tensors, chosen, places))
    if world is not None and (made.observation_size, made.action_size) != (world.observation_size, world.action_size):
        raise ArchitectureMismatchError(
            f"the policy maps {made.observation_size} observations to {made.action_size} actions; environment "
            f"{world.name} has {world.observation_size} and {world.action_size}: name another with --env."
        )
    remarks = {"source": layout.name} | ({} if world is None else {"env": world.name})
    save_policy(target, made, flat, **remarks)
    return ImportReport(
        policy=str(target),
        architecture=made.id,
        sizes=made.sizes,
        parameters=made.size,
        activation=made.activation,
        output=made.output,
        normaliser=made.normaliser is not None,
        format=contents.format,
        layout=layout.name,
        notes=tuple(notes),
    )


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as tables; names of tensors keep their dots."""
    tensors = settings.get("tensors")
    rest = configuration.nested({key: value for key, value in settings.items() if key != "tensors"})
    return rest if tensors is None else {**rest, "tensors": tensors}


def _resolve(
    contents: files.Contents, stated: Mapping[str, Any]
) -> tuple[ImportSettings, dict[str, Place], layouts.Layout, list[str]]:
    """(settings, places, layout, notes): what names tell, over it what the file says, over it what is stated."""
    chosen, places = build(stated)
    facts = dict(contents.facts)
    part = str(facts.pop("policy_obs_key", "state"))
    certain = "activation" in facts
    if facts.get("activation") == "default":  # of the framework
        facts.pop("activation")
    prefix = layouts.wrapper(contents.tensors) if chosen.prefix is None else chosen.prefix
    if any(ours.startswith("layer_") for ours in places):
        layout, found = layouts.Layout("named tensors", {}), {}
    else:
        layout = layouts.recognise(_candidates(contents.tensors, prefix, chosen.ignore), part, prefix)
        found = {ours: prefix + theirs for ours, theirs in layout.tensors.items()}
    if layout.settings.get("output") == "clip" and facts.pop("unbounded", False):
        facts["output"] = "identity"
    if scaled := layouts.bounds(contents.tensors, prefix):
        if stated.get("output", "tanh") != "tanh":
            raise ConfigError("action_scale and action_bias are of actions that tanh gives; leave output out.")
        layout, facts = replace(layout, ignore=(*layout.ignore, "action_scale", "action_bias")), facts | scaled
    for key, reason in {**contents.unknown, **layout.unknown}.items():
        if key not in stated and not (key == "normaliser" and normalisers.is_stated(chosen, places)):
            raise ConfigError(f"{reason}.")
    table = configuration.merge({"tensors": found, "prefix": prefix}, layout.settings, facts, stated)
    chosen, places = build(table)
    if chosen.head is not None:
        kernels = sum(ours.endswith("/kernel") for ours in places)
        places |= {ours: Place(name) for ours, name in layouts.head(contents.tensors, chosen.head, kernels).items()}
    notes = [f"it is a Gaussian policy, imported at its mean ({layout.name})"] if layout.gaussian else []
    notes += _assumed(chosen, layout, stated, facts, certain)
    return chosen, places, layout, notes


def _assumed(
    chosen: ImportSettings, layout: layouts.Layout, stated: Mapping[str, Any], facts: Mapping[str, Any], certain: bool
) -> list[str]:
    """Sentences about what neither the file nor the user says, and its framework has a default for."""
    notes, ours = [], layout.name.startswith("stable-baselines3")
    if not certain and "activation" in layout.settings and "activation" not in stated:
        notes.append(
            f"activation {chosen.activation} is assumed, the default of {layout.name}; state another in --spec"
        )
    if chosen.output == "clip" and "output" not in stated and chosen.action_low is None:
        notes.append("actions of −1 … 1 are assumed; if it was trained for others, state action_low and action_high")
    if facts.get("output") == "identity":
        notes.append("its actions have no bounds where it was trained; they are left as they are")
    if ours and "normaliser" not in stated:
        notes.append("if it was trained with VecNormalize, state that normaliser in --spec: it lies in another file")
    if layout.name.startswith("brax") and "normaliser" not in {**stated, **facts} and not certain:
        notes.append("normalize_observations=True is assumed; if it was not, --set normaliser=none")
    return notes


def _candidates(tensors: Tensors, prefix: str, ignore: tuple[str, ...]) -> Tensors:
    """The tensors that may be the policy's, without the prefix."""
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not any(fnmatchcase(name, pattern) for pattern in ignore)
    }
    if prefix and not found:
        raise ConfigError(f"no tensor's name begins with {shown(prefix)}; they are {listing(tensors)}.")
    return found
