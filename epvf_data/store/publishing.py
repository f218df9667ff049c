"""A flushed draft gets its final name, only if nobody has that name: in whichever way the file system knows."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable

from epvf_data.errors import StorageError, reason
from epvf_data.outputs import UNKNOWN
from epvf_data.store.durable import Folder, discard

_REFUSED = {*UNKNOWN, errno.EMLINK, errno.EXDEV}
_NO_EXCHANGE = 1  # renameat2's flag RENAME_NOREPLACE


class Refused(Exception):
    """The file system does not know this way; the draft is where it was. The cause is what it answered."""


def link(draft: str, folder: Folder, target: Folder, final: str) -> bool:
    """A second name, which must be free, then the first one goes. False if it is taken. Raises Refused."""
    try:
        os.link(draft, final, src_dir_fd=folder.descriptor, dst_dir_fd=target.descriptor, follow_symlinks=False)
    except OSError as error:
        # A network file system may report an error for a link that it has made.
        mine, there = folder.status(draft), target.status(final)
        if mine is None or there is None or not os.path.samestat(mine, there):
            if isinstance(error, FileExistsError):
                return False
            if error.errno not in _REFUSED:
                raise
            raise Refused from error
    made = target.status(final)
    if made is not None and stat.S_ISLNK(made.st_mode):  # as BeeGFS can be told to make of hard links
        os.unlink(final, dir_fd=target.descriptor)
        raise Refused from OSError(errno.EOPNOTSUPP, "a hard link comes back as a symbolic one")
    with contextlib.suppress(OSError):
        os.unlink(draft, dir_fd=folder.descriptor)  # readers cope with a draft that stays
    return True


def link_beside(draft: str, folder: Folder, target: Folder, final: str) -> bool:
    """The same where hard links stay within one folder (AFS, BeeGFS): the draft moves there first.

    Its name there ends with ~, which readers overlook: a process that is killed in between leaves it behind.
    """
    near = f"{draft}~"
    os.rename(draft, near, src_dir_fd=folder.descriptor, dst_dir_fd=target.descriptor)
    try:
        made = link(near, target, target, final)
    except BaseException:
        os.rename(near, draft, src_dir_fd=target.descriptor, dst_dir_fd=folder.descriptor)
        raise
    if not made:
        discard(target, near)
    return made


def rename_new(draft: str, folder: Folder, target: Folder, final: str) -> bool:
    """Without hard links, which exFAT and some network file systems lack: a rename that replaces nothing."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = (folder.descriptor, os.fsencode(draft), target.descriptor, os.fsencode(final))
    if rename is not None and rename(*names, ctypes.c_uint(_NO_EXCHANGE)) == 0:
        return True
    if rename is not None and ctypes.get_errno() == errno.EEXIST:
        return False
    number = ctypes.get_errno() if rename is not None else errno.ENOSYS
    raise Refused from OSError(number, os.strerror(number))


WAYS: dict[str, Callable[[str, Folder, Folder, str], bool]] = {
    "a hard link": link,
    "a hard link inside the folder": link_beside,
    "a rename that replaces nothing": rename_new,
}


def publish(draft: str, folder: Folder, target: Folder, final: str) -> bool:
    """Gives a flushed draft its final name, only if nobody has that name; the draft's name goes. False if taken.

    Raises StorageError where the file system has no way to do that.
    """
    first: BaseException | None = None
    for way in WAYS.values():
        try:
            return way(draft, folder, target, final)
        except Refused as refused:
            first = first or refused.__cause__
    assert isinstance(first, OSError)
    raise StorageError(
        f"the file system of {target.path} knows neither hard links ({reason(first)}) nor renames that replace "
        "nothing, so that no commit can be safe there; choose a place on another one."
    ) from first
