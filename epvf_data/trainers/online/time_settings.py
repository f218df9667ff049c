"""The settings of critics that use time: what Q(s, a, θ) needs and V(θ) does not."""

from __future__ import annotations

from dataclasses import dataclass

from epvf_data.config import MAX_FLOAT, MAX_HORIZON, MAX_STEPS, check_range
from epvf_data.critics.settings import check_one_of
from epvf_data.errors import ConfigError

REPRESENTATIONS = ("probing", "raw", "none")
MAX_COUNT = 10**6


@dataclass(frozen=True)
class TimeConfig:
    """How worlds run on, what the replay keeps of them, and what Q(s, a, θ) learns from it."""

    segment: int = 32  # control steps of every world in an iteration
    hold: int = 4  # segments that a perturbation lasts; the end of its episode ends it earlier
    sigma: tuple[float, ...] = (0.01, 0.08)  # scale of each perturbation, log-uniform between the two
    action_noise: float = 0.05  # largest deviation of white noise on actions, uniform over perturbations
    warmup: int = 60_000  # control steps before the first update
    critic_first: int = 300  # critic updates before the first of θ

    n_step: int = 5  # rewards of a target
    discount: float = 0.99
    reward_scale: float = 0.1  # the critic counts in rewards times this
    reward_range: tuple[float, ...] | None = None  # least and largest reward of a step: bounds the targets
    own: float = 0.5  # share of a batch whose targets are those of the policy that made the row
    cross: float = 0.0  # share whose targets are those of another stored policy; the rest: those of θ
    smoothing: float = 0.1  # deviation of the noise on θ's actions in targets, clipped at two deviations
    tau: float = 0.01  # how far the target critic follows in one update

    representation: str = "probing"  # z(θ): actions in visited states; "raw": parameters; "none"
    probes: int = 16  # of those states
    projection: int = 32  # numbers in z, by a fixed Gaussian matrix
    shuffled: bool = False  # a control: policies carry their neighbours' z, which tells who they are, not what they do
    random_z: bool = False  # a control: each row gets the z of a policy drawn at random, which tells the critic nothing
    redraw: int | None = None  # iterations after which the states are drawn anew; None: only after the warm-up

    delay: int = 2  # critic updates for one of θ
    z_gradient: float = 1.0  # weight of θ's gradient through z
    action_penalty: float = 1e-3  # on the mean square of what the last layer of π_θ adds up
    layer_norm: bool = True  # in the critic, before each ReLU

    anneal_at: float | None = None  # mean reward a step of the perturbed policies from which on noise and rates fall
    anneal_over: int = 250_000  # over so many control steps,
    anneal_to: float = 0.35  # to so many times what they were
    anneal_after: float | None = None  # share of the budget from which on they fall in any case, until its end
    average: int = 64  # iterations over which θ is averaged for the policy that the run hands out; 1: θ as it is
    record_every: int = 50  # iterations between two batches of whole episodes for `--record`

    def __post_init__(self) -> None:
        check_one_of("representation", self.representation, REPRESENTATIONS)
        check_range(self, "time.", 1, MAX_HORIZON, "segment", "n_step")
        check_range(self, "time.", 1, MAX_COUNT, "hold", "delay", "redraw", "average", "record_every")
        check_range(self, "time.", 1, 4096, "probes", "projection")
        check_range(self, "time.", 0, MAX_STEPS, "warmup", "critic_first")
        check_range(self, "time.", 1, MAX_STEPS, "anneal_over")
        check_range(self, "time.", 0, MAX_FLOAT, "action_noise", "smoothing", "z_gradient", "action_penalty")
        check_range(self, "time.", 0, MAX_FLOAT, "sigma", "reward_scale", above=True)
        check_range(self, "time.", 0, 1, "own", "cross", "discount", "anneal_after")
        check_range(self, "time.", 0, 1, "tau", "anneal_to", above=True)
        check_range(self, "time.", -MAX_FLOAT, MAX_FLOAT, "reward_range", "anneal_at")
        for name in ("sigma", "reward_range"):
            pair = getattr(self, name)
            if pair is not None and (len(pair) != 2 or pair[0] > pair[1]):
                raise ConfigError(f"time.{name} is {list(pair)}; it must be two numbers, the smaller one first.")
        if self.own + self.cross > 1:
            raise ConfigError(f"time.own and time.cross are shares of a batch; {self.own} and {self.cross} exceed it.")
        if self.n_step > self.segment:
            raise ConfigError(f"time.n_step is {self.n_step}; sums end with the segment of {self.segment} steps.")
        if self.discount == 1:
            raise ConfigError("time.discount is 1; a critic that bootstraps without end needs less.")

    def values(self) -> tuple[float, float] | None:
        """Least and largest value that rewards allow, in the critic's units; None where nothing is known."""
        if self.reward_range is None:
            return None
        low, high = self.reward_range
        most = self.reward_scale / (1 - self.discount)
        return min(low, 0.0) * most, max(high, 0.0) * most
