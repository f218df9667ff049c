"""Several runs side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epvf_data import pictures
from epvf_data.critics.families import CRITICS, READS, Family
from epvf_data.errors import RunError
from epvf_data.trainers import rundir
from epvf_data.trainers.evaluation.settings import RESULT, measured
from epvf_data.trainers.offline.inputs import stored_run
from epvf_data.trainers.offline.settings import SPLITS

_NUMBERS = {
    **dict.fromkeys(("spearman", "r2"), float),
    "interval": {"spearman": [float, float]},
    "iqm": {"spearman": float},
    "per_seed": {"spearman": [float]},
    "top_tenth": {"spearman": float, "mean_absolute_error": float},
    "regret": {"10": float},
}
_SPLIT = {"critic": _NUMBERS, "controls": {"ridge": (_NUMBERS, None)}, "seconds": float}  # of a report, if available
_DRAWN = ("seed", "folds", "test_fraction", "architecture", "held_out")  # settings that choose the test rows


def compare(runs: Sequence[str | Path], image: str | Path | None = None, *, force: bool = False) -> dict[str, Any]:
    """What the reports of the runs say of each split, best Spearman first; `image` gets a picture.

    The ridges on what the critics read stand among them, unless a run is one; Spearman comes as the interquartile mean
    over seeds too. `gradient_cosine` and the gains of gradient ascent are None where that split was not evaluated;
    `metrics` are the user's own, by name, as far as `evaluate` measured them.
    `same_rows` tells whether all runs were judged on the same rows. Raises RunError where a directory holds no report,
    ConfigError and DatasetError where no picture can be written to `image`, see `pictures.check`.
    """
    if image is not None:
        pictures.check(Path(image), force)
    reports = [_read(Path(run)) for run in runs]
    judged = {(one["content"], *(one["config"][name] for name in _DRAWN)) for one in reports}
    splits: dict[str, list[dict[str, Any]]] = {}
    for one in reports:
        for name, split in one["report"]["splits"].items():
            if split["available"]:
                splits.setdefault(name, []).append(_line(one, name, split))
    if not splits:
        raise RunError("no split of these runs is available; their reports say why.")
    for name, lines in splits.items():
        controls: dict[str, dict[str, Any]] = {}
        for one in reports:
            split = one["report"]["splits"].get(name, {})
            if split.get("available") and split["controls"]["ridge"] is not None:
                reads = split.get("ridge_reads")  # which reports of 0.1.0 lack
                own = CRITICS.get(one["config"]["critic"], Family()).reads
                controls.setdefault(READS[reads if reads in tuple(READS) else own], split)
        if len(judged) == 1 and lines:
            for family in {CRITICS[line["critic"]] for line in lines if line["critic"] in CRITICS}:
                if family.closed:
                    controls.pop(READS[family.reads], None)  # one of the runs is that ridge
        lines += [_control(f"ridge on {what} (control)", split) for what, split in controls.items()]
        lines.sort(key=lambda line: -line["spearman"])
    found = {"runs": [one["run"] for one in reports], "same_rows": len(judged) == 1, "splits": splits}
    if image is not None:
        from epvf_data.trainers.evaluation.picture import draw_comparison  # it brings matplotlib along

        pictures.save(draw_comparison(splits), Path(image), force=force)
    return found


def _read(run: Path) -> dict[str, Any]:
    """What a run says of itself, in the shapes that are used below."""
    path, evaluated = run / "report.json", run / RESULT
    settings = stored_run(run)
    if not os.path.lexists(path):
        raise RunError(f"{run} holds no report yet; resume its training, or evaluate it.")
    report, evaluation = rundir.read(path), rundir.read(evaluated) if os.path.lexists(evaluated) else {}
    splits: Any = report.get("splits")
    right = rundir.fits(splits, {}) and all(
        name in SPLITS
        and rundir.fits(split, {"available": bool})
        and (not split["available"] or rundir.fits(split, _SPLIT))
        for name, split in splits.items()
    )
    evaluated = measured(evaluation)
    if not right or evaluated is None:
        name = RESULT if right else path.name
        raise RunError(f"{run / name} is not what an evaluation of an offline run leaves; evaluate the run again.")
    config, content = settings["config"], settings["dataset"]["content"]
    return {"run": str(run), "report": report, "config": config, "content": content, "evaluated": evaluated}


def _line(one: dict[str, Any], name: str, split: dict[str, Any]) -> dict[str, Any]:
    critic, config = split["critic"], one["config"]
    measured = one["evaluated"].get(name, {})
    gradient, ascent = measured.get("gradient"), measured.get("improvement")
    return {
        "run": one["run"],
        "critic": config["critic"] + ("" if config["loss"] == "mse" else f", {config['loss']}"),
        "ensemble": config["ensemble"],
        **_numbers(critic),
        "seconds": split["seconds"],
        "gradient_cosine": gradient and gradient["cosine"],
        "improvement": ascent and ascent["stopped"]["gain"],
        "improvement_over_start": ascent and ascent["stopped"]["mean"] - ascent["start_mean"],
        "metrics": {name: one["value"] for name, one in measured.get("metrics", {}).items()},
    }


def _control(label: str, split: dict[str, Any]) -> dict[str, Any]:
    rest = dict.fromkeys(("seconds", "gradient_cosine", "improvement", "improvement_over_start"))
    return {"run": None, "critic": label, "ensemble": 1, **_numbers(split["controls"]["ridge"]), **rest, "metrics": {}}


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "spearman": found["spearman"],
        "interval": found["interval"]["spearman"],
        "iqm": found["iqm"]["spearman"],
        "seeds": len(found["per_seed"]["spearman"]),
        "r2": found["r2"],
        "within": found["within"]["spearman"] if rundir.fits(found.get("within"), {"spearman": float}) else None,
        "top_tenth_spearman": found["top_tenth"]["spearman"],
        "top_tenth_error": found["top_tenth"]["mean_absolute_error"],
        "regret_10": found["regret"]["10"],
    }


def label(line: dict[str, Any]) -> str:
    """The run's folder, and its critic where the folder does not say it; of a control what it is."""
    if line["run"] is None:
        return line["critic"]
    name, size = Path(line["run"]).resolve().name, f" × {line['ensemble']}" if line["ensemble"] > 1 else ""
    return f"{name} ({line['critic']}{size})" if line["critic"] not in name or size else name
