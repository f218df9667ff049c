"""From fitted splits to the report of a run and its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from epvf_data import pictures
from epvf_data.critics.families import READS, family_of, name_of
from epvf_data.envs import make, ships
from epvf_data.errors import RunError
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import EnvIdentity
from epvf_data.trainers import rundir
from epvf_data.trainers.offline.fitted import FittedSplit, held_out, held_out_ridge
from epvf_data.trainers.offline.plot import Panel, draw
from epvf_data.trainers.offline.report import OfflineReport, judge, make_report
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.offline.source import Source

REPORT, PICTURE = "report.json", "predicted_vs_true.png"


class Judged(NamedTuple):
    """What the report says of a split, and its panel of the picture where there is one."""

    result: dict[str, Any]
    panel: Panel | None


def publish(
    directory: Path,
    opened: Dataset,
    source: Source,
    config: OfflineConfig,
    judged: Mapping[str, Judged],
    besides: Callable[[], float],
    plot: Path | None = None,
    force: bool = False,
) -> OfflineReport:
    """Draws the picture, into the file `plot` too, and writes report.json; `besides()` are the seconds spent on other
    than fits up to then."""
    policies = ", ".join(map(str, source.specs))
    dataset = {
        "env": opened.env.name,
        "architecture": source.specs[0].id if len(source.specs) == 1 else None,
        "architectures": [spec.id for spec in source.specs],
        "policies": policies,
        "rows": len(source.labels),
        "rows_not_finite": source.rows_not_finite,
        "return_mean": float(source.labels.mean()),
        "return_std": float(source.labels.std()),
    }
    panels = [one.panel for one in judged.values() if one.panel is not None]
    heading = f"{opened.env.name}, policies {policies}: {name_of(config.critic)}, {family_of(config.critic).about}"
    figure = draw(panels, heading)
    pictures.save(figure, directory / PICTURE, force=True)
    if plot is not None:
        pictures.save(figure, plot, force=force)
    splits = {name: one.result for name, one in judged.items()}
    report = make_report(str(directory), name_of(config.critic), dataset, splits, besides())
    rundir.write_json(directory / REPORT, report.to_dict())
    return report


def seconds_besides_fits(directory: Path) -> float:
    """What an earlier report of the run says that it spent on other than fits; 0 where none says so."""
    try:
        found = rundir.read(directory / REPORT)
    except RunError:
        return 0.0
    if not rundir.fits(found, {"seconds": float, "seconds_fitting": float}):
        return 0.0
    return max(0.0, found["seconds"] - found["seconds_fitting"])


def random_start(identity: EnvIdentity) -> bool | None:
    """Whether episodes start at random, or None for an environment that this version does not know."""
    if not ships(identity.name):
        return None
    env = make(identity.name).with_horizon(identity.horizon)
    return env.random_start if env.digest == identity.digest else None


def chance(opened: Dataset, source: Source) -> tuple[bool | None, Float[np.ndarray, "n"]]:
    """Whether returns vary from episode to episode (None: unknown), and the variance of each label, NaN where unknown.

    From a fixed start only those of sampled policies do.
    """
    starts, sampled = random_start(opened.env), np.array([spec.sampled for spec in source.specs])
    if starts is not False or not sampled.any():
        return starts, source.variances
    noisy = sampled[source.places(np.arange(len(source.labels)))]
    known = ~np.isnan(source.variances[noisy]).all()
    return True, np.where(noisy, source.variances, 0.0 if known else np.nan)


def judge_split(
    name: str,
    opened: Dataset,
    source: Source,
    config: OfflineConfig,
    found: Sequence[FittedSplit] | str,
    control: Sequence[FittedSplit] = (),
) -> Judged:
    """The report of one split over its folds, or the sentence that stands for one that is not available.

    `control` are the folds' ridges on parameters, which stand beside a critic that is itself the ridge on actions.
    """
    if isinstance(found, str):
        return Judged({"available": False, "reason": found}, None)
    test, predicted = held_out(found)
    no_ridge, ridges = None if control else _no_ridge(found), control or found
    reads = ridges[0].source.column
    predictions = {
        "critic": predicted,
        **({} if no_ridge else {"ridge": held_out_ridge(ridges)}),
        # One number for all folds: each one's own mean is low where its held-out rows are high, which ranks backwards.
        "mean": np.full((1, len(test)), np.mean([float(one.ground.scales[0].return_mean) for one in found])),
    }
    if not all(np.isfinite(one).all() for one in predictions.values()):
        raise RunError(f"the critics of the {name} split predict returns that are not finite; train the run again.")
    vary, variances = chance(opened, source)
    judged = judge(
        name,
        predictions,
        source.labels[test],
        variances[test],
        source.families[test],
        vary,
        config.resamples,
        config.seed,
        no_ridge,
        f"the ridge on {READS[reads]}",
    )
    result = {"available": True, **_facts(source, config, name, found, ridges, no_ridge), **judged}
    each = judged["critic"]["per_seed"]["spearman"]
    median = int(np.argsort(each, kind="stable")[(len(each) - 1) // 2])
    kinds = source.kinds
    panel = Panel(
        split=name,
        true=source.labels[test],
        predicted=predictions["critic"][median],
        sources=[kinds[row] for row in test],
        spearman=judged["critic"]["spearman"],
        r2=judged["critic"]["r2"],
        families=result["families_test"],
        seeds=len(each),
        ridge_spearman=None if no_ridge else judged["controls"]["ridge"]["spearman"],
        ridge_reads=READS[reads],
    )
    return Judged(result, panel)


def _facts(
    source: Source,
    config: OfflineConfig,
    name: str,
    found: Sequence[FittedSplit],
    ridges: Sequence[FittedSplit],
    no_ridge: str | None,
) -> dict[str, Any]:
    """What was fitted on how many rows, means over the folds."""
    splits = [one.ground.split for one in found]
    test = np.concatenate([split.test for split in splits])
    due = len(source.labels) if name == "lineage" and config.folds > 1 else len(test)  # what all folds hold out
    planes = [list(one.ground.ridge.values()) for one in ridges]
    shared = ridges[0].source.column == "probe_actions"  # one ridge for all architectures
    return {
        "finished": all(one.finished for one in found) and len(test) == due,
        "folds": len(found),
        "rows_train": round(np.mean([len(split.train) for split in splits])),
        "rows_validation": round(np.mean([len(split.validation) for split in splits])),
        "rows_test": len(test),
        "families_train": round(np.mean([len(np.unique(source.families[split.train])) for split in splits])),
        "families_test": len(np.unique(source.families[test])),
        "epochs": max(one.epochs for one in found),
        "best_epochs": [epoch for one in found for epoch in one.best_epochs],
        "ridge_reads": None if no_ridge else ridges[0].source.column,
        "ridge_penalties": [float(fold[0]["penalty"]) for fold in planes],
        "ridge_rows": (max if shared else sum)(int(plane["rows"]) for plane in planes[0]),
        "seconds": sum(one.seconds for one in found),
    }


def _no_ridge(found: Sequence[FittedSplit]) -> str | None:
    """Why no ridge stands beside the critic as a control, or None where one does."""
    if found[0].config.closed:
        return "it is the ridge itself"
    for one in found:
        places = np.unique(one.source.places(one.ground.test))
        if any(one.ground.ridge[str(place)]["rows"] > 0 for place in places):
            return None
    return "no ridge on their parameters can be fitted, for no policy of their architecture was seen"
