"""The page itself: one file with its style, its program and its data, which may load nothing and run nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epvf_data import __version__
from epvf_data.code import names_code
from epvf_data.critics.families import name_of
from epvf_data.errors import ConfigError, EpvfError, RunError, extra
from epvf_data.outputs import check_free, write_bytes
from epvf_data.policies.own import OwnSpec
from epvf_data.provenance import now
from epvf_data.recording.task import with_policy
from epvf_data.report.gather import Prediction, gather, match
from epvf_data.store import reader
from epvf_data.store.digest import content_hash
from epvf_data.trainers.offline.inputs import stored_run
from epvf_data.untrusted import printable

if TYPE_CHECKING:
    from epvf_data.policies.loading import PolicyCode
    from epvf_data.trainers.offline.run import LoadedRun, Own

MOST_BYTES = 2_000_000
MOST_DATASETS, MOST_RUNS = 2, 6
Progress = Callable[[int, int], None]


def check(datasets: Sequence[Path], runs: Sequence[Path], out: Path, force: bool = False) -> None:
    """Raises ConfigError for too many inputs or another kind of file, DatasetError where `out` is taken."""
    if not datasets:
        raise ConfigError("no data set was named; name one or two, and the runs that were fitted to them.")
    for what, named, most in (("data sets", datasets, MOST_DATASETS), ("runs", runs, MOST_RUNS)):
        if len(named) > most:
            raise ConfigError(f"{len(named)} {what} were named; a page shows at most {most}.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the page would be {printable(out, 300)}; expected a name that ends in .html.")
    check_free(out, force)


def write_report(
    datasets: Sequence[str | Path],
    out: str | Path,
    runs: Sequence[str | Path] = (),
    *,
    env: str | None = None,
    critics: Sequence[Own] = (),
    policy: PolicyCode | None = None,
    pictures: bool = True,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes one HTML file to look into one or two data sets, and into critics that were fitted to one of them.

    At most 10,000 rows are points of the page: the best, median and worst of each source, held-out rows of the `runs`,
    others at random by `seed`. With `pictures`, policies of each source are played and drawn where this machine can;
    `env` and `policy` name the user's own environment and architecture, `critics` those of the runs. Returns `page`,
    `bytes`, `points`, `frames` and `notes` (what is missing there, and why).

    Raises ConfigError, DatasetError, CorruptDatasetError and RunError for inputs that are not there or do not fit,
    StorageError where the file cannot be written.
    """
    target = Path(out)
    check([Path(one) for one in datasets], [Path(one) for one in runs], target, force)
    opened = [reader.open(one) for one in datasets]
    if policy is not None:
        opened = [with_policy(one, policy) if _own(one) or not any(map(_own, opened)) else one for one in opened]
    if critics and not any(names_code(stored_run(Path(run))["config"]["critic"]) for run in runs):
        raise ConfigError("no run here has a critic of your own; leave --critic out.")
    contents = [content_hash(one) for one in opened] if runs else []
    found, notes = gather(opened, [_predict(Path(run), contents, opened, critics) for run in runs], seed), []
    strips: list[list[dict[str, Any]]] = [[] for _ in opened]
    for place, dataset in enumerate(opened if pictures else []):
        try:
            from epvf_data.report.frames import frames  # imported late, with JAX and the renderer

            strips[place] = frames(dataset, env, progress)
        except (EpvfError, ImportError) as error:
            notes.append(f"no frames of {printable(dataset.path.name)}: {printable(error, 300)}")
    for strip in (strip for some in strips for strip in some):
        strip["picture"] = "data:image/webp;base64," + base64.b64encode(strip["picture"]).decode()
    page = build({**found, "frames": strips, "notes": notes, "made": now(), "version": __version__})
    write_bytes(target, page, force)
    counts = {"points": len(found["points"]["row"]), "frames": sum(map(len, strips))}
    return {"page": str(target), "bytes": len(page), **counts, "notes": notes}


def _own(dataset: reader.Dataset) -> bool:
    """Whether policies in it are of an architecture that is none of this package's."""
    return any(isinstance(item.spec, OwnSpec) for item in dataset.architectures)


def _predict(
    run: Path, contents: Sequence[str], opened: Sequence[reader.Dataset], critics: Sequence[Own]
) -> tuple[int, Prediction]:
    """What the run's critic says of its held-out rows. Raises RunError where it was fitted to none of these."""
    place = match(run, stored_run(run)["dataset"]["content"], opened, contents)
    with extra():
        from epvf_data.trainers.metrics import spearman  # imported late, with JAX
        from epvf_data.trainers.offline.fitted import held_out, held_out_ridge
        from epvf_data.trainers.offline.run import choose_split
    loaded = _loaded(run, opened[place], critics)
    name, _ = choose_split(loaded)
    folds, source, config = loaded.folds[name], loaded.source, loaded.config
    assert not isinstance(folds, str)  # a split that was chosen has critics
    test, values = held_out(folds)
    starts, start = {}, 0  # of each architecture among all rows of the data set
    for item in opened[place].architectures:
        starts[item.id], start = start, start + item.rows
    places = source.places(test)
    offsets = np.array([starts[table.spec.id] for table in source.tables])
    values = values.mean(0)
    rows = test - source.starts[places] + offsets[places]
    labels = source.labels[test]
    ridge = None if config.closed else float(spearman(held_out_ridge(folds)[0], labels))
    score = float(spearman(values, labels))
    return place, Prediction(str(run), name_of(config.critic), name, score, ridge, rows, values)


def _loaded(run: Path, dataset: reader.Dataset, critics: Sequence[Own]) -> LoadedRun:
    """The run's critics; one of the user's own by the first of `critics` that it was fitted with. Raises RunError."""
    from epvf_data.trainers.offline.run import load_run  # imported late, with JAX

    own = names_code(stored_run(run)["config"]["critic"])
    for critic in critics[:-1] if own else ():
        with contextlib.suppress(RunError):
            return load_run(run, dataset, critic)
    return load_run(run, dataset, critics[-1] if own and critics else None)


def build(data: dict[str, Any]) -> bytes:
    """The file. Text of strangers is in the data alone, no character of it markup; the program shows it as text."""
    folder = resources.files("epvf_data.report")
    style, program = (folder.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    allowed = {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    allowed |= {"style-src": _source(style), "script-src": _source(program)}
    policy = "; ".join(f"{what} {whence}" for what, whence in allowed.items())
    names = ", ".join(one["name"] for one in data["datasets"])
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    page = folder.joinpath("page.html").read_text("utf-8")
    fields = {"POLICY": policy, "TITLE": html.escape(names), "STYLE": style, "PROGRAM": program, "DATA": text}
    before = page.split("{{")
    parts = [before[0]]
    for piece in before[1:]:
        name, rest = piece.split("}}", 1)
        parts += [fields[name], rest]
    made = "".join(parts).encode()
    if len(made) > MOST_BYTES:
        raise ConfigError(f"the page would have {len(made):,} bytes, more than {MOST_BYTES:,}; leave the frames out.")
    return made


def _source(text: str) -> str:
    """What a content security policy calls a piece of the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
