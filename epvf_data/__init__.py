"""epvf-data: data sets of policies and their returns, and critics that read a policy and predict its return."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name → module that defines it. Loaded on first use, so that reading data never imports jax or mujoco.
_PUBLIC = {
    "CollectConfig": "epvf_data.collectors.setting",
    "Loader": "epvf_data.store.loader",
    "OfflineConfig": "epvf_data.trainers.offline.settings",
    "OnlineConfig": "epvf_data.trainers.online.settings",
    "PolicySpec": "epvf_data.policies.spec",
    "collect": "epvf_data.collectors.collect",
    "collect_config": "epvf_data.collectors.setting",
    "evaluate_run": "epvf_data.trainers.offline.run",
    "export_archive": "epvf_data.sharing.archive",
    "import_policy": "epvf_data.importing.run",
    "improve": "epvf_data.trainers.improving.improve",
    "ImproveConfig": "epvf_data.trainers.improving.settings",
    "load_policy": "epvf_data.policies.files",
    "online_config": "epvf_data.trainers.online.settings",
    "open": "epvf_data.store.reader",
    "pull": "epvf_data.sharing.pull",
    "push": "epvf_data.sharing.push",
    "save_policy": "epvf_data.policies.files",
    "sign": "epvf_data.sharing.signatures",
    "score": "epvf_data.scoring.score",
    "ScoreConfig": "epvf_data.scoring.settings",
    "split_by_lineage": "epvf_data.store.splits",
    "split_iid": "epvf_data.store.splits",
    "top": "epvf_data.scoring.top",
    "train_offline": "epvf_data.trainers.offline.run",
    "train_online": "epvf_data.trainers.online.run",
    "validate": "epvf_data.store.validate",
    "verify": "epvf_data.sharing.signatures",
}
__all__ = [
    "CollectConfig",
    "ImproveConfig",
    "Loader",
    "OfflineConfig",
    "OnlineConfig",
    "PolicySpec",
    "ScoreConfig",
    "__version__",
    "collect",
    "collect_config",
    "evaluate_run",
    "export_archive",
    "import_policy",
    "improve",
    "load_policy",
    "online_config",
    "open",
    "pull",
    "push",
    "save_policy",
    "score",
    "sign",
    "split_by_lineage",
    "split_iid",
    "top",
    "train_offline",
    "train_online",
    "validate",
    "verify",
]

if TYPE_CHECKING:
    from epvf_data.collectors.collect import collect as collect
    from epvf_data.collectors.setting import CollectConfig as CollectConfig
    from epvf_data.collectors.setting import collect_config as collect_config
    from epvf_data.importing.run import import_policy as import_policy
    from epvf_data.policies.files import load_policy as load_policy
    from epvf_data.policies.files import save_policy as save_policy
    from epvf_data.policies.spec import PolicySpec as PolicySpec
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
    from epvf_data.trainers.improving.improve import improve as improve
    from epvf_data.trainers.improving.settings import ImproveConfig as ImproveConfig
    from epvf_data.trainers.offline.run import evaluate_run as evaluate_run
    from epvf_data.trainers.offline.run import train_offline as train_offline
    from epvf_data.trainers.offline.settings import OfflineConfig as OfflineConfig
    from epvf_data.trainers.online.run import train_online as train_online
    from epvf_data.trainers.online.settings import OnlineConfig as OnlineConfig
    from epvf_data.trainers.online.settings import online_config as online_config


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'epvf_data' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
