"""Licences of data sets: SPDX identifiers, what the Hugging Face hub calls them, and which one a card states."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epvf_data import untrusted
from epvf_data.errors import ConfigError, DatasetError, UnsafeDatasetError
from epvf_data.store.folders import CARD

DEFAULT = "CC-BY-4.0"
MAX_STATED = 100  # licences of one data set
_HEAD = 1 << 16  # bytes of a README in which its front matter ends
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,59}", re.ASCII)
_SPDX = "https://spdx.org/licenses/"

_HUB: Mapping[str, str] = {
    "CC0-1.0": "cc0-1.0",
    "CC-BY-2.0": "cc-by-2.0",
    "CC-BY-3.0": "cc-by-3.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-3.0": "cc-by-sa-3.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC-BY-NC-3.0": "cc-by-nc-3.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-NC-SA-3.0": "cc-by-nc-sa-3.0",
    "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
    "CC-BY-ND-4.0": "cc-by-nd-4.0",
    "CC-BY-NC-ND-4.0": "cc-by-nc-nd-4.0",
    "ODbL-1.0": "odbl",
    "ODC-By-1.0": "odc-by",
    "PDDL-1.0": "pddl",
    "CDLA-Permissive-1.0": "cdla-permissive-1.0",
    "CDLA-Permissive-2.0": "cdla-permissive-2.0",
    "CDLA-Sharing-1.0": "cdla-sharing-1.0",
    "C-UDA-1.0": "c-uda",
    "etalab-2.0": "etalab-2.0",
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "BSD-3-Clause-Clear": "bsd-3-clause-clear",
    "ISC": "isc",
    "Zlib": "zlib",
    "BSL-1.0": "bsl-1.0",
    "NCSA": "ncsa",
    "AFL-3.0": "afl-3.0",
    "Artistic-2.0": "artistic-2.0",
    "ECL-2.0": "ecl-2.0",
    "EPL-2.0": "epl-2.0",
    "EUPL-1.2": "eupl-1.2",
    "MPL-2.0": "mpl-2.0",
    "MS-PL": "ms-pl",
    "OSL-3.0": "osl-3.0",
    "GPL-2.0-only": "gpl-2.0",
    "GPL-2.0-or-later": "gpl-2.0",
    "GPL-3.0-only": "gpl-3.0",
    "GPL-3.0-or-later": "gpl-3.0",
    "LGPL-3.0-only": "lgpl-3.0",
    "LGPL-3.0-or-later": "lgpl-3.0",
    "AGPL-3.0-only": "agpl-3.0",
    "AGPL-3.0-or-later": "agpl-3.0",
    "GFDL-1.3-or-later": "gfdl",
    "Unlicense": "unlicense",
    "WTFPL": "wtfpl",
}


@dataclass(frozen=True)
class Licence:
    """A licence: its SPDX identifier and the hub's name for it."""

    spdx: str
    hub: str

    @property
    def url(self) -> str:
        """Where its text is, or its name where it is not in the list."""
        return f"{_SPDX}{self.spdx}" if self.spdx in _HUB else self.spdx


def licence(name: str) -> Licence:
    """The licence with an SPDX identifier, in any case. Raises ConfigError for one that is not in the list."""
    by_name = {spdx.lower(): spdx for spdx in _HUB}
    spdx = by_name.get(name.lower())
    if spdx is None:
        near = difflib.get_close_matches(name[:40].lower(), by_name, 1)
        hint = (
            f"did you mean {by_name[near[0]]}" if near else "common ones are CC-BY-4.0, CC0-1.0, ODbL-1.0, Apache-2.0"
        )
        raise ConfigError(f"the licence {name[:40]!r} is not an SPDX identifier of this list; {hint}?")
    return Licence(spdx, _HUB[spdx])


def known(name: str) -> Licence:
    """The licence of this name; one that is not in the list is "other" to the hub."""
    return Licence(name, _HUB.get(name, "other"))


def names(values: Any) -> tuple[str, ...]:
    """Those of some values, maybe a stranger's, that can be names of licences, each once."""
    listed = values if isinstance(values, list | tuple) else []
    return tuple(dict.fromkeys(one for one in listed[:MAX_STATED] if isinstance(one, str) and _WORD.fullmatch(one)))


def of_card(folder: Path) -> tuple[str, ...]:
    """The licences that the card in a folder states, whoever wrote it; none where there is no card."""
    readme, croissant = (_text(folder / name) for name in CARD[:2])
    said = re.search(r'"license":\s*(\[[^\]]*\]|"[^"]*")', croissant)
    spdx = names([url.removeprefix(_SPDX) for url in re.findall(r'"([^"]+)"', said[1])]) if said else ()
    front = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    lines = re.search(r"^license:(.*(?:\n *- .*)*)", front[1], re.MULTILINE) if front else None
    hub = names(re.split(r"[\s\[\],\"']+|(?<!\S)-(?!\S)", lines[1])) if lines else ()
    if not hub or {*hub} == {known(name).hub for name in spdx}:
        return spdx
    return tuple(next((name for name, called in _HUB.items() if called == one), one) for one in hub)


def inherited(provenances: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The licences of the data sets that rows came from, as the commits that brought them say."""
    return tuple(dict.fromkeys(name for value in provenances for name in names(value.get("licences"))))[:MAX_STATED]


def _text(path: Path) -> str:
    with contextlib.suppress(DatasetError, UnsafeDatasetError), untrusted.open_regular(path) as descriptor:
        return os.read(descriptor, _HEAD).decode(errors="replace")
    return ""
