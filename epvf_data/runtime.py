"""What this package needs of JAX. The command line arranges it; in a program of yours it is only looked at."""

from __future__ import annotations

import os
import tempfile
import warnings
from typing import Any

import jax

from epvf_data.errors import BackendError, ConfigError
from epvf_data.places.cache import cache_folder

# Under other settings equal seeds give other rows, other sizes of numbers, or an error in the middle of the work.
NEEDED = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_debug_nans": False,  # rows tell which policies gave NaN
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_transfer_guard": None,
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_error_checking_behavior_nan": "ignore",
}
NEEDED = {name: value for name, value in NEEDED.items() if hasattr(jax.config, name)}  # not every JAX has each
_process: list[int] = []  # the one that began to compute


def cache_problem() -> str | None:
    """Why no compiled function can be kept, in a sentence; None where they can. JAX trusts what it finds there."""
    folder = cache_folder()
    if folder is None:
        return "there is no cache folder, since this user has no home; set XDG_CACHE_HOME."
    try:
        (folder / "xla").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "xla"):
            return None
    except OSError as error:
        return f"the cache folder {folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME."


def prepare() -> None:
    """Sets what rows depend on, keeps compiled functions between runs, and computes on the thread that asks for it."""
    for name, value in NEEDED.items():
        jax.config.update(name, value)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if cache_problem() is None:
        # A full disk, or two who write at once: then it is compiled again.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
        jax.config.update("jax_compilation_cache_dir", f"{cache_folder()}/xla")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def devices() -> list[Any]:
    """The devices that this process computes on: all of the default platform, or the one of `jax_default_device`."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(chosen, str):  # the name of a platform
        return jax.local_devices(backend=chosen)
    return [chosen] if chosen else jax.local_devices()


def check() -> None:
    """Raises ConfigError or BackendError where this process cannot compute the rows that every other one would."""
    for name, value in NEEDED.items():
        if getattr(jax.config, name) != value:
            raise ConfigError(
                f"{name} is {getattr(jax.config, name)!r}, and rows are made with {value!r}; unset {name.upper()}, or "
                f'call jax.config.update("{name}", {value!r}) first.'
            )
    if (_process or [os.getpid()])[0] != os.getpid():
        raise BackendError(
            "this process was forked from one that computed with JAX, whose threads it lacks; start it anew: "
            'multiprocessing.get_context("spawn").'
        )
    _devices()
    _process[:] = [os.getpid()]


def _devices() -> None:
    """Raises BackendError where JAX can start none of the devices that it is told to use."""
    try:
        jax.devices()
    except Exception as error:  # an AssertionError from the second time on
        names = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
        told = " and ".join(f"{name}={os.environ[name]}" for name in names)
        cure = f"{told} asks for one that is not here: unset it" if told else "reinstall jax"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackendError(f"JAX finds no device ({reason}); {cure}.") from error
