"""Every error a user can cause. Each message is one sentence: what was got, what was expected, and the cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec


class EpvfError(Exception):
    """Base of all errors below; the command line prints its message and exits with `exit_code`."""

    exit_code = 1  # something on the disk or the machine is not as it must be


class EpvfWarning(UserWarning):
    """What a user should know and need not change; the command line prints its message."""


class ConfigError(EpvfError):
    """An option, configuration key or policy specification is wrong."""

    exit_code = 2  # what was asked for cannot be, wherever it is asked


class FileError(ConfigError):
    """A file that was named, with a policy for example, is not there or holds something else."""

    exit_code = 1


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


class RowsTakenError(DatasetError):
    """A commit would hold rows of a run that another commit holds; nothing of it was added."""


class StorageError(EpvfError):
    """The disk refused a write; what was committed before is untouched."""


class TransferError(EpvfError):
    """A server, or the way to it, did not do what it was asked; what is here already stays, and the command goes on."""


class RefusedError(TransferError):
    """A server answered, and asking again would give the same answer."""


class BackendError(EpvfError):
    """A physics backend cannot run this environment on this machine."""


class MissingPackageError(EpvfError, ImportError):
    """A package that is not part of the small installation is missing, or cannot be imported."""


class RunError(EpvfError):
    """A run directory is missing, incomplete, or belongs to other settings."""


# The extra that brings a package; what is not here comes with every installation.
EXTRAS = {
    **dict.fromkeys(
        ("jax", "jaxlib", "flax", "optax", "orbax", "tensorstore", "scipy", "mujoco", "tensorboardX"), "train"
    ),
    **{"matplotlib": "plot", "av": "render", "PIL": "render", "pandas": "pandas", "torch": "torch"},
    **{
        "obstore": "s3",
        "huggingface_hub": "hub",
        "pyarrow": "parquet",
        "model_signing": "signing",
        "submitit": "slurm",
        "ray": "ray",
        "wandb": "wandb",
        "trackio": "trackio",
    },
    **{"brax": "baselines", "evosax": "baselines", "mujoco_playground": "playground"},
}


@contextlib.contextmanager
def extra(name: str | None = None) -> Iterator[None]:
    """Where packages of an extra are imported: one that is missing is a MissingPackageError that names the extra.

    With a `name`, whatever cannot be imported inside comes with that extra; without, `EXTRAS` tells.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        wanted = name or EXTRAS.get(package)
        if wanted is None or isinstance(error, EpvfError):
            raise
        missing = isinstance(error, ModuleNotFoundError)
        told = f"{error.name} is not installed" if missing else f"a package cannot be imported ({error})"
        raise MissingPackageError(f"{told}; install the extra: pip install 'epvf-data[{wanted}]'.") from error


def require(package: str) -> None:
    """Raises MissingPackageError unless the package is installed; nothing is imported."""
    with extra():
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


class StoppedError(EpvfError):
    """Work was stopped by Ctrl-C or a signal, and nothing is wrong: the message says what is kept and how to go on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again. A scheduler can tell it from a failure


@contextlib.contextmanager
def of_file() -> Iterator[None]:
    """Where a named file is read: what is wrong with its contents is a FileError."""
    try:
        yield
    except ConfigError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(str(error)) from error


def reason(error: Exception) -> str:
    """What the system says of a call that it refused, in words and without a number."""
    told = getattr(error, "strerror", None) or str(error)
    return "the file system does not support this" if told.startswith("Unknown error") else told
