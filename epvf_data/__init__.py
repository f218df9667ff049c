"""epvf-data: data sets of policies and their returns, and critics that read a policy and predict its return."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name → module that defines it, and its name there where that is another. Loaded on first use: reading data
# never imports jax or mujoco.
_PUBLIC = {
    "Architecture": "epvf_data.policies.own",
    "collect": "epvf_data.collectors.collect",
    "collect_config": "epvf_data.collectors.setting",
    "CollectConfig": "epvf_data.collectors.setting",
    "best_policy": "epvf_data.trainers.curves.policy",
    "check_critic": "epvf_data.conformance.critics",
    "check_policy": "epvf_data.conformance.policies",
    "compare": "epvf_data.trainers.compare",
    "Critic": "epvf_data.critics.base",
    "CriticFamily": "epvf_data.critics.families:Family",
    "diff": "epvf_data.curation.diff",
    "evaluate": "epvf_data.trainers.evaluation.evaluate",
    "fan_out": "epvf_data.launch.fan_out",
    "finalize": "epvf_data.curation.finalize",
    "evaluate_run": "epvf_data.trainers.offline.run",
    "EvaluationConfig": "epvf_data.trainers.evaluation.settings",
    "filter": "epvf_data.curation.select:filter_rows",
    "export_archive": "epvf_data.sharing.archive",
    "import_policy": "epvf_data.importing.run",
    "improve": "epvf_data.trainers.improving.improve",
    "ImproveConfig": "epvf_data.trainers.improving.settings",
    "load_critic": "epvf_data.trainers.offline.use",
    "load_policy": "epvf_data.policies.files",
    "Loader": "epvf_data.store.loader",
    "make_env": "epvf_data.envs:make",
    "merge": "epvf_data.curation.merge",
    "OfflineConfig": "epvf_data.trainers.offline.settings",
    "online_config": "epvf_data.trainers.online.settings",
    "OnlineConfig": "epvf_data.trainers.online.settings",
    "open": "epvf_data.store.reader",
    "own_spec": "epvf_data.policies.loading",
    "plot": "epvf_data.cards.portrait:plot_dataset",
    "plot_runs": "epvf_data.trainers.curves.plot",
    "PolicySpec": "epvf_data.policies.spec",
    "pull": "epvf_data.sharing.pull",
    "push": "epvf_data.sharing.push",
    "render": "epvf_data.render.either",
    "rollout": "epvf_data.rollout",
    "sample": "epvf_data.curation.select",
    "save_policy": "epvf_data.policies.files",
    "score": "epvf_data.scoring.score",
    "ScoreConfig": "epvf_data.scoring.settings",
    "sign": "epvf_data.sharing.signatures",
    "split": "epvf_data.curation.select",
    "split_by_lineage": "epvf_data.store.splits",
    "split_iid": "epvf_data.store.splits",
    "task": "epvf_data.recording.write",
    "top": "epvf_data.scoring.top",
    "train_offline": "epvf_data.trainers.offline.run",
    "train_online": "epvf_data.trainers.online.run",
    "validate": "epvf_data.store.validate",
    "verify": "epvf_data.sharing.signatures",
    "write": "epvf_data.recording.write",
    "write_report": "epvf_data.report.page",
    "write_card": "epvf_data.cards.card",
}
__all__ = [
    "Architecture",
    "CollectConfig",
    "Critic",
    "CriticFamily",
    "EvaluationConfig",
    "ImproveConfig",
    "Loader",
    "OfflineConfig",
    "OnlineConfig",
    "PolicySpec",
    "ScoreConfig",
    "__version__",
    "best_policy",
    "check_critic",
    "check_policy",
    "collect",
    "collect_config",
    "compare",
    "diff",
    "evaluate",
    "evaluate_run",
    "export_archive",
    "fan_out",
    "filter",
    "finalize",
    "import_policy",
    "improve",
    "load_critic",
    "load_policy",
    "make_env",
    "merge",
    "online_config",
    "open",
    "own_spec",
    "plot",
    "plot_runs",
    "pull",
    "push",
    "render",
    "rollout",
    "sample",
    "save_policy",
    "score",
    "sign",
    "split",
    "split_by_lineage",
    "split_iid",
    "task",
    "top",
    "train_offline",
    "train_online",
    "validate",
    "verify",
    "write",
    "write_card",
    "write_report",
]

if TYPE_CHECKING:
    from epvf_data.cards.card import write_card as write_card
    from epvf_data.cards.portrait import plot_dataset as plot
    from epvf_data.collectors.collect import collect as collect
    from epvf_data.collectors.setting import CollectConfig as CollectConfig
    from epvf_data.collectors.setting import collect_config as collect_config
    from epvf_data.conformance.critics import check_critic as check_critic
    from epvf_data.conformance.policies import check_policy as check_policy
    from epvf_data.critics.base import Critic as Critic
    from epvf_data.critics.families import Family as CriticFamily
    from epvf_data.curation.diff import diff as diff
    from epvf_data.curation.finalize import finalize as finalize
    from epvf_data.curation.merge import merge as merge
    from epvf_data.curation.select import filter_rows as filter
    from epvf_data.curation.select import sample as sample
    from epvf_data.curation.select import split as split
    from epvf_data.envs import make as make_env
    from epvf_data.importing.run import import_policy as import_policy
    from epvf_data.launch.fan_out import fan_out as fan_out
    from epvf_data.policies.files import load_policy as load_policy
    from epvf_data.policies.files import save_policy as save_policy
    from epvf_data.policies.loading import own_spec as own_spec
    from epvf_data.policies.own import Architecture as Architecture
    from epvf_data.policies.spec import PolicySpec as PolicySpec
    from epvf_data.recording.write import task as task
    from epvf_data.recording.write import write as write
    from epvf_data.render.either import render as render
    from epvf_data.report.page import write_report as write_report
    from epvf_data.rollout import rollout as rollout
    from epvf_data.scoring.score import score as score
    from epvf_data.scoring.settings import ScoreConfig as ScoreConfig
    from epvf_data.scoring.top import top as top
    from epvf_data.sharing.archive import export_archive as export_archive
    from epvf_data.sharing.pull import pull as pull
    from epvf_data.sharing.push import push as push
    from epvf_data.sharing.signatures import sign as sign
    from epvf_data.sharing.signatures import verify as verify
    from epvf_data.store.loader import Loader as Loader
    from epvf_data.store.reader import open as open
    from epvf_data.store.splits import split_by_lineage as split_by_lineage
    from epvf_data.store.splits import split_iid as split_iid
    from epvf_data.store.validate import validate as validate
    from epvf_data.trainers.compare import compare as compare
    from epvf_data.trainers.curves.plot import plot_runs as plot_runs
    from epvf_data.trainers.curves.policy import best_policy as best_policy
    from epvf_data.trainers.evaluation.evaluate import evaluate as evaluate
    from epvf_data.trainers.evaluation.settings import EvaluationConfig as EvaluationConfig
    from epvf_data.trainers.improving.improve import improve as improve
    from epvf_data.trainers.improving.settings import ImproveConfig as ImproveConfig
    from epvf_data.trainers.offline.run import evaluate_run as evaluate_run
    from epvf_data.trainers.offline.run import train_offline as train_offline
    from epvf_data.trainers.offline.settings import OfflineConfig as OfflineConfig
    from epvf_data.trainers.offline.use import load_critic as load_critic
    from epvf_data.trainers.online.run import train_online as train_online
    from epvf_data.trainers.online.settings import OnlineConfig as OnlineConfig
    from epvf_data.trainers.online.settings import online_config as online_config


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'epvf_data' has no attribute {name!r}")
    from epvf_data.errors import extra

    with extra():
        module, _, inner = _PUBLIC[name].partition(":")
        return getattr(importlib.import_module(module), inner or name)


def __dir__() -> list[str]:
    return sorted(__all__)
