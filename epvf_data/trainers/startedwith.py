"""Whether a run was started with these settings and this code, which may be a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epvf_data import code
from epvf_data.config import flatten
from epvf_data.errors import RunError
from epvf_data.trainers.rundir import COPY, differences, fits
from epvf_data.untrusted import printable


def check_same(directory: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises RunError, naming what differs, unless the run was started with these settings on this content."""
    if "dataset" in wanted and stored["dataset"]["content"] != wanted["dataset"]["content"]:
        raise RunError(
            f"{directory} was started on a data set of other content than {wanted['dataset']['path']}; "
            "give the same data set, or start a new run."
        )
    before, now = _record(stored), _record(wanted)
    if before is not None and now is not None and before["sha256"] != now["sha256"]:
        raise RunError(
            f"{now['path']} is not the critic that {directory} was started with: its SHA-256 is {now['sha256'][:12]}…, "
            f"then it was {before['sha256'][:12]}…; name the run's copy, {directory / COPY}, or start a new run."
        )
    settings = [flatten(one["config"]) for one in (stored, wanted)]
    if before is not None and now is not None:  # the same file, wherever it lies
        settings = [{name: _function(name, value) for name, value in one.items()} for one in settings]
    changes = differences(settings[0], settings[1])
    if changes:
        raise RunError(f"{directory} was started with {changes}; resume with the same settings, or start a new run.")


def check_code(directory: Path, stored: Mapping[str, Any], name: str, critic: Any) -> None:
    """Raises RunError where a run's critic, called `name`, is code and the user does not name it: a run may be a
    stranger's. So it does where `critic` is given, and the run's is one of this package's."""
    if code.names_code(name) == (critic is not None):
        return
    if critic is not None:
        raise RunError(f"the critic of {directory} is {printable(name)}, of this package; leave --critic out.")
    copy = f"{directory / COPY}:{printable(name.rpartition(':')[2])}"
    cure = f"the run's copy of it is {copy}, to be read first where the run is not yours"
    raise RunError(
        f"the critic of {directory} is code, {printable(name)}, and no file's word runs code; name it yourself with "
        f"--critic, or critic= in Python{'; ' + cure if _record(stored) else ''}."
    )


def _function(setting: str, value: Any) -> Any:
    """The function in a critic's file; of other settings what they are."""
    named = setting in ("critic", "critic.name") and code.names_code(value)
    return value.rpartition(":")[2] if named else value


def _record(stored: Mapping[str, Any]) -> dict[str, str] | None:
    """What config.json says of the file that a critic came from, if it is in order."""
    found = stored.get("critic_code")
    return found if isinstance(found, dict) and fits(found, {"path": str, "sha256": str}) else None
