"""What is drawn is a policy file or a data set's row: one function for both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from epvf_data.render.render import RenderReport, render_policy
from epvf_data.render.rows import render_row


def render(policy: str | Path, out: str | Path | None = None, **settings: Any) -> RenderReport:
    """Draws one episode as a video `out` and a strip of frames (.png) beside it; no display is needed.

    Of a policy file, `settings` are those of `render_policy` (`env`, `code`, `horizon`, `seed`, `episode`, `film`,
    `force`), of a data set those of `render_row` (`row="best"`, `architecture`, `env`, `code`, `episode`, `film`,
    `force`). Raises as they.
    """
    return render_row(policy, out=out, **settings) if Path(policy).is_dir() else render_policy(policy, out, **settings)
