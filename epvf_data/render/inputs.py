"""What is filmed and into which files, checked before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

from epvf_data import envs, outputs
from epvf_data.errors import ConfigError
from epvf_data.policies.files import load_policy, read_notes
from epvf_data.policies.spec import PolicySpec
from epvf_data.render.film import Film
from epvf_data.store import reader
from epvf_data.store.pick import pick_row
from epvf_data.untrusted import shown


def check_policy(policy: Path, out: Path | None, env: str | None, film: Film, force: bool) -> tuple[str, Path]:
    """Environment and video of a policy file. Raises as `render_policy` does, ahead of everything that takes time."""
    name = environment_of(policy, load_policy(policy)[0]) if env is None else env
    envs.check_name(name)
    video = outputs.beside(policy, ".mp4") if out is None else out
    if policy.resolve() in (path.resolve() for path in film.files(video)):
        raise ConfigError(f"a picture would replace the policy {policy}; name another file with --out.")
    film.check(video, force)
    return name, video


def check_row(
    dataset: str | os.PathLike[str], row: str, out: Path | None, architecture: str | None, film: Film, force: bool
) -> Path:
    """The video of a stored row. Raises as `render_row` does, ahead of everything that takes time."""
    pick_row(reader.open(dataset), row, architecture)
    video = Path(f"{Path(dataset).resolve().stem}-{row}.mp4") if out is None else out
    film.check(video, force)
    return video


def environment_of(policy: Path, spec: PolicySpec) -> str:
    """The note `env` in the file's header. Raises ConfigError where there is none, and tells what would fit."""
    name = read_notes(policy).get("env")
    if name is not None and envs.known(name):
        return name
    if name is not None:  # a stranger's note must not load code
        raise ConfigError(f"{policy} is of {shown(name)}, which is none of this package's; name yours with --env.")
    sizes = (spec.observation_size, spec.action_size)
    fitting = [one for one, entry in sorted(envs.ENVS.items()) if (entry.observation_size, entry.action_size) == sizes]
    hint = f"the policy has the sizes of {' or '.join(fitting) or 'none here'}"
    raise ConfigError(f"{policy} has no note of its environment; name it with --env ({hint}).")
