"""The command line: parse, call, report.

Heavy modules are imported by the verb that needs them, so that help and `info` are instant.
"""

from epvf_data.cli import (
    benching,
    collecting,
    curating,
    datasets,
    environments,
    exchanging,
    improving,
    judging,
    machine,
    online,
    rendering,
    reporting,
    reproducing,
    scaling,
    scoring,
    sharing,
    training,
)
from epvf_data.cli.app import app, main

ORDER = (
    *("collect", "finalize", "train-offline", "evaluate", "compare", "critics", "train-online"),
    *("improve", "top", "score", "render", "reproduce"),
    *("info", "plot", "report", "validate", "diff"),
    *("merge", "filter", "sample", "split", "withhold", "compact", "gc"),
    *("push", "pull", "sign", "verify", "export-archive", "cache"),
    *("card", "export-policy", "import-policy", "export-npz", "export-hdf5", "import-hdf5"),
    *("doctor", "envs", "new-env", "check-env"),
)

# As --help lists them.
app.registered_commands.sort(key=lambda verb: ORDER.index(verb.name or getattr(verb.callback, "__name__", "")))

__all__ = [
    "app",
    "benching",
    "collecting",
    "curating",
    "datasets",
    "environments",
    "exchanging",
    "improving",
    "judging",
    "machine",
    "main",
    "online",
    "rendering",
    "reporting",
    "reproducing",
    "scaling",
    "scoring",
    "sharing",
    "training",
]
