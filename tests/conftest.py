"""Settings that make silent mistakes loud, one compile cache for all processes of a run, and which tests run when."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import hypothesis
import pytest
from store import conftest as _store

ROOT = Path(__file__).parent.parent
SECONDS = Path(__file__).with_name("seconds.json")  # that each test took when last measured
SLOW = 0.3  # seconds
MEASURED: Counter[str] = Counter()
CACHE = Path(os.environ.get("TESTCACHE") or ROOT / ".pytest_cache")

# Workers and the processes that tests start find what any of them has compiled, and write into no home folder.
os.environ["XDG_CACHE_HOME"] = str(CACHE)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "epvf-data" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Half of the time went into optimising functions that run once; `make soak` compiles them as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_JAXLIB = next((found.version for found in distributions(name="jaxlib")), "")
# Of what is left, the fused kernels' own compiler was half; later versions have no such switch, and end at its name.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0" and _JAXLIB.startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

try:
    import jax
except ImportError:  # reading data and the tests of the store do without
    pass
else:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_cpu_enable_async_dispatch", False)

# A run in the background is started to ignore Ctrl-C, and so would be what its tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# JAX keeps millions of objects alive, which are not looked through again at every turn.
gc.set_threshold(50_000, 50, 100)


def pytest_collection_finish() -> None:
    """All modules are imported by now: what they hold is no garbage."""
    gc.collect()
    gc.freeze()


for name, examples in (("test", 20), ("soak", 60)):
    hypothesis.settings.register_profile(name, deadline=None, derandomize=True, max_examples=examples)
hypothesis.settings.load_profile("soak" if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "0" else "test")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the exhaustive tests (marked soak) as well")
    parser.addoption("--measure", action="store_true", help=f"write how long each test took to {SECONDS.name}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the exhaustive tests to `--soak`, marks those that took long, and puts the files that take longest first:
    no core waits at the end.
    """
    named = any("::" in word for word in config.args)  # a test that is named is wanted
    if not named and not config.getoption("--soak"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("soak")])
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
    took = json.loads(SECONDS.read_text())[_kind(config)]
    files: Counter[str] = Counter()
    for item in items:
        files[item.nodeid.split("::")[0]] += took.get(item.nodeid, 0.05)
        if took.get(item.nodeid, 0.0) > SLOW:
            item.add_marker("slow")
    items.sort(key=lambda item: -files[item.nodeid.split("::")[0]])


def _kind(config: pytest.Config) -> str:
    return "soak" if config.getoption("--soak") else "test"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    MEASURED[report.nodeid] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keeps the order of the files and what is slow up to date: `pytest --measure`, in as many processes as usual."""
    gc.freeze()  # or pytest looks through JAX's objects five times before it ends
    if session.config.getoption("--measure") and not hasattr(session.config, "workerinput"):
        took = {name: round(seconds, 1) for name, seconds in sorted(MEASURED.items()) if seconds > SLOW}
        both = {**json.loads(SECONDS.read_text()), _kind(session.config): took}
        SECONDS.write_text(json.dumps(both, indent=1) + "\n")


@pytest.fixture
def some(request) -> Callable[..., dict]:
    """`some(table, first)`: all of a table with `--soak`; else every third of it, beginning with one of the first."""

    def choose(table: dict, first: int = 0) -> dict:
        step = 1 if request.config.getoption("--soak") else 3
        return dict(list(table.items())[first % step :: step])

    return choose


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(monkeypatch) -> Shell:
    """`shell("info", "a.zarr")`: the command line from its entry point on, in this process: no second start-up.

    Gives what `subprocess.run` gives. `code` is the exit status that is expected (None: any).
    """

    def run(*words: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        from epvf_data.cli import main

        command = ["epvf-data", *map(str, words)]
        out, err, status = io.StringIO(), io.StringIO(), 0
        with monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", command)
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        done = subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())
        assert code is None or status == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


# The store's small data sets, for all tests of what is done with them.
env, spec, make_rows, quick_path, small = _store.env, _store.spec, _store.make_rows, _store.quick_path, _store.small
