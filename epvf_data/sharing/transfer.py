"""What push and pull share: which folders a chain of records needs, and how they go over side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from epvf_data.store.commit import CommitRecord, live_parts
from epvf_data.store.folders import PARTS, PROBES, Files
from epvf_data.store.meter import Meter
from epvf_data.store.schema import COLUMNS, PROBE_STATES, Column

WORKERS = 8
_AHEAD = 4 * WORKERS  # folders that are on their way at most


class Group(NamedTuple):
    """A folder that goes over: `parts` or `probes`, its name, its files."""

    kind: str
    name: str
    files: Files

    @property
    def path(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def columns(self) -> Mapping[str, Column]:
        """The arrays that such a folder may hold."""
        return COLUMNS if self.kind == PARTS else {"states": PROBE_STATES}

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


class Step(NamedTuple):
    """A record that goes over after these folders; `whole`: after it the data set lacks nothing."""

    record: CommitRecord
    groups: list[Group]
    whole: bool


def steps(records: Sequence[CommitRecord], have: int) -> list[Step]:
    """What goes over of a chain whose first `have` records are there.

    Parts that a later record of the chain removes stay behind: they may be gone. Between the record that adds such a
    part and the one that removes it the copy lacks something, so these are published in one go.
    """
    live = {part.id for part in live_parts(records)}
    lacking: set[str] = set()
    seen: set[str] = {probe for record in records[:have] for probe in record.probes}
    found = []
    for record in records[have:]:
        wanted = [part for part in record.add if part.id in live]
        lacking |= {part.id for part in record.add} - live
        lacking -= {*record.remove}
        probes = {part.probe for part in wanted if part.probe is not None} - seen
        seen |= probes
        groups = [Group(PROBES, name, record.probes[name]) for name in sorted(probes)]
        groups += [Group(PARTS, part.id, part.files) for part in wanted]
        found.append(Step(record, groups, not lacking))
    return found


def spans(found: Iterable[Step]) -> Iterator[list[Step]]:
    """Steps that are published in one go, in order; what follows the last whole one is left out."""
    span: list[Step] = []
    for step in found:
        span.append(step)
        if step.whole:
            yield span
            span = []


def carry(
    found: Sequence[Step],
    bring: Callable[[Group], None],
    publish: Callable[[list[Step]], None],
    meter: Meter,
) -> None:
    """Calls `bring` for all folders, some at once, and `publish` in order for each span whose folders are there.

    Raises what any of them raises; what was published until then stays.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            waiting: list[tuple[list[Step], list[Future[None]]]] = []
            for span in spans(found):
                waiting.append((span, [pool.submit(bring, group) for step in span for group in step.groups]))
                while sum(len(tasks) for _, tasks in waiting) > _AHEAD:
                    _finish(*waiting.pop(0), publish, meter)
            for span, tasks in waiting:
                _finish(span, tasks, publish, meter)
        except BaseException:
            meter.stopped = True
            pool.shutdown(cancel_futures=True)
            raise


def _finish(
    span: list[Step], tasks: Sequence[Future[None]], publish: Callable[[list[Step]], None], meter: Meter
) -> None:
    meter.await_all(tasks)
    publish(span)
