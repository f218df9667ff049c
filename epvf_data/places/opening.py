"""From an address to the place."""

from __future__ import annotations

import os

from epvf_data.errors import ConfigError
from epvf_data.places.address import Address, folder
from epvf_data.places.archive import MANIFEST, ArchivePlace
from epvf_data.places.base import FolderPlace, Place, Store
from epvf_data.places.objects import ObjectPlace


def open_place(address: Address) -> Place:
    """A place to read. Raises ConfigError where a package is missing that it needs, or the address makes no sense."""
    if address.scheme != "file":
        return ObjectPlace(address)
    root = folder(address)
    return ArchivePlace(root) if os.path.lexists(root / MANIFEST) else FolderPlace(root)


def open_store(address: Address) -> Store:
    """A place to write that is no folder. Raises ConfigError as `open_place` does, and where it can only be read."""
    place = ObjectPlace(address)
    if not place.writable:
        raise ConfigError(
            f"{address.shown} can only be read: a web server takes no files; push into a folder or a bucket, "
            "and let the server show that."
        )
    return place
