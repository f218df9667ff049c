"""A few frames of the best, median and worst policy of every source, as small pictures for the page."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from epvf_data.recording.task import task_of
from epvf_data.render import mujoco_frames
from epvf_data.render.footage import play
from epvf_data.render.picture import strip
from epvf_data.render.render import DRAWN
from epvf_data.report.gather import notable
from epvf_data.store.reader import Dataset
from epvf_data.untrusted import printable

CELLS, SIZE, FPS = 4, (320, 180), 50  # frames of a strip, pixels, a second
BYTES = 40_000  # of a strip at most: eight sources of two data sets stay below the page's two megabytes
WIDTH = 640  # pixels of a strip


def frames(
    dataset: Dataset, env: str | None = None, progress: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """For each source and rank: the row, its stored and played return, and a strip of frames as WebP bytes.

    Raises EnvironmentMismatchError where the task is not here, BackendError where this machine cannot draw.
    """
    task, found = task_of(dataset, env), []
    tables = [dataset.table(item.id) for item in dataset.architectures]
    starts = np.cumsum([0, *(table.rows for table in tables)])
    wanted = [(source, rank, row) for source, ranks in notable(dataset).items() for rank, row in ranks.items()]
    with DRAWN.get(task.name, mujoco_frames.painter)(task, *SIZE) as paint:
        for number, (source, rank, row) in enumerate(wanted):
            place = int(np.searchsorted(starts, row, side="right")) - 1
            table, local = tables[place], np.array([row - int(starts[place])])
            if "params" not in table.names:
                continue
            seed = table.take("reset_seed", local)[0]
            footage = play(task, table.spec, table.take("params", local)[0], seed, 0, FPS)
            shown = footage.shown[np.linspace(0, len(footage.shown) - 1, CELLS).round().astype(int)].tolist()
            cells = [paint(footage.played.qpos[state], footage.played.qvel[state]) for state in shown]
            sheet = strip(cells, [footage.seconds(state) for state in shown], crop=task.xml is not None)
            sheet.thumbnail((WIDTH, WIDTH))
            found.append(
                {
                    "source": printable(source, 60),
                    "rank": rank,
                    "row": int(local[0]),
                    "layer": printable(table.spec, 60),
                    "played": float(f"{footage.returns[-1]:.5g}"),
                    "steps": footage.length,
                    "ended": footage.ended,
                    "picture": _encode(sheet),
                }
            )
            if progress is not None:
                progress(number + 1, len(wanted))
    return found


def _encode(sheet: Any) -> bytes:
    """WebP of at most `BYTES`, as good as fits."""
    for quality in (75, 50, 25, 5):
        buffer = io.BytesIO()
        sheet.save(buffer, format="webp", quality=quality)
        if buffer.tell() <= BYTES:
            break
    return buffer.getvalue()
