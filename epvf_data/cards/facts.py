"""What there is to say about a data set: counted part by part, with 8 bytes of memory a row."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from epvf_data.cards.words import one_line, public, public_command
from epvf_data.policies.own import OwnSpec
from epvf_data.provenance import WHO, descent
from epvf_data.store.digest import content_hash
from epvf_data.store.licences import Licence, inherited
from epvf_data.store.lineage import by_word
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import COLUMNS, EnvIdentity
from epvf_data.store.table import Table

MAX_ORIGINS = 20_000  # provenances that are looked at; a record may hold those of many others
_SIMULATION = ("backend", "device", "dtype", "matmul_precision")


MEANING: Mapping[str, str] = {
    "params": "flat policy parameters",
    "returns": "undiscounted return of each episode",
    "discounted_returns": "discounted return of each episode",
    "lengths": "length of each episode in control steps",
    "terminated": "whether each episode ended in a terminal state",
    "truncated": "whether each episode ended at the horizon",
    "finite": "false where the physics of an episode diverged",
    "reset_seed": "key data of the stream of start states",
    "probe_actions": "the policy's actions in the probing states",
    "source": "generator of the policy: an index into the part's vocabulary",
    "law": "law of the perturbation: an index into the part's vocabulary",
    "base": "base policy: an index into the part's vocabulary; −1 for none",
    "run": "training run: an index into the part's vocabulary; −1 for none",
    "scale": "scale of the perturbation",
    "sign": "+1 and −1 for antithetic halves, 0 for an unperturbed policy",
    "noise_seed": "key data of the perturbation",
    "iteration": "training iteration; −1 for none",
}


@dataclass(frozen=True)
class Spread:
    """Of the finite ones among some numbers: how many there are, and minimum, quartiles, mean, maximum."""

    count: int
    low: float
    quarter: float
    median: float
    three_quarters: float
    mean: float
    high: float

    @classmethod
    def of(cls, values: Float64[np.ndarray, " values"]) -> Spread | None:
        """None where no number is finite."""
        values = values[np.isfinite(values)]
        if not values.size:
            return None
        with np.errstate(over="ignore"):
            low, quarter, median, three_quarters, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
            return cls(values.size, low, quarter, median, three_quarters, float(values.mean()), high)


@dataclass(frozen=True)
class PolicyFacts:
    """One architecture: its id, layer sizes as in 4-8-2, activations or code, number of parameters and of rows."""

    id: str
    layers: str
    computes: str
    size: int
    rows: int


@dataclass(frozen=True)
class EpisodeFacts:
    """All episodes: how many in all and a policy, their lengths in control steps, and how many ended how."""

    count: int
    fewest: int
    most: int
    steps: int
    shortest: int
    longest: int
    terminated: int
    truncated: int
    finite: int


@dataclass(frozen=True)
class Origins:
    """Who made the rows, from the provenance of all commits; each value with the number of rows it stands for.

    Nothing here names a host, a person or a folder as far as that can be told from the text, but for `people`: those
    who said who they are when they made rows.
    """

    people: Mapping[str, int]
    authors: tuple[str, ...]
    commands: Mapping[str, int]
    devices: Mapping[str, int]
    versions: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    first: str
    last: str


@dataclass(frozen=True)
class Facts:
    """All that a card says about the data set itself."""

    env: EnvIdentity
    format_version: int
    commits: int
    parts: int
    bytes: int
    rows: int
    withheld: int  # rows without parameters
    columns: tuple[str, ...]  # that at least one part has
    policies: tuple[PolicyFacts, ...]
    returns: Mapping[str, Float64[np.ndarray, " rows"]]  # source → mean return of each of its rows
    episodes: EpisodeFacts
    probes: Mapping[str, tuple[int, int]]  # probe id → number of probing states, rows with actions in them
    discounts: tuple[float, ...]
    origins: Origins
    licences: tuple[str, ...]  # of the data sets that the rows came from
    content_hash: str


@dataclass(frozen=True)
class Labels:
    """What people say about a data set: `description` is Markdown, `citation` BibTeX, `date` ISO 8601."""

    name: str
    title: str
    description: str
    licences: tuple[Licence, ...]
    authors: tuple[str, ...]
    citation: str
    url: str | None
    date: str


def gather(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Facts:
    """Reads the small columns and then, for the content hash, all of them. `progress(done, all)` counts parts,
    half for each."""
    tables = [dataset.table(item.id) for item in dataset.architectures]
    parts = sum(len(table.parts) for table in tables)
    tell = progress or (lambda done, of: None)
    returns: dict[str, list[np.ndarray]] = {}
    tallies: list[np.ndarray] = []
    for table in tables:
        for names, means, tally in _scan(table):
            for name, rows in names.items():
                returns.setdefault(name, []).append(means[rows])
            tallies.append(tally)
            tell(len(tallies) // 2, parts)
    digest = content_hash(dataset)
    tell(parts, parts)
    every = [part for table in tables for part in table.parts]
    probes: Counter[str] = Counter()
    states: dict[str, int] = {}
    for part in every:
        if part.entry.probe is not None:
            probes[part.entry.probe] += part.entry.rows
            states[part.entry.probe] = part.layout("probe_actions").shape[1]
    discounts = {part.group.attributes["discount"] for part in every}
    return Facts(
        env=dataset.env,
        format_version=dataset.format_version,
        commits=len(dataset.commits),
        parts=parts,
        bytes=sum(size for part in every for size, _ in part.entry.files.values()),
        rows=dataset.rows,
        withheld=sum(part.entry.rows for part in every if "params" not in part.names),
        columns=tuple(name for name in COLUMNS if any(name in part.names for part in every)),
        policies=tuple(_policy(table) for table in tables),
        returns=_largest_first({name: np.concatenate(values) for name, values in returns.items()}),
        episodes=_episodes(np.array(tallies)),
        probes={probe: (states[probe], rows) for probe, rows in probes.items()},
        discounts=tuple(sorted(float(value) for value in discounts if isinstance(value, (int, float)))),
        origins=_origins(dataset, tables),
        licences=inherited(record.provenance for record in dataset.commits),
        content_hash=digest,
    )


def _scan(table: Table) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    """For each part: the rows of each source, each row's mean return, and the numbers of `EpisodeFacts`."""
    words = table.vocabulary("source")
    columns = ("returns", "lengths", "terminated", "truncated", "finite", "source")
    for returns, lengths, terminated, truncated, finite, source in zip(*map(table.pieces, columns), strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            means = returns.mean(1, dtype=np.float64)
        episodes = returns.shape[1]
        flags = (int(terminated.sum()), int(truncated.sum()), int(finite.sum()))
        spans = (int(lengths.sum(dtype=np.int64)), int(lengths.min()), int(lengths.max()))
        groups = {words[index]: rows for index, rows in by_word(source)}
        yield groups, means, np.array([returns.size, episodes, episodes, *spans, *flags], np.int64)


def _largest_first(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _episodes(tallies: np.ndarray) -> EpisodeFacts:
    joins = (np.sum, np.min, np.max, np.sum, np.min, np.max, np.sum, np.sum, np.sum)
    return EpisodeFacts(*(int(join(tallies[:, column])) for column, join in enumerate(joins)))


def _policy(table: Table) -> PolicyFacts:
    spec = table.spec
    own = isinstance(spec, OwnSpec)
    computes = f"code of SHA-256 {spec.sha256[:12]}…" if own else f"{spec.activation}, then {spec.output}"
    return PolicyFacts(spec.id, one_line(spec, 60), computes, spec.size, table.rows)


def _origins(dataset: Dataset, tables: list[Table]) -> Origins:
    people: Counter[str] = Counter()
    authors: Counter[str] = Counter()
    commands: Counter[str] = Counter()
    versions: dict[str, dict[str, None]] = {}
    seeds: dict[int, None] = {}
    for value, rows in itertools.islice(_provenances(dataset), MAX_ORIGINS):
        command, seed, found = value.get("command"), value.get("seed"), value.get("versions")
        if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
            commands[public_command(command)] += rows
        if type(seed) is int:
            seeds.setdefault(seed)
        stated = value.get("who")
        if isinstance(stated, dict) and "origins" not in value and "rows_of" not in value:  # who made them first
            said = [one_line(stated[key]) for key in WHO if isinstance(stated.get(key), str)]
            people[", ".join(said)] += rows
            authors.update({said[0]: rows} if isinstance(stated.get("author"), str) else {})
        for package, version in found.items() if isinstance(found, dict) else ():
            if isinstance(version, str):
                versions.setdefault(one_line(package, 40), {}).setdefault(public(one_line(version, 40)))
    devices: Counter[str] = Counter()
    for part in (part for table in tables for part in table.parts):
        simulation = part.group.attributes["simulation"]
        if isinstance(simulation, dict):
            said = [
                f"{key.replace('_', ' ')} {one_line(simulation[key], 60)}" for key in _SIMULATION if key in simulation
            ]
            devices[public(", ".join(said))] += part.entry.rows
    dates = [
        found[0] for record in dataset.commits if (found := re.match(r"\d{4}-\d\d-\d\d", record.created, re.ASCII))
    ]
    return Origins(
        dict(people.most_common()),
        tuple(name for name, _ in authors.most_common()),
        dict(commands.most_common()),
        dict(devices.most_common()),
        {package: tuple(found) for package, found in sorted(versions.items())},
        tuple(seeds),
        min(dates, default=""),
        max(dates, default=""),
    )


def _provenances(dataset: Dataset) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every provenance with its rows: those of commits, and inside them those of the data sets they came from."""
    for record in dataset.commits:
        yield record.provenance, record.rows
        for item, inner in descent(record.provenance):
            count = item.get("rows")
            yield inner, count if type(count) is int and 0 <= count <= dataset.rows else 0
