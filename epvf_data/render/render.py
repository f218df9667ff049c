"""A video and a strip of frames of one episode: the rollout's own return and end, drawn in real time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt32

from epvf_data import envs, outputs
from epvf_data.envs.base import Env
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies.files import load_policy
from epvf_data.policies.kinds import Spec
from epvf_data.policies.loading import PolicyCode, bind
from epvf_data.render import cartpole_frames, mujoco_frames
from epvf_data.render.film import Film
from epvf_data.render.footage import Footage, play
from epvf_data.render.inputs import check_policy
from epvf_data.render.picture import Painter, save_webp, strip, write_on
from epvf_data.render.video import encoder

# Environments without a MuJoCo model → who draws them.
DRAWN: Mapping[str, Callable[..., contextlib.AbstractContextManager[Painter]]] = {"cartpole": cartpole_frames.painter}
HOLD = 0.6  # s that the last frame stays: an episode may last less than a tenth of a second
WEBP_FPS = 16  # at most, in the animated WebP

Progress = Callable[[int, int], None]  # (frames drawn, frames)


@dataclass(frozen=True)
class RenderReport:
    """What was drawn, and where it lies."""

    env: str
    episode_return: float  # undiscounted
    length: int  # control steps
    seconds: float  # of simulated time
    ended: str  # "terminated", "truncated" at the horizon, or "diverged"
    frames: int  # of the video
    video: str
    strip: str
    webp: str | None
    row: int | None = None  # of a data set, and what it says
    architecture: str | None = None
    stored_return: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the return is called `return`."""
        return {"return" if key == "episode_return" else key: value for key, value in asdict(self).items()}


def render_policy(
    policy: str | Path,
    out: str | Path | None = None,
    *,
    env: str | None = None,
    code: PolicyCode | None = None,
    horizon: int | None = None,
    seed: int = 0,
    episode: int = 0,
    film: Film | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> RenderReport:
    """Draws one episode of the policy in a file: a video `out` (POLICY.mp4) and, beside it, a strip of frames (.png).

    The environment is `env`, or the note of that name in the file's header. `code` is that of an architecture of the
    user's own. `seed` and `episode` choose the start where
    starts are random; both 0 are the first episode of `rollout`.

    Raises ConfigError for wrong arguments, ArchitectureMismatchError for a policy of another environment, BackendError
    where this machine cannot draw, DatasetError where a file is there already, unless `force` replaces it, StorageError
    where files cannot be written. No file is changed then.
    """
    policy, film = Path(policy), film or Film()
    spec, params = load_policy(policy)
    spec = bind(spec, code)
    for name, value, least in (("horizon", horizon, 1), ("seed", seed, 0), ("episode", episode, 0)):
        if value is not None and not least <= value < 2**31:
            raise ConfigError(f"{name} is {value}; expected a whole number from {least} to {2**31 - 1}.")
    name, video = check_policy(policy, None if out is None else Path(out), env, film, force)
    world = envs.make(name)
    reset_seed = np.asarray(jax.random.key_data(jax.random.key(seed)), np.uint32)
    world = world.with_horizon(horizon or world.horizon)
    return render_episode(world, spec, params, video, reset_seed, episode, film, force, progress)


def render_episode(
    env: Env,
    spec: Spec,
    params: Float[np.ndarray, "P"],
    video: Path,
    reset_seed: UInt32[np.ndarray, "2"] | None = None,
    number: int = 0,
    film: Film = Film(),  # noqa: B008 (immutable)
    force: bool = False,
    progress: Progress | None = None,
) -> RenderReport:
    """Draws episode `number` of a row as `rollout` plays it. Raises as `render_policy` does."""
    film.check(video, force)
    files = film.files(video)
    _check(env, spec)
    footage = play(env, spec, params, reset_seed, number, film.fps)
    with contextlib.ExitStack() as stack:
        drafts = [stack.enter_context(outputs.draft_file(path, force)) for path in files]
        frames = _draw(footage, film, drafts, progress)
    return RenderReport(
        env=env.name,
        episode_return=float(footage.played.episode.returns),
        length=footage.length,
        seconds=footage.seconds(footage.length),
        ended=footage.ended,
        frames=frames,
        video=str(files[0]),
        strip=str(files[1]),
        webp=str(files[2]) if film.webp else None,
    )


def _draw(footage: Footage, film: Film, drafts: list[Path], progress: Progress | None) -> int:
    """Draws the episode into the drafts: video, strip, WebP if wanted. Returns the video's number of frames."""
    env, shown = footage.env, footage.shown
    held = math.ceil(HOLD * film.fps)
    chosen = set(np.linspace(0, len(shown) - 1, film.cells).round().astype(int).tolist())
    stride = math.ceil(film.fps / WEBP_FPS)
    cells, times, animated = [], [], []
    paint_in = DRAWN.get(env.name, mujoco_frames.painter)
    with paint_in(env, *film.size) as paint, encoder(drafts[0], *film.size, film.fps) as write:
        for place, state in enumerate(shown.tolist()):
            last = place == len(shown) - 1
            pixels = paint(footage.played.qpos[state], footage.played.qvel[state])
            if place in chosen:
                cells.append(pixels)
                times.append(footage.seconds(state))
            pixels = write_on(pixels, footage.caption(state))
            if film.webp and (last or place % stride == 0):
                animated.append(pixels)
            for _ in range(1 + last * held):
                write(pixels)
            if progress is not None:
                progress(place + 1 + last * held, len(shown) + held)
    strip(cells, times, crop=env.xml is not None).save(drafts[1], format="png", optimize=True)
    if film.webp:
        save_webp(drafts[2], animated, stride / film.fps, HOLD)
    return len(shown) + held


def _check(env: Env, spec: Spec) -> None:
    if (spec.observation_size, spec.action_size) != (env.observation_size, env.action_size):
        raise ArchitectureMismatchError(
            f"the policy maps {spec.observation_size} observations to {spec.action_size} actions; environment "
            f"{env.name} has {env.observation_size} and {env.action_size}: name another with --env."
        )
    if env.xml is None and env.name not in DRAWN:
        raise ConfigError(f"nobody draws {env.name}; expected a MuJoCo environment or {' or '.join(DRAWN)}.")
