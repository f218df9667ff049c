"""What a run found, in numbers and in one plain sentence a split, always beside the ridge and the mean."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from epvf_data.trainers import metrics
from epvf_data.trainers.offline.splits import SPLITS


@dataclass(frozen=True)
class OfflineReport:
    """The headline numbers are those of the i.i.d. split where it was asked for, else of the lineage split."""

    run: str
    critic: str
    rows_train: int
    rows_test: int
    spearman: float
    kendall: float
    r2: float
    seconds: float
    verdict: str
    dataset: dict[str, Any]
    splits: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values without NaN."""
        return dataclasses.asdict(self)


def make_report(run: str, critic: str, dataset: dict[str, Any], splits: dict[str, Any]) -> OfflineReport:
    """The report of all splits, of which at least one is available."""
    available = [split for split in splits.values() if split["available"]]
    head = available[0]
    return OfflineReport(
        run=run,
        critic=critic,
        rows_train=head["rows_train"],
        rows_test=head["rows_test"],
        spearman=head["critic"]["spearman"],
        kendall=head["critic"]["kendall"],
        r2=head["critic"]["r2"],
        seconds=head["seconds"],
        verdict=" ".join(split["verdict"] for split in available),
        dataset=dataset,
        splits=splits,
    )


def judge(
    name: str,
    predictions: dict[str, Float[np.ndarray, "S n"]],
    true: Float[np.ndarray, "n"],
    variances: Float[np.ndarray, "n"],
    families: Int[np.ndarray, "n"],
    random_start: bool | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Metrics with 95 % intervals of `predictions` {"critic", "ridge", "mean"} on one split's test rows, and a verdict.

    By lineage, whole families are resampled where there are enough of them; the critic's seeds are resampled as well.
    """
    by_family = name == "lineage" and len(np.unique(families)) >= metrics.MIN_FAMILIES
    samples = metrics.resample(len(true), families if by_family else None, resamples, seed)
    measured, boot = {}, {}
    for who, predicted in predictions.items():
        measured[who] = metrics.measure(predicted, true)
        boot[who] = metrics.bootstrap(predicted, true, samples, seed)
        measured[who]["interval"] = {metric: metrics.interval(values) for metric, values in boot[who].items()}
    margin = boot["critic"]["spearman"] - boot["ridge"]["spearman"]
    against = {
        "spearman_difference": measured["critic"]["spearman"] - measured["ridge"]["spearman"],
        "interval": metrics.interval(margin),
    }
    ceiling, basis = metrics.noise_ceiling(true, variances, random_start)
    return {
        "critic": measured["critic"],
        "controls": {"ridge": measured["ridge"], "mean": measured["mean"]},
        "critic_against_ridge": against,
        "interval_over": "families" if by_family else "rows",
        "ceiling": {"r2": ceiling, "basis": basis},
        "verdict": _verdict(name, measured, against),
    }


def _verdict(name: str, measured: dict[str, Any], against: dict[str, Any]) -> str:
    """One sentence that does not flatter."""
    critic, ridge, mean = measured["critic"], measured["ridge"], measured["mean"]
    low, high = critic["interval"]["spearman"]
    numbers = f"Spearman {critic['spearman']:.2f} [{low:.2f}, {high:.2f}], R² {critic['r2']:.2f}"
    ridge_numbers = f"the ridge reaches Spearman {ridge['spearman']:.2f}, R² {ridge['r2']:.2f}"
    if low <= 0:
        finding = "the critic ranks no better than chance"
    elif against["interval"][0] > 0:
        finding = "the critic ranks better than the ridge"
    elif against["interval"][1] < 0:
        finding = "the critic ranks worse than the ridge"
    else:
        finding = "the critic does not rank better than the ridge"
    remark = ""
    if critic["r2"] <= mean["r2"]:
        remark = " Its squared errors are no smaller than those of predicting the mean return."
    elif critic["r2"] <= 0:
        remark = (
            " It beats predicting the training rows' mean return, but knowing these rows' own mean would be better."
        )
    return f"{SPLITS[name]}, {finding}: {numbers}; {ridge_numbers}.{remark}"
