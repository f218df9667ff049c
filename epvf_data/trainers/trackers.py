"""Where metrics go beside metrics.jsonl: TensorBoard files, Weights & Biases, Trackio, all through one interface."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from epvf_data.config import check_one_of
from epvf_data.errors import RunError, StorageError, reason, require
from epvf_data.untrusted import printable

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
PROJECT = "epvf-data"


class Tracked(NamedTuple):
    """The run that is followed."""

    directory: Path
    identity: str  # the same when the run goes on
    settings: Mapping[str, Any]
    resumed_at: int  # the step after which it goes on; 0 at its start


class Tracker(Protocol):
    """A writer of metrics. Each series, such as one seed, is a curve of its own."""

    def begin(self, series: str) -> None:
        """Makes room for a series. Raises RunError where the service refuses."""
        ...

    def write(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """Adds finite numbers, by name, at a step. Raises StorageError where the disk refuses."""
        ...

    def close(self) -> None:
        """Ends all series; what was written stays."""
        ...


def parse(text: str) -> tuple[str, ...]:
    """The names in "tensorboard,wandb"; "none" is no tracker. Raises ConfigError for others."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        check_one_of("tracker", name, (*PACKAGES, "none"))
    return tuple(dict.fromkeys(name for name in names if name != "none"))


def check(names: Sequence[str]) -> None:
    """Raises ConfigError for an unknown tracker, MissingPackageError where its package is not installed."""
    for name in names:
        check_one_of("tracker", name, PACKAGES)
        require(PACKAGES[name])


def open_trackers(names: Sequence[str], run: Tracked, series: Iterable[str] = ()) -> list[Tracker]:
    """The trackers of these names; series that are not known yet begin with their first line.

    Raises as `check` and `Tracker.begin` do.
    """
    check(names)
    kinds = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}
    found: list[Tracker] = [kinds[name](run) for name in names]
    for one in series:
        for tracker in found:
            tracker.begin(one)
    return found


Progress = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def epochs(names: Sequence[str], run: Tracked, progress: Progress | None) -> Iterator[Progress | None]:
    """Inside the block, a `progress` of offline training that hands each epoch's numbers, means over critics, to the
    trackers first; a series is a split. Without trackers it is `progress` itself."""
    opened = open_trackers(names, run)

    def both(event: dict[str, Any]) -> None:
        means = {name: sum(value) / len(value) for name, value in event.items() if isinstance(value, list)}
        for tracker in opened:
            tracker.write(event["split"], event["epoch"], means)
        if progress is not None:
            progress(event)

    try:
        yield both if opened else progress
    finally:
        for tracker in opened:
            tracker.close()


class TensorBoard:
    """Event files in `tensorboard/SERIES` of the run. `tensorboard --logdir RUN` shows them."""

    def __init__(self, run: Tracked):
        self.run, self.writers = run, {}

    def write(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """One event with all numbers, written at once: the library's own thread would die of a full disk and leave us
        waiting for it."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self.begin(series)
        with self._disk():
            self.writers[series].write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self.writers[series].flush()

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the TensorBoard files in {self.run.directory} could not be written ({reason(error)})."
            ) from error

    def begin(self, series: str) -> None:
        """The series' event file; of a resumed run, a new one that takes back what a kill undid."""
        if series in self.writers:
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder = self.run.directory / "tensorboard" / series
        with self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            writer = self.writers[series] = EventsWriter(str(folder / "events"))
            if self.run.resumed_at:
                start = SessionLog(status=SessionLog.START)
                writer.write_event(Event(wall_time=time.time(), step=self.run.resumed_at + 1, session_log=start))

    def close(self) -> None:
        for writer in self.writers.values():
            with contextlib.suppress(OSError):  # every event was flushed when it was written
                writer.close()


class Service:
    """A library that has a run of its own for each series, grouped by the run directory."""

    NAME, CURE = "", ""  # for messages

    def __init__(self, run: Tracked):
        self.run, self.folder, self.runs = run, run.directory.absolute(), {}

    def open(self, series: str, **about: Any) -> Any:
        """The library's run; `about` are the words that all of them take."""
        raise NotImplementedError

    def begin(self, series: str) -> None:
        if series in self.runs:
            return
        about = {"name": f"{self.folder.name}-{series}", "group": self.folder.name, "config": dict(self.run.settings)}
        with _said_on_stderr(), _refused(self.NAME, self.CURE):
            self.runs[series] = self.open(series, **about, resume="allow")

    def write(self, series: str, step: int, values: Mapping[str, float]) -> None:
        self.begin(series)
        self.runs[series].log(dict(values), step=step)

    def close(self) -> None:
        with _said_on_stderr():
            for found in self.runs.values():
                found.finish()


class Wandb(Service):
    """Weights & Biases, all of whose files lie in the run's `wandb/`.

    WANDB_MODE=offline keeps everything there, for `wandb sync`. WANDB_PROJECT and the other variables mean what they
    always do.
    """

    NAME, CURE = "Weights & Biases", "`wandb login`, or set WANDB_MODE=offline"
    FOLDERS = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")

    def open(self, series: str, **about: Any) -> Any:
        for name in self.FOLDERS:
            os.environ.setdefault(name, str(self.folder / "wandb" / name.split("_")[1].lower()))
        import wandb  # pyright: ignore[reportMissingImports]

        found = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=hashlib.sha256(f"{self.run.identity}/{self.folder}/{series}".encode()).hexdigest()[:16],
            reinit="create_new",
            dir=str(self.folder),
            settings=wandb.Settings(symlink=False, silent=True, console="off", save_code=False, disable_git=True),
            **about,
        )
        self._unlink()
        return found

    def _unlink(self) -> None:
        """Removes the links to log files that the library makes: a run directory holds none."""
        for path in (self.folder / "wandb").rglob("*"):
            if path.is_symlink():
                path.unlink(missing_ok=True)

    def close(self) -> None:
        super().close()
        if self.runs:
            self._unlink()


class Trackio(Service):
    """Trackio, whose files lie in the run's `trackio/`, or where TRACKIO_DIR says."""

    NAME, CURE = "Trackio", "look at TRACKIO_DIR and TRACKIO_SPACE_ID"

    def open(self, series: str, **about: Any) -> Any:
        os.environ.setdefault("TRACKIO_DIR", str(self.folder / "trackio"))  # it would write into the home folder
        import trackio  # pyright: ignore[reportMissingImports]

        return trackio.init(project=os.environ.get("TRACKIO_PROJECT", PROJECT), embed=False, **about)

    def close(self) -> None:
        super().close()
        if self.runs:  # as Python ends it says that once more, and the last line of stdout is ours
            atexit.register(lambda: contextlib.redirect_stdout(sys.stderr).__enter__())


@contextlib.contextmanager
def _said_on_stderr() -> Iterator[None]:
    """What a library prints is progress."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _refused(name: str, cure: str) -> Iterator[None]:
    """Whatever a service's library raises when a run begins is one sentence."""
    try:
        yield
    except Exception as error:
        told = printable(" ".join(str(error).split()), 300)
        raise RunError(f"{name} cannot begin a run ({type(error).__name__}: {told}); {cure}, and go on.") from error
