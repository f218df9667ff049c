"""Which environments there are. Nothing heavy is imported here, so that names are checked and listed at once."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable


class Entry(NamedTuple):
    """Where an environment of this package is made, and what it then is."""

    module: str  # of epvf_data.envs
    function: str
    observation_size: int
    action_size: int
    horizon: int
    digest: str
    objectives: tuple[str, ...] = ()  # what else its body can be rewarded for
    like: str | None = None  # the environment whose bases, probing states and recipe are its own, too


_GYM = ("backward", "slow", "standing")
_ANT = ("slow", "backward", "sideways", "turning", "standing")
ENVS: dict[str, Entry] = {
    "ant": Entry("ant", "make", 34, 8, 1000, "238a88a2147a871517fcc4ff8e5eb7acec494d504893fad330cc4c53b56e5842", _ANT),
    "ant-gym": Entry(
        "gym", "ant", 27, 8, 1000, "3a5f2f0e2c3d3d022c35257db675d7d2378418bec839cd8837d1e149a912aa64", _GYM
    ),
    "ant-reset-noise": Entry(
        "ant_reset_noise",
        "make",
        34,
        8,
        1000,
        "69483ff94b8d9db83713564a39cde3037f9e563cb79ca26c356e2636804fc198",
        like="ant",
    ),
    "ant-servo": Entry(
        "ant_servo", "make", 34, 8, 1000, "921c44d7e60339c42cb4618dc17f9e39e51e24ada1a2d216f1fec43a2bb45ad6"
    ),
    "cartpole": Entry(
        "cartpole", "make", 4, 1, 500, "990eb5beb9a293f5cd7de87e60458e243021129c29eed7df53420fa69e472fe1"
    ),
    "halfcheetah": Entry(
        "gym", "halfcheetah", 17, 6, 1000, "345068923afce2a856bcc6457ef188440ae774d427c32a7877a6699fb187aaf0", _GYM
    ),
    "hopper": Entry(
        "gym", "hopper", 11, 3, 1000, "eadbcedd9a0c3b2bbf55c67fca5227715a4083bca059b72939e190a3ee440cb5", _GYM
    ),
    "humanoid": Entry(
        "gym", "humanoid", 45, 17, 1000, "ed3fd9b674e8357dbcbbbd82dc39fdda519f93be74ae49e34dc40f29c80a02f8", _GYM
    ),
    "swimmer": Entry(
        "gym", "swimmer", 8, 2, 1000, "35da70b839cf8c1fb8017cf79a53d1ad7e948c391bc8cc48293bb4a737fdc122", _GYM
    ),
    "walker2d": Entry(
        "gym", "walker2d", 17, 6, 1000, "91e11e7e7d1fbf8f9fc4fa924106a2a6c074f40c8645744cb60fea879077af26", _GYM
    ),
}
# Those of MuJoCo Playground that tests compare with its own steps. Left out: touch sensors (hopper, finger), a target
# that is no part of positions and velocities (reacher, fish, swimmer), a free joint (humanoid), rewards that random
# actions never meet (ball in cup, the sparse swing-up of the pole), and models outside the wheel.
PLAYGROUND = (
    "AcrobotSwingup",
    "AcrobotSwingupSparse",
    "CartpoleBalance",
    "CartpoleBalanceSparse",
    "CartpoleSwingup",
    "CheetahRun",
    "PendulumSwingup",
    "PointMass",
    "WalkerRun",
    "WalkerStand",
    "WalkerWalk",
)
PREFIX = "playground-"  # of names in data sets and files; users write playground:NAME


def objectives(name: str) -> tuple[str, ...]:
    """What else the body of an environment can be rewarded for."""
    return ENVS[name].objectives if name in ENVS else ()


def relative(name: str) -> str:
    """The environment whose bases, probing states and recipe are this one's: itself, but for a few."""
    return (ENVS[name].like if name in ENVS else None) or name


def ships(name: str) -> bool:
    """Whether the environment is one of this package's own, or its body with another objective."""
    body, _, objective = name.partition(".")
    return name in ENVS or objective in objectives(body)


def of_playground(name: str) -> bool:
    """Whether the name stands for one of `PLAYGROUND`, as users or as data sets write it."""
    return name.replace(":", "-").startswith(PREFIX) and name[len(PREFIX) :] in PLAYGROUND


def known(name: str) -> bool:
    """Whether `make` gives this environment without code of a stranger, so that data sets and files may name it."""
    return ships(name) or of_playground(name)


def check_name(name: str) -> None:
    """Raises ConfigError for a name that can be no environment's."""
    if name.startswith("playground:"):
        if not of_playground(name):
            near = difflib.get_close_matches(name, [f"playground:{one}" for one in PLAYGROUND], n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}?" if near else f"choose playground: and one of {', '.join(PLAYGROUND)}."
            raise ConfigError(
                f"{printable(name)} is none of the environments of MuJoCo Playground that run here; {hint}"
            )
    elif not known(name) and ":" not in name:
        body, _, objective = name.partition(".")
        if body in ENVS and objective:
            choice = ", ".join(f"{body}.{one}" for one in objectives(body)) or body
            raise ConfigError(
                f"environment {body} has no objective {printable(repr(objective))}; choose from {choice}."
            )
        near = difflib.get_close_matches(name, ENVS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(sorted(ENVS))}"
        raise ConfigError(
            f"there is no environment {printable(repr(name))}; "
            f"{hint}{'' if near else ', or file.py:function for yours.'}"
        )
