from dataclasses import dataclass, field

import pytest

from epvf_data import config
from epvf_data.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    widths: tuple[int, ...] = (64, 64)
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    name: str = "ant"
    clip: float | None = None
    flag: bool = False
    inner: Inner = field(default_factory=Inner)


def test_later_layers_win_and_tables_merge(tmp_path):
    (tmp_path / "run.toml").write_text('name = "cartpole"\n[inner]\nrate = 1\n')
    changes = config.parse_overrides(["inner.widths=[8]", "clip=0.5", "name=walker"])
    built = config.build(Outer, config.read_toml(tmp_path / "run.toml"), changes, {"flag": True})
    assert built == Outer("walker", 0.5, True, Inner((8,), 1.0))
    assert config.build(Outer, config.to_dict(built)) == built
    assert config.build(Outer, {"clip": 1}, {"clip": "none"}).clip is None


def test_settings_of_an_earlier_version_get_the_defaults_of_later_ones():
    assert config.completed(Outer, {"name": "walker", "inner": {"rate": 1.0}, "gone": 3}) == {
        **{"name": "walker", "clip": None, "flag": False, "gone": 3},
        "inner": {"rate": 1.0, "widths": [64, 64]},
    }
    assert config.completed(Outer, {}) == config.to_dict(Outer())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rat=2", r"no setting inner.rat; did you mean inner.rate\?"),
        ("nonsense=2", "known are name, clip, flag, inner"),
        ("inner=2", "set inner.something"),
        ("inner.rate=fast", "expected a number"),
        ("inner.widths=[1.5]", "expected a whole number"),
        ("flag=1", "expected true or false"),
        ("name=3", "expected text"),
        ("name", "write it as --set key=value"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        config.build(Outer, config.parse_overrides([override]))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        config.read_toml(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read_toml(tmp_path / "bad.toml")
