"""What a report says of runs that differ in speed."""

from epvf_data.reproduction.report import _equal


def variant(name, minutes, rate, steps=4_000_000):
    """Two seeds whose return grows by `rate` every million steps, in so many minutes each."""
    grid = [steps * (i + 0.5) / 400 for i in range(400)]
    curve = {"grid": grid, "iqm": [None, *(rate * x / 1e6 for x in grid[1:])]}
    curves = {"env_steps": {"return_unperturbed": curve, "return_perturbed": {**curve, "iqm": [1.0] * 400}}}
    return {
        "name": name,
        "label": name,
        "panel": "paper",
        "env_steps": steps,
        "seeds": [0, 1],
        "seconds": 120.0 * minutes,
    } | {"curves": curves}


def test_variants_stand_side_by_side_at_equal_steps_and_at_equal_minutes():
    slow, quick = variant("slow", 20, 100.0), variant("quick", 5, 80.0)
    rows = [line.split("|")[1:-1] for line in _equal([slow, quick])[-2].splitlines()]
    header, _, first, second = ([cell.strip() for cell in row] for row in rows)
    at = dict(zip(header, zip(first, second, strict=True), strict=True))
    assert at["variant"] == ("slow", "quick")
    assert at["2 M steps"] == ("200 / 1", "160 / 1")  # more from a step,
    assert at["5 min"] == ("100 / 1", "320 / 1")  # and less from a minute
    assert at["10 min"] == ("200 / 1", "–")  # the quick one had ended
    assert "30 min" not in at
    assert _equal([slow]) == []


def test_nothing_stands_where_a_curve_has_not_begun():
    """OpenAI-ES logs its first iteration after a million steps: what it has then is not what it had before."""
    late = variant("late", 5, 80.0)
    for curve in late["curves"]["env_steps"].values():
        curve["grid"], curve["iqm"] = curve["grid"][100:], curve["iqm"][100:]
    table = _equal([late, variant("early", 5, 80.0)])[-2].splitlines()
    head, _, row, _ = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)
    at = dict(zip(head, row, strict=True))
    assert (at["0.5 M steps"], at["1 M steps"], at["2 M steps"]) == ("–", "80 / 1", "160 / 1")
