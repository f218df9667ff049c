"""The settings of an architecture, as files and the command line state them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from epvf_data.code import Function
from epvf_data.config import flatten
from epvf_data.errors import ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.policies.spec import PolicySpec

if TYPE_CHECKING:
    from epvf_data.envs import Env

INITS = ("uniform", "normal", "orthogonal")  # laws that fresh policies are drawn from, see `initial`
LAWS = ("uniform_scaled", "gaussian", "gaussian_scaled")  # laws that spread them around a base, see `perturb`


def typed_architecture(typed: Mapping[str, Any]) -> bool:
    """Whether the settings that the user typed name an architecture of his own.

    Raises ConfigError where they also state what an MLP alone has; that a preset or a file does so is no mistake.
    """
    policy = {name: value for name, value in flatten(typed).items() if name.startswith("policy.")}
    if policy.pop("policy.architecture", None) is None:
        return False
    if policy:
        raise ConfigError(f"{', '.join(sorted(policy))} shapes the MLP, and --policy takes its place; leave one out.")
    return True


@dataclass(frozen=True)
class MlpConfig:
    """An architecture of the package's own."""

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    output: str = "tanh"
    bias: bool = True
    layer_norm: bool = False  # in every hidden layer, before the activation
    gaussian: str | None = None  # with a log_std: evaluated at the "mean", or with actions "sampled"; None: without

    def spec(self, env: Env) -> PolicySpec:
        """The specification that fits the environment."""
        return PolicySpec(
            env.observation_size,
            env.action_size,
            self.hidden,
            self.activation,
            self.output,
            self.bias,
            layer_norm=self.layer_norm,
            gaussian=self.gaussian,
        )


@dataclass(frozen=True)
class PolicyConfig(MlpConfig):
    """The architecture of every policy of a collection or of a run."""

    architecture: str | Function | None = None  # FILE.py:FUNCTION, see `own.Architecture`; the rest is not read then

    @property
    def sampled(self) -> bool:
        """Whether actions are drawn."""
        return self.architecture is None and self.gaussian == "sampled"

    def loaded(self) -> PolicyConfig:
        """The same with the code that `architecture` names loaded, if it names some: it is run here, and only once."""
        return self if self.architecture is None else replace(self, architecture=Function.of(self.architecture))

    def spec(self, env: Env) -> Spec:
        """The specification that fits the environment. This runs the code that `architecture` names."""
        if self.architecture is None:
            return super().spec(env)
        from epvf_data.policies.loading import own_spec  # imported late, with JAX

        return own_spec(self.architecture, env.observation_size, env.action_size)
