"""doctor: what this machine, or a folder's file system, can do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Json, Quiet, app, print_json, say


@app.command(rich_help_panel="This machine", epilog="Examples: `epvf-data doctor` · `epvf-data doctor /scratch/me`")
def doctor(
    path: Annotated[
        Path | None,
        typer.Argument(help="A folder: what can its file system promise a data set?", show_default=False),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Versions, devices, backends that work here, and known-bad combinations; or what a folder's file system can do.

    Exits with 1 when there is a problem.
    """
    if path is not None:
        _examine(path, json)
        return
    from importlib.util import find_spec

    from epvf_data.doctor import examine

    if find_spec("jax") is not None:
        from epvf_data.runtime import prepare

        prepare()
    found = examine()
    if json:
        print_json({key: found[key] for key in ("versions", "devices", "backends", "problems", "notes")})
    else:
        say("versions  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version))
        kinds = Counter(f"{device['platform']} ({device['kind']})" for device in found["devices"])
        devices = ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items())
        say(f"devices   {devices or 'none'}")
        say(f"processor {found['processor']}, {found['cores']} cores")
        say(f"backends  {', '.join(found['backends']) or 'none'}")
        say(f"cache     {found['cache']}")
        say(f"you       {', '.join(found['who'].values()) or 'EPVF_AUTHOR and EPVF_LAB would say who makes the rows'}")
        for note in found["notes"]:
            say(f"note      {note}")
        for problem in found["problems"]:
            say(f"problem   {problem}")
        if not found["problems"]:
            say("No problem found.")
    if found["problems"]:
        raise typer.Exit(1)


def _examine(path: Path, json: bool) -> None:
    from epvf_data.store.place import examine

    found = examine(path)
    if json:
        print_json({"place": asdict(found), "problems": found.problems})
    else:
        files = f", {found.free_files:,} files" if found.free_files is not None else ""
        say(f"{path}: {found.filesystem}, {found.free_bytes / 1e9:,.1f} GB{files} free")
        say(f"commits   published by {found.publish}" if found.publish else "commits   cannot be published safely")
        say(f"shards    {'linked' if found.links else 'copied'} by `finalize`")
        say(f"locks     {'kept' if found.locks else 'none'}")
        say(f"flushes   {1000 * found.flush_seconds:.1f} ms a file; folders {'too' if found.flushes_folders else 'no'}")
        for word, lines in (("problem", found.problems), ("note", found.notes)):
            for line in lines:
                say(f"{word:9} {line}")
    if found.problems:
        raise typer.Exit(1)
