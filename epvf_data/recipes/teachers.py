"""Where the policies of a recipe's sources come from: files, and training runs that are kept beside the data set."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import config as configuration
from epvf_data import envs
from epvf_data.baselines.settings import BaselineConfig, baseline_config
from epvf_data.baselines.train import train_baseline
from epvf_data.collectors.bundled import bundled_files
from epvf_data.envs import Env
from epvf_data.errors import ArchitectureMismatchError, ConfigError, MissingPackageError
from epvf_data.policies.config import MlpConfig
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recipes.evolution import evolve
from epvf_data.recipes.rows import Bases
from epvf_data.recipes.settings import (
    Between,
    EvolutionTeacher,
    LibraryTeacher,
    OnlineTeacher,
    Perturbed,
    RecipeConfig,
    Renumbered,
    Teacher,
)
from epvf_data.store.schema import policy_id
from epvf_data.trainers import rundir, startedwith
from epvf_data.trainers.online.run import train_online
from epvf_data.trainers.online.settings import online_config

Progress = Callable[[str, Mapping[str, Any]], None]  # (what is trained, a log entry of it; an empty one at its start)
Tell = Callable[[Mapping[str, Any]], None]
Train = Callable[[Tell], None]
_KEPT = re.compile(r"at-[0-9]{1,15}-[0-9]{1,10}\.safetensors", re.ASCII)  # what runs call the policies that they keep


def prepare(
    config: RecipeConfig, architecture: str, spec: PolicySpec, env: Env, runs: Path
) -> tuple[dict[str, Bases], dict[str, Train | None]]:
    """The policies of an architecture's sources that are files, and what trains the others, `runs`/SOURCE-ARCHITECTURE.

    Nothing is trained or written yet. Raises ConfigError for presets and settings that no run can have, RunError for
    runs of other settings in `runs` and for links there, ArchitectureMismatchError for policy files of another
    architecture.
    """
    rundir.check_folder(runs)
    files: dict[str, Bases] = {}
    training: dict[str, Train | None] = {}  # None where that was done before
    for name, source in config.of(architecture).items():
        try:
            if isinstance(source, Perturbed):
                files[name] = _files(source, spec, env)
            elif isinstance(source, Teacher):
                seed = (config.seed + zlib.crc32(f"{name}/{architecture}".encode())) % 2**31
                training[name] = _training(source, config, architecture, spec, runs / f"{name}-{architecture}", seed)
        except (ConfigError, ArchitectureMismatchError, MissingPackageError) as error:
            raise type(error)(f"sources.{name}: {error}") from error
    return files, training


def gather_bases(
    config: RecipeConfig,
    architecture: str,
    spec: PolicySpec,
    runs: Path,
    prepared: tuple[dict[str, Bases], dict[str, Train | None]],
    progress: Progress | None = None,
) -> dict[str, Bases]:
    """The policies that each source of an architecture starts from, once they are trained. Training runs that are
    finished in `runs` are taken from there; one that was interrupted goes on."""
    found, training = dict(prepared[0]), prepared[1]
    for name, train in training.items():
        folder = runs / f"{name}-{architecture}"
        if train is not None:
            tell = partial(progress or (lambda *_: None), folder.name)
            tell({})
            train(tell)
        found[name] = _snapshots(folder, spec)
    for name, source in config.of(architecture).items():
        if isinstance(source, (Between, Renumbered)):
            found[name] = Bases.join([found[one] for one in source.of if one in found])
    return found


def _files(source: Perturbed, spec: PolicySpec, env: Env) -> Bases:
    files = [file for base in source.bases for file in (bundled_files(env) if base == "bundled" else [base])]
    loaded = [load_policy(file) for file in files]
    for file, (found, _) in zip(files, loaded, strict=True):
        if found != spec:
            raise ArchitectureMismatchError(
                f"the policy in {file} is {found} ({found.id[:8]}), not {spec} ({spec.id[:8]}); "
                "name the architectures that this source is for."
            )
    params = np.stack([flat for _, flat in loaded])
    return Bases(params, tuple(policy_id(spec, one) for one in params), None, np.full(len(params), -1))


def _snapshots(folder: Path, spec: PolicySpec) -> Bases:
    """The policies that a run has kept, in the order of its iterations."""
    kept = [path for path in (folder / "policies").glob("*") if _KEPT.fullmatch(path.name)]
    paths = sorted(kept, key=lambda path: (_iteration(path), path.name))
    loaded = [load_policy(path) for path in paths]
    if not loaded:
        raise ConfigError(f"the run {folder} has kept no policy; ask for more snapshots or env_steps.")
    if any(found != spec for found, _ in loaded):
        raise ArchitectureMismatchError(
            f"the run {folder} has policies {loaded[0][0]} ({loaded[0][0].id[:8]}), the recipe wants {spec} "
            f"({spec.id[:8]}): delete that folder, or give another --out."
        )
    params = np.stack([flat for _, flat in loaded])
    run = rundir.read_run(folder)
    name = run.get("run") or zlib.crc32(json.dumps(run, sort_keys=True).encode())
    ids = tuple(policy_id(spec, one) for one in params)
    return Bases(params, ids, f"{folder.name}/{str(name)[:16]}", np.array(list(map(_iteration, paths))))


def _iteration(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _training(
    source: Teacher, config: RecipeConfig, architecture: str, spec: PolicySpec, folder: Path, seed: int
) -> Train | None:
    """What leaves a finished run of exactly these settings in `folder`; None where one lies there."""
    task = f"{config.env}.{source.objective}" if source.objective else config.env
    env = envs.make(task)
    if spec.normaliser is not None:
        raise ConfigError(
            f"no teacher trains policies with a normaliser as architectures.{architecture} has; name others."
        )
    policy = {one.name: getattr(spec, one.name) for one in dataclasses.fields(MlpConfig)}
    policy["hidden"] = list(spec.hidden)
    if isinstance(source, OnlineTeacher):
        own = {"env": task, "seed": seed, "seeds": 1, "snapshots": source.snapshots, "backend": config.backend}
        own |= configuration.flatten({"policy": policy})
        online = online_config(source.preset, **{**configuration.flatten(source.settings), **own})
        finished = _finished(folder, configuration.to_dict(online))

        def train(tell: Tell) -> None:
            resume = (folder / "config.json").is_file()
            train_online(online, folder, resume=resume, progress=tell)

    elif isinstance(source, LibraryTeacher):
        library = _library(source, task, policy, seed)
        finished = _finished(folder, configuration.to_dict(library))

        def train(tell: Tell) -> None:
            train_baseline(library, folder, progress=tell)

    else:
        assert isinstance(source, EvolutionTeacher)
        env = env.with_horizon(source.horizon or config.horizon or env.horizon)
        own = {**configuration.to_dict(source), "backend": config.backend, "env": env.digest, "spec": spec.id}
        own["seed"] = seed
        finished = _finished(folder, own)

        def train(tell: Tell) -> None:
            evolve(source, env, spec, folder, own, tell)

    return None if finished else train


def _finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run of these settings lies there and is at its end. Raises RunError for other settings."""
    if not (folder / "config.json").is_file():
        return False
    plain = json.loads(json.dumps(settings))
    startedwith.check_same(folder, {"config": rundir.read_run(folder)["config"]}, {"config": plain})
    return (folder / "report.json").is_file()


def _library(source: LibraryTeacher, task: str, policy: Mapping[str, Any], seed: int) -> BaselineConfig:
    """PPO or SAC with this architecture, which must be one that brax has."""
    algorithm = baseline_config(source.preset).algorithm
    widths = "policy_hidden_layer_sizes" if algorithm == "ppo" else "hidden_layer_sizes"
    own = {f"{algorithm}.{widths}": policy["hidden"], f"{algorithm}.activation": policy["activation"]}
    plain = configuration.to_dict(MlpConfig())
    free = algorithm == "ppo" and policy["gaussian"] == "mean"
    if free:
        plain |= {"gaussian": "mean", "output": "identity"}
        own["ppo.free_std"] = True
    for name in set(plain) - {"hidden", "activation"}:
        if policy[name] != plain[name]:
            raise ConfigError(
                f"{algorithm} trains policies with {name}={plain[name]}, not {policy[name]}; name the architectures "
                "that this source is for."
            )
    own |= {"env": task, "seed": seed, "evaluations": source.snapshots}
    return baseline_config(source.preset, **{**configuration.flatten(source.settings), **own})
