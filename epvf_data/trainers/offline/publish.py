"""From fitted splits to the report of a run and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.critics import CRITICS
from epvf_data.envs import make, ships
from epvf_data.errors import RunError
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import EnvIdentity
from epvf_data.trainers import rundir
from epvf_data.trainers.offline import plot
from epvf_data.trainers.offline.fitted import FittedSplit
from epvf_data.trainers.offline.report import OfflineReport, judge, make_report
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.offline.source import Source

PICTURE = "predicted_vs_true.png"


def publish(
    directory: Path, opened: Dataset, source: Source, config: OfflineConfig, fitted: dict[str, FittedSplit | str]
) -> OfflineReport:
    """Judges every split, writes report.json and the picture."""
    splits: dict[str, Any] = {}
    panels = []
    for name, found in fitted.items():
        if isinstance(found, str):
            splits[name] = {"available": False, "reason": found}
            continue
        splits[name], panel = _judge(name, opened, source, config, found)
        panels.append(panel)
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
    report = make_report(str(directory), config.critic, dataset, splits)
    rundir.write_json(directory / "report.json", report.to_dict())
    heading = f"{opened.env.name}, policies {policies}: {config.critic}, {CRITICS[config.critic].about}"
    rundir.publish(directory / PICTURE, lambda path: plot.draw(panels, config.critic, heading, path))
    return report


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


def _judge(
    name: str, opened: Dataset, source: Source, config: OfflineConfig, found: FittedSplit
) -> tuple[dict, plot.Panel]:
    """The report of one split and its panel of the picture."""
    split = found.ground.split
    test = split.test
    predictions = {
        "critic": found.predict(test),
        "ridge": found.ridge(test),
        "mean": np.full((1, len(test)), float(found.ground.scales[0].return_mean)),
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
    )
    planes = found.ground.ridge.values()
    result = {
        "available": True,
        "finished": found.finished,
        "rows_train": len(split.train),
        "rows_validation": len(split.validation),
        "rows_test": len(test),
        "families_train": len(np.unique(source.families[split.train])),
        "families_test": len(np.unique(source.families[test])),
        "epochs": found.epochs,
        "best_epochs": found.best_epochs,
        "ridge_penalty": float(next(iter(planes))["penalty"]),
        "ridge_rows": sum(int(plane["rows"]) for plane in planes),
        "seconds": found.seconds,
        **judged,
    }
    each = judged["critic"]["per_seed"]["spearman"]
    median = int(np.argsort(each, kind="stable")[(len(each) - 1) // 2])
    kinds = source.kinds
    panel = plot.Panel(
        split=name,
        true=source.labels[test],
        predicted=predictions["critic"][median],
        sources=[kinds[row] for row in test],
        spearman=judged["critic"]["spearman"],
        r2=judged["critic"]["r2"],
        families=result["families_test"],
        seeds=len(each),
        ridge_spearman=judged["controls"]["ridge"]["spearman"],
    )
    return result, panel
