"""Writes a data set's README: front matter for the Hugging Face hub, then Markdown for people."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from epvf_data.cards.facts import MEANING, Facts, Labels, Spread
from epvf_data.cards.words import code, one_line, prose, quoted, slug, table
from epvf_data.store.folders import ROWS
from epvf_data.store.schema import COLUMNS

MARK = "<!-- Written by `epvf-data card`, which will replace this file. Delete this line to keep your own changes. -->"
_LOOK = f"SELECT source, avg(mean_return) FROM '{ROWS}' GROUP BY source"
_MOST = 20  # rows of a table
_SIZES = (
    "n<1K",
    "1K<n<10K",
    "10K<n<100K",
    "100K<n<1M",
    "1M<n<10M",
    "10M<n<100M",
    "100M<n<1B",
    "1B<n<10B",
    "10B<n<100B",
)


def readme(facts: Facts, labels: Labels, folder: str) -> str:
    """The whole file. `folder` is the data set's own name, as in ant.zarr."""
    sections = [
        _front_matter(facts, labels),
        MARK,
        f"# {prose(labels.title)}",
        labels.description,
        "![Histogram of returns by source](returns.png)",
        _environment(facts),
        _policies(facts),
        _returns(facts),
        _columns(facts),
        _origins(facts),
        _identity(facts),
        _reading(facts, folder),
        _verifying(folder),
        _licence(facts, labels),
        f"## Citation\n\n{_fenced(labels.citation, 'bibtex')}",
    ]
    return "\n\n".join(sections) + "\n"


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    return _SIZES[min(max(0, len(str(rows)) - 3), len(_SIZES) - 1)]


def _front_matter(facts: Facts, labels: Labels) -> str:
    tags = ["reinforcement-learning", "policy-conditioned-value-functions", "zarr", slug(facts.env.name)]
    lines = [
        *_listed("license", list(dict.fromkeys(licence.hub for licence in labels.licences))),
        f"pretty_name: {quoted(labels.title)}",
        "task_categories:",
        "- reinforcement-learning",
        "tags:",
        *(f"- {quoted(tag)}" for tag in dict.fromkeys(tags) if tag),
        f"size_categories:\n- {quoted(size_category(facts.rows))}",
        f'configs:\n- {{"config_name": "rows", "data_files": "{ROWS}"}}',  # what the hub's viewer shows
    ]
    return "\n".join(["---", *lines, "---"])


def _listed(key: str, values: Sequence[str]) -> list[str]:
    """A value of YAML, or several."""
    return [f"{key}: {values[0]}"] if len(values) == 1 else [f"{key}:", *(f"- {value}" for value in values)]


def _licence(facts: Facts, labels: Labels) -> str:
    links = [
        f"[{licence.spdx}]({licence.url})" if licence.url != licence.spdx else code(licence.spdx)
        for licence in labels.licences
    ]
    text = links[0]
    if len(links) > 1:
        text = "The rows came from data sets under several licences; all of them have to be kept:\n\n"
        text += "\n".join(f"- {link}" for link in links)
    elif others := [name for name in facts.licences if name != labels.licences[0].spdx]:
        text += f"\n\nThe rows came from data sets under {', '.join(map(code, others))}."
    return f"## Licence\n\n{text}" + (f"\n\nFrom <{labels.url}>." if labels.url else "")


def _more(count: int) -> str:
    return f"\n\n… and {count - _MOST:,} more." if count > _MOST else ""


def _number(value: float) -> str:
    plain = value == 0 or 0.01 <= abs(value) < 1e7
    return f"{value:,.2f}" if plain else f"{value:.3g}"


def _share(count: int, total: int) -> str:
    """A percentage that says 100 % or 0 % only where that is exact."""
    if count in (0, total):
        return "100 %" if count else "0 %"
    return f"{min(max(100 * count / total, 0.01), 99.99):.2f} %"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _environment(facts: Facts) -> str:
    env = facts.env
    rows = [
        ["name", f"{code(env.name)}, version {code(env.version)}"],
        ["digest", code(env.digest)],
        ["observation", _plural(env.observation_size, "number")],
        ["action", _plural(env.action_size, "number")],
        ["horizon", _plural(env.horizon, "control step")],
        [
            "timestep",
            f"{one_line(env.timestep, 20)} s of physics, {_plural(env.substeps, 'physics step')} a control step",
        ],
    ]
    note = "Rows of environments with another digest are of another task: their returns cannot be compared."
    lines = "\n".join(f"- {name}: {value}" for name, value in rows)
    return f"## Environment\n\n{lines}\n\n{note}"


def _policies(facts: Facts) -> str:
    rows = [
        [code(item.id[:12]), item.layers, item.computes, f"{item.size:,}", f"{item.rows:,}"]
        for item in facts.policies[:_MOST]
    ]
    text = "Multilayer perceptrons; the sizes go from the observation to the action.\n\n" + table(
        ["architecture", "layers", "activations", "parameters P", "rows"], rows
    )
    text += _more(len(facts.policies))
    if facts.withheld:
        text += (
            f"\n\nThe parameters of {_plural(facts.withheld, 'row')} are withheld: of these policies only their "
            "actions in the probing states are there."
        )
    items = list(facts.probes.items())
    if items:
        probing = [[code(probe[:12]), f"{count:,}", f"{rows:,}"] for probe, (count, rows) in items[:_MOST]]
        text += (
            "\n\nProbing states: the rows also hold the actions of their policy in a fixed set of states, which makes "
            "policies of different architectures comparable.\n\n"
            + table(["set", "states K", "rows"], probing)
            + _more(len(items))
        )
    return f"## Policies\n\n{text}"


def _returns(facts: Facts) -> str:
    every = np.concatenate([*facts.returns.values(), np.zeros(0)])
    rows = [_returns_row("all", every)] if len(facts.returns) > 1 else []
    rows += [_returns_row(code(name, 60), values) for name, values in list(facts.returns.items())[:_MOST]]
    episodes = facts.episodes
    span = f"{episodes.fewest}" if episodes.fewest == episodes.most else f"{episodes.fewest} to {episodes.most}"
    lines = [
        f"{_plural(episodes.count, 'episode')}, {span} a policy",
        f"{episodes.steps:,} control steps; an episode has {episodes.shortest} to {episodes.longest}, "
        f"{episodes.steps / episodes.count:,.1f} on average",
        f"{_share(episodes.terminated, episodes.count)} ended in a terminal state, "
        f"{_share(episodes.truncated, episodes.count)} at the horizon",
        f"the physics stayed finite in {_share(episodes.finite, episodes.count)} of them",
    ]
    if facts.discounts:
        lines.append(f"discounted returns with {', '.join(f'{value:g}' for value in facts.discounts[:_MOST])}")
    head = ["source", "policies", "min", "25 %", "median", "75 %", "mean", "max", "finite"]
    return (
        "## Returns\n\nThe return of a policy is the mean over its episodes of the undiscounted sum of rewards.\n\n"
        f"{table(head, rows)}{_more(len(facts.returns))}\n\nEpisodes:\n\n" + "\n".join(f"- {line}" for line in lines)
    )


def _returns_row(label: str, values: np.ndarray) -> list[str]:
    spread, finite = Spread.of(values), _share(int(np.isfinite(values).sum()), len(values))
    if spread is None:
        return [label, f"{len(values):,}", *6 * ["-"], finite]
    order = (spread.low, spread.quarter, spread.median, spread.three_quarters, spread.mean, spread.high)
    return [label, f"{len(values):,}", *map(_number, order), finite]


def _columns(facts: Facts) -> str:
    rows = [
        f"| `{name}` | {COLUMNS[name].dtype} | {' × '.join(COLUMNS[name].dims)} | {MEANING[name]} |"
        for name in facts.columns
    ]
    lines = "\n".join(["| column | dtype | shape | meaning |", "| --- | --- | --- | --- |", *rows])
    return f"## Columns\n\n{lines}"


def _origins(facts: Facts) -> str:
    origins = facts.origins
    text = "## How it was made\n\nAs the commits say; folders and names of machines and people are left out"
    text += ", but for those who gave theirs." if origins.people else "."
    for title, found in (
        ("By", origins.people),
        ("Commands", origins.commands),
        ("Simulated with", origins.devices),
    ):
        if found:
            text += f"\n\n{title}:\n\n{_counted(found)}"
    if origins.seeds:
        text += (
            f"\n\nSeeds: {', '.join(one_line(seed, 40) for seed in origins.seeds[:_MOST])}{_more(len(origins.seeds))}"
        )
    if origins.versions:
        several = [f"{package} {' and '.join(found[:4])}" for package, found in origins.versions.items()]
        text += f"\n\nVersions: {', '.join(map(code, several[:_MOST]))}"
    return text


def _counted(found: Mapping[str, int]) -> str:
    lines = [f"- {code(name, 400)} ({_plural(rows, 'row')})" for name, rows in list(found.items())[:_MOST]]
    return "\n".join(lines) + _more(len(found))


def _identity(facts: Facts) -> str:
    origins = facts.origins
    dates = origins.first if origins.first == origins.last else f"{origins.first} to {origins.last}"
    return (
        f"## Identity\n\n- content hash `{facts.content_hash}`: of all rows in order, in whatever files they are"
        f"\n- format version {facts.format_version}, {_plural(facts.commits, 'commit')}"
        + (f", {dates}" if dates else "")
        + f"\n- {_plural(facts.rows, 'row')} in {_plural(facts.parts, 'part')}, {_bytes(facts.bytes)}"
    )


def _bytes(count: int) -> str:
    power = min(4, int(math.log(count, 1000))) if count else 0
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _reading(facts: Facts, folder: str) -> str:
    path, first = quoted(folder), facts.policies[0]
    reads = "probe_actions" if facts.withheld else "params"
    size = "K, A" if facts.withheld else first.size
    ours = f"""\
import epvf_data

dataset = epvf_data.open({path})
table = dataset.table("{first.id[:12]}")
{reads} = table.column("{reads}")  # float32 [{first.rows}, {size}]
returns = table.mean_returns()  # float64 [{first.rows}]
"""
    plain = f"""\
import json, pathlib, zarr

path = {path}
root = zarr.open_group(path, mode="r")
parts = []
for file in sorted((pathlib.Path(path) / "commits").glob("[0-9]*.json")):
    record = json.loads(file.read_text("utf-8"))
    parts = [part for part in parts if part not in record["remove"]] + [part["id"] for part in record["add"]]
{reads} = [root["parts"][part]["{reads}"][:] for part in parts]
returns = [root["parts"][part]["returns"][:] for part in parts]
policies = [root["parts"][part].attrs["epvf_data"]["policy"] for part in parts]
"""
    return (
        f"## How to read it\n\nWith the package `epvf-data`:\n\n{_fenced(ours, 'python')}\n\n"
        f"With plain Zarr (3.0 or later), without that package:\n\n{_fenced(plain, 'python')}\n\n"
        "`policies[i]` tells how to unflatten and run the policies of part i: `layers[*].tensors[*]` give the offset "
        "and the shape of each tensor. `docs/format.md` of `epvf-data` describes every column and every byte.\n\n"
        f"For DuckDB, pandas or a viewer, `epvf-data push` puts [`{ROWS}`]({ROWS}) beside the data set, which has "
        "all but parameters and probing actions:\n\n" + _fenced(_LOOK, "sql")
    )


def _verifying(folder: str) -> str:
    path = quoted(folder)
    hashed = f"""\
import epvf_data
from epvf_data.store.digest import content_hash

print(content_hash(epvf_data.open({path})))
"""
    command = f"epvf-data validate {shlex.quote(one_line(folder))} --deep"
    return (
        "## How to verify it\n\nThis reads every byte and compares it with the checksums in the commits:\n\n"
        f"{_fenced(command, 'sh')}\n\n"
        f"This prints the content hash, which is above:\n\n{_fenced(hashed, 'python')}"
    )


def _fenced(text: str, language: str) -> str:
    """A code block that nothing in the text can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
