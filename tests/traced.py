"""Verbs under strace: which files each opens, makes, renames and removes. A helper of test_traced.py, and its program.

`python traced.py` reads lines of JSON on stdin, each a folder to work in and the words of a command line, runs them one
after another in this process, so that libraries are loaded once, and answers each with its exit code and what it told.
Before each it opens `/case/NUMBER`, which is nowhere, so that the trace tells whose calls follow.
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 120  # of one verb, on a busy machine
OPENING = ("open", "openat", "openat2", "creat")
TWO_NAMES = ("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat")
ONE_NAME = ("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "mknod", "mknodat", "truncate", "chmod", "fchmodat")
CALLS = (*OPENING, *TWO_NAMES, *ONE_NAME, "execve", "connect")
HOME = Path(__file__).resolve().parent.parent
# What Python and its libraries read. Nothing of a user's lies there.
PYTHON = {sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), sysconfig.get_paths()["stdlib"], str(HOME)}
PYTHON |= {path for path in sys.path if os.path.isabs(path)}  # noqa: PTH117
SYSTEM = (*PYTHON, "/usr", "/lib", "/lib64", "/bin", "/proc", "/sys", "/case", "/dev/null", "/dev/urandom", "/dev/dri")
SYSTEM += ("/var/cache/fontconfig", "/opt/homebrew", "/run/current-system")
_ETC = (
    "OpenCL fonts gitattributes gitconfig glvnd group host.conf hosts ld.so.cache locale.alias localtime nsswitch.conf "
)
_ETC += "passwd resolv.conf ssl vulkan"
SYSTEM += tuple(f"/etc/{name}" for name in _ETC.split())
# The user's own settings of fonts and of git.
_HOME = re.compile(r".*/home/\.(fontconfig|fonts|gitconfig|local/share/fonts|config/fontconfig|config/git)(/.*)?")
_THREAD = re.compile(r"/proc/\d+/task/\d+/comm|/dev/(null|shm|shm/sem\..*)")  # threads' names, and locks between them
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(?:<((?:[^>\\]|\\.)*)>)?.*")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>, )?"((?:[^"\\]|\\.)*)"')


class Case(NamedTuple):
    """A command line, the folder that it works in, the beginnings of names there that it may write and remove, and
    whatever else it may read: the data set on which a run was trained."""

    folder: Path
    words: tuple[str, ...]
    writes: tuple[str, ...] = ("out",)
    reads: tuple[str, ...] = ()


class Answer(NamedTuple):
    code: int
    told: str
    seconds: float
    trespasses: list[str]  # calls that reach beyond what the case allows


def run(cases: Sequence[Case], folder: Path, cache: Path, environment: Mapping[str, str] | None = None) -> list[Answer]:
    """Every case's end, and its calls outside of what was named, in a new process under strace."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    env = {**os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {
        "PATH": "/usr/bin:/bin",
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        "PYTHONPATH": str(HOME),
        **(environment or {}),
    }
    log = folder / "strace.log"
    command = ["strace", "-f", "-y", "-qq", "-s", "5000", "--seccomp-bpf", "-o", str(log)]
    command += ["-e", "signal=none", "-e", f"trace={','.join(CALLS)}", sys.executable, "-P", str(Path(__file__))]
    asked = "".join(json.dumps({"folder": str(case.folder), "words": case.words}) + "\n" for case in cases)
    done = subprocess.run(command, input=asked, capture_output=True, text=True, env=env, cwd=folder, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(answers)) == (0, len(cases)), (len(answers), done.stderr[-3000:])
    calls: list[list[tuple[str, ...]]] = [[] for _ in cases]
    number = -1
    for name, arguments, result, opened in calls_of(log):
        if mark := re.search(r'"/case/(\d+)"', arguments):
            number = int(mark[1])
        elif number >= 0:
            calls[number].append((name, arguments, result, opened))
    allowed = (str(cache), str(folder / "tmp"))
    return [
        Answer(**answer, trespasses=[text for call in made for text in trespass(case, allowed, *call)])
        for case, answer, made in zip(cases, answers, calls, strict=True)
    ]


def calls_of(log: Path) -> Iterator[tuple[str, str, str, str]]:
    """Call, arguments, result and what was opened, with calls joined that another thread's interrupt."""
    begun: dict[str, str] = {}
    for line in log.read_text(errors="surrogateescape").splitlines():
        text, pid = line, line.split(" ", 1)[0]
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", text):
            text = begun.pop(pid, "") + resumed[1]
        if found := _LINE.fullmatch(text):
            yield found[2], found[3], found[4], found[5] or ""


def _plain(text: str) -> str:
    return os.fsdecode(codecs.escape_decode(text.encode("latin-1", "surrogateescape"))[0])  # pyright: ignore


def trespass(case: Case, allowed: tuple[str, ...], name: str, text: str, result: str, opened: str) -> Iterator[str]:
    """What a call reaches that the case does not allow."""
    if name == "connect":
        if "AF_UNIX" not in text:
            yield f"{name}({text})"
        return
    writing = name in (*TWO_NAMES, *ONE_NAME) or bool(re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", text))
    names = _NAME.findall(text)[: 2 if name in TWO_NAMES else 1]
    if name.startswith("symlink"):  # its first text is no name that it touches
        yield f"{name}({text[:300]})"
    for above, inner in names:
        path = os.path.join(_plain(above) if above else case.folder, _plain(inner))  # noqa: PTH118
        if opened and opened != path:
            path = _plain(opened)
        elif result != "-1" or name not in OPENING:  # where links in its way lead to
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH118, PTH120, PTH119
        if not _may(case, allowed, os.path.normpath(path), writing):
            yield f"{name}({text[:300]}) = {result}{f'<{opened}>' if opened else ''}"


def _may(case: Case, allowed: tuple[str, ...], path: str, writing: bool) -> bool:
    within = lambda root: path == root or path.startswith(f"{root}/")  # noqa: E731
    if any(map(within, allowed)) or _THREAD.fullmatch(path):
        return True
    folder = str(case.folder)
    if path == folder:
        return True
    if within(folder):
        first = path[len(folder) + 1 :].split("/")[0].lstrip(".")
        return first.startswith(case.writes if writing else ("in", "good", *case.writes))
    below = any(path.startswith(f"{root}/") or path == root for root in SYSTEM) or path.startswith("/dev/nvidia")
    # Python looks through every folder of its path, and programs for theirs, up to the root.
    return not writing and (
        any(map(within, case.reads))
        or below
        or _HOME.fullmatch(path) is not None
        or folder.startswith(f"{path}/")
        or path == "/"
    )


def main() -> None:
    from epvf_data.cli import main as verb

    answers = sys.stdout
    for number, line in enumerate(sys.stdin):
        case = json.loads(line)
        os.chdir(case["folder"])
        with contextlib.suppress(OSError):
            os.close(os.open(f"/case/{number}", os.O_RDONLY))
        print(json.dumps(_one(verb, case["words"])), file=answers, flush=True)


def _one(verb: Any, words: list[str]) -> dict[str, Any]:
    """One command line in this process."""
    import time

    out, began, code = io.StringIO(), time.perf_counter(), 0
    sys.argv = ["epvf-data", *words]
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            verb()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            code = 99
            traceback.print_exc()
    faulthandler.cancel_dump_traceback_later()
    return {"code": code, "told": out.getvalue(), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
