"""What a record says of the command that made it."""

import sys

import pytest

from epvf_data.provenance import provenance


@pytest.mark.parametrize(
    ("called", "written"),
    [
        ("/usr/bin/epvf-data", "epvf-data"),
        ("/lib/site-packages/epvf_data/__main__.py", "epvf-data"),
        ("/lib/site-packages/pytest/__main__.py", "__main__.py"),
        ("mine/collect.py", "collect.py"),
        ("", ""),
    ],
)
def test_a_command_is_written_as_a_person_would_type_it(monkeypatch, called, written):
    monkeypatch.setattr(sys, "argv", [called, "collect", "https://user:secret@host/a.zarr"])
    command = provenance()["command"]
    assert command[:2] == [written, "collect"]
    assert "secret" not in command[2]
