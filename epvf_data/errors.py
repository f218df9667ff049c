"""Every error a user can cause. Each message is one sentence: what was got, what was expected, and the cure."""


class EpvfError(Exception):
    """Base of all errors below; the command line prints its message and exits with 1."""


class ConfigError(EpvfError):
    """An option, configuration key or policy specification is wrong."""


class EnvironmentMismatchError(EpvfError):
    """Rows, a policy or a data set belong to another environment than the one at hand."""


class ArchitectureMismatchError(EpvfError):
    """Parameters or rows belong to another policy architecture than the one at hand."""


class DatasetError(EpvfError):
    """A data set is missing, unreadable, of an unknown version, or refuses an operation."""


class CorruptDatasetError(DatasetError):
    """Stored bytes contradict their checksum, their size or the metadata."""


class UnsafeDatasetError(DatasetError):
    """A data set holds something that a data set has no business to hold; nothing of it was read."""


class StorageError(EpvfError):
    """The disk refused a write; what was committed before is untouched."""


class BackendError(EpvfError):
    """A physics backend cannot run this environment on this machine."""


class RunError(EpvfError):
    """A run directory is missing, incomplete, or belongs to other settings."""


def reason(error: Exception) -> str:
    """What the system says of a call that it refused, in words and without a number."""
    told = getattr(error, "strerror", None) or str(error)
    return "the file system does not support this" if told.startswith("Unknown error") else told
