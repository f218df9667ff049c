"""Settings that make silent mistakes loud, and a compile cache inside the checkout so that a second run is quick."""

import importlib.util
from pathlib import Path

import hypothesis
import pytest

try:
    import jax
except ImportError:  # reading data and the tests of the store do without
    pass
else:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".pytest_cache" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

hypothesis.settings.register_profile("epvf", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("epvf")


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The store's small data sets, for all tests of what is done with them.
_source = importlib.util.spec_from_file_location("store_fixtures", Path(__file__).parent / "store" / "conftest.py")
_store = importlib.util.module_from_spec(_source)
_source.loader.exec_module(_store)
env, spec, make_rows, quick_path, small = _store.env, _store.spec, _store.make_rows, _store.quick_path, _store.small
