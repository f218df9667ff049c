"""Conditions on rows: what they mean, against plain Python row by row; and all that they refuse."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epvf_data.curation.grammar import MAX_CHARACTERS, MAX_NESTING
from epvf_data.curation.where import Words, parse
from epvf_data.errors import ConfigError

KINDS = {"return": "number", "n": "number", "source": "words", "base": "words", "finite": "flag", "early": "flag"}
WORDS = ("random", "per'turbed", 'es "1"', "tab\tline\n\\", "θ")
OPERATORS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b and a == a and b == b,  # a comparison with NaN is false
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: float(np.float64(a) / np.float64(b)),
}


def quoted(word):
    for character, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\t", "\\t")):
        word = word.replace(character, escape)
    return f"'{word}'"


def column(name):
    return st.just((name, lambda row: row[name]))


def constant(value):
    return st.just((repr(value), lambda row: value))


def joined(left, operator, right):
    """Two (text, function of a row) pairs joined by an arithmetic operator; the text in parentheses."""
    return f"({left[0]} {operator} {right[0]})", lambda row: ARITHMETIC[operator](left[1](row), right[1](row))


def chained(items, operators):
    def holds(row):
        values = [item[1](row) for item in items]
        return all(OPERATORS[o](a, b) for o, a, b in zip(operators, values, values[1:], strict=False))

    return items[0][0] + "".join(f" {o} {i[0]}" for o, i in zip(operators, items[1:], strict=False)), holds


NUMBERS = st.recursive(
    st.one_of(
        column("return"),
        column("n"),
        st.sampled_from([0, 1, 3, 2.5, 1e3, 1e-07, 1e300]).flatmap(constant),
    ),
    lambda inner: st.one_of(
        st.builds(joined, inner, st.sampled_from(sorted(ARITHMETIC)), inner),
        inner.map(lambda item: (f"-{item[0]}", lambda row: -item[1](row))),
    ),
    max_leaves=4,
)


def word_test(name, word, operator):
    text = f"{name} {operator} {'none' if word is None else quoted(word)}"
    return text, lambda row: (row[name] == word) == (operator == "==")


def word_list(name, words, negated):
    texts = ", ".join("none" if word is None else quoted(word) for word in words)
    return f"{name} {'not ' * negated}in ({texts})", lambda row: (row[name] in words) != negated


def number_list(values, negated):
    def holds(row):
        x = row["return"]
        return x == x and (x in values) != negated

    return f"return {'not ' * negated}in ({', '.join(map(repr, values))},)", holds


NAMES, WORD = st.sampled_from(["source", "base"]), st.sampled_from([*WORDS, "absent", None])
TESTS = st.one_of(
    st.builds(
        chained,
        st.lists(NUMBERS, min_size=2, max_size=3),
        st.lists(st.sampled_from(sorted(OPERATORS)), min_size=2, max_size=2),
    ),
    st.builds(word_test, NAMES, WORD, st.sampled_from(["==", "!="])),
    st.builds(word_list, NAMES, st.lists(WORD, min_size=1, max_size=3), st.booleans()),
    st.builds(number_list, st.lists(st.sampled_from([0.0, -2, 1.5]), min_size=1, max_size=3), st.booleans()),
    column("finite"),
    st.just(("finite != early", lambda row: row["finite"] != row["early"])),
    st.just(("early == true", lambda row: row["early"])),
)


def both(left, word, right):
    """Without parentheses: `and` binds tighter than `or`, and both tighter than nothing; so parenthesise `or` only."""
    if word == "and":
        return f"{left[0]} and {right[0]}", lambda row: left[1](row) and right[1](row)
    return f"({left[0]} or {right[0]})", lambda row: left[1](row) or right[1](row)


CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds(both, inner, st.sampled_from(["and", "or"]), inner),
        inner.map(lambda item: (f"not ({item[0]})", lambda row: not item[1](row))),
    ),
    max_leaves=6,
)
ROW = st.fixed_dictionaries(
    {
        "return": st.sampled_from([0.0, -0.0, 1.5, -2.0, 3.0, 1e3, math.nan, math.inf, -math.inf]),
        "n": st.integers(-3, 3),
        "source": st.sampled_from(WORDS),
        "base": st.sampled_from([*WORDS, None]),
        "finite": st.booleans(),
        "early": st.booleans(),
    }
)


def as_columns(rows):
    def words(name):
        return Words(np.array([-1 if r[name] is None else WORDS.index(r[name]) for r in rows], np.int32), WORDS)

    arrays = {
        "return": np.array([row["return"] for row in rows], np.float64),
        "n": np.array([row["n"] for row in rows], np.int8),
    }
    flags = {name: np.array([row[name] for row in rows], bool) for name in ("finite", "early")}
    return {**arrays, **flags, "source": words("source"), "base": words("base")}


@settings(max_examples=300)
@given(CONDITIONS, st.lists(ROW, min_size=1, max_size=6))
def test_a_condition_means_what_python_means(condition, rows):
    text, holds = condition
    if not any(name in text for name in KINDS):
        with pytest.raises(ConfigError, match="reads no column"):
            parse(text, KINDS)
        return
    expression = parse(text, KINDS)
    with np.errstate(all="ignore"):
        expected = [bool(holds(row)) for row in rows]
    columns = as_columns(rows)
    used = {name: columns[name] for name in expression.names}
    mask = expression.mask(used)  # needs no other columns than those that it names
    assert mask.dtype == bool
    assert mask.tolist() == expected, text


TOKENS = "return source finite base and or not in ( ) , == != < <= 'a' \"b\" 1 -2 1e3 none true . [ = + / é"
ANYTHING = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(TOKENS.split(" ")), max_size=30).map(" ".join))


@settings(max_examples=300)
@given(ANYTHING)
def test_any_text_gives_a_condition_or_one_clear_sentence(text):
    row = {"return": 1.0, "n": 1, "source": WORDS[0], "base": None, "finite": True, "early": False}
    message = None
    try:
        mask = parse(text, KINDS).mask(as_columns([row] * 3))
    except ConfigError as error:
        mask, message = None, str(error)
    assert (mask is None) != (message is None)
    assert mask is None or mask.shape == (3,)
    assert message is None or (message.isprintable() and message.startswith("the condition ") and message[-1] == ".")


@pytest.mark.parametrize(
    "text",
    [
        "finite or early and n > 1",
        "finite and early or n > 1 and early or not early and n == -1",
        "not finite and early or n < 0",
        "not n in (1, 2) and n not in (-3,)",
        "1 + 2 * n == 7 - 2 - 2",
        "8 / 2 / 2 < -n * -2 + 1",
        "-1 <= n < 2 != 1 + 0 * 2",
        "not finite == early",
    ],
)
def test_precedence_is_that_of_python(text):
    row = {"return": 0.0, "source": WORDS[0], "base": None}
    rows = [{**row, "n": n, "finite": n % 2 == 0, "early": n > 0} for n in range(-3, 4)]
    mask = parse(text, KINDS).mask(as_columns(rows)).tolist()
    assert mask == [eval(text, {"__builtins__": {}}, row) for row in rows]
    assert True in mask
    assert False in mask


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("retrun > 5", r"character 1 .*no column 'retrun'; did you mean return\? The columns are return, n, source"),
        ("return > 5 and (sorce == 'a')", r"character 17 .*did you mean source\?"),
        ("source == perturbed", "character 11 .*texts are written in quotes"),
        ("return >", "character 9: a column or a value was expected; got the end"),
        ("return = 5", "character 8 .*use =="),
        ("return > 1 && finite", "character 12 .*use and"),
        ("finite == True", r"character 11 .*did you mean true\?"),
        ("source > 'a'", "character 8 .*> is for numbers; use == or !="),
        ("return == 'a'", "a number cannot be compared with a 'text'; return is a number"),
        ("return == none", "a number cannot be compared with none"),
        ("source == base", "text cannot be compared with text"),
        ("'a' == 'a'", "cannot be compared"),
        ("finite > true", "> is for numbers"),
        ("-finite", "- is for numbers; got true or false"),
        ("return + source > 1", r"\+ is for numbers; got text"),
        ("(return > 1) + 1 > 2", r"\+ is for numbers; got true or false"),
        ("finite and return", "character 12 .*gives a number instead of true or false"),
        ("not return", "gives a number instead of true or false"),
        ("return", "gives a number instead of true or false"),
        ("1 < 2", "reads no column"),
        ("true", "reads no column"),
        ("", "character 1: a column or a value was expected"),
        ("return > nan", "nan is not a number here"),
        ("return < inf", "inf is not a number here"),
        ("return > 1e999", "too large"),
        ("return > 1_000", "this is no number"),
        ("return > 1.2.3", "this is no number"),
        ("return > 1 return < 2", "joined with and / or"),
        ("return > 5)", r"'\)' was not expected here"),
        ("(return > 5", r"a closing parenthesis was expected; got the end"),
        ("source in 'a'", r"a list such as \('a', 'b'\) was expected"),
        ("source in ()", "a column or a value was expected"),
        ("source in ('a' 'b')", r"a comma or \) was expected"),
        ("return in (1, 'a')", "the list must hold a number here"),
        ("source in (1)", "the list must hold a 'text' or none here"),
        ("finite in (true)", "in is for one column of numbers or text"),
        ("return + 1 in (1)", "in is for one column of numbers or text"),
        ("source not 'a'", "in was expected after not"),
        ("source == 'a", "no closing quote"),
        (r"source == '\x41'", "the escape"),
    ],
)
def test_mistakes_are_pointed_at(text, says):
    with pytest.raises(ConfigError, match=says):
        parse(text, KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') == 0",
        "source.__class__ == 'a'",
        "().__class__ == 1",
        "return.real > 1",
        "return(1) > 1",
        "source['a'] == 'b'",
        "return[0] > 1",
        "lambda: return > 1",
        "[r for r in return]",
        "return > 1 if finite else finite",
        "return := 1",
        "return > 1; finite",
        "return > 1 # finite",
        "f'{return}' == source",
        "return ** 9 > 1",
        "return // 2 > 1",
        "`id` == source",
        "return > 0x10",
        "return > 1j",
        "return > ١",
        "ｆｉｎｉｔｅ",
        "return > 1\0",
    ],
)
def test_it_is_not_python(text):
    with pytest.raises(ConfigError, match="the condition is wrong at character"):
        parse(text, KINDS)


def test_bounds_on_length_and_nesting():
    columns = {"return": np.array([0.5, 1.5])}
    deep = MAX_NESTING * "(" + "return > 1" + MAX_NESTING * ")"
    assert parse(deep, KINDS).mask(columns).tolist() == [False, True]
    ladder = "return > 1"
    for _ in range(MAX_NESTING // 2):
        ladder = f"finite or finite and not ({ladder}) == finite"
    assert parse(ladder, KINDS).mask({**columns, "finite": np.array([True, False])}).shape == (2,)
    for text in (f"({deep})", "not " * (MAX_NESTING + 1) + "finite", "-" * (MAX_NESTING + 1) + "return > 1"):
        with pytest.raises(ConfigError, match="levels of nesting"):
            parse(text, KINDS)
    with pytest.raises(ConfigError, match="10,001 characters"):
        parse("finite".ljust(MAX_CHARACTERS + 1), KINDS)
    start = time.perf_counter()
    for text in ("1+" * 4_990 + "return > 1", "return > 1 or " * 700 + "finite", "return < " * 1_000 + "1"):
        assert parse(text, KINDS).mask({**columns, "finite": np.array([True, True])}).shape == (2,)
    for text in ("9" * 9_999 + "x", "'" + "\\'" * 4_999, "x" * 9_999, "(" * 9_999):
        with pytest.raises(ConfigError):
            parse(text, KINDS)
    assert time.perf_counter() - start < 5.0


def test_numbers_beside_a_float32_column_are_rounded_to_it():
    columns = {"return": np.array([0.1, 0.2, np.nan], np.float32)}
    for text, expected in {
        "return == 0.1": [True, False, False],
        "return <= 0.1": [True, False, False],
        "0.1 < return": [False, True, False],
        "return in (0.1, 0.2)": [True, True, False],
        "return != 0.1": [False, True, False],
        "return == 1e39": [False, False, False],  # beyond float32: not rounded to infinity
    }.items():
        assert parse(text, KINDS).mask(columns).tolist() == expected, text


def test_missing_or_unequal_columns_are_refused():
    expression = parse("return > 1 and source == 'random'", KINDS)
    assert expression.names == {"return", "source"}
    assert expression.text == "return > 1 and source == 'random'"
    with pytest.raises(ConfigError, match="needs the columns return, source"):
        expression.mask({"return": np.zeros(3)})
    with pytest.raises(ConfigError, match="one value a row"):
        expression.mask({"return": np.zeros(3), "source": Words(np.zeros(2, np.int32), WORDS)})
    empty = {"return": np.zeros(0), "source": Words(np.zeros(0, np.int32), ())}
    assert expression.mask(empty).shape == (0,)
