"""diff: the same rows or which are not, whatever files hold them."""

from __future__ import annotations

import shutil

import epvf_data
from epvf_data.cards.card import write_card
from epvf_data.cards.facts import gather
from epvf_data.curation.diff import diff
from epvf_data.curation.history import history
from epvf_data.curation.merge import merge
from epvf_data.curation.select import filter_rows, sample
from epvf_data.policies.spec import PolicySpec
from epvf_data.provenance import provenance
from epvf_data.store.compact import compact
from epvf_data.store.writer import Writer


def test_rows_count_and_not_files(quick_path, env, make_rows):
    with Writer.open(quick_path / "a", env) as writer:
        for seed in range(4):
            writer.commit(make_rows(10, seed), {"seed": seed})
    shutil.copytree(quick_path / "a", quick_path / "b")
    compact(quick_path / "b")
    found = diff(quick_path / "a", quick_path / "b")
    assert found.equal
    assert (found.rows_in_both, found.rows_only, found.commits, found.commits_shared) == (40, (0, 0), (4, 5), 4)
    with Writer.open(quick_path / "b", env) as writer:
        writer.commit([make_rows(10, 3), make_rows(6, 9, spec=PolicySpec(4, 2, ()))], {})
    found = diff(quick_path / "a", quick_path / "b")
    assert not found.equal
    assert (found.rows, found.rows_in_both, found.rows_only) == ((40, 56), 40, (0, 6))
    assert list(found.architectures.values()) == [(40, 50), (0, 6)]


def test_order_and_environment_count(quick_path, env, make_rows):
    from dataclasses import replace

    for name, order in (("a", (0, 1)), ("b", (1, 0))):
        with Writer.open(quick_path / name, env) as writer:
            for seed in order:
                writer.commit(make_rows(5, seed), {})
    found = diff(quick_path / "a", quick_path / "b")
    assert not found.equal
    assert (found.rows_in_both, found.rows_only) == (10, (0, 0))
    with Writer.open(quick_path / "c", replace(env, digest="c" * 64, version="2")) as writer:
        writer.commit([make_rows(5, 0), make_rows(5, 1)], {})
    found = diff(quick_path / "a", quick_path / "c")
    assert (found.equal, found.environment, found.rows_in_both) == (False, ["digest", "version"], 10)


def test_history_names_who_made_rows_also_through_other_data_sets(quick_path, env, make_rows):
    made = {
        "command": ["epvf-data", "collect", "--env", "ant island"],
        "simulation": {"backend": "native", "device": "Abacus 3", "dtype": "float64"},
        "versions": {"epvf-data": "0.1.0", "jax": "0.10.2", "python": None},
        "git": {"commit": "a" * 40, "dirty": True},
        "seed": 7,
    }
    with Writer.open(quick_path / "a", env) as writer:
        writer.commit(make_rows(5, 0), made)
        writer.commit(make_rows(6, 1), {"command": "no list", "seed": "seven", "git": [], "origins": 3})
    compact(quick_path / "a")
    merge([quick_path / "a"], quick_path / "b")
    own, of_others, bare = history(epvf_data.open(quick_path / "b"))
    assert not own["origin"]
    assert own["rows"] == 11
    assert (of_others["origin"], of_others["rows"], of_others["commit"]) == (True, 5, 0)
    assert of_others["command"] == "epvf-data collect --env 'ant island'"
    assert of_others["made"] == "native, Abacus 3, float64"
    assert of_others["versions"] == "epvf-data 0.1.0, jax 0.10.2"
    assert of_others["git"] == "a" * 12 + " with local changes"
    assert of_others["seed"] == "7"
    assert (bare["rows"], bare["command"], bare["seed"], bare["git"]) == (6, None, None, None)
    compacted = history(epvf_data.open(quick_path / "a"))[2]
    assert (compacted["removed"], compacted["rows"]) == (2, 11)
    assert compacted["rows_of"] == [[0, 5], [1, 6]]


def test_who_made_rows_goes_with_them(quick_path, env, make_rows, monkeypatch):
    for name, person, lab in (("a", "Ada Lovelace", "Analytical Engines"), ("b", "Mary\x1b[31m Somerville", "")):
        monkeypatch.setenv("EPVF_AUTHOR", person)
        monkeypatch.setenv("EPVF_LAB", lab)
        with Writer.open(quick_path / name, env) as writer:
            for seed in (0, 1):
                writer.commit(make_rows(5, seed + len(person)), provenance(seed=seed))
    monkeypatch.delenv("EPVF_AUTHOR")
    compact(quick_path / "a", provenance=provenance(verb="compact"))
    merge([quick_path / "a", quick_path / "b"], quick_path / "both")
    filter_rows(quick_path / "both", quick_path / "some", "return > -1e9")
    sample(quick_path / "some", quick_path / "few", 20)
    compact(quick_path / "few")
    ada, mary = "Ada Lovelace, Analytical Engines", r"Mary\x1b[31m Somerville"
    for name, expected in (("a", {ada: 10}), ("both", {ada: 10, mary: 10}), ("few", {ada: 10, mary: 10})):
        told = {}
        for event in history(epvf_data.open(quick_path / name)):
            if event["seed"] is not None:  # who rolled out, not who merged
                told[event["who"]] = told.get(event["who"], 0) + event["rows"]
        assert told == expected, name
        assert dict(gather(epvf_data.open(quick_path / name)).origins.people) == expected, name
    write_card(quick_path / "few", quick_path / "card")
    page = (quick_path / "card" / "README.md").read_text()
    assert f"- `{ada}` (10 rows)" in page
    assert r"author = {Ada Lovelace and Mary" in page
    write_card(quick_path / "few", quick_path / "card", authors=["Grace Hopper"])
    assert "author = {Grace Hopper}" in (quick_path / "card" / "README.md").read_text()


def test_nobody_is_named_who_did_not_ask_for_it(monkeypatch):
    monkeypatch.delenv("EPVF_AUTHOR", raising=False)
    monkeypatch.setenv("EPVF_LAB", "  ")
    assert "who" not in provenance()
