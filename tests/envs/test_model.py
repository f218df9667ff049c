"""A model is taken in with its files, and no episode is of a model whose state it would forget."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import epvf_data
from epvf_data.collectors.lot import lot_of
from epvf_data.conformance import check_env
from epvf_data.envs import template
from epvf_data.envs.model import compile_model
from epvf_data.errors import ConfigError
from epvf_data.policies.spec import PolicySpec
from epvf_data.render.mujoco_frames import drawing_model
from epvf_data.rollout import rollout
from epvf_data.trainers.online.run import resolve
from epvf_data.trainers.online.settings import online_config

PENDULUM = template.make()
CAPSULE = '<geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.04" contype="0" conaffinity="0"/>'


def with_motor(words, extra=""):
    """The template's pendulum with another actuator."""
    old = '<motor joint="hinge" gear="2" ctrllimited="true" ctrlrange="-1 1"/>'
    assert old in PENDULUM.xml
    return PENDULUM.xml.replace(old, words).replace("<mujoco>", f"<mujoco>{extra}")


FORGOTTEN = {
    "a filter": (with_motor('<general joint="hinge" dyntype="filter" dynprm="0.1"/>'), "actuators with states"),
    "an integrator": (with_motor('<intvelocity joint="hinge" actrange="-1 1"/>'), "actuators with states"),
    "a muscle": (with_motor('<muscle joint="hinge" range="-1 1" lengthrange="-1 1"/>'), "actuators with states"),
    "a delayed actuator": (with_motor('<motor joint="hinge" delay="0.05" nsample="5"/>'), "delays"),
    "a plugin": (
        with_motor(
            '<plugin joint="hinge" plugin="mujoco.pid" instance="p"/>',
            '<extension><plugin plugin="mujoco.pid"><instance name="p"><config key="kp" value="4"/></instance></plugin>'
            "</extension>",
        ),
        "plugins",
    ),
    "sleep": (PENDULUM.xml.replace("<option ", '<option><flag sleep="enable"/></option><option '), "bodies that sleep"),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_state_that_no_episode_carries_is_refused_at_every_door(in_tmp, what):
    xml, words = FORGOTTEN[what]
    env = replace(PENDULUM, xml=xml)
    said = []
    for backend in ("native", "mjx"):
        with pytest.raises(ConfigError, match=f"{words}.*would depend on the backend") as caught:
            rollout(env, PolicySpec(3, 1, (4,)), np.zeros((1, 21), np.float32), backend=backend)
        said.append(str(caught.value))
    assert len(set(said)) == 1
    problems = [finding.text for finding in check_env(env) if not finding.ok]
    assert problems == said[:1]
    text = Path(template.__file__).read_text()
    (in_tmp / "mine.py").write_text(text.replace(template.XML, xml))
    for door in (
        lambda: lot_of(epvf_data.collect_config("mine.py:make")),
        lambda: resolve(online_config("body", env="mine.py:make")),
    ):
        with pytest.raises(ConfigError, match=words):
            door()


def test_what_cannot_change_in_an_episode_is_no_state():
    """A mocap body, an equality that is switched off, user data: both backends give the same returns."""
    parts = (
        '<body name="m" mocap="true" pos="0.2 0 0.6"/><body name="b" pos="1 0 1"><freejoint/><geom size=".1"/></body>'
    )
    weld = '<equality><weld body1="m" body2="b" active="false"/></equality><size nuserdata="3"/>'
    xml = PENDULUM.xml.replace("</worldbody>", f"{parts}</worldbody>").replace("</mujoco>", f"{weld}</mujoco>")
    start, rest = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]), jnp.zeros(7)

    def reset(key):
        hinge = template.reset(key)
        return hinge._replace(qpos=start.at[0].set(hinge.qpos[0]), qvel=rest.at[0].set(hinge.qvel[0]))

    observe = lambda state: template.observe(state._replace(qpos=state.qpos[:1], qvel=state.qvel[:1]))  # noqa: E731
    reward = lambda before, after: after.qpos[3]  # noqa: E731
    env = replace(PENDULUM, xml=xml, reset=reset, observe=observe, reward=reward, horizon=20)
    params = np.zeros((2, PolicySpec(3, 1, (4,)).size), np.float32)
    one, other = (
        rollout(env, PolicySpec(3, 1, (4,)), params, backend=backend).returns for backend in ("native", "mjx")
    )
    np.testing.assert_allclose(one, other, rtol=1e-4)


def stl(size):
    """A tetrahedron."""
    corners = size * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = [
        b"".join(struct.pack("<3f", *point) for point in (np.zeros(3), *corners[list(face)]))
        for face in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
    ]
    return bytes(80) + struct.pack("<I", 4) + b"".join(face + bytes(2) for face in faces)


@pytest.fixture
def files(in_tmp):
    """A model that includes a file that includes another, and has a mesh in a folder of meshes."""
    (in_tmp / "parts").mkdir()
    (in_tmp / "meshes").mkdir()
    (in_tmp / "meshes" / "weight.stl").write_bytes(stl(0.2))
    (in_tmp / "parts" / "more.xml").write_text(
        '<mujocoinclude><asset><mesh file="weight.stl"/></asset></mujocoinclude>'
    )
    (in_tmp / "parts" / "legs.xml").write_text(
        '<mujocoinclude><include file="more.xml"/><compiler meshdir="meshes"/></mujocoinclude>'
    )
    return PENDULUM.xml.replace("<mujoco>", '<mujoco><include file="parts/legs.xml"/>').replace(
        CAPSULE, '<geom type="mesh" mesh="weight"/>'
    )


def test_a_model_holds_its_files(in_tmp, files, monkeypatch):
    env = replace(PENDULUM, xml=files)
    mass = compile_model(env).body_mass.sum()
    assert mass == pytest.approx(1000 * 0.2**3 / 6)
    again = replace(PENDULUM, xml=files)
    monkeypatch.chdir("/")
    assert again.digest == env.digest == replace(env, name=env.name).digest
    assert env.with_horizon(5).xml == env.xml
    assert compile_model(env.with_horizon(5)).body_mass.sum() == mass  # nothing is read again
    assert drawing_model(env, 32, 32).nmesh == 1
    monkeypatch.chdir(in_tmp)
    (in_tmp / "meshes" / "weight.stl").write_bytes(stl(0.3))
    other = replace(PENDULUM, xml=files)
    assert other.digest != env.digest
    assert compile_model(other).body_mass.sum() == pytest.approx(1000 * 0.3**3 / 6)
    assert compile_model(env).body_mass.sum() == mass
    given = replace(PENDULUM, xml=files, assets={"weight.stl": stl(0.2)})
    assert given.digest == env.digest


def test_a_model_of_one_text_stays_as_it_was():
    assert PENDULUM.xml == template.XML
    assert PENDULUM.digest == "30d4d03ae13a8aa0bd0b976a376dab471eb1d5d08023dca210d7da483b74dc27"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "parts" / "more.xml").unlink(), "names the file more.xml, which is not in"),
        (lambda folder: (folder / "meshes" / "weight.stl").unlink(), "names the file meshes/weight.stl"),
        (
            lambda folder: (folder / "parts" / "more.xml").write_text("<a>"),
            "more.xml, which the model includes",
        ),
        (
            lambda folder: (folder / "parts" / "more.xml").write_text('<m><include file="parts/legs.xml"/></m>'),
            "includes parts/legs.xml twice",
        ),
    ],
)
def test_a_file_that_is_not_there_is_named(in_tmp, files, change, words):
    change(in_tmp)
    with pytest.raises(ConfigError, match=words):
        replace(PENDULUM, xml=files)


def test_an_attached_model_is_taken_in_with_its_own_files(in_tmp):
    (in_tmp / "arm").mkdir()
    (in_tmp / "arm" / "tip.stl").write_bytes(stl(0.2))
    (in_tmp / "arm" / "arm.xml").write_text(
        '<mujoco model="arm"><asset><mesh name="tip" file="tip.stl"/></asset><worldbody><body name="b">'
        '<geom type="mesh" mesh="tip"/></body></worldbody></mujoco>'
    )
    asset = '<asset><model name="arm" file="arm/arm.xml"/></asset>'
    xml = PENDULUM.xml.replace("<mujoco>", f"<mujoco>{asset}")
    xml = xml.replace(CAPSULE, CAPSULE + '<attach model="arm" body="b" prefix="x"/>')
    env = replace(PENDULUM, xml=xml)
    (in_tmp / "arm" / "tip.stl").write_bytes(stl(0.3))
    other = replace(PENDULUM, xml=xml)
    assert env.digest != other.digest
    heavier = compile_model(other).body_mass.sum() - compile_model(env).body_mass.sum()
    assert heavier == pytest.approx(1000 * (0.3**3 - 0.2**3) / 6)
