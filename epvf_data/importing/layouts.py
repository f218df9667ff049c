"""Known frameworks by the names of their tensors. A layout is the settings that somebody would otherwise write down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from epvf_data.errors import ConfigError
from epvf_data.importing.limits import Tensors, listing
from epvf_data.untrusted import printable, shown

_LAYER = re.compile(r"(.*\D|)(\d{1,6})[./](kernel|weight)")
_WRAPPED = re.compile(r"(.*[./]|)(?:mlp_extractor\.policy_net|action_net|actor\.latent_pi)\..*")
_BRAX_NORMALISER = "0/"  # brax's parameters are a tuple: normaliser, policy, and PPO's value network
_BRAX_POLICY = re.compile(r"1/(?:policy/)?params/hidden_")
# Words of names: networks and numbers that train a policy and do not act, and the widths of a Gaussian's actions.
BESIDE = frozenset(
    ("critic", "critics", "value", "values", "val", "vf", "vfs", "qf", "q", "v", "target", "targets", "targ")
)
BESIDE |= {"reward", "rewards", "returns", "baseline", "privileged", "teacher", "discriminator", "rnd"}
BESIDE |= {"alpha", "ent", "temperature", "optimizer"}
WIDTHS = frozenset(("std", "logstd", "sigma", "logsigma"))
_STATE_ACTIVATION = (
    'state the activation and the output with --spec or --set: activation = "tanh", output = "clip" for a mean that is '
    'clipped to ±1, "tanh" for one that is squashed, "identity" for one that is left alone'
)


@dataclass(frozen=True)
class Layout:
    """What the names of the tensors tell about a policy."""

    name: str
    tensors: dict[str, str]  # ours → the file's
    settings: dict[str, Any] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()  # patterns of the framework's tensors beside the policy
    gaussian: bool = False
    unknown: dict[str, str] = field(default_factory=dict)  # setting → why it must be stated


def wrapper(tensors: Tensors) -> str:
    """What stands before all names of stable-baselines3's, as in policy.action_net.weight; empty where nothing does."""
    found = {match[1] for name in tensors if (match := _WRAPPED.fullmatch(name))}
    return found.pop() if len(found) == 1 else ""


def recognise(tensors: Tensors, observation_key: str = "state", prefix: str = "") -> Layout:
    """The layout of some tensors. Raises ConfigError where there is none or several, or where actions are chosen.

    `observation_key` names the policy's part of brax's observations where these are dictionaries; `prefix` is what
    stands before the names in the file.
    """
    names = tensors.keys()
    if any(name.startswith(("mlp_extractor.", "action_net.")) for name in names):
        return _on_policy(tensors)
    if {"actor.mu.weight", "actor.mu.0.weight"} & names or any(name.startswith("actor.latent_pi.") for name in names):
        return _off_policy(tensors)
    if any(name.startswith("q_net.") for name in names):
        raise ConfigError("this is a DQN, which chooses among actions; only policies with action vectors are imported.")
    stacks = chains(tensors)
    if "actor_logstd" in names and "actor_mean." in stacks:
        return _cleanrl(tensors, stacks["actor_mean."])
    for stack in stacks:
        if _BRAX_POLICY.fullmatch(stack) and any(name.startswith(f"{_BRAX_NORMALISER}mean") for name in names):
            return _brax(tensors, stacks[stack], observation_key)
    if len(stacks) == 1:
        (stack, kernels), *_ = stacks.items()
        kind = "PyTorch" if kernels[0].endswith("weight") else "flax"
        _check_steps(kernels)
        return Layout(f"{kind} layers {shown(stack)}" if stack else f"{kind} layers", mapping(kernels, tensors))
    if stacks:
        raise _several(list(stacks), prefix)
    if stacked := [name for name, tensor in tensors.items() if _LAYER.fullmatch(name) and tensor.ndim == 3]:
        many = {tensors[name].shape[0] for name in stacked}
        if len(many) == 1:
            raise ConfigError(
                f"{listing(stacked)} hold {many.pop()} policies at once, stacked; save one of them: "
                "jax.tree.map(lambda x: x[0], params)."
            )
    raise ConfigError(
        f"no known names of layers among the tensors ({listing(dict(tensors)) or 'there are none'}); name them under "
        '[tensors] in --spec: "layer_0/kernel" = "…".'
    )


def missing(key: str, layout: str) -> ConfigError:
    """The error for a setting that neither the file nor its layout tells."""
    return ConfigError(f"{layout}: the {key} is not in the file; {_STATE_ACTIVATION}.")


def _check_steps(kernels: list[str]) -> None:
    """Raises ConfigError where a sequence of PyTorch has no activation between some of its layers, and others."""
    numbers = [int(match[2]) for match in map(_LAYER.fullmatch, kernels) if match and match[3] == "weight"]
    steps = [after - before for before, after in pairwise(numbers)]
    if steps and min(steps) == 1 < max(steps):
        name = kernels[steps.index(1) + 1]
        raise ConfigError(
            f"no activation lies before {printable(name, 60)}, by its number, and one does before others: multiply its "
            "matrix into the layer before it, or name the layers under [tensors] in --spec if they are all alike."
        )


def head(tensors: Tensors, name: str, layer: int) -> dict[str, str]:
    """Ours → theirs for the one layer of this name. Raises ConfigError where there is none."""
    kernels = [full for end in (".weight", "/kernel", "/weight", ".kernel") if (full := name + end) in tensors]
    if not kernels:
        raise ConfigError(f"head is {shown(name)}, and there is no {name}.weight or {name}/kernel in the file.")
    return mapping(kernels[:1], tensors, layer)


def bounds(tensors: Tensors, prefix: str) -> dict[str, Any]:
    """The actions' bounds as CleanRL keeps them in its actors, where tanh · scale + bias is the action."""
    scale, bias = (tensors.get(f"{prefix}action_{name}") for name in ("scale", "bias"))
    if scale is None or bias is None:
        return {}
    low, high = ((bias + sign * scale).ravel().tolist() for sign in (-1, 1))
    return {"action_low": low, "action_high": high, "output": "tanh"}


def _several(stacks: list[str], prefix: str) -> ConfigError:
    """The error for several stacks of layers, with the modules that they are in as choices: likely policies first."""
    modules = [prefix + module_of(stack, [other for other in stacks if other != stack]) for stack in stacks]
    likely = [module for module in modules if not beside(module)] or modules
    choice = " or ".join(f"prefix={shown(module)}" for module in likely[:4])
    return ConfigError(
        f"there are several stacks of layers ({listing([prefix + stack for stack in stacks])}); name the policy's with "
        f"--set {choice}, or its tensors under [tensors] in --spec."
    )


def module_of(stack: str, others: list[str]) -> str:
    """The outermost module that a stack of layers is in and the others are not."""
    for end in (place.end() for place in re.finditer(r"[./]", stack)):
        if not any(other.startswith(stack[:end]) for other in others):
            return stack[:end]
    return stack


def words(name: str) -> set[str]:
    """The words of a tensor's name, in lower case and without numbers."""
    return {*re.split(r"[\W\d_]+", name.lower())} - {""}


def beside(name: str, own: Set[str] = frozenset()) -> bool:
    """Whether a name tells that a policy acts without it: a critic's, a width's; not by the policy's `own` words."""
    return not words(name).isdisjoint((BESIDE | WIDTHS) - own)


def chains(tensors: Tensors) -> dict[str, list[str]]:
    """Prefix → names of numbered matrices, in the order of their numbers."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name, tensor in tensors.items():
        if (match := _LAYER.fullmatch(name)) and tensor.ndim == 2:
            found.setdefault(match[1], []).append((int(match[2]), name))
    return {prefix: [name for _, name in sorted(layers)] for prefix, layers in sorted(found.items())}


def mapping(kernels: list[str], tensors: Mapping[str, Any], first: int = 0) -> dict[str, str]:
    """Ours → theirs for matrices in their order, with the biases beside them."""
    found = {}
    for layer, kernel in enumerate(kernels, first):
        found[f"layer_{layer}/kernel"] = kernel
        bias = re.sub(r"(kernel|weight)$", "bias", kernel)
        if bias in tensors:
            found[f"layer_{layer}/bias"] = bias
    return found


def _on_policy(tensors: Tensors) -> Layout:
    """PPO and A2C of Stable-Baselines3: `ActorCriticPolicy`. Without `log_std` it chooses among actions."""
    if "action_net.weight" not in tensors or "log_std" not in tensors:
        raise ConfigError(
            "this policy of stable-baselines3 has no Gaussian head (log_std and action_net.weight): it chooses among "
            "actions; only policies with action vectors are imported."
        )
    stacks = chains(tensors)
    trunk = [*stacks.get("mlp_extractor.shared_net.", []), *stacks.get("mlp_extractor.policy_net.", [])]
    kernels = [*trunk, "action_net.weight"]
    return Layout(
        "stable-baselines3 PPO or A2C",
        mapping(kernels, tensors),
        {"activation": "tanh", "output": "clip"},
        ("log_std", "value_net.*", "mlp_extractor.value_net.*"),
        gaussian=True,
    )


def _off_policy(tensors: Tensors) -> Layout:
    """SAC, TD3 and DDPG of Stable-Baselines3: `Actor` within `SACPolicy` or `TD3Policy`."""
    stacks = chains(tensors)
    trunk, head = stacks.get("actor.latent_pi.", []), stacks.get("actor.mu.", [])
    if trunk and head:
        raise ConfigError(
            "this is SAC with use_sde, which clips its mean to ±2 before tanh; a policy here cannot do that."
        )
    gaussian = "actor.mu.weight" in tensors
    return Layout(
        "stable-baselines3 SAC" if gaussian else "stable-baselines3 TD3 or DDPG",
        mapping([*trunk, "actor.mu.weight"] if gaussian else head, tensors),
        {"activation": "relu", "output": "tanh"},
        ("actor.log_std.*", "actor_target.*", "critic.*", "critic_target.*", "log_ent_coef"),
        gaussian=gaussian,
    )


def _cleanrl(tensors: Tensors, kernels: list[str]) -> Layout:
    """PPO and RPO of CleanRL, which observe and act through wrappers that are not saved."""
    return Layout(
        "CleanRL PPO",
        mapping(kernels, tensors),
        {"activation": "tanh", "output": "clip"},
        ("actor_logstd", "critic.*"),
        gaussian=True,
        unknown={
            "normaliser": "CleanRL's PPO sees observations through NormalizeObservation, whose numbers are not in the "
            "file; state them under [normaliser] in --spec (epsilon 1e-8, clip 10), or --set normaliser=none if it did "
            "not"
        },
    )


def _brax(tensors: Tensors, kernels: list[str], observation_key: str) -> Layout:
    """PPO and SAC of brax: tanh of the first half of the last layer's outputs.

    PPO's swish and SAC's relu are told apart by PPO's value network.
    """
    outputs = tensors[kernels[-1]].shape[-1]
    if outputs % 2:
        raise ConfigError(f"brax's last layer has {outputs} outputs; expected means and widths, an even number.")
    ppo = any(name.startswith("2/") for name in tensors)
    found = mapping(kernels, tensors)
    for place in (f"mean/{observation_key}", "mean"):
        if (mean := _BRAX_NORMALISER + place) in tensors:
            found |= {"normaliser/mean": mean, "normaliser/std": _BRAX_NORMALISER + place.replace("mean", "std", 1)}
            break
    return Layout(
        f"brax {'PPO' if ppo else 'SAC'}",
        found,
        {"activation": "swish" if ppo else "relu", "output": "tanh", "action_size": outputs // 2},
        ("0/*", "2/*"),
        gaussian=True,
    )
