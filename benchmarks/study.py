"""Every family of critics on the same two data sets, split by split: study.json and study.png.

python benchmarks/study.py DIR                   # hours on two cores; goes on where it stopped
python benchmarks/study.py DIR --scale smoke     # minutes: shows that everything runs

The data sets are what online runs left behind, so that returns spread from the first policies to the last: CartPole
(without the policies that solve it, three quarters) and the Ant, each from an EPVF run and an evolution strategy,
with policies of two widths. Critics are compared on the wider policies; those that read both widths also predict the
narrower ones from the wider ones alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import epvf_data
from epvf_data.critics.families import CRITICS
from epvf_data.curation.merge import merge
from epvf_data.curation.select import filter_rows, sample
from epvf_data.recording.task import task_of
from epvf_data.rollout import rollout
from epvf_data.store.reader import Dataset
from epvf_data.trainers.evaluation.compare import compare
from epvf_data.trainers.evaluation.evaluate import evaluate
from epvf_data.trainers.evaluation.settings import EvaluationConfig
from epvf_data.trainers.metrics import spearman

SPLITS = ("iid", "lineage", "high", "source")
MIXED = "architecture"
SMALL_UNF = {"channels": 8, "layers": 2}
# Name → changes of the settings that all share.
FITS: dict[str, dict[str, Any]] = {
    "ridge": {},
    "linear": {},
    "statistics": {},
    "mlp": {},
    "mlp, rank": {"critic": "mlp", "loss": "rank"},
    "mlp, hl-gauss": {"critic": "mlp", "loss": "hl-gauss"},
    "mlp, permuted and flipped": {"critic": "mlp", "augment": "both"},
    "simba": {"widths": (256, 256)},
    "probing": {},
    "probing, generator": {"critic": "probing", "probe_generator": True},
    "probing+raw": {},
    "stored-probing": {},
    "unf": SMALL_UNF,
    "unf, fold": {"critic": "unf", "fixed": "fold", **SMALL_UNF},
    "unf+raw": SMALL_UNF,
}
CURVES = ("mlp", "probing", "probing+raw", "unf", "unf+raw", "stored-probing")


@dataclass(frozen=True)
class Scale:
    """How much is gathered and fitted."""

    cartpole_iterations: int
    ant_steps: int
    wide: int  # rows of each run's wider policies
    narrow: int
    epochs: int
    seeds: int
    pairs: int  # of the gradient's rollouts


SCALES = {
    "smoke": Scale(60, 300_000, 120, 60, 2, 2, 8),
    "cpu": Scale(1200, 8_000_000, 1536, 512, 20, 5, 256),
}


def gather(folder: Path, task: str, scale: Scale) -> Path:
    """The data set of a task: four online runs, recorded, and a sample of each."""
    out = folder / f"{task}.zarr"
    if out.exists():
        return out
    pieces = []
    for algorithm in ("epvf", "es"):
        for width, most in ((64, scale.wide), (32, scale.narrow)):
            rows = most if algorithm == "epvf" else most // 2  # the smaller source is the one that is held out
            name = f"{task}-{algorithm}-{width}"
            pieces.append(folder / f"{name}-sample.zarr")
            if pieces[-1].exists():
                continue
            run, record = folder / name, folder / f"{name}.zarr"
            print(f"{name}: online run", flush=True)
            report = epvf_data.train_online(
                settings(task, algorithm, width, scale), run, record=record, resume=(run / "config.json").exists()
            )
            print(f"  {report}"[:300], flush=True)
            if task == "cartpole":  # most of a run's policies are solved: they would be one tie
                below = folder / f"{name}-below.zarr"
                if not below.exists():
                    filter_rows(record, below, "return < 500")
                record = below
            sample(record, pieces[-1], rows)
    merge(pieces, out)
    return out


def settings(task: str, algorithm: str, width: int, scale: Scale) -> Any:
    """A preset at this scale. The evolution strategy of CartPole gets EPVF's noise."""
    preset = {"cartpole": "cartpole-paper", "ant": "ant-cpu" if algorithm == "epvf" else "ant-cpu-es"}[task]
    changes: dict[str, Any] = {"policy.hidden": [width, width], "seed": width + (algorithm == "es")}
    if task == "ant":
        return epvf_data.online_config(preset, env_steps=scale.ant_steps, **changes)
    if algorithm == "es":
        changes |= {"algorithm": "es", "exploration.antithetic": True, "improvement.learning_rate": 0.05}
        changes |= {"normalise_observations": False, "exploration.scale": 0.2, "improvement.steps": 1}
    return epvf_data.online_config(preset, iterations=scale.cartpole_iterations, **changes)


def fit(path: Path, folder: Path, name: str, architecture: str | None, scale: Scale, splits: str) -> Path:
    """One critic on all splits; a finished run is taken as it is."""
    run = folder / (name.replace(", ", "-").replace(" ", "-") + ("" if architecture else "-mixed"))
    if (run / "report.json").exists():
        return run
    changes = {"critic": name, "probes": 64, "epochs": scale.epochs, "batch_size": 128, "seeds": scale.seeds}
    changes |= {"patience": scale.epochs, "architecture": architecture, "split": splits, **FITS[name]}
    report = epvf_data.train_offline(
        path, epvf_data.OfflineConfig(**changes), run, resume=(run / "config.json").exists()
    )
    found = {split: round(line["critic"]["spearman"], 3) for split, line in report.splits.items() if line["available"]}
    print(f"{run.parent.name} {name}: {found}", flush=True)
    return run


def study(folder: Path, task: str, scale: Scale) -> dict[str, Any]:
    """All fits of a task, what `compare` says of them, and their validation errors epoch by epoch."""
    path, runs = gather(folder, task, scale), folder / f"{task}-critics"
    dataset = epvf_data.open(path)
    wide = max(dataset.architectures, key=lambda item: item.rows)
    fitted = {name: fit(path, runs, name, wide.id, scale, ",".join(SPLITS)) for name in FITS}
    mixed = {
        name: fit(path, runs, name, None, scale, MIXED)
        for name, changes in FITS.items()
        if CRITICS[changes.get("critic", name)].mixed
    }
    ask = EvaluationConfig(split="iid", policies=8, pairs=scale.pairs, starts=32)
    for name, run in fitted.items():
        if not (run / "evaluation.json").exists():
            print(f"{task} {name}: rollouts along the gradient", flush=True)
            evaluate(run, config=ask)
    names = {str(run): name for name, run in (*fitted.items(), *mixed.items())}
    found: dict[str, Any] = {"rows": dataset.rows, "summary": dataset.summary(), "ceiling": ceiling(dataset, wide.id)}
    for key, some in (("wide", fitted), ("mixed", mixed)):
        found[key] = compare(list(some.values()))
        for line in (line for lines in found[key]["splits"].values() for line in lines):
            line["name"] = names.get(str(line.pop("run")), line["critic"])
        del found[key]["runs"]
    found["curves"] = {name: curve(fitted[name]) for name in CURVES}
    found["gradient"] = {
        name: {key: told["gradient"][key] for key in ("cosine", "interval", "chance", "ceiling")}
        for name, run in fitted.items()
        if (told := json.loads((run / "evaluation.json").read_text()))["gradient"]
    }
    return found


def ceiling(dataset: Dataset, architecture: str, episodes: int = 16) -> float:
    """Spearman of an architecture's stored returns with their means over fresh episodes: about what a critic reaches
    on rows held out at random that knows every policy's true mean. 1 where nothing is random."""
    env, table = task_of(dataset), dataset.table(architecture)
    if not env.random_start:
        return 1.0
    seeds = np.tile(np.array([7, 0], np.uint32), (table.rows, 1))
    again = rollout(env, table.spec, table.column("params"), reset_seed=seeds, episodes=episodes)
    return spearman(again.returns.mean(axis=1), table.mean_returns())


def curve(run: Path) -> list[float]:
    """Validation loss after each epoch on the i.i.d. split, mean over seeds; 1 is what the mean return scores."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [float(np.mean(line["validation_loss"])) for line in lines if line.get("split") == "iid"]


def draw(found: dict[str, Any], path: Path) -> None:
    """Spearman of every critic, a panel a split, and learning curves; a row of panels a task."""
    figure = Figure(figsize=(19, 4.6 * len(found)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(found), len(SPLITS) + 2, squeeze=False)
    for row, (task, told) in zip(grid, found.items(), strict=True):
        panels = [*((split, told["wide"]["splits"].get(split, [])) for split in SPLITS)]
        panels.append((MIXED, told["mixed"]["splits"].get(MIXED, [])))
        for axes, (split, lines) in zip(row, panels, strict=False):
            axes.set_title(f"{task}: {split}", fontsize=10)
            for place, name in enumerate(reversed(FITS)):
                for line in (line for line in lines if line["name"] == name):
                    axes.plot(line["interval"], [place, place], color="tab:blue", linewidth=2)
                    axes.plot([line["spearman"]], [place], "o", color="tab:blue", markersize=5)
            axes.set_yticks(range(len(FITS)), list(reversed(FITS)) if axes is row[0] else [], fontsize=8)
            axes.set_ylim(-0.7, len(FITS) - 0.3)
            axes.set_xlim(min(-0.1, axes.get_xlim()[0]), 1)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.grid(axis="x", alpha=0.2)
        for name, values in told["curves"].items():
            row[-1].plot(range(1, len(values) + 1), values, label=name)
        row[-1].set(
            title=f"{task}: learning, iid", xlabel="epochs", ylabel="validation error, 1 = the mean", yscale="log"
        )
        row[-1].legend(fontsize=7)
    figure.suptitle("Spearman of predicted and true return on policies that were held out, 95 % intervals", fontsize=12)
    figure.savefig(path, format="png")


def table(found: dict[str, Any]) -> str:
    """The figures of `draw`, as Markdown."""
    lines = []
    for task, told in found.items():
        splits = {**told["wide"]["splits"], MIXED: told["mixed"]["splits"].get(MIXED, [])}
        head = [f"{task}: Spearman", *(name for name in (*SPLITS, MIXED) if splits.get(name))]
        lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        for name in FITS:
            cells = []
            for split in head[1:]:
                line = next((line for line in splits[split] if line["name"] == name), None)
                cells.append(
                    "" if line is None else "{:.2f} [{:.2f}, {:.2f}]".format(line["spearman"], *line["interval"])
                )
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).replace("-0.", "−0.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for data sets and runs (about 3 GB), study.json and study.png")
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--task", choices=("cartpole", "ant"), action="append")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    found = {task: study(chosen.folder, task, SCALES[chosen.scale]) for task in chosen.task or ("cartpole", "ant")}
    (chosen.folder / "study.json").write_text(json.dumps(found, indent=1))
    draw(found, chosen.folder / "study.png")
    print(table(found))


if __name__ == "__main__":
    main()
