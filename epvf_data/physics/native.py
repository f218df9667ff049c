"""MuJoCo C as a step of the compiled loop, in float64: a custom call of XLA on the CPU (mujoco_step.c)."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from copy import copy
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array

from epvf_data.envs.base import Env, Physics
from epvf_data.envs.model import compile_model
from epvf_data.errors import BackendError
from epvf_data.physics.loop import Stepper

LIBRARY = Path(__file__).with_name("mujoco_step.so")  # hatch_build.py makes it when the package is installed
INTERFACE = 1  # of mujoco_step.c
LANES = 16  # worlds stepped together: their weights stay in the level-2 cache (benchmarks/native.py)
LARGE, LARGE_LANES = 20, 64  # of bodies with so many degrees of freedom, whose physics costs far more than their policy
MISSING = (
    "the library that steps MuJoCo C inside JAX was not built; install a C compiler (Debian: apt install gcc) and "
    "then epvf-data again."
)
_STATE = mujoco.mjtState
_ADDRESSES = ("makeBatch", "state", "nstate", "step", "status", "error", "warning")  # of MuJoCo's mjb_ functions
_lock = threading.Lock()
_registered: dict[int, _Model] = {}  # and with them the models, which the library reads for as long as we live


class _Table(ctypes.Structure):
    """`Model` of mujoco_step.c."""

    _fields_ = [
        ("key", ctypes.c_int64),
        ("model", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _ADDRESSES),
        *((name, ctypes.c_int32) for name in ("nq", "nv", "nu", "qvel", "warm", "size", "kinds")),
        ("timestep", ctypes.c_double),
    ]


class _Model(NamedTuple):
    """A registered model; `size` is the number of doubles that a world's state has."""

    key: int
    model: mujoco.MjModel
    size: int


def available() -> bool:
    """Whether the library was built. Nothing is loaded."""
    return LIBRARY.exists()


def stepper(env: Env) -> Stepper:
    """MuJoCo C for the compiled loop.

    A world's state is MuJoCo's own (time, positions, velocities, activations, warm start) as bits of float64, which
    JAX need not know. Raises BackendError where the environment is no MuJoCo model or the library is not there.
    """
    if env.xml is None:
        raise BackendError(f"environment {env.name} is not a MuJoCo model; use `--backend mjx` or `--backend auto`.")
    key, model, size = _register(load_model(env))
    state, single = jax.ShapeDtypeStruct((2 * size,), jnp.uint32), jnp.float32
    sizes = (env.action_size, model.nq, model.nv, model.nq)
    after = [jax.ShapeDtypeStruct((count,), single) for count in sizes]
    begin = jax.ffi.ffi_call("epvf_mujoco_start", state, vmap_method="broadcast_all")
    call = jax.ffi.ffi_call(
        "epvf_mujoco_step", (state, *after), vmap_method="broadcast_all", input_output_aliases={0: 0, 1: 1}
    )

    def start(physics: Physics) -> Array:
        return begin(physics.qpos, physics.qvel, key=np.int64(key))

    def move(state: Array, physics: Physics, action: Array, control: Array, running: Array) -> tuple[Array, Physics]:
        # The action goes through the call, so that it is one number to what comes before and after: the compiler would
        # compute it anew in each place, with other roundings.
        state, action, qpos, qvel, moved = call(
            state, action, control, running, key=np.int64(key), substeps=np.int64(env.substeps)
        )
        return state, Physics(qpos, qvel, action, moved)

    return Stepper(start, move, LANES if model.nv < LARGE else LARGE_LANES)


@lru_cache(maxsize=8)
def load_model(env: Env) -> mujoco.MjModel:
    """The compiled model. MuJoCo's silent reset of a diverged world is off: we end the episode and flag the row."""
    model = copy(compile_model(env))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda message: None)  # else MuJoCo writes MUJOCO_LOG.TXT in the working directory
    return model


@cache
def _library() -> ctypes.CDLL:
    """The library, its calls known to JAX. Raises BackendError where it is missing or of another version."""
    if not available():
        raise BackendError(MISSING)
    try:
        library = ctypes.CDLL(str(LIBRARY))
        if library.epvf_interface() != INTERFACE:
            raise BackendError(f"{LIBRARY} is of another version of epvf-data; install epvf-data again.")
        for name in ("start", "step"):
            address = ctypes.cast(getattr(library, f"epvf_{name}"), ctypes.c_void_p).value
            jax.ffi.register_ffi_target(f"epvf_mujoco_{name}", jax.ffi.pycapsule(address), platform="cpu")
    except (OSError, AttributeError) as error:
        raise BackendError(f"{LIBRARY} cannot be loaded ({error}); install epvf-data again.") from error
    return library


@cache
def _mujoco() -> ctypes.CDLL:
    """MuJoCo's own library, which is loaded already."""
    folder = Path(mujoco.__file__).parent
    found = [path for pattern in ("libmujoco.so*", "libmujoco*.dylib") for path in folder.glob(pattern)]
    if not found:
        raise BackendError(f"MuJoCo's library is not in {folder}; install mujoco again.")
    return ctypes.CDLL(str(found[0]))


def _register(model: mujoco.MjModel) -> _Model:
    """The model as the library knows it: by a hash of its compiled form, so that JAX's cache of functions serves."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    key = int.from_bytes(hashlib.sha256(buffer.tobytes()).digest()[:8], "little", signed=True)
    with _lock:
        if key not in _registered:
            address = lambda name: ctypes.cast(getattr(_mujoco(), f"mjb_{name}"), ctypes.c_void_p).value  # noqa: E731
            size = lambda *kinds: mujoco.mj_stateSize(model, sum(kind.value for kind in kinds))  # noqa: E731
            before = (_STATE.mjSTATE_TIME, _STATE.mjSTATE_QPOS, _STATE.mjSTATE_QVEL)
            warm = size(*before, _STATE.mjSTATE_ACT, _STATE.mjSTATE_HISTORY)
            table = _Table(
                key,
                model._address,
                *(address(name) for name in _ADDRESSES),
                *(model.nq, model.nv, model.nu, 1 + model.nq, warm, warm + model.nv, mujoco.mjtWarning.mjNWARNING),
                model.opt.timestep,
            )
            if _library().epvf_register(ctypes.byref(table)):
                raise BackendError("memory is short: a MuJoCo model could not be registered.")
            _registered[key] = _Model(key, model, warm + model.nv)
        return _registered[key]
