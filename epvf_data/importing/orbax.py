"""Policies in checkpoints of orbax: folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.numpy import load

import epvf_data
from epvf_data import orbax_files
from epvf_data.errors import ConfigError, UnsafeDatasetError
from epvf_data.importing import orbax_child
from epvf_data.importing.limits import MAX_BYTES, MAX_DEPTH, MAX_TENSORS, Tensors
from epvf_data.orbax_files import TREE
from epvf_data.trees import walk
from epvf_data.untrusted import WHOLE, parse_json, printable, read_bytes, shown

_PATIENCE = 300  # seconds
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that become checkpoints when they are whole
_BRAX = ("ppo_network_config.json", "sac_network_config.json")


def read(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, what brax wrote about its policy beside them, as settings of an import).

    A folder of checkpoints is accepted where it holds a single one. Raises ConfigError for other folders, and
    UnsafeDatasetError for links, special files and sizes that no policy has.
    """
    folder = _only(folder.absolute(), _checked(folder.absolute()))
    try:
        tensors = load(_restored(folder))
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{folder} could not be read within {_PATIENCE} s; save the policy alone.") from error
    return tensors, _facts(folder)


def _checked(folder: Path) -> list[Path]:
    """The files of a folder, in which there are no links and not too many bytes."""
    files = dict(walk(folder, "checkpoint", MAX_TENSORS, MAX_DEPTH))
    if sum(files.values()) > MAX_BYTES:
        raise UnsafeDatasetError(f"{folder} holds over {MAX_BYTES >> 20} MiB; name one checkpoint of a policy.")
    return [folder / name for name in files]


def _only(folder: Path, files: list[Path]) -> Path:
    """The folder, or the one finished checkpoint inside."""
    found = sorted(file.parent for file in files if file.name == TREE)
    inside = [one for one in found if _UNFINISHED not in one.as_posix()]
    if folder in inside:
        return folder
    if len(inside) != 1:
        hint = (
            f"name one of the {len(inside)} inside, such as {printable(inside[0], WHOLE)}"
            if inside
            else f"{printable(found[0])} was not saved to the end; name a finished one"
            if found
            else f"there is no {TREE} in it"
        )
        raise ConfigError(f"{folder} is no checkpoint of orbax; {hint}.")
    return inside[0]


def _restored(folder: Path) -> bytes:
    """The checkpoint's tensors in the format of safetensors, from a process of its own (orbax_child.py).

    The libraries that read a damaged checkpoint print pages and may crash, and they would take an accelerator.
    """
    package = str(Path(epvf_data.__file__).parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-P", "-m", orbax_child.__name__, str(folder.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    reason = printable(done.stdout.decode(errors="replace"), 600)
    if done.returncode == orbax_child.UNSAFE:
        raise UnsafeDatasetError(reason)
    raise ConfigError(reason if done.returncode == orbax_child.DAMAGED else str(orbax_files.damaged(folder, "crash")))


def _facts(folder: Path) -> dict[str, Any]:
    """What brax's own description of its network says, where there is one."""
    for path in (folder / name for name in _BRAX):
        if path.is_file():
            try:
                said = parse_json(read_bytes(path, what="checkpoint", limit=1 << 20), path, infinite=True)
                network = said["network_factory_kwargs"]
                facts = {"activation": network["activation"], "action_size": said["action_size"]}
                if said["normalize_observations"] is False:
                    facts["normaliser"] = "none"
                if network.get("distribution_type", "tanh_normal") != "tanh_normal":
                    raise ConfigError(
                        f"{path} describes actions of the kind {shown(network['distribution_type'])}; only brax's "
                        "tanh_normal can be imported: its mode is tanh(mean)."
                    )
            except (KeyError, TypeError) as error:
                raise ConfigError(f"{path} is not a description of a network by brax ({shown(error)}).") from error
            return {**facts, "policy_obs_key": network.get("policy_obs_key", "state")}
    return {}
