"""The store's small data sets, for tests of what is done with them."""

import importlib.util
from pathlib import Path

_source = importlib.util.spec_from_file_location(
    "store_fixtures", Path(__file__).parent.parent / "store" / "conftest.py"
)
_store = importlib.util.module_from_spec(_source)
_source.loader.exec_module(_store)

env, spec, make_rows, quick_path, small = _store.env, _store.spec, _store.make_rows, _store.quick_path, _store.small
