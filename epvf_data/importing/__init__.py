"""Trained policies of other frameworks, as policy files of this project."""

from epvf_data.importing.run import ImportReport, import_policy

__all__ = ["ImportReport", "import_policy"]
