"""metrics.jsonl and the TensorBoard files."""

from __future__ import annotations

import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from epvf_data.errors import StorageError
from epvf_data.trainers.online.journal import Journal
from epvf_data.trainers.trackers import Tracked, open_trackers

LINE = {"iteration": 3, "seed": 7, "env_steps": 40, "return_perturbed": 1.5, "critic_loss": float("nan")}


def journal_of(path, iteration):
    """With a TensorBoard writer."""
    return Journal(path, iteration, open_trackers(["tensorboard"], Tracked(path, "run", {}, iteration)))


def events(folder):
    """The records of the event files: length, checksum, bytes, checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_a_line_is_on_disk_when_write_returns_and_a_resumed_run_takes_back_what_was_undone(tmp_path):
    journal = journal_of(tmp_path, 0)
    journal.write([LINE, {**LINE, "iteration": 5}])
    assert [json.loads(line)["critic_loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        None,
        None,
    ]
    first = events(tmp_path / "tensorboard" / "seed-7")
    assert [event.step for event in first[1:]] == [3, 5]
    assert {value.tag: value.simple_value for value in first[1].summary.value} == {
        "return_perturbed": 1.5,
        "env_steps": 40.0,
    }
    journal.close()
    for path in (tmp_path / "tensorboard" / "seed-7").iterdir():
        path.rename(path.with_name("a-first"))  # names hold the second in which they were made
    again = journal_of(tmp_path, 3)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    again.write([{**LINE, "iteration": 4}])
    started = [event for event in events(tmp_path / "tensorboard" / "seed-7") if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in started] == [(4, SessionLog.START)]
    again.close()


def test_a_disk_that_refuses_is_told_in_one_sentence(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(StorageError, match="TensorBoard"):
        journal_of(tmp_path, 0).write([LINE])
