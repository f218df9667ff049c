"""What all verbs share: the application, the common flags, how results and interruptions are told."""

from __future__ import annotations

import codecs
import contextlib
import io
import json as json_module
import math
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from epvf_data import __version__
from epvf_data.errors import ConfigError, DatasetError, EpvfError, EpvfWarning, StoppedError, StorageError, extra
from epvf_data.progress import Bar, on_signal

MAX_LINE = 10_000  # characters
MAX_ROWS = 200  # of a table
DRAWS = ("doctor", "render", "report")  # verbs that use OpenGL, or say whether it is there
# How characters look where the encoding of a terminal or file lacks them; the rest is escaped.
PLAIN = {"█": "#", "…": "...", "·": "-", "−": "-", "×": "x", "±": "+-", "²": "^2", "θ": "theta", "∇": "grad "}


class _Verb(TyperCommand):
    """A verb whose whole numbers have 64 bits: what comes after parsing takes no others. Flags have no <bool>."""

    def get_params(self, ctx: Any) -> list[Any]:
        found = super().get_params(ctx)
        for param in found:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return found

    def invoke(self, ctx: Any) -> Any:
        if os.environ.get("MUJOCO_GL") and ctx.command.name not in DRAWS:
            os.environ["MUJOCO_GL"] = "disable"  # or MuJoCo's import fails with an OpenGL library that nobody needs
        for name, value in ctx.params.items():
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} has more than 19 digits; a whole number of 64 bits is expected.")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # outside of what tells better
            raise StoppedError("interrupted before the work began, or after it; the same command goes on.") from None


class _App(typer.Typer):
    def command(self, name: str | None = None, **settings: Any) -> Any:
        return super().command(name, cls=_Verb, **settings)


app = _App(
    name="epvf-data",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Collect, store and learn from rows of (policy parameters, probing actions, return).",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all randomness.  [default: 0]")]
Config = Annotated[str | None, typer.Option("--config", help="A TOML file with settings.", metavar="FILE.toml")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help="Change one setting; repeat for more.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Also write the picture to this file.", metavar="FILE.png|pdf|svg", show_default=False),
]


def _version(wanted: bool) -> None:
    if wanted:
        say(f"epvf-data {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Data sets of policies and their returns, and critics that read a policy and predict its return."""


def resume_command() -> str:
    """The command line at hand, with --resume."""
    return shlex.join(["epvf-data", *(word for word in sys.argv[1:] if word != "--resume"), "--resume"])


@contextlib.contextmanager
def working(verb: str, quiet: bool, interrupted: str, unit: str = "rows") -> Iterator[Callable[[int, int], None]]:
    """A progress bar over `unit`; Ctrl-C ends the verb with the sentence `interrupted`."""
    try:
        with Bar(verb, unit, quiet) as bar:
            scale = 1e6 if unit == "MB" else 1  # the work is counted in bytes then
            yield lambda done, total: bar.update(done / scale, total / scale, done / scale, unit)
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; {interrupted}.") from None


def only_dataset() -> Path:
    """The only data set in the working directory, or DatasetError."""
    found = sorted(path.parent for path in Path().glob("*/commits") if (path.parent / "zarr.json").is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise DatasetError("there is no data set in this folder; name one, or make one with `epvf-data collect`.")
    raise DatasetError(f"there are {len(found)} data sets in this folder ({', '.join(map(str, found))}); name one.")


def check_plot(plot: Path | None, force: bool) -> None:
    """Raises ConfigError or DatasetError unless the picture can be written there."""
    if plot is not None:
        from epvf_data.pictures import check

        check(plot, force)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say(line: object = "", *, error: bool = False) -> None:
    """Prints one line on stdout, or as an `error` on stderr. Every verb prints through here.

    There may be text of strangers in it: control characters are escaped, line ends too.
    """
    _print(visible(line, MAX_LINE), sys.stderr if error else sys.stdout)


def _print(text: str, stream: Any) -> None:
    try:
        print(text, file=stream)
    except OSError as error:
        _discard(stream)
        if stream is sys.stdout:  # work does not end because nobody reads its progress
            _lost(error)


def _discard(stream: Any) -> None:
    """Lets what a stream still holds, and all that follows, go nowhere: or Python tries again when it ends."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _lost(error: OSError) -> NoReturn:
    """Ends the verb where stdout takes nothing more; quietly where its reader has seen enough, as `head -1` has."""
    if isinstance(error, BrokenPipeError):
        sys.exit(128 + signal.SIGPIPE)
    raise StorageError(f"the output cannot be written ({error.strerror}); what it tells of is done.") from error


def print_json(value: Any) -> None:
    """Prints JSON, whose numbers are finite: null stands for the others."""
    text = json_module.dumps(_finite(value), allow_nan=False)
    _print(text.replace("\x7f", "\\u007f"), sys.stdout)  # the one control character that JSON leaves as it is


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(header: list[str], rows: list[list[str]], numbers: bool = False) -> None:
    """Prints columns of at most 120 characters, and of rows without end the first ones.

    Columns are set left, those of `numbers`, all but the first, right.
    """
    shown = [[visible(cell, 120) for cell in row] for row in [header, *rows[:MAX_ROWS]]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            cell.rjust(width) if numbers and place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())
    if len(rows) > MAX_ROWS:
        say(f"… and {len(rows) - MAX_ROWS:,} more")


def visible(text: object, limit: int = 200) -> str:
    """Text that may come from a stranger, on one line of bounded length: it must not steer the terminal."""
    from epvf_data.untrusted import printable

    return printable(text, limit)


def _ignore_settings_of_matplotlib() -> None:
    """It obeys a file in the working directory, which may be a stranger's and name programs to run, and a variable that
    may name a window system."""
    os.environ["MPLBACKEND"] = "agg"
    if os.path.lexists("matplotlibrc"):
        with contextlib.chdir(Path(__file__).parent), contextlib.suppress(ImportError):  # whoever reads does without
            import matplotlib

            matplotlib.get_data_path()


def _cure(error: Exception) -> str | None:
    """A sentence about an error that is nobody's fault here, or None."""
    from epvf_data.untrusted import WHOLE

    text = " ".join(str(error).split())[:1000]
    for name in sorted(os.environ):
        if name.startswith(("JAX_", "XLA_", "MUJOCO_")) and name in text:
            return f"{name}={visible(os.environ[name])} is in the environment, and: {visible(text, 300)}; unset it."
    told = text if isinstance(error, RuntimeError) else ""  # as JAX's errors are
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in told or "OUT_OF_MEMORY" in told:
        return "this needs more memory than is free; close other programs or ask for less at once."
    if isinstance(error, OSError) and error.strerror:  # a folder that is gone, a name that is too long, a full pipe
        where = "" if error.filename is None else f" at {visible(error.filename, WHOLE)}"
        return f"the system refuses{where}: {error.strerror}."
    wanted = os.environ.get("MUJOCO_GL", "")
    files = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    if wanted and any(file[-3:-1] == ("mujoco", wanted.lower()) for file in files):  # MuJoCo's import broke
        return f"MUJOCO_GL={wanted} names an OpenGL library that does not load here; unset it."
    return None


def _tell(others: Callable, message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Shows a warning: ours as one line, all others as Python does."""
    if issubclass(category, EpvfWarning):
        say(f"note: {message}", error=True)
    else:
        others(message, category, *place)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what an encoding lacks, in letters that every one has."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in lost), error.end


def _open_streams() -> None:
    """Whatever the streams are: closed ones lead nowhere, and what an encoding lacks is written in plain letters."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # or the next file that is opened would get what libraries write to stderr
    os.close(descriptor)
    codecs.register_error("plain", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _flush() -> None:
    """Writes what the streams still hold."""
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            _discard(stream)
            if stream is sys.stdout:
                _lost(error)


def run() -> None:
    """Runs the verb that was typed. Our errors are one sentence on stderr: exit 2 for wrong usage, 1 for the rest."""
    others = warnings.showwarning
    warnings.showwarning = partial(_tell, others)
    _open_streams()
    try:
        _ignore_settings_of_matplotlib()
        try:
            with on_signal(), extra():
                app()
        finally:
            _flush()
    except Exception as error:
        told = str(error) if isinstance(error, EpvfError) else _cure(error)
        if "--debug" in sys.argv or told is None:
            raise
        say(f"error: {told}", error=True)
        sys.exit(error.exit_code if isinstance(error, EpvfError) else 1)
    finally:
        warnings.showwarning = others
