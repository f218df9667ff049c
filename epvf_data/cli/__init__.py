"""The command line: parse, call, report.

Heavy modules are imported by the verb that needs them, and a verb's own module when it is typed, so that help and
`info` are instant.
"""

import importlib
import sys
from typing import Any

# As --help lists them.
VERBS = {
    "collect": "collecting",
    "finalize": "scaling",
    "train-offline": "training",
    **dict.fromkeys(("evaluate", "compare"), "judging"),
    "critics": "plugging",
    "train-online": "online",
    "watch": "watching",
    "improve": "improving",
    **dict.fromkeys(("top", "score"), "scoring"),
    "render": "rendering",
    "reproduce": "reproducing",
    **dict.fromkeys(("info", "plot"), "datasets"),
    "report": "reporting",
    "validate": "datasets",
    **dict.fromkeys(("diff", "merge", "filter", "sample", "split", "withhold", "compact", "gc"), "curating"),
    **dict.fromkeys(("push", "pull", "sign", "verify", "export-archive", "cache"), "sharing"),
    **dict.fromkeys(
        ("card", "export-policy", "import-policy", "export-npz", "export-hdf5", "import-hdf5"), "exchanging"
    ),
    "doctor": "machine",
    **dict.fromkeys(("envs", "new-env", "check-env"), "environments"),
    **dict.fromkeys(("new-critic", "check-critic", "new-policy", "check-policy"), "plugging"),
    "bench": "benching",
}


def load(verb: str | None = None) -> Any:
    """The application with this verb, or with all: help, completion and mistakes name them."""
    from epvf_data.cli.app import app

    for module in [VERBS[verb]] if verb in VERBS else dict.fromkeys(VERBS.values()):
        importlib.import_module(f"epvf_data.cli.{module}")
    order = list(VERBS)
    app.registered_commands.sort(key=lambda one: order.index(one.name or getattr(one.callback, "__name__", "")))
    return app


def main() -> None:
    """Entry point. Our errors are one sentence on stderr: exit 2 for wrong usage, 1 for the rest."""
    load(sys.argv[1] if len(sys.argv) > 1 else None)
    from epvf_data.cli.app import run

    run()
