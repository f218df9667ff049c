"""What a run found, in numbers and in one plain sentence a split, beside the ridge and the mean."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from epvf_data.trainers import metrics
from epvf_data.trainers.offline.settings import SPLITS, headline


@dataclass(frozen=True)
class OfflineReport:
    """The numbers at the top are those of one split, `split`: lineage where it is available, else the first one.

    `seconds` is what the whole run took, `seconds_fitting` what the fits of all splits took of it.
    """

    run: str
    critic: str
    split: str
    rows_train: int
    rows_test: int
    spearman: float
    kendall: float
    r2: float
    seconds: float
    seconds_fitting: float
    verdict: str
    dataset: dict[str, Any]
    splits: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values without NaN."""
        return dataclasses.asdict(self)


def make_report(
    run: str, critic: str, dataset: dict[str, Any], splits: dict[str, Any], seconds_besides: float
) -> OfflineReport:
    """The report of all splits, of which at least one is available; `seconds_besides` were spent on other than fits."""
    available = {name: split for name, split in splits.items() if split["available"]}
    name = headline(list(available))
    head, fitting = available[name], sum(split["seconds"] for split in available.values())
    return OfflineReport(
        run=run,
        critic=critic,
        split=name,
        rows_train=head["rows_train"],
        rows_test=head["rows_test"],
        spearman=head["critic"]["spearman"],
        kendall=head["critic"]["kendall"],
        r2=head["critic"]["r2"],
        seconds=fitting + seconds_besides,
        seconds_fitting=fitting,
        verdict=" ".join(split["verdict"] for split in available.values()),
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
    no_ridge: str | None = None,
    ridge: str = "the ridge",
) -> dict[str, Any]:
    """Metrics with 95 % intervals of `predictions` {"critic", "ridge", "mean"} on one split's test rows, and a verdict.

    By lineage, whole families are resampled where there are enough of them; the critic's seeds are resampled as well.
    There, "within" is how the rows of each family are ranked among themselves, the mean over families.
    `no_ridge` says why "ridge" is not among the predictions, where it is not, and `ridge` what it is, where it is.
    """
    by_family = name == "lineage" and len(np.unique(families)) >= metrics.MIN_FAMILIES
    samples = metrics.resample(len(true), families if by_family else None, resamples, seed)
    measured, boot = {}, {}
    for who, predicted in predictions.items():
        measured[who] = metrics.measure(predicted, true)
        boot[who] = metrics.bootstrap(predicted, true, samples, seed)
        measured[who]["interval"] = {metric: metrics.interval(values) for metric, values in boot[who].items()}
        inside = metrics.within(predicted, true, families) if name == "lineage" else None
        measured[who]["within"] = inside and {**inside, "interval": metrics.interval_of_mean(inside["each"], seed)}
    against = None
    if no_ridge is None:
        against = {
            "spearman_difference": measured["critic"]["spearman"] - measured["ridge"]["spearman"],
            "interval": metrics.interval(boot["critic"]["spearman"] - boot["ridge"]["spearman"]),
        }
    ceiling, basis = metrics.noise_ceiling(true, variances, random_start)
    return {
        "critic": measured["critic"],
        "controls": {"ridge": measured.get("ridge"), "mean": measured["mean"]},
        "critic_against_ridge": against,
        "no_ridge": no_ridge,
        "interval_over": "families" if by_family else "rows",
        "ceiling": {"r2": ceiling, "basis": basis},
        "verdict": _verdict(name, measured, against, no_ridge, ridge),
    }


def _verdict(
    name: str, measured: dict[str, Any], against: dict[str, Any] | None, no_ridge: str | None, who: str
) -> str:
    """One sentence that does not flatter, and one on the order inside families."""
    critic, ridge, mean = measured["critic"], measured.get("ridge"), measured["mean"]
    low, high = critic["interval"]["spearman"]
    numbers = f"Spearman {critic['spearman']:.2f} [{low:.2f}, {high:.2f}], R² {critic['r2']:.2f}"
    compared = no_ridge if ridge is None else f"{who} reaches Spearman {ridge['spearman']:.2f}, R² {ridge['r2']:.2f}"
    if low <= 0:
        finding = "the critic ranks no better than chance"
    elif against is None:
        finding = "the critic ranks better than chance"
    elif against["interval"][0] > 0:
        finding = f"the critic ranks better than {who}"
    elif against["interval"][1] < 0:
        finding = f"the critic ranks worse than {who}"
    else:
        finding = f"the critic does not rank better than {who}"
    remark = ""
    if critic["r2"] <= mean["r2"]:
        remark = " Its squared errors are no smaller than those of predicting the mean return."
    elif critic["r2"] <= 0:
        remark = (
            " It beats predicting the training rows' mean return, but knowing these rows' own mean would be better."
        )
    inside = critic.get("within")
    if inside is not None:
        low, high = inside["interval"]
        beside = "" if ridge is None else f"; {who} reaches {ridge['within']['spearman']:.2f}"
        remark += (
            f" Among the policies of one such family: Spearman {inside['spearman']:.2f} [{low:.2f}, {high:.2f}], mean "
            f"of {inside['families']}{beside}."
        )
    return f"{SPLITS[name]}, {finding}: {numbers}; {compared}.{remark}"
