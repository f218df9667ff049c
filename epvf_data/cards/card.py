"""A card for a data set: README.md, croissant.json and returns.png, ready for a hub."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epvf_data import pictures, untrusted
from epvf_data.cards.croissant import describe, listed_files, live_files
from epvf_data.cards.facts import Facts, Labels, gather
from epvf_data.cards.histogram import draw_returns
from epvf_data.cards.readme import MARK, readme
from epvf_data.cards.words import code, latex, many_lines, one_line, slug
from epvf_data.errors import ConfigError, DatasetError, UnsafeDatasetError
from epvf_data.store import licences
from epvf_data.store.durable import discard, flush, inner, move, open_folder, storage_errors, write_file
from epvf_data.store.folders import CARD, ROOT, STAGING
from epvf_data.store.reader import Dataset
from epvf_data.store.reader import open as open_dataset

README, CROISSANT, PICTURE = CARD
_URL = re.compile(r"https?://[^\s<>\"'`\\{}]{1,500}")


@dataclass(frozen=True)
class CardReport:
    """Where the card is, and what it says: rows, the content hash, how many of the files are listed with a hash."""

    dataset: str
    out: str
    files: tuple[str, ...]
    rows: int
    content_hash: str
    files_listed: int
    files_all: int
    licences: tuple[str, ...]


def write_card(
    dataset_path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    license: str | None = None,
    authors: Sequence[str] = (),
    title: str | None = None,
    citation: str | None = None,
    url: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CardReport:
    """Writes a card into the folder `out`: the data set's own unless one is given.

    `name` is one word for the data set (its folder's), `citation` BibTeX (or it is made from title, authors and url);
    `authors` are those who said in the commits that they made rows, unless others are named. `license` is an SPDX
    identifier; without it, the card that is there keeps its own, a data set made of others lists all of theirs, and
    only then it is CC-BY-4.0. Another one than these needs `force`. Each file gets its name when it is whole and on the
    disk. `progress(done, all)` counts parts, half for each of two passes. Memory: the small columns of one part, and
    some 20 bytes a row.

    Raises ConfigError for an unknown licence or an odd url, DatasetError for a data set without rows, where a file of
    that name is not a card of ours and where another licence would go, StorageError if the disk refuses.
    """
    wanted = None if license is None else licences.licence(license)
    if url is not None and not _URL.fullmatch(url):
        raise ConfigError(f"the url is {one_line(url, 80)!r}; give one that begins with https:// and has no spaces.")
    dataset = open_dataset(dataset_path)
    if not dataset.rows:
        raise DatasetError(f"{dataset.path} holds no rows yet; collect some before you describe them.")
    folder = dataset.path.absolute().name or dataset.path.resolve().name
    target = dataset.path if out is None else Path(out)
    _check_free(target)
    chosen = _licences(dataset, target, wanted, force)
    facts = gather(dataset, progress)
    name = one_line(name or folder.removesuffix(".zarr") or "dataset", 80)
    title = one_line(title or f"{name}: policies for {one_line(facts.env.name, 60)} and their returns")
    date = facts.origins.last or datetime.now(UTC).date().isoformat()
    authors = tuple(authors) or facts.origins.authors
    cite = many_lines(citation) if citation else bibtex(name, title, authors, date, url)
    labels = Labels(name, title, _description(facts), chosen, authors, cite, url, date)
    files = live_files(dataset)
    contents = {
        PICTURE: pictures.encode(draw_returns(facts.env.name, facts.returns)),
        CROISSANT: _json(describe(files, facts, labels)),
        README: readme(facts, labels, folder).encode("utf-8", "replace"),
    }
    _publish(target, contents)
    listed = len(listed_files(files))
    written = tuple(str(target / file) for file in (README, CROISSANT, PICTURE))
    names = tuple(licence.spdx for licence in chosen)
    return CardReport(
        str(dataset.path), str(target), written, facts.rows, facts.content_hash, listed, len(files), names
    )


def _licences(
    dataset: Dataset, target: Path, wanted: licences.Licence | None, force: bool
) -> tuple[licences.Licence, ...]:
    """The licences of a new card. Raises DatasetError where it would replace or drop one without `force`."""
    there = tuple(dict.fromkeys((*dataset.licences, *licences.of_card(target))))
    if wanted is None:
        return tuple(map(licences.known, there or [licences.DEFAULT]))
    if {*there} - {wanted.spdx} and not force:
        raise DatasetError(
            f"{dataset.path} is under {', '.join(there)}, as its card or those of its sources say; leave --license out "
            f"to keep that, or add --force to put it under {wanted.spdx} all the same."
        )
    return (wanted,)


def _json(value: Mapping[str, Any]) -> bytes:
    """With "<" as an escape: the text may be put into a page's <script> as it is."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f"{text}\n".encode("utf-8", "replace")


def bibtex(name: str, title: str, authors: Sequence[str], date: str, url: str | None) -> str:
    """An entry that cites the data set; nothing in the values can end it."""
    fields = {"title": f"{{{latex(title)}}}", "year": date[:4]}
    if authors:
        fields["author"] = " and ".join(latex(author.replace(" and ", " And ")) for author in authors)
    if url is not None:
        fields["howpublished"] = f"\\url{{{url}}}"
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items()]
    return "\n".join([f"@misc{{{slug(name) or 'dataset'}-{date[:4]},", *lines, "}"])


def _description(facts: Facts) -> str:
    """What it is, in Markdown."""
    probes = ", its actions in a set of probing states" if facts.probes else ""
    episodes = "episode" if facts.episodes.most == 1 else "episodes"
    return (
        f"{facts.rows:,} policies for the environment {code(facts.env.name, 80)}, each as a flat vector of parameters "
        f"with the return of its {episodes}{probes} and the way it was generated. "
        "It is made for explicit policy-conditioned value functions: critics V(θ) that read a policy's parameters and "
        "predict its return, and with which better parameters can be found by gradient ascent."
    )


def _check_free(target: Path) -> None:
    """Refuses to replace files that nobody made with this command."""
    there = [name for name in (README, CROISSANT, PICTURE) if os.path.lexists(target / name)]
    if not there:
        return
    try:
        with untrusted.open_regular(target / README) as descriptor:
            ours = MARK.encode() in os.read(descriptor, 1 << 16)
    except (DatasetError, UnsafeDatasetError):
        ours = False
    if not ours:
        raise DatasetError(
            f"{target / there[0]} is there and was not written by this command; move it away or give another folder."
        )


def _publish(target: Path, contents: Mapping[str, bytes]) -> None:
    """Writes all files under other names, flushes them, and then gives each its own; the README comes last."""
    drafts = {name: f".{name}.{uuid.uuid4().hex}" for name in contents}
    with storage_errors(target, "writing the card"), contextlib.ExitStack() as stack:
        target.mkdir(parents=True, exist_ok=True)
        folder = there = stack.enter_context(open_folder(target))
        if folder.status(ROOT) and folder.status(STAGING):
            # A data set's: what a killed process leaves there is collected with other garbage.
            there = stack.enter_context(inner(folder, STAGING))
        try:
            for name, data in contents.items():
                write_file(there, drafts[name], [data], durable=True)
            for name, draft in drafts.items():
                move(draft, there, folder, name)
        finally:
            for draft in drafts.values():
                discard(there, draft)
        flush(folder)
