"""Known frameworks by the names of their tensors. A layout is the settings that somebody would otherwise write down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epvf_data.errors import ConfigError
from epvf_data.importing.limits import Tensors, listing
from epvf_data.untrusted import shown

_LAYER = re.compile(r"(.*\D|)(\d{1,6})[./](kernel|weight)")
_BRAX_NORMALISER = "0/"  # brax's parameters are a tuple: normaliser, policy, and PPO's value network
_BRAX_POLICY = re.compile(r"1/(?:policy/)?params/hidden_")
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


def recognise(tensors: Tensors, observation_key: str = "state") -> Layout:
    """The layout of some tensors. Raises ConfigError where there is none or several, or where actions are chosen.

    `observation_key` names the policy's part of brax's observations where these are dictionaries.
    """
    names = tensors.keys()
    if any(name.startswith(("mlp_extractor.", "action_net.")) for name in names):
        return _on_policy(tensors)
    if any(name.startswith(("actor.latent_pi.", "actor.mu.")) for name in names):
        return _off_policy(tensors)
    if any(name.startswith("q_net.") for name in names):
        raise ConfigError("this is a DQN, which chooses among actions; only policies with action vectors are imported.")
    chains = _chains(tensors)
    for prefix in chains:
        if _BRAX_POLICY.fullmatch(prefix):
            return _brax(tensors, chains[prefix], observation_key)
    if len(chains) == 1:
        (prefix, kernels), *_ = chains.items()
        kind = "PyTorch" if kernels[0].endswith("weight") else "flax"
        return Layout(f"{kind} layers {shown(prefix)}" if prefix else f"{kind} layers", _mapping(kernels, tensors))
    if chains:
        raise ConfigError(
            f"there are several stacks of layers ({listing(list(chains))}); name the policy's with --set "
            f"prefix={shown(next(iter(chains)))}, or its tensors under [tensors] in --spec."
        )
    raise ConfigError(
        f"no known names of layers among the tensors ({listing(dict(tensors)) or 'there are none'}); name them under "
        '[tensors] in --spec: "layer_0/kernel" = "…".'
    )


def missing(key: str, layout: str) -> ConfigError:
    """The error for a setting that neither the file nor its layout tells."""
    return ConfigError(f"{layout}: the {key} is not in the file; {_STATE_ACTIVATION}.")


def _chains(tensors: Tensors) -> dict[str, list[str]]:
    """Prefix → names of numbered matrices, in the order of their numbers."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name, tensor in tensors.items():
        if (match := _LAYER.fullmatch(name)) and tensor.ndim == 2:
            found.setdefault(match[1], []).append((int(match[2]), name))
    return {prefix: [name for _, name in sorted(layers)] for prefix, layers in sorted(found.items())}


def _mapping(kernels: list[str], tensors: Mapping[str, Any]) -> dict[str, str]:
    """Ours → theirs for matrices in their order, with the biases beside them."""
    mapping = {}
    for layer, kernel in enumerate(kernels):
        mapping[f"layer_{layer}/kernel"] = kernel
        bias = re.sub(r"(kernel|weight)$", "bias", kernel)
        if bias in tensors:
            mapping[f"layer_{layer}/bias"] = bias
    return mapping


def _on_policy(tensors: Tensors) -> Layout:
    """PPO and A2C of Stable-Baselines3: `ActorCriticPolicy`. Without `log_std` it chooses among actions."""
    if "action_net.weight" not in tensors or "log_std" not in tensors:
        raise ConfigError(
            "this policy of stable-baselines3 has no Gaussian head (log_std and action_net.weight): it chooses among "
            "actions; only policies with action vectors are imported."
        )
    kernels = [*_chains(tensors).get("mlp_extractor.policy_net.", []), "action_net.weight"]
    return Layout(
        "stable-baselines3 PPO or A2C",
        _mapping(kernels, tensors),
        {"activation": "tanh", "output": "clip"},
        ("log_std", "value_net.*", "mlp_extractor.value_net.*"),
        gaussian=True,
    )


def _off_policy(tensors: Tensors) -> Layout:
    """SAC, TD3 and DDPG of Stable-Baselines3: `Actor` within `SACPolicy` or `TD3Policy`."""
    chains = _chains(tensors)
    trunk, head = chains.get("actor.latent_pi.", []), chains.get("actor.mu.", [])
    if trunk and head:
        raise ConfigError(
            "this is SAC with use_sde, which clips its mean to ±2 before tanh; a policy here cannot do that."
        )
    gaussian = "actor.mu.weight" in tensors
    return Layout(
        "stable-baselines3 SAC" if gaussian else "stable-baselines3 TD3 or DDPG",
        _mapping([*trunk, "actor.mu.weight"] if gaussian else head, tensors),
        {"activation": "relu", "output": "tanh"},
        ("actor.log_std.*", "actor_target.*", "critic.*", "critic_target.*", "log_ent_coef"),
        gaussian=gaussian,
    )


def _brax(tensors: Tensors, kernels: list[str], observation_key: str) -> Layout:
    """PPO and SAC of brax: tanh of the first half of the last layer's outputs.

    PPO's swish and SAC's relu are told apart by PPO's value network.
    """
    outputs = tensors[kernels[-1]].shape[-1]
    if outputs % 2:
        raise ConfigError(f"brax's last layer has {outputs} outputs; expected means and widths, an even number.")
    ppo = any(name.startswith("2/") for name in tensors)
    mapping = _mapping(kernels, tensors)
    for place in (f"mean/{observation_key}", "mean"):
        if (mean := _BRAX_NORMALISER + place) in tensors:
            mapping |= {"normaliser/mean": mean, "normaliser/std": _BRAX_NORMALISER + place.replace("mean", "std", 1)}
            break
    return Layout(
        f"brax {'PPO' if ppo else 'SAC'}",
        mapping,
        {"activation": "swish" if ppo else "relu", "output": "tanh", "action_size": outputs // 2},
        ("0/*", "2/*"),
        gaussian=True,
    )
