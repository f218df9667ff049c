"""The report of a figure in Markdown: what agrees with the paper, what does not, and what was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epvf_data.cards.words import code, prose, table

SCALE_NOTES = {
    "smoke": "A smoke run shows that everything works. It is far too short to learn, and says nothing about the paper.",
    "cpu": "The cpu scale is what two cores can run.",
    "paper": "The paper scale has the paper's environments and horizon.",
}
CAUTION = (
    "Verdicts compare 95 % intervals over seeds, never single values. Intervals from few seeds are too narrow: those "
    "of five seeds hold the true value less often than in 95 of 100 cases. No comparison is corrected for the others."
)
WHAT = (
    "Curves and finals are interquartile means over seeds of the mean undiscounted return of the perturbed policies "
    "used for collection; `unperturbed` is the policy in their middle. The final return is the mean over "
    "the last tenth of the environment steps that every seed has reached. Intervals are 95 % percentile bootstrap "
    "intervals over seeds."
)
BEST = (
    "The paper's figure has curves without numbers. That it calls its setup the best is taken as the claim that each "
    "change alone ends lower."
)
EQUAL = (
    "Return of the unperturbed policy / of the perturbed ones (of PPO and SAC: of mean / of sampled actions), "
    "interquartile means over seeds. Minutes are those of one seed: wall time, compiling and logging included, spread "
    "evenly over its steps. A dash: not logged yet, or ended. Minutes depend on the processor and on what ran beside."
)
EQUAL_STEPS = (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 10_000_000, 20_000_000, 100_000_000)
EQUAL_MINUTES = (2, 5, 10, 20, 30, 60)
CARTPOLE_CPU = "CartPole is small: the cpu and the paper scale are the same."
PANELS = {"paper": "With the paper's settings", "ours": "With our settings"}


def write_report(data: Mapping[str, Any], image: str) -> str:
    """Markdown from the values of data.json; `image` is the picture's file name beside it."""
    claims = _claims(data["claims"])
    lines = [
        f"# {data['title']} ({data['paper']})",
        "",
        f"![{data['title']}]({image})",
        "",
        *_how(data),
        "",
        "## What the paper says, and what these runs say",
        "",
        CAUTION,
        "",
        *([BEST, ""] if data["figure"] == "fig2-ablations" else []),
        *claims,
        "## Runs",
        "",
        _table(data["variants"]),
        "",
        *_equal(data["variants"]),
        *_changes(data["variants"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _how(data: Mapping[str, Any]) -> list[str]:
    note = CARTPOLE_CPU if data["figure"] == "fig1" and data["scale"] != "smoke" else SCALE_NOTES[data["scale"]]
    counts = {status: sum(v["status"] == status for v in data["variants"]) for status in ("finished", "unfinished")}
    rest = f"; not yet finished: {counts['unfinished']}" if counts["unfinished"] else ""
    others = data.get("beside", [])  # runs of other folders, made with other commands and perhaps elsewhere
    away = {name for lot in others for name in lot["variants"]}
    lots = [(data, [v for v in data["variants"] if v["name"] not in away])]
    lots += [(lot, [v for v in data["variants"] if v["name"] in lot["variants"]]) for lot in others]
    return [
        f"Scale `{data['scale']}`. {note} {_sizes(data['variants'])} {counts['finished']} of {len(data['variants'])} "
        f"variants are finished{rest}.",
        "",
        *(line for made, runs in lots for line in _made(made, runs, bool(others))),
        WHAT,
    ]


def _made(made: Mapping[str, Any], variants: list[dict[str, Any]], named: bool) -> list[str]:
    """With what some runs were made. An earlier call's plan says so, and a stranger may have sent it."""
    versions = ", ".join(f"{name} {prose(made['versions'].get(name))}" for name in ("epvf-data", "jax", "mujoco"))
    runs = {v["name"] if v["kind"] == "epvf" else v["name"].removeprefix("ours-"): v for v in variants}
    steps = sum(variant["env_steps"] * len(variant["seeds"]) for variant in runs.values())
    hardware, total = made["hardware"], sum(variant["seconds"] for variant in runs.values())
    which = f"{', '.join(code(name) for name in runs)}: " if named else ""
    cores = f"{hardware['cores']} core{'' if hardware['cores'] == 1 else 's'}"
    return [
        *(f"Command: {code(command, 4000)}" for command in made["commands"]),
        "",
        f"{which}{steps:,.0f} environment steps in {_duration(total)} on {cores} of "
        f"{prose(hardware['processor'])} (device: {prose(hardware['device'])}), {versions}, {prose(made['date'])}.",
        "",
    ]


def _sizes(variants: list[dict[str, Any]]) -> str:
    """How the size of the runs compares with the paper's 4,096 environments of 1,000 steps."""
    sizes = sorted({v["envs"] for v in variants if v.get("envs")})
    horizons = sorted({int(v["max_return"]) for v in variants if v.get("max_return")})
    if not sizes or not horizons:
        return ""
    spread = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    count = "environment" if sizes == [1] else "environments"
    paper = "" if horizons == [500] else " The paper runs up to 4,096 environments of 1,000 steps."
    return f"Run here: {spread} {count} with episodes of at most {horizons[-1]:,} steps.{paper}"


def _claims(claims: list[dict[str, Any]]) -> list[str]:
    lines = []
    for panel in dict.fromkeys(claim["panel"] for claim in claims):
        if len({claim["panel"] for claim in claims}) > 1:
            lines += [f"### {PANELS[panel]}", ""]
        for claim in claims:
            if claim["panel"] == panel:
                asks = "" if claim["of"] == "paper" else " *(our own question)*"
                lines += [
                    f"**{claim['claim']}**{asks} **{claim['verdict'].capitalize()}.** {claim['evidence']} "
                    f"Judged by: {claim['judged']}.",
                    "",
                ]
    return lines


def _table(variants: list[dict[str, Any]]) -> str:
    """Variant, seeds, steps, finals with intervals, wall time; for CartPole also the iterations until it is solved."""
    solved = any(variant.get("first_pass") for variant in variants)
    header = ["variant", "seeds", "env steps a seed", "iterations", "final perturbed", "final unperturbed"]
    header += ["iterations until solved", "env steps until solved"] if solved else []
    rows = []
    for variant in variants:
        label = _label(variant)
        if variant["status"] != "finished":
            label += f" ({variant['status']})"
        final = variant.get("final", {})
        cells = [label, str(len(variant["seeds"])), f"{variant['env_steps']:,.0f}", f"{variant['iterations']:,.0f}"]
        cells += [_interval(final.get(key), "iqm", 1) for key in ("return_perturbed", "return_unperturbed")]
        if solved:
            passes = variant.get("first_pass", {})
            cells += [_interval(passes.get(key), "median", 0) for key in ("iteration", "env_steps")]
        rows.append([*cells, _duration(variant["seconds"])])
    return table([*header, "wall time, all seeds"], rows)


def _label(variant: Mapping[str, Any]) -> str:
    return variant["label"] if variant["panel"] == "paper" else f"{variant['label']} (ours)"


def _equal(variants: list[dict[str, Any]]) -> list[str]:
    """Where each variant stands after equal environment steps and after equal minutes; nothing for a single variant."""
    ran = [v for v in variants if v.get("curves", {}).get("env_steps") and v["seconds"]]
    if len(ran) < 2:
        return []
    minutes_a_seed = [v["seconds"] / len(v["seeds"]) / 60 for v in ran]
    steps = [n for n in EQUAL_STEPS if n <= max(v["env_steps"] for v in ran)]
    minutes = [n for n in EQUAL_MINUTES if n <= max(minutes_a_seed)]
    if not steps and not minutes:
        return []
    head = ["variant", *(f"{n / 1e6:g} M steps" for n in steps), *(f"{n} min" for n in minutes)]
    rows = []
    for v, whole in zip(ran, minutes_a_seed, strict=True):
        places = [*steps, *(v["env_steps"] * n / whole for n in minutes)]
        rows.append([_label(v), *(_reached(v["curves"]["env_steps"], place) for place in places)])
    return ["### At equal environment steps and equal minutes", "", EQUAL, "", table(head, rows), ""]


def _reached(curves: Mapping[str, Any], steps: float) -> str:
    """Unperturbed and perturbed return at so many steps; nothing before a curve's first cell or after its last."""
    middles = []
    for key in ("return_unperturbed", "return_perturbed"):
        curve = curves.get(key, {"grid": [], "iqm": []})
        points = [(x, y) for x, y in zip(curve["grid"], curve["iqm"], strict=True) if y is not None]
        half = (points[-1][0] - points[0][0]) / max(len(points) - 1, 1) / 2 if points else 0.0  # of a cell
        there = points and points[0][0] - half <= steps <= points[-1][0] + half
        middles.append(f"{min(points, key=lambda point: abs(point[0] - steps))[1]:,.0f}" if there else "–")
    return "–" if middles == ["–", "–"] else " / ".join(middles)


def _changes(variants: list[dict[str, Any]]) -> list[str]:
    """What each variant changes, and why some are missing."""
    lines = []
    for variant in variants:
        changed = ", ".join(f"{key} {_value(old)} → {_value(new)}" for key, (old, new) in variant["changes"].items())
        what = f"changes {changed}" if changed else ""
        reason = f"{variant['status']}: {prose(variant['reason'], 500)}" if variant["reason"] else ""
        if told := "; ".join(filter(None, (f"preset `{variant['preset']}`", what, reason))):
            lines.append(f"- `{variant['name']}`: {told}{'' if told.endswith('.') else '.'}")
    return lines


def _interval(found: Mapping[str, Any] | None, middle: str, digits: int) -> str:
    if not found:
        return "–"
    value, low, high = (
        "never" if found[key] is None else f"{found[key]:,.{digits}f}" for key in (middle, "low", "high")
    )
    return value if value == low == high else f"{value} [{low}, {high}]"  # one seed, or never in any


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else prose(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
