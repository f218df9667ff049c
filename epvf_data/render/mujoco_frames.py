"""MuJoCo's own renderer without a window: a chequered floor, light and camera that follow the robot."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

from epvf_data.envs.base import Env
from epvf_data.envs.model import compile_model
from epvf_data.errors import BackendError
from epvf_data.render.picture import Image, Painter

SKY, HORIZON, DARK, PALE, SEAM = (0.36, 0.56, 0.78), (0.86, 0.91, 0.95), (0.42, 0.48, 0.55), (0.56, 0.62, 0.68), 0.78
SQUARE = 1.0  # m, side of a floor tile
AZIMUTH, ELEVATION, DISTANCE, EYE_LEVEL = (
    108.0,
    -18.0,
    3.2,
    0.35,
)  # degrees, degrees, m, m: from the side, x to the right
EXTENT = 3.0  # m; MuJoCo scales shadows, fog and clipping planes by it


@contextmanager
def painter(env: Env, width: int, height: int) -> Iterator[Painter]:
    """Draws states of a MuJoCo environment: (qpos [nq], qvel [nv]) → pixels.

    Raises BackendError where this machine has no OpenGL.
    """
    model = drawing_model(env, width, height)
    data = mujoco.MjData(model)
    context, canvas = _canvas(model, width, height)
    try:
        scene, option, camera = mujoco.MjvScene(model, maxgeom=1000), mujoco.MjvOption(), mujoco.MjvCamera()
        scene.flags[mujoco.mjtRndFlag.mjRND_FOG] = 1
        distance, level = _view(env)
        camera.azimuth, camera.elevation, camera.distance = AZIMUTH, ELEVATION, distance
        area, everything = mujoco.MjrRect(0, 0, width, height), mujoco.mjtCatBit.mjCAT_ALL.value
        follow = _root(model)

        def paint(qpos: Float[np.ndarray, "nq"], qvel: Float[np.ndarray, "nv"]) -> Image:
            data.qpos[:], data.qvel[:] = qpos, qvel
            mujoco.mj_forward(model, data)
            camera.lookat[:] = (
                *data.subtree_com[follow][:2],
                level,
            )  # not its height: a camera that hops is no witness
            mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
            mujoco.mjr_render(area, scene, canvas)
            pixels = np.empty((height, width, 3), np.uint8)
            mujoco.mjr_readPixels(pixels, None, area, canvas)
            return pixels[::-1]  # OpenGL counts rows from below

        yield paint
    finally:
        canvas.free()
        context.free()


def _view(env: Env) -> tuple[float, float]:
    """How far the camera stands, and at which height it looks (m): further away from long and tall bodies."""
    model = compile_model(env)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    solid = model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE
    if not solid.any():
        return DISTANCE, EYE_LEVEL
    low = (data.geom_xpos - model.geom_rbound[:, None])[solid].min(0)
    high = (data.geom_xpos + model.geom_rbound[:, None])[solid].max(0)
    tall = float(high[2])
    far = max(1.0, float((high - low)[:2].max()) / 2, tall / 1.2)
    return DISTANCE * far, EYE_LEVEL if tall < 1.2 else tall / 2


@lru_cache(maxsize=4)
def drawing_model(env: Env, width: int, height: int) -> Any:
    """The environment's model dressed for a picture. Its physics is not for use: bodies carry decorations."""
    spec = mujoco.MjSpec.from_string(env.xml, assets=dict(env.assets))
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.visual.quality.shadowsize = 2048
    spec.visual.quality.numslices, spec.visual.quality.numstacks = 16, 16  # half the time without a GPU
    spec.visual.headlight.ambient[:], spec.visual.headlight.diffuse[:] = (0.35,) * 3, (0.25,) * 3
    spec.visual.rgba.fog[:], spec.visual.rgba.haze[:] = (*HORIZON, 1), (*HORIZON, 1)
    spec.visual.map.fogstart, spec.visual.map.fogend = 1.5, 9
    spec.visual.map.shadowclip = 2  # below, the floor is speckled with shadows of itself
    spec.stat.extent = EXTENT
    _dress(spec)
    return spec.compile()


def _dress(spec: Any) -> None:
    """Sky, floor, a light that follows the first body, and eyes where a torso looks ahead."""
    for texture in list(spec.textures):
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    gradient, checker = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, mujoco.mjtBuiltin.mjBUILTIN_CHECKER
    box, flat = mujoco.mjtTexture.mjTEXTURE_SKYBOX, mujoco.mjtTexture.mjTEXTURE_2D
    spec.add_texture(name="sky_drawn", type=box, builtin=gradient, rgb1=SKY, rgb2=HORIZON, width=256, height=256)
    tiles = {"rgb1": DARK, "rgb2": PALE, "width": 512, "height": 512, "markrgb": (SEAM,) * 3}
    spec.add_texture(name="tiles", type=flat, builtin=checker, mark=mujoco.mjtMark.mjMARK_EDGE, **tiles)
    material = spec.add_material(name="tiles", texuniform=True, texrepeat=[0.5 / SQUARE] * 2)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.material, geom.rgba, geom.size = "tiles", (1, 1, 1, 1), (0, 0, 0.05)  # without an end
    for light in list(spec.lights):
        spec.delete(light)
    body = spec.worldbody.first_body() or spec.worldbody
    body.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=(-1.0, -1.0, 4),
        dir=(0.25, 0.25, -1),
        diffuse=(0.65,) * 3,
        specular=(0.15,) * 3,
        castshadow=True,
    )
    if any(geom.name == "torso" and geom.type == mujoco.mjtGeom.mjGEOM_SPHERE for geom in spec.geoms):  # the ants
        for side in (-1, 1):
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                pos=(0.2, 0.09 * side, 0.11),
                size=(0.045, 0, 0),
                rgba=(0.05, 0.05, 0.07, 1),
                contype=0,
                conaffinity=0,
            )


def _root(model: Any) -> int:
    return min(1, model.nbody - 1)


def _canvas(model: Any, width: int, height: int) -> tuple[Any, Any]:
    """An OpenGL context without a window, and MuJoCo's canvas in it: EGL on Linux unless MUJOCO_GL names another."""
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    own = platform.system() == "Linux" and wanted in ("", "egl", "1", "on", "true", "enable", "enabled")
    try:
        # MuJoCo read MUJOCO_GL at its first import, and without it wants a display: we ask its EGL module ourselves.
        source = importlib.import_module("mujoco.egl") if own else mujoco
        context = source.GLContext(width, height)
        context.make_current()
        canvas = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except Exception as error:  # PyOpenGL answers a missing library with almost any class
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120].rstrip('.')}"
        chosen = f"MUJOCO_GL={wanted} does not draw here" if not own and wanted else "no OpenGL draws here"
        raise BackendError(
            f"{chosen} ({reason}); on Debian and Ubuntu `apt-get install libegl1 libgl1 libgl1-mesa-dri` with "
            "MUJOCO_GL unset or `egl` is the cure, elsewhere EGL of Mesa or of the GPU's driver."
        ) from error
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, canvas)
    return context, canvas
