"""What doctor says of packages that are newer than those that were tried, or not there."""

from __future__ import annotations

import pytest

from epvf_data import doctor


@pytest.mark.parametrize(
    ("version", "told"), [("0.12.0.1", False), ("0.10.2", False), ("0.13.0", True), ("1.0", True), (None, False)]
)
def test_a_newer_jax_is_a_note_and_no_problem(version, told):
    notes = doctor._untried({"jax": version})
    assert bool(notes) == told
    if told:
        assert notes == [f"jax {version} is newer than 0.12, the newest that this version was tried with."]


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "av" else object())
    assert doctor._absent() == ["the extra render is not installed; it writes videos: pip install 'epvf-data[render]'."]
