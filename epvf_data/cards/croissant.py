"""Describes a data set as Croissant 1.0 JSON-LD: what it is, which files with which hashes, which columns.

A large data set has tens of thousands of files. Up to MAX_OBJECTS are listed with their SHA-256: all of them if there
are no more; else the root, the last commit record, and then the largest. That record's hash covers the rest, since each
record holds the hashes of its parts' files and that of the record before it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epvf_data.cards.facts import MEANING, Facts, Labels
from epvf_data.cards.words import one_line
from epvf_data.store.commit import record_path
from epvf_data.store.folders import COMMITS, PARTS, PROBES, ROOT
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import COLUMNS

MAX_OBJECTS = 2_000
_JSON = "application/json"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True)
class File:
    """One file of a data set: path from the root, size in bytes, SHA-256."""

    path: str
    size: int
    sha256: str


def live_files(dataset: Dataset) -> list[File]:
    """The root, the commit records, and the files of live parts and their probing states; hashes from the records."""
    root, found = dataset.path, []
    if dataset.commits:
        found.append(File(ROOT, os.stat(root / ROOT).st_size, dataset.commits[0].root))  # noqa: PTH116
    for record in dataset.commits:
        path = record_path(root, record.number)
        found.append(File(f"{COMMITS}/{path.name}", path.stat().st_size, record.sha256))
    probes = {name: files for record in dataset.commits for name, files in record.probes.items()}
    for part in dataset.parts:
        found += [File(f"{PARTS}/{part.entry.id}/{name}", *value) for name, value in sorted(part.entry.files.items())]
    for name in sorted({part.entry.probe for part in dataset.parts if part.entry.probe is not None}):
        found += [File(f"{PROBES}/{name}/{file}", *value) for file, value in sorted(probes[name].items())]
    return found


def listed_files(files: Sequence[File], most: int = MAX_OBJECTS) -> list[File]:
    """Those that the description lists one by one, in the same order."""
    if len(files) <= most:
        return list(files)
    records = [file for file in files if file.path.startswith(f"{COMMITS}/")]
    anchors = [file for file in files if file.path == ROOT] + records[-1:]
    rest = sorted((file for file in files if file not in anchors), key=lambda file: (-file.size, file.path))
    kept = {file.path for file in (*anchors, *rest)[:most]}
    return [file for file in files if file.path in kept]


def describe(files: Sequence[File], facts: Facts, labels: Labels) -> dict[str, Any]:
    """The JSON-LD object. `files` are those of `live_files`."""
    urls = [licence.url for licence in labels.licences]
    value: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": labels.name,
        "alternateName": labels.title,
        "description": labels.description.replace("`", ""),
        "license": urls[0] if len(urls) == 1 else urls,
        "citeAs": labels.citation,
        "datePublished": labels.date,
        "version": f"{facts.format_version}.{facts.commits}.0",
        "keywords": ["reinforcement learning", "policy-conditioned value functions", one_line(facts.env.name)],
        "isLiveDataset": False,
        "distribution": [*map(_file_object, listed_files(files)), *_file_sets()],
        "recordSet": [_record_set(facts)],
    }
    if labels.url is not None:
        value["url"] = labels.url
    if labels.authors:
        value["creator"] = [{"@type": "sc:Person", "name": one_line(author)} for author in labels.authors]
    return value


def _file_object(file: File) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": _JSON if file.path.endswith(".json") else "application/octet-stream",
        "sha256": file.sha256,
    }


def _file_sets() -> list[dict[str, Any]]:
    """All files by pattern, also those that are too many to list."""
    records = (
        "The commit records, in JSON: they name the parts that count, and the size and SHA-256 of each of their files"
    )
    parts = "The rows: each folder is a Zarr v3 group with one array a column"
    return [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": description,
            "includes": pattern,
            "encodingFormat": encoding,
        }
        for name, description, pattern, encoding in (
            (COMMITS, records, f"{COMMITS}/[0-9]*.json", _JSON),
            (PARTS, parts, f"{PARTS}/**", "application/vnd.zarr; version=3"),
        )
    ]


def _record_set(facts: Facts) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "policies",
        "name": "policies",
        "description": f"{facts.rows} policies with what their rollouts gave, one a record.",
        "field": [_field(column) for column in facts.columns],
    }


def _field(column: str) -> dict[str, Any]:
    layout = COLUMNS[column]
    kind = np.dtype(layout.dtype).kind
    shape = " × ".join(layout.dims[1:])
    return {
        "@type": "cr:Field",
        "@id": f"policies/{column}",
        "name": column,
        "description": f"{MEANING[column]}; {layout.dtype}{f' [{shape}]' if shape else ''}",
        "dataType": {"f": "sc:Float", "b": "sc:Boolean"}.get(kind, "sc:Integer"),
        **({"repeated": True} if shape else {}),
        "source": {"fileSet": {"@id": PARTS}, "extract": {"column": column}},
    }
