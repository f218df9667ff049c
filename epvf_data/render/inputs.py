"""What is filmed and into which files, checked before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

from epvf_data import envs, outputs
from epvf_data.errors import ConfigError
from epvf_data.policies.files import load_policy
from epvf_data.recording.task import environment_of
from epvf_data.render.film import Film
from epvf_data.store import reader
from epvf_data.store.pick import pick_row


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
