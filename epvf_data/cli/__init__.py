"""The command line: parse, call, report.

Heavy modules are imported by the verb that needs them, so that help and `info` are instant.
"""

from epvf_data.cli import (
    collecting,
    curating,
    datasets,
    environments,
    exchanging,
    judging,
    online,
    rendering,
    reproducing,
    training,
)
from epvf_data.cli.app import app, main

__all__ = [
    "app",
    "collecting",
    "curating",
    "datasets",
    "environments",
    "exchanging",
    "judging",
    "main",
    "online",
    "rendering",
    "reproducing",
    "training",
]
