"""Whether a run was started with these settings and this code, which may be a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epvf_data import code
from epvf_data.config import flatten
from epvf_data.errors import RunError
from epvf_data.trainers.rundir import COPY, copy_of, differences, fits
from epvf_data.untrusted import printable

# Parts of a run that may be code of the user's, and the settings that name it.
NAMED = {"critic": ("critic", "critic.name"), "policy": ("policy.architecture",)}

BUDGETS = ("iterations", "env_steps")  # settings that may grow when a run goes on,
PACED = {  # unless one of these is set, over which …
    "improvement.final_learning_rate": "its learning rate falls",
    "time.anneal_after": "its noise and rates fall",
}


def grown(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The budgets that are larger than they were."""
    return [name for name in BUDGETS if before[name] is not None and (now[name] or 0) > before[name]]


def paced(settings: Mapping[str, Any]) -> str | None:
    """What falls over the budget of a run with these settings, given with dotted keys; None where nothing does."""
    return next((told for name, told in PACED.items() if settings[name] is not None), None)


def check_same(directory: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises RunError, naming what differs, unless the run was started with these settings on this content."""
    if "dataset" in wanted and stored["dataset"]["content"] != wanted["dataset"]["content"]:
        raise RunError(
            f"{directory} was started on a data set of other content than {wanted['dataset']['path']}; "
            "give the same data set, or start a new run."
        )
    settings = [flatten(one["config"]) for one in (stored, wanted)]
    for part in NAMED:
        before, now = _record(stored, part), _record(wanted, part)
        if before is None or now is None:
            continue
        if before["sha256"] != now["sha256"]:
            raise RunError(
                f"{now['path']} is not the {part} that {directory} was started with: its SHA-256 is "
                f"{now['sha256'][:12]}…, then it was {before['sha256'][:12]}…; name the run's copy, "
                f"{directory / _copy(stored, part)}, or start a new run."
            )
        # The same file, wherever it lies.
        settings = [{name: _function(part, name, value) for name, value in one.items()} for one in settings]
    changes = differences(settings[0], settings[1])
    if changes:
        raise RunError(f"{directory} was started with {changes}; resume with the same settings, or start a new run.")


def check_code(directory: Path, stored: Mapping[str, Any], name: str | None, given: Any, part: str = "critic") -> None:
    """Raises RunError where a run's critic or policy, called `name`, is code and the user does not name it: a run may
    be a stranger's. So it does where it is `given`, and the run's is one of this package's."""
    if code.names_code(name) == (given is not None):
        return
    if given is not None:
        known = "MLP" if name is None else printable(name)
        raise RunError(f"the {part} of {directory} is {known}, of this package; leave --{part} out.")
    function = printable(str(name).rpartition(":")[2])
    cure = f"; the run's copy of it is {directory / _copy(stored, part)}:{function}, to be read first where the run is "
    raise RunError(
        f"the {part} of {directory} is code, {printable(name)}, and no file's word runs code; name it yourself with "
        f"--{part}, or {part}= in Python{cure + 'not yours' if _record(stored, part) else ''}."
    )


def _copy(stored: Mapping[str, Any], part: str) -> str:
    """Where in the run the copy of its code lies."""
    found = _record(stored, part)
    return COPY if part == "critic" or found is None else copy_of(found["path"])


def _function(part: str, setting: str, value: Any) -> Any:
    """The function in a critic's or a policy's file; of other settings what they are."""
    named = setting in NAMED[part] and code.names_code(value)
    return value.rpartition(":")[2] if named else value


def _record(stored: Mapping[str, Any], part: str) -> dict[str, str] | None:
    """What config.json says of the file that a critic or a policy came from, if it is in order."""
    found = stored.get(f"{part}_code")
    return found if isinstance(found, dict) and fits(found, {"path": str, "sha256": str}) else None
