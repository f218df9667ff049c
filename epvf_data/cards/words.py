"""Text from data sets of strangers, made fit for Markdown, YAML, BibTeX and the eyes of the public."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#!|~&$@])")
_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^\s'\",]*")
_PATH = re.compile(r"[^\s'\",;=\[\](){}<>|\\/]*[\\/][^\s'\",;=\[\](){}<>|][^'\",;=\[\](){}<>|]*")
_HOME = re.compile(r"[\\/](?:home|users)[\\/][^\\/]+$", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s'\",=]*@[^\s'\",]*|\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?")
_PERSONAL = re.compile(
    r"(address|coordinator|credential|e-?mail|host|key|node|passw|proxy|secret|server|token|user)", re.I
)
_HIDDEN = "…"


def one_line(text: object, limit: int = 200) -> str:
    """Text on one line without control, formatting and unassigned characters, shortened to `limit` characters."""
    plain = "".join(
        " " if unicodedata.category(character)[0] == "Z" or character in "\t\n\r" else character
        for character in str(text)[: 4 * limit]
        if unicodedata.category(character)[0] != "C" or character in "\t\n\r"
    )
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def many_lines(text: str, limit: int = 10_000) -> str:
    """Text with its lines and indentation, without control characters."""
    kept = (character for character in text[:limit] if character in "\t\n" or unicodedata.category(character)[0] != "C")
    return "".join(kept).strip()


def code(text: object, limit: int = 200) -> str:
    """Markdown that shows the text as it is, also in a table: a code span that nothing in the text can end."""
    return f"`{one_line(text, limit).translate(str.maketrans('`|', chr(39) + '¦')) or '-'}`"


def prose(text: object, limit: int = 200) -> str:
    """Markdown that shows the text as it is, in running text: what could be markup is escaped."""
    return _MARKUP.sub(r"\\\1", one_line(text, limit))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its first column text and the others numbers; cells are Markdown already."""
    lines = [head, ["---" if number == 0 else "---:" for number in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def quoted(text: object, limit: int = 200) -> str:
    """A quoted scalar of YAML and of JSON."""
    return json.dumps(one_line(text, limit), ensure_ascii=False)


def latex(text: object, limit: int = 200) -> str:
    """A value for BibTeX: no braces, no commands, no @, which begins an entry."""
    plain = one_line(text, limit).translate(str.maketrans("{}\\`~^", "()/'- ")).replace("@", "(at)")
    return re.sub(r"([&%$#_])", r"\\\1", plain)


def slug(text: object, limit: int = 40) -> str:
    """Lower-case ASCII letters and digits, joined by hyphens."""
    plain = unicodedata.normalize("NFKD", one_line(text)).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].strip("-")


def public(text: str) -> str:
    """Without folders, addresses of hosts and people, and queries of URLs: names of files stay."""
    text = _URL.sub(lambda found: f"{_HIDDEN}/{_file_name(re.split('[?#]', found[0])[0])}", text)
    text = _ADDRESS.sub(_HIDDEN, text)
    return _PATH.sub(lambda found: found[0] if found[0].startswith(_HIDDEN) else _file_name(found[0]), text)


def _file_name(path: str) -> str:
    path = path.rstrip("\\/ ")
    return "~" if _HOME.search(path) else re.split(r"[\\/]", path)[-1]  # a home folder is named like its owner


def public_command(words: Sequence[str]) -> str:
    """A command line for everybody's eyes: see `public`; values of options that name hosts, people or secrets go."""
    shown: list[str] = []
    hide = False
    for word in _bounded(words):
        if hide and not word.startswith("-"):
            word, hide = _HIDDEN, False
        elif word.startswith("-"):
            name, equals, _ = word.partition("=")
            personal = bool(_PERSONAL.search(name))
            word = name + equals + _HIDDEN if personal and equals else word
            hide = personal and not equals
        shown.append(one_line(public(word)))
    return " ".join(word if word == _HIDDEN else shlex.quote(word) for word in shown)


def _bounded(words: Sequence[str], limit: int = 2_000) -> Iterator[str]:
    """Whole words of at most 200 characters, `limit` in all: the patterns above take quadratic time."""
    for word in words:
        limit -= len(word) + 1
        if limit < 0:
            yield _HIDDEN
            return
        yield word if len(word) <= 200 else _HIDDEN
