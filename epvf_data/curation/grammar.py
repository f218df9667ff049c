"""Reads a condition on rows into a tree of nodes whose names and kinds are checked. See `where` for what it means.

condition   all or all or …             all         test and test and …
test        not test | comparison       list        ( literal, literal, … )
comparison  sum < sum < …  with == != < <= > >=,  or  column in list,  or  column not in list
sum         product + product - …       product     value * value / …
value       column | 12.5 | 'text' | true | false | none | - value | ( condition )
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from epvf_data.errors import ConfigError

MAX_CHARACTERS = 10_000
MAX_NESTING = 50
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_KEYWORDS = ("and", "or", "not", "in", "true", "false", "none")
_TOKEN = re.compile(
    r"""(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<symbol>==|!=|<=|>=|[<>+\-*/(),])""",
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t"}
_CURES = {"=": "use ==", "&": "use and", "|": "use or", "!": "use not or !=", "[": "lists are in ( )"}
_NOUNS = {"number": "a number", "words": "text", "flag": "true or false", "text": "a 'text'", "none": "none"}


@dataclass(frozen=True)
class Literal:
    kind: str
    value: float | str | bool | None


@dataclass(frozen=True)
class Column:
    kind: str
    name: str


@dataclass(frozen=True)
class Chain:
    """`first op item op item …`: arithmetic from left to right (kind number), or comparisons that all must hold."""

    kind: str
    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Among:
    item: Node
    values: tuple[Literal, ...]
    negated: bool
    kind: str = "flag"


@dataclass(frozen=True)
class Not:
    item: Node
    kind: str = "flag"


@dataclass(frozen=True)
class Junction:
    word: str  # and, or
    items: tuple[Node, ...]
    kind: str = "flag"


Node: TypeAlias = Literal | Column | Chain | Among | Not | Junction


class Parser:
    """Recursive descent with one token of lookahead: `kind`, `token` and its place `at`."""

    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self.text, self.columns = text, columns
        self.names: set[str] = set()
        self.kind = self.token = ""
        self.at = self.end = self.depth = 0
        self.advance()

    def read(self) -> Node:
        """The whole condition."""
        root = self.condition()
        if self.kind != "end":
            cure = "there are no functions" if self.token == "(" else "comparisons are joined with and / or"
            self.fail(f"{self.got()} was not expected here; {cure}")
        self.expect_flag(root, 0)
        if not self.names:
            self.fail(f"the condition reads no column; the columns are {', '.join(self.columns)}", 0)
        return root

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        near = f" (at {self.text[at : at + 20]!r})" if at < len(self.text) else ""
        raise ConfigError(f"the condition is wrong at character {at + 1}{near}: {problem}.")

    def got(self) -> str:
        return "the end" if self.kind == "end" else repr(self.token[:40])

    def advance(self) -> str:
        """Moves to the next token. Returns the one that was there."""
        before = self.token
        space = _SPACE.match(self.text, self.end)
        self.at = space.end() if space else self.end
        found = _TOKEN.match(self.text, self.at)
        if self.at == len(self.text):
            self.kind, self.token, self.end = "end", "", self.at
        elif found is None:
            self.fail(self.unknown())
        else:
            self.kind, self.token, self.end = str(found.lastgroup), found[0], found.end()
            if self.kind == "name" and self.token in _KEYWORDS:
                self.kind = "word"
        return before

    def unknown(self) -> str:
        """What is wrong with characters that are no token."""
        character = self.text[self.at]
        if character in "'\"":
            return "the text that begins here has no closing quote"
        if re.match(r"\.?[0-9]", self.text[self.at : self.at + 2]):
            return "this is no number"
        cure = _CURES.get(character, "only comparisons, + - * /, in, and, or, not and parentheses are known")
        return f"{character!r} is not part of the language; {cure}"

    def taken(self, *tokens: str) -> bool:
        """Moves on if one of these symbols or words is there."""
        if self.kind not in ("symbol", "word") or self.token not in tokens:
            return False
        self.advance()
        return True

    def deeper(self, inner: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.fail(f"more than {MAX_NESTING} levels of nesting")
        node = inner()
        self.depth -= 1
        return node

    def condition(self) -> Node:
        """Conditions joined by `and` and `or`; `and` binds more tightly."""
        return self.junction("or", lambda: self.junction("and", self.test))

    def junction(self, word: str, inner: Callable[[], Node]) -> Node:
        """One or more of `inner` with `word` between them, each true or false."""
        at = self.at
        items = [inner()]
        while self.kind == "word" and self.token == word:
            self.expect_flag(items[-1], at)
            self.advance()
            at = self.at
            items.append(inner())
            self.expect_flag(items[-1], at)
        return items[0] if len(items) == 1 else Junction(word, tuple(items))

    def expect_flag(self, node: Node, at: int) -> None:
        """Fails at `at` unless the node is true or false."""
        if node.kind != "flag":
            self.fail(f"this gives {_NOUNS[node.kind]} instead of true or false; compare it with something", at)

    def test(self) -> Node:
        """A comparison, or `not` and a test."""
        if not self.taken("not"):
            return self.comparison()
        at = self.at
        item = self.deeper(self.test)
        self.expect_flag(item, at)
        return Not(item)

    def comparison(self) -> Node:
        """Sums with comparisons between them (a chain as in Python), or a column `in` a list."""
        first = last = self.sum()
        rest: list[tuple[str, Node]] = []
        while self.kind == "symbol" and self.token in COMPARISONS:
            at, operator = self.at, self.advance()
            item = self.sum()
            self.check_kinds(last, operator, item, at)
            rest.append((operator, item))
            last = item
        if self.kind == "word" and self.token in ("in", "not") and not rest:
            return self.among(first)
        return Chain("flag", first, tuple(rest)) if rest else first

    def check_kinds(self, left: Node, operator: str, right: Node, at: int) -> None:
        """Fails at `at` unless the operator can compare values of these kinds."""
        kinds = {left.kind, right.kind}
        if kinds == {"number"}:
            return
        if kinds not in ({"flag"}, {"words", "text"}, {"words", "none"}):
            columns = [node for node in (left, right) if isinstance(node, Column)]
            cure = "".join(f"; {node.name} is {_NOUNS[node.kind]}" for node in columns)
            self.fail(f"{_NOUNS[left.kind]} cannot be compared with {_NOUNS[right.kind]}{cure}", at)
        if operator not in ("==", "!="):
            self.fail(f"{operator} is for numbers; use == or !=", at)

    def among(self, item: Node) -> Node:
        """`[not] in (…)` behind a column."""
        at, negated = self.at, self.taken("not")
        if not self.taken("in"):
            self.fail("in was expected after not")
        if not isinstance(item, Column) or item.kind == "flag":
            self.fail("in is for one column of numbers or text", at)
        if not self.taken("("):
            self.fail(f"a list such as ('a', 'b') was expected after in; got {self.got()}")
        values: list[Literal] = []
        while not values or not self.taken(")"):
            at = self.at
            value = self.value()
            fits = ("number",) if item.kind == "number" else ("text", "none")
            if not isinstance(value, Literal) or value.kind not in fits:
                self.fail(f"the list must hold {' or '.join(_NOUNS[kind] for kind in fits)} here", at)
            values.append(value)
            if not self.taken(",") and not (self.kind == "symbol" and self.token == ")"):
                self.fail(f"a comma or ) was expected; got {self.got()}")
        return Among(item, tuple(values), negated)

    def sum(self) -> Node:
        """Terms with `+` and `-` between them."""
        return self.arithmetic("+-", lambda: self.arithmetic("*/", self.value))

    def arithmetic(self, operators: str, inner: Callable[[], Node]) -> Node:
        """One or more of `inner` with operators between them, from left to right; all of them numbers."""
        first = inner()
        rest: list[tuple[str, Node]] = []
        while self.kind == "symbol" and self.token in operators:
            at, operator = self.at, self.advance()
            rest.append((operator, inner()))
            wrong = next((node for node in (first, rest[-1][1]) if node.kind != "number"), None)
            if wrong is not None:
                self.fail(f"{operator} is for numbers; got {_NOUNS[wrong.kind]}", at)
        return Chain("number", first, tuple(rest)) if rest else first

    def value(self) -> Node:
        """A column, a literal, a negated value, or a condition in parentheses."""
        at, kind, token = self.at, self.kind, self.token
        if self.taken("("):
            node = self.deeper(self.condition)
            if not self.taken(")"):
                self.fail(f"a closing parenthesis was expected; got {self.got()}")
            return node
        if self.taken("-"):
            node = self.deeper(self.value)
            if node.kind != "number":
                self.fail(f"- is for numbers; got {_NOUNS[node.kind]}", at)
            if isinstance(node, Literal):
                return Literal("number", -float(node.value or 0.0))
            return Chain("number", node, (("*", Literal("number", -1.0)),))  # 0 − x would lose the sign of zero
        if kind == "end" or kind == "symbol" or token in ("and", "or", "not", "in"):
            self.fail(f"a column or a value was expected; got {self.got()}")
        self.advance()
        if kind == "name":
            return self.column(token, at)
        return self.literal(kind, token, at)

    def column(self, name: str, at: int) -> Node:
        """A column of this name, with the nearest one as a hint if there is none."""
        if name not in self.columns:
            if name.lower() in ("nan", "inf", "infinity"):
                self.fail(f"{name} is not a number here", at)
            near = difflib.get_close_matches(name[:40].lower(), [*self.columns, *_KEYWORDS], 1)
            hint = f"did you mean {near[0]}? The" if near else "texts are written in quotes; the"
            self.fail(f"there is no column {name[:40]!r}; {hint} columns are {', '.join(self.columns)}", at)
        self.names.add(name)
        return Column(self.columns[name], name)

    def literal(self, kind: str, token: str, at: int) -> Literal:
        """A number, a text, `true`, `false` or `none`."""
        if kind == "number":
            value = float(token)
            if not math.isfinite(value):
                self.fail("this number is too large", at)
            return Literal("number", value)
        if kind == "text":
            for escape in re.finditer(r"\\(.)", token[1:-1], re.DOTALL):
                if escape[1] not in _ESCAPES:
                    self.fail(f"the escape {escape[0]!r} is unknown; there are \\\\ \\' \\\" \\n \\t", at)
            return Literal("text", re.sub(r"\\(.)", lambda found: _ESCAPES[found[1]], token[1:-1]))
        return Literal("none", None) if token == "none" else Literal("flag", token == "true")
