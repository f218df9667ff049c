"""Compiles epvf_data/physics/mujoco_step.c when the package is installed or a wheel is built, with any C compiler.

Without a compiler the package installs all the same: MuJoCo models then run on MJX, and `epvf-data doctor` says why.
EPVF_PLATFORM names another platform of a wheel, as in benchmarks/wheels.sh; CC and CFLAGS are taken as by make.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("epvf_data") / "physics"
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")


class CompileHook(BuildHookInterface):
    """Adds the compiled library to what is installed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        source, library = root / FOLDER / "mujoco_step.c", root / FOLDER / "mujoco_step.so"
        problem = compile_library(source, library)
        if problem:
            self.app.display_warning(f"MuJoCo C will not run inside JAX: {problem}")
            return
        build_data["artifacts"].append(library.relative_to(root).as_posix())
        if version != "editable":
            platform = os.environ.get("EPVF_PLATFORM") or sysconfig.get_platform()
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform.replace('-', '_').replace('.', '_')}"


def compile_library(source: Path, library: Path) -> str | None:
    """Makes the library beside its source, in one rename; what went wrong, or None."""
    library.unlink(missing_ok=True)  # never one that is older than its source
    command = (
        shlex.split(os.environ.get("CC", "")) or [find for find in ("cc", "gcc", "clang") if shutil.which(find)][:1]
    )
    if not command:
        return "there is no C compiler (cc, gcc or clang)"
    draft = library.with_suffix(f".{os.getpid()}.so")
    flags = [*FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))]
    try:
        done = subprocess.run([*command, *flags, "-o", str(draft), str(source)], capture_output=True, text=True)
        if done.returncode:
            return f"{command[0]} failed: {done.stderr.strip()[-500:]}"
        draft.replace(library)
    except OSError as error:
        return f"{command[0]} did not run: {error}"
    finally:
        draft.unlink(missing_ok=True)
    return None
