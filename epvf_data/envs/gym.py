"""The bodies of Gymnasium 1.x (version v5) that walk, run, hop and swim, each with its default reward.

The models compile to the same physics, number by number. `ant-gym` and `humanoid` are Gymnasium's with
`include_cfrc_ext_in_observation=False, contact_cost_weight=0` (the humanoid without `cinert`, `cvel` and
`qfrc_actuator` too): contact forces are no function of the state that MuJoCo's batched stepping and MJX both give.
Sources: Gymnasium's `envs/mujoco`; Erez, Tassa and Todorov (2012); Schulman et al. (2016) for ant and humanoid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from epvf_data.envs.base import Env, Physics, model_xml

Ends = Callable[[Physics], Bool[Array, ""]]
# Other purposes of the same bodies: what the speed along x counts for.
OBJECTIVES: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {
    "backward": lambda speed: -speed,
    "slow": lambda speed: -jnp.abs(speed - 0.5),
    "standing": lambda speed: -jnp.abs(speed),
}


_PLANAR: dict[str, Any] = {"timestep": 0.002, "substeps": 4, "cost": 1e-3, "noise": 5e-3, "alive": 1.0, "limit": 10.0}


def hopper(objective: str | None = None) -> Env:
    """Hopper-v5: hop forward on one leg without falling."""

    def ends(state: Physics) -> Bool[Array, ""]:
        rest = jnp.concatenate([state.qpos[2:], state.qvel])
        upright = (state.qpos[1] > 0.7) & (jnp.abs(state.qpos[2]) < 0.2)
        return ~(upright & (jnp.abs(rest) < 100).all())

    return _body("hopper", objective, actions=3, ends=ends, **_PLANAR)


def walker2d(objective: str | None = None) -> Env:
    """Walker2d-v5: walk forward on two legs without falling."""

    def ends(state: Physics) -> Bool[Array, ""]:
        height, pitch = state.qpos[1], state.qpos[2]
        return ~((height > 0.8) & (height < 2.0) & (jnp.abs(pitch) < 1.0))

    return _body("walker2d", objective, actions=6, ends=ends, **_PLANAR)


def halfcheetah(objective: str | None = None) -> Env:
    """HalfCheetah-v5: run forward; the episode never ends early."""
    return _body("halfcheetah", objective, actions=6, timestep=0.01, substeps=5, cost=0.1, noise=0.1, normal=True)


def swimmer(objective: str | None = None) -> Env:
    """Swimmer-v5: swim forward in a viscous fluid; the episode never ends early."""
    return _body("swimmer", objective, actions=2, timestep=0.01, substeps=4, cost=1e-4, noise=0.1, unseen=2)


def ant(objective: str | None = None) -> Env:
    """Ant-v5 without contact forces: walk along the world's x axis without jumping or falling."""

    def ends(state: Physics) -> Bool[Array, ""]:
        return ~((state.qpos[2] >= 0.2) & (state.qpos[2] <= 1.0))

    return _body(
        "ant-gym",
        objective,
        actions=8,
        timestep=0.01,
        substeps=5,
        cost=0.5,
        noise=0.1,
        normal=True,
        alive=1.0,
        ends=ends,
        unseen=2,
    )


def humanoid(objective: str | None = None) -> Env:
    """Humanoid-v5 of positions and velocities: move the centre of mass along x without falling; torques to ±0.4."""

    def ends(state: Physics) -> Bool[Array, ""]:
        return ~((state.qpos[2] > 1.0) & (state.qpos[2] < 2.0))

    def travelled(before: Physics, after: Physics) -> Float[Array, ""]:
        # About the root's place, so that a long way does not cost digits.
        poses = jnp.stack([before.qpos, after.qpos]).at[:, :2].set(0.0)
        centres = jax.vmap(partial(centre_of_mass, "humanoid"))(poses)
        return after.moved[0] + centres[1, 0] - centres[0, 0]

    return _body(
        "humanoid",
        objective,
        actions=17,
        timestep=0.003,
        substeps=5,
        cost=0.1,
        noise=0.01,
        alive=5.0,
        ends=ends,
        unseen=2,
        gain=0.4,
        speed=1.25,
        travelled=travelled,
    )


def _never(state: Physics) -> Bool[Array, ""]:
    return jnp.zeros((), bool)


def _root(before: Physics, after: Physics) -> Float[Array, ""]:
    return after.moved[0]


def _body(
    name: str,
    objective: str | None,
    *,
    actions: int,
    timestep: float,
    substeps: int,
    cost: float,  # of squared control
    noise: float,  # of the start
    normal: bool = False,  # the start's velocities are normal; else uniform, as positions always are
    alive: float = 0.0,  # reward a step while the episode does not end
    ends: Ends = _never,
    unseen: int = 1,  # the first positions, which are not observed
    limit: float | None = None,  # of observed velocities
    gain: float = 1.0,  # of actions
    speed: float = 1.0,  # reward for 1 m/s
    travelled: Callable[[Physics, Physics], Float[Array, ""]] = _root,
) -> Env:
    """A body whose reward is speed·ẋ + alive − cost·‖control‖²; an objective has something else in place of ẋ."""
    worth = OBJECTIVES.get(objective or "", lambda speed: speed)
    file = name.replace("-", "_")
    start, velocities = _rest(file)

    def reset(key: PRNGKeyArray) -> Physics:
        first, second = jax.random.split(key)
        qpos = jnp.asarray(start) + jax.random.uniform(first, (len(start),), minval=-noise, maxval=noise)
        draw = jax.random.normal if normal else partial(jax.random.uniform, minval=-1.0, maxval=1.0)
        return Physics(qpos, noise * draw(second, (velocities,)), jnp.zeros(actions))

    def observe(state: Physics) -> Float[Array, "O"]:
        qvel = state.qvel if limit is None else jnp.clip(state.qvel, -limit, limit)
        return jnp.concatenate([state.qpos[unseen:], qvel])

    def reward(before: Physics, after: Physics) -> Float[Array, ""]:
        forward = speed * worth(travelled(before, after) / (timestep * substeps))
        return forward + alive * ~ends(after) - cost * jnp.sum(jnp.square(gain * after.action))

    return Env(
        name=f"{name}.{objective}" if objective else name,
        version="1",
        observation_size=len(start) - unseen + velocities,
        action_size=actions,
        horizon=1000,
        timestep=timestep,
        substeps=substeps,
        reset=reset,
        observe=observe,
        reward=reward,
        terminated=ends,
        control=lambda action: gain * action,
        random_start=True,
        xml=model_xml(file),
    )


@cache
def _model(file: str):
    import mujoco  # imported late: takes a while, and lists of environments do without

    return mujoco.MjModel.from_xml_string(model_xml(file))


def _rest(file: str) -> tuple[Float[np.ndarray, "nq"], int]:
    """The model's resting position, and how many velocities it has."""
    return _model(file).qpos0.astype(np.float32), _model(file).nv


class Links(NamedTuple):
    """A body on a free root as a chain of single hinges, the root's own link first."""

    parent: Int[np.ndarray, "L"]
    place: Float[np.ndarray, "L 3"]  # in the parent's frame
    turn: Float[np.ndarray, "L 4"]
    centre: Float[np.ndarray, "L 3"]  # of the hinge, in the link's own frame
    axis: Float[np.ndarray, "L 3"]
    angle: Int[np.ndarray, "L"]  # its place in qpos; 0: no hinge
    rest: Float[np.ndarray, "L"]
    weight: Float[np.ndarray, "L"]  # share of the whole mass
    inner: Float[np.ndarray, "L 3"]  # the mass's centre


@cache
def links(file: str) -> Links:
    """The links of one of our models."""
    model, found, ends = _model(file), [], {}
    whole, still = model.body_mass.sum(), np.array([1.0, 0.0, 0.0, 0.0])
    for body in range(1, model.nbody):
        joints = [int(model.body_jntadr[body]) + number for number in range(model.body_jntnum[body])]
        hinges = [joint for joint in joints if model.jnt_type[joint] == 3] or [
            None
        ]  # 3: hinge; else welded, or the root
        for joint in hinges:
            first = joint is hinges[0] and body > 1
            hinge = (np.zeros(3), np.zeros(3), 0, 0.0)
            if joint is not None:
                angle = int(model.jnt_qposadr[joint])
                hinge = (model.jnt_pos[joint], model.jnt_axis[joint], angle, model.qpos0[angle])
            parent = ends[model.body_parentid[body]] if first else max(0, len(found) - 1)
            fixed = (model.body_pos[body], model.body_quat[body]) if first else (np.zeros(3), still)
            last = joint is hinges[-1]
            found.append(
                (parent, *fixed, *hinge, model.body_mass[body] / whole if last else 0.0, model.body_ipos[body])
            )
        ends[body] = len(found) - 1
    columns = [np.array(column) for column in zip(*found, strict=True)]
    return Links(*(one if one.dtype.kind == "i" else one.astype(np.float32) for one in columns))


def centre_of_mass(file: str, qpos: Float[Array, "nq"]) -> Float[Array, "3"]:
    """Of a body of hinges on a free root, in the world (m): MuJoCo's kinematics, hinge after hinge."""
    chain = links(file)

    def follow(frames, link):
        places, turns, number = frames
        spot = places[link.parent] + _turned(turns[link.parent], link.place)
        spin = _after(turns[link.parent], link.turn)
        half = jnp.where(link.angle > 0, qpos[link.angle] - link.rest, 0.0) / 2
        anchor = spot + _turned(spin, link.centre)
        spin = _after(spin, jnp.concatenate([jnp.cos(half)[None], jnp.sin(half) * link.axis]))
        spot = anchor - _turned(spin, link.centre)
        frames = (places.at[number].set(spot), turns.at[number].set(spin), number + 1)
        return frames, link.weight * (spot + _turned(spin, link.inner))

    count = len(chain.parent)
    places = jnp.zeros((count, 3)).at[0].set(qpos[:3])
    turns = jnp.zeros((count, 4)).at[0].set(qpos[3:7] / jnp.linalg.norm(qpos[3:7]))
    _, weighted = jax.lax.scan(follow, (places, turns, 0), jax.tree.map(jnp.asarray, chain))
    return weighted.sum(0)


def _after(first: Float[Array, "4"], second: Float[Array, "4"]) -> Float[Array, "4"]:
    """The rotation `second` in the frame that `first` has turned: a product of quaternions (w, x, y, z)."""
    w, v, s, u = first[0], first[1:], second[0], second[1:]
    return jnp.concatenate([(w * s - v @ u)[None], w * u + s * v + jnp.cross(v, u)])


def _turned(spin: Float[Array, "4"], vector: Float[Array, "3"]) -> Float[Array, "3"]:
    """A vector rotated by a unit quaternion."""
    across = 2 * jnp.cross(spin[1:], vector)
    return vector + spin[0] * across + jnp.cross(spin[1:], across)
