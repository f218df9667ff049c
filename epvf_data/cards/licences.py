"""Licences that a data set may be given: SPDX identifiers and what the Hugging Face hub calls them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from epvf_data.errors import ConfigError

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
        """Where its text is."""
        return f"https://spdx.org/licenses/{self.spdx}"


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
