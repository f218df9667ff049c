"""The settings of an architecture, as files and the command line state them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from epvf_data.policies.spec import PolicySpec

if TYPE_CHECKING:
    from epvf_data.envs import Env

INITS = ("uniform", "normal", "orthogonal")  # laws that fresh policies are drawn from, see `initial`
LAWS = ("uniform_scaled", "gaussian", "gaussian_scaled")  # laws that spread them around a base, see `perturb`


@dataclass(frozen=True)
class PolicyConfig:
    """The architecture of every policy of a collection or of a run."""

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
