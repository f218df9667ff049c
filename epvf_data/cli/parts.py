"""What the verbs that write a template of one's own part, and those that check one, have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from epvf_data import code
from epvf_data.cli.app import print_json, say

if TYPE_CHECKING:
    from epvf_data.conformance import Finding


def write(
    part: str,
    path: Path,
    package: str,
    about: str,
    following: Sequence[str],
    *,
    force: bool,
    json: bool,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Writes the template of `package` and says which commands follow, in which FILE stands for the new part."""
    code.write_template(path, package, force, renamed or {})
    if json:
        print_json({"file": str(path), part: f"{path}:make"})
        return
    say(f"{path}: {about} to begin with. Next:")
    for words in following:
        say(f"  epvf-data {words.replace('FILE', f'{path}:make')}")


def tell(part: str, name: str, found: Sequence[Finding], told: str, json: bool) -> None:
    """What was found. Exits with 1 where a rule is broken."""
    good = all(finding.ok for finding in found)
    if json:
        print_json({part: name, "ok": good, "findings": [finding._asdict() for finding in found]})
    else:
        for finding in found:
            say(f"{'ok     ' if finding.ok else 'problem'}  {finding.rule:16}{finding.text}")
        say(f"{name} {'keeps all rules' if good else 'cannot be used yet'}, {told}.")
    if not good:
        raise typer.Exit(1)
