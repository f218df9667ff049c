"""Shards of a collection: who makes which rows, as schedulers and people say."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from epvf_data.collectors.shards import Shard, parse
from epvf_data.errors import ConfigError


@hypothesis.given(rows=st.integers(1, 10**9), count=st.integers(1, 400))
def test_shards_are_disjoint_and_all(rows, count):
    ranges = [Shard(index, count).of(rows) for index in range(count)]
    assert (ranges[0].start, ranges[-1].stop) == (0, rows)
    assert all(one.stop == other.start for one, other in itertools.pairwise(ranges))
    most = -(-rows // count) + (64 if rows >= 64 * count else 0)
    assert max(map(len, ranges)) <= most


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "32"}, Shard(0, 32)),
        (SLURM, Shard(2, 4)),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_STEP": "4"}, Shard(1, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"}, Shard(3, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Shard(1, 2)),
        ({**SLURM, "RANK": "0", "WORLD_SIZE": "1"}, Shard(2, 4)),
    ],
)
def test_schedulers_say_which_one_it_is(environ, expected):
    assert parse("auto", environ) == expected


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("4/4", {}, "4/4: shards are numbered from 0 to N - 1"),
        ("0/0", {}, "0/0"),
        ("1/99999999", {}, "at most 1,048,576"),
        *((text, {}, "expected I/N with I from 0") for text in ("", "1", "-1/3", "a/b", "1/3/4", "1.0/3", "١/3")),
        ("auto", {}, "no scheduler says which one this is"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_ID is set and SLURM_ARRAY_TASK_COUNT is not"),
        ("auto", {"WORLD_SIZE": "3"}, "WORLD_SIZE is set and RANK is not"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETIONS is not"),
        ("auto", {"RANK": "3", "WORLD_SIZE": "3"}, "RANK=3 is none of 3 evenly spaced numbers"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "3"}, "RANK is 'x'; expected a whole number"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "20"}, "give --shard I/N yourself"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_STEP": "2"}, "give --shard I/N yourself"),
    ],
)
def test_half_of_it_is_an_error(text, environ, words):
    with pytest.raises(ConfigError, match=words):
        parse(text, environ)
