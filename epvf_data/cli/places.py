"""Data sets on a command line: folders, or URLs where they are only read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epvf_data.errors import ConfigError
from epvf_data.places.address import is_url, without_secrets


def readable(text: str) -> Path:
    """The folder of a data set; of a URL the one that stands for it here, whose files come when they are read."""
    if not is_url(text):
        return Path(text)
    from epvf_data.store.afar import open_url

    return open_url(text)


def own(text: str) -> Path:
    """The folder of a data set that is changed. Raises ConfigError for a URL."""
    if is_url(text):
        raise ConfigError(f"{without_secrets(text)} can only be read; `epvf-data pull` it, and name the folder.")
    return Path(text)


Dataset = Annotated[
    Path, typer.Argument(help="The data set's folder or URL.", show_default=False, parser=readable, metavar="DATASET")
]
Own = Annotated[Path, typer.Argument(help="The data set's folder.", show_default=False, parser=own, metavar="DATASET")]
