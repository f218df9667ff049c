"""What the site makes from the package itself: the commands from their help, the presets from their files.

MkDocs calls these functions; the placeholders stand in docs/reference/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent / "epvf_data"
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills the reference pages. Links to files of the repository, which are not on the site, become their text."""
    if page.file.src_uri == "reference/commands.md":
        return markdown + commands()
    if page.file.src_uri == "reference/presets.md":
        return markdown + presets()
    return OUTSIDE.sub(r"\1", markdown) if "/" not in page.file.src_uri else markdown


def commands() -> str:
    """Every verb: what it does, its arguments and options, an example."""
    import typer
    from typer.main import get_command

    from epvf_data.cli import load

    app = load()

    root: Any = get_command(app)
    parts = []
    for name, verb in root.commands.items():
        context = typer.Context(verb, info_name=f"epvf-data {name}")
        usage = " ".join(verb.collect_usage_pieces(context))
        parts.append(f"\n## {name}\n\n{verb.help}\n\n```text\nepvf-data {name} {usage}\n```\n\n| | |\n|---|---|\n")
        for param in verb.get_params(context):
            record = param.get_help_record(context)
            label, told = record if record else (param.make_metavar(context), getattr(param, "help", None) or "")
            parts.append(f"| `{_cell(label)}` | {_cell(told).replace('<', '&lt;')} |\n")
        parts.append(f"\n{verb.epilog or ''}\n")
    return "".join(parts)


def presets() -> str:
    """The files with settings that come with the package."""
    parts = []
    for path in sorted(PACKAGE.rglob("*.toml")):
        parts.append(f"\n## {path.stem}\n\n`{path.relative_to(PACKAGE)}`\n\n```toml\n{path.read_text('utf-8')}```\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")  # no links
