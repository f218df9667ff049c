"""What the pictures show, checked on their pixels; what is left behind when something goes wrong."""

import math
import sys

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import epvf_data
from epvf_data import envs, save_policy
from epvf_data.curation.select import withhold
from epvf_data.envs import ant
from epvf_data.errors import (
    ArchitectureMismatchError,
    BackendError,
    ConfigError,
    DatasetError,
    EnvironmentMismatchError,
    EpvfError,
    StorageError,
)
from epvf_data.policies.spec import PolicySpec
from epvf_data.render import cartpole_frames, mujoco_frames
from epvf_data.render.film import Film
from epvf_data.render.footage import ANT_SPEED, play
from epvf_data.render.render import HOLD, render_policy
from epvf_data.render.rows import render_row

WIDTH, HEIGHT = 320, 180
POLE, CART = (213, 94, 0), (0, 114, 178)


def policy_of(env, hidden=(8,), seed=0):
    spec = PolicySpec(env.observation_size, env.action_size, hidden)
    return spec, np.random.default_rng(seed).normal(0, 0.5, spec.size).astype(np.float32)


def draw(policy, *args, **options):
    """`render_policy`, the parts of `Film` among the options."""
    film = Film(**{name: options.pop(name) for name in Film._fields if name in options})
    return render_policy(policy, *args, film=film, **{"force": True, **options})


@pytest.fixture
def pole(tmp_path):
    """A CartPole policy in a file that names its environment."""
    save_policy(tmp_path / "pole.safetensors", *policy_of(envs.make("cartpole")), env="cartpole")
    return tmp_path / "pole.safetensors"


@pytest.fixture
def ant_painter():
    try:
        with mujoco_frames.painter(envs.make("ant"), WIDTH, HEIGHT) as paint:
            yield paint
    except BackendError as error:
        pytest.skip(str(error))


def pixels_of(picture, colour, tolerance=12):
    """(x, y) of every pixel of that colour."""
    near = np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance
    rows, columns = np.nonzero(near)
    return np.stack([columns, rows], axis=1) + 0.5


def frames_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        return round(float(stream.average_rate)), [
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        ]


@settings(max_examples=15)
@given(st.floats(-2.4, 2.4), st.floats(-0.3, 0.3))
def test_cart_and_pole_are_drawn_where_they_are(position, angle):
    with cartpole_frames.painter(envs.make("cartpole"), WIDTH, HEIGHT) as paint:
        picture = paint(np.array([position, angle], np.float32), np.zeros(2, np.float32))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    metre = WIDTH / cartpole_frames.VIEW
    cart, orange = pixels_of(picture, CART), pixels_of(picture, POLE)
    assert (cart[:, 0].min() + cart[:, 0].max()) / 2 == pytest.approx(WIDTH / 2 + position * metre, abs=1.5)
    centred = orange - orange.mean(axis=0)
    along = np.linalg.svd(centred, full_matrices=False)[2][0]  # the pole's long axis
    assert math.atan(-along[0] / along[1]) == pytest.approx(angle, abs=0.03)
    assert np.ptp(centred @ along) == pytest.approx((1 + cartpole_frames.POLE_WIDTH) * metre, rel=0.06)


def test_the_camera_follows_the_ant_over_a_floor_that_moves(ant_painter):
    here = np.asarray(envs.make("ant").reset(jax.random.key(0)).qpos)
    far = here.copy()
    far[:2] += 31.3, -12.4  # beyond a floor of finite size there would be no ground
    first, second, again = (ant_painter(state, np.zeros(14)) for state in (here, far, here))
    assert np.abs(first.astype(int) - again).max() <= 8  # a painter remembers nothing
    body = [_body(picture) for picture in (first, second)]
    for mask in body:
        assert 0.01 < mask.mean() < 0.3
        assert abs(np.nonzero(mask)[1].mean() - WIDTH / 2) < 0.06 * WIDTH
    assert (body[0] == body[1]).mean() > 0.98
    ground = np.s_[HEIGHT // 2 :, :]
    assert np.abs(first[ground].astype(int) - second[ground]).max(axis=-1).mean() > 8
    assert first.mean() > 90  # no night
    assert first[:10].mean() > first[-40:].mean() + 20  # the sky above


def test_the_ant_is_drawn_as_it_stands(ant_painter):
    low = np.asarray(envs.make("ant").reset(jax.random.key(0)).qpos)
    high = low.copy()
    high[2] += 0.4
    turned = low.copy()
    turned[3:7] = math.cos(math.pi / 8), 0, 0, math.sin(math.pi / 8)  # yaw by 45 degrees
    lower, higher, other = (_body(ant_painter(state, np.zeros(14))) for state in (low, high, turned))
    assert np.nonzero(higher)[0].mean() < np.nonzero(lower)[0].mean() - 0.06 * HEIGHT
    assert (lower != other).sum() > 0.5 * lower.sum()


def _body(picture):
    """Where the robot's orange is: much more red than blue."""
    return picture[..., 0].astype(int) - picture[..., 2] > 40


@pytest.mark.parametrize(("name", "steps", "fps"), [("cartpole", 500, 50), ("cartpole", 7, 30), ("ant", 9, 50)])
def test_video_strip_and_report_agree(name, steps, fps, tmp_path):
    env = envs.make(name)
    spec, params = policy_of(env)
    save_policy(tmp_path / "p.safetensors", spec, params, env=name)
    seen = []
    settings = {"horizon": steps, "fps": fps, "size": (WIDTH, HEIGHT), "cells": 4, "webp": True}
    try:
        report = draw(tmp_path / "p.safetensors", progress=lambda *done: seen.append(done), **settings)
    except BackendError as error:
        pytest.skip(str(error))
    played = play(env.with_horizon(steps), spec, params, None, 0, fps)
    assert (report.env, report.length, report.ended) == (name, played.length, played.ended)
    assert report.episode_return == float(played.played.episode.returns)
    rate, frames = frames_of(report.video)
    expected = math.ceil(report.seconds * fps - 1e-6) + 1 + math.ceil(HOLD * fps)
    assert (rate, len(frames), report.frames, seen[-1]) == (fps, expected, expected, (expected, expected))
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 60
    with Image.open(report.strip) as picture:
        cells = min(4, expected - math.ceil(HOLD * fps))
        assert picture.size[0] == cells * 240 - 4
        assert len(np.unique(np.asarray(picture))) > 50
    assert (tmp_path / "p.png").stat().st_size < 400_000
    with Image.open(report.webp) as picture:
        assert picture.n_frames > 1
        assert picture.size == (WIDTH, HEIGHT)
    assert {path.name for path in tmp_path.iterdir()} == {"p.safetensors", "p.mp4", "p.png", "p.webp"}


@pytest.mark.parametrize("name", ["ant", "cartpole"])
def test_the_return_over_a_frame_is_the_one_gathered_so_far(name):
    env, steps = envs.make(name), 12
    policy = policy_of(env, seed=3)
    whole = play(env.with_horizon(steps), *policy, None, 0, 50)
    assert whole.returns[0] == 0
    for cut in (1, 5):
        part = play(env.with_horizon(cut), *policy, None, 0, 50)
        assert part.length == cut
        assert whole.returns[cut] == pytest.approx(part.returns[-1], rel=1e-4, abs=1e-6)
    if name == "ant":
        for state in range(steps + 1):
            to_world = ant.rotation(jnp.asarray(whole.played.qpos[state, 3:7]))
            velocity = to_world.T @ jnp.asarray(whole.played.qvel[state, :3])
            assert whole.played.observations[state, ANT_SPEED] == pytest.approx(float(velocity[0]), abs=1e-5)
    assert whole.caption(int(whole.shown[-1])).endswith("horizon reached" if name == "ant" else whole.ended)


@pytest.mark.parametrize(("fps", "states"), [(50, [0, 1, 2, 3, 4, 5, 6, 7]), (25, [0, 2, 4, 6, 7]), (100, None)])
def test_frames_are_spaced_in_real_time_and_reach_the_end(fps, states):
    env = envs.make("cartpole").with_horizon(7)
    footage = play(env, *policy_of(env), None, 0, fps)
    assert footage.shown[0] == 0
    assert footage.shown[-1] == footage.length == 7
    assert (np.diff(footage.shown) >= 0).all()
    if states is not None:
        assert footage.shown.tolist() == states
    else:
        assert len(footage.shown) == 15


def test_a_policy_that_diverges_is_drawn_up_to_there(tmp_path):
    env = envs.make("cartpole")
    spec = PolicySpec(4, 1, (), output="identity")
    save_policy(tmp_path / "p.safetensors", spec, np.full(spec.size, 3e38, np.float32), env="cartpole")
    spec_wide = PolicySpec(4, 1, (4, 4), activation="identity", output="identity")
    save_policy(tmp_path / "wide.safetensors", spec_wide, np.full(spec_wide.size, 3e38, np.float32), env=env.name)
    report = draw(tmp_path / "wide.safetensors", size=(WIDTH, HEIGHT))
    assert (report.ended, report.length) == ("diverged", 0)
    assert len(frames_of(report.video)[1]) == report.frames == 31


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"env": "ant"}, ArchitectureMismatchError, "4 observations"),
        ({"env": "pendulum"}, ConfigError, "pendulum"),
        ({"size": (321, 180)}, ConfigError, "width is 321"),
        ({"size": (320, 10)}, ConfigError, "height is 10"),
        ({"fps": 0}, ConfigError, "frames a second"),
        ({"cells": 0}, ConfigError, "strip of 0"),
        ({"horizon": 0}, ConfigError, "horizon is 0"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"out": "film.avi"}, ConfigError, "ends in .mp4"),
        ({"out": "pole.safetensors/film.mp4"}, StorageError, "writing .* failed"),
    ],
)
def test_wrong_inputs_are_one_sentence_and_leave_nothing(pole, options, error, words, monkeypatch):
    monkeypatch.chdir(pole.parent)
    with pytest.raises(error, match=words) as raised:
        draw(pole, **options)
    assert str(raised.value).count(". ") == 0
    assert [path.name for path in pole.parent.iterdir()] == ["pole.safetensors"]


def test_a_policy_without_a_note_tells_what_would_fit(tmp_path):
    save_policy(tmp_path / "ant.safetensors", *policy_of(envs.make("ant")))
    with pytest.raises(ConfigError, match="--env .*ant or ant-reset-noise or ant-servo"):
        draw(tmp_path / "ant.safetensors")
    spec = PolicySpec(3, 2, ())
    save_policy(tmp_path / "other.safetensors", spec, np.zeros(spec.size, np.float32))
    with pytest.raises(ConfigError, match="sizes of none here"):
        draw(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="there is no policy file"):
        draw(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_a_policy_is_never_replaced(pole, suffix):
    odd = pole.rename(pole.with_suffix(suffix))
    before = odd.read_bytes()
    with pytest.raises(ConfigError, match="replace the policy"):
        draw(odd)
    assert odd.read_bytes() == before


def test_an_interruption_leaves_earlier_pictures_whole(pole):
    draw(pole, horizon=3, size=(64, 64))
    before = {path.name: path.read_bytes() for path in pole.parent.iterdir()}

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(pole, size=(64, 64), progress=interrupt)
    assert {path.name: path.read_bytes() for path in pole.parent.iterdir()} == before


def test_seed_and_episode_choose_the_start(pole):
    def start(**choice):
        report = draw(pole, horizon=1, size=(WIDTH, HEIGHT), **choice)
        with Image.open(report.strip) as picture:
            return np.asarray(picture.crop((0, 0, 236, 130)))

    assert np.array_equal(start(), start(seed=0, episode=0))
    assert not np.array_equal(start(), start(seed=1))
    assert not np.array_equal(start(), start(episode=1))


def test_a_machine_without_opengl_is_told_the_cure(tmp_path, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")  # there is no such device
    if "mujoco.egl" in sys.modules:
        monkeypatch.setattr(sys.modules["mujoco.egl"], "EGL_DISPLAY", None)
    save_policy(tmp_path / "ant.safetensors", *policy_of(envs.make("ant")), env="ant")
    with pytest.raises(BackendError, match="apt-get install libegl1") as raised:
        draw(tmp_path / "ant.safetensors", horizon=1)
    assert isinstance(raised.value, EpvfError)
    assert [path.name for path in tmp_path.iterdir()] == ["ant.safetensors"]


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    """Forty CartPole rows of two episodes, and the same without parameters."""
    path = tmp_path_factory.mktemp("rows") / "poles.zarr"
    config = epvf_data.collect_config(
        "cartpole", envs=40, episodes=2, **{"policy.hidden": [8], "perturbed.bases": ["random"]}
    )
    epvf_data.collect(config, path)
    withhold(path, path.with_name("bare.zarr"))
    return path


@pytest.mark.parametrize(("row", "episode"), [("best", 0), ("worst", 1), ("median", 0), ("7", 1)])
def test_a_row_is_shown_as_it_was_rolled_out(poles, row, episode, in_tmp):
    film = Film(size=(64, 64), cells=2)
    report = render_row(poles, row, episode=episode, film=film)
    table = epvf_data.open(poles).table()
    means = table.mean_returns()
    ranked = np.argsort(means, kind="stable")
    expected = {"best": ranked[-1], "worst": ranked[0], "median": ranked[20], "7": 7}[row]
    assert means[report.row] == means[expected]
    assert report.stored_return == table.column("returns")[report.row, episode] == report.episode_return
    assert (in_tmp / f"poles-{row}.mp4").exists()
    assert (in_tmp / f"poles-{row}.png").exists()


@pytest.mark.soak
def test_a_fall_is_the_stored_fall(in_tmp):
    """Ants amplify rounding: only the very episode that was stored has the stored return."""
    config = epvf_data.collect_config("ant", envs=12, horizon=300, backend="native")
    epvf_data.collect(config, "ants.zarr")
    table = epvf_data.open("ants.zarr").table()
    env = envs.make("ant").with_horizon(300)
    for row in range(12):
        params, seed = table.column("params")[row], table.column("reset_seed")[row]
        played = play(env, table.spec, params, seed, 0, 50).played
        assert float(played.episode.returns) == table.column("returns")[row, 0]
        assert int(played.episode.length) == table.column("lengths")[row, 0] == len(played.qpos) - 1
        assert bool(played.episode.terminated) == table.column("terminated")[row, 0]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"row": "wurst"}, ConfigError, "expected best, median, worst or a number"),
        ({"row": "40"}, DatasetError, "rows 0 to 39"),
        ({"row": "3", "episode": 2}, ConfigError, "the episodes 0 to 1"),
        ({"architecture": "zz"}, DatasetError, "name exactly one"),
        ({"env": "ant"}, EnvironmentMismatchError, "name the one that it was made with"),
    ],
)
def test_rows_that_are_not_there_are_refused(poles, options, error, words, in_tmp):
    with pytest.raises(error, match=words):
        render_row(poles, **options)
    assert list(in_tmp.iterdir()) == []


def test_withheld_policies_cannot_be_shown(poles, in_tmp):
    with pytest.raises(DatasetError, match="withheld"):
        render_row(poles.with_name("bare.zarr"))


@pytest.mark.parametrize("name", ["hopper", "swimmer", "humanoid"])
def test_other_bodies_fit_into_the_picture(name):
    """Nothing of the body is cut off: the borders show sky and floor alone."""
    env = envs.make(name)
    try:
        with mujoco_frames.painter(env, WIDTH, HEIGHT) as paint:
            state = env.reset(jax.random.key(0))
            picture = paint(np.asarray(state.qpos), np.asarray(state.qvel)).astype(int)
    except BackendError as error:
        pytest.skip(str(error))
    warm = picture[..., 0] - picture[..., 2] > 25  # bodies are brown, sky and floor are blue
    assert warm.sum() > 200
    assert not warm[:4].any()
    assert not warm[-4:].any()
    assert not warm[:, :4].any()
    assert not warm[:, -4:].any()
