"""From a data set or a critic to policy files, and the sentence that says how much better they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from epvf_data import pictures
from epvf_data.critics.families import name_of
from epvf_data.improvement.controls import random_steps
from epvf_data.improvement.problem import Problem
from epvf_data.physics.episode import Outcomes
from epvf_data.policies.files import save_policy
from epvf_data.policies.kinds import Spec
from epvf_data.policies.loading import PolicyCode
from epvf_data.recording.task import task_of
from epvf_data.scoring.estimate import difference, estimate
from epvf_data.scoring.inputs import best_rows
from epvf_data.scoring.score import describe
from epvf_data.scoring.world import World
from epvf_data.trainers import rundir
from epvf_data.trainers.improving import picture
from epvf_data.trainers.improving.inputs import check_inputs
from epvf_data.trainers.improving.propose import Pool, propose
from epvf_data.trainers.improving.record import check_record, record
from epvf_data.trainers.improving.report import Final, Improvement, Tried, verdict
from epvf_data.trainers.improving.settings import PICTURE, RESULT, ROWS, ImproveConfig, Plan, plan
from epvf_data.trainers.improving.source import Given, open_given, problem_of

Say = Callable[[int, int], None]  # (episodes done, episodes in all)
_ROWS, _SCREEN, _FINAL, _ES = 0, 1, 2, 1000  # streams of start states: what chooses and what judges share none


def improve(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: ImproveConfig | None = None,
    *,
    rollouts: bool = True,
    into: str | os.PathLike[str] | None = None,
    trained_on: str | os.PathLike[str] | None = None,
    policy: PolicyCode | None = None,
    resume: bool = False,
    fitting: Callable[[dict[str, Any]], None] | None = None,
    progress: Say | None = None,
) -> Improvement:
    """Proposes policies by `config.method`, ranks them offline, and rolls the best ones out for real.

    `source` is a data set, on which critics are fitted first, or a run of `train_offline`. The best rows are rolled out
    again and the better half of them are the starts; candidates are ranked by critics that were not climbed; as many
    random steps of the same length take the same way. What is best of each is compared in fresh episodes. `out` gets
    policies (the proposed one first), improvement.json and improvement.png; the critics' run lies in OUT/critic.

    `into` is a data set that gets proposals and random steps with their real returns. `fitting` is called after every
    epoch, `progress` with the episodes so far. With `resume`, critics that an interrupted call left are used. `policy`
    is the code of policies of an architecture of your own.

    Raises RunError for an `out` that is taken and a run without what the method needs, DatasetError for withheld
    parameters, EnvironmentMismatchError for a task that is not here, ConfigError for a budget that is too small.
    """
    config = ImproveConfig() if config is None else config
    folder, name = Path(out), Path(source)
    check_inputs(name, folder, config, rollouts, trained_on, resume)
    given = open_given(
        name,
        config,
        folder,
        trained_on=None if trained_on is None else Path(trained_on),
        policy=policy,
        resume=resume,
        progress=fitting,
    )
    work = _Work(given, config, _world(given, config) if rollouts else None, progress)
    if into is not None and work.world is not None:
        check_record(Path(into), work.world.env, work.spec)
    found = work.run(str(source), folder, None if into is None else Path(into))
    rundir.write_json(folder / RESULT, found.to_dict())
    pictures.save(picture.draw(found), folder / PICTURE, force=True)
    return found


def _world(given: Given, config: ImproveConfig) -> World:
    env = task_of(given.dataset, config.env)
    return World(env, config.screen, config.backend, config.seed, config.start_noise)


@dataclass
class _Screened:
    """Policies with the episodes by which they are chosen among each other; the best first where they were played."""

    theta: Float[np.ndarray, "n P"]
    tried: list[Tried]
    outcomes: Outcomes | None


class _Work:
    """One improvement under way: counts the episodes."""

    def __init__(self, given: Given, config: ImproveConfig, world: World | None, progress: Say | None):
        self.given, self.config, self.world, self.progress = given, config, world, progress
        self.spec: Spec = given.table.spec
        self.varies = world is None or world.varies(self.spec)
        self.plan: Plan = plan(config, self.varies)
        self.spent = 0

    def run(self, source: str, folder: Path, into: Path | None) -> Improvement:
        """Rows again, proposals, random steps, and the comparison."""
        config, given = self.config, self.given
        best = best_rows(given.dataset, self.plan.rows if self.world else config.starts, self.spec.id)
        numbers = np.array(best.rows)
        theta = given.table.take("params", numbers)
        rows, numbers, stored = self._rows(theta, numbers, best.stored)
        half = max(1, -(-len(numbers) // 2))
        starts = rows.theta[:half]
        count = self.plan.candidates
        if self.world is not None:  # whatever a method does, what was played stays
            folder.mkdir(parents=True, exist_ok=True)
            rundir.write_json(folder / ROWS, {"rows": [asdict(one) for one in rows.tried]})
        problem = partial(self._problem, starts, count)
        pool = propose(config, starts, given.spread, count, given.critics, self._returns(), self._size(), problem)
        self.spent += pool.spent
        candidates = self._screen(pool.theta, pool, numbers)
        away = random_steps(starts[pool.origin], given.spread, pool.distance, np.random.default_rng(config.seed))
        random = self._screen(away, pool._replace(promised=None, judged=None, steps=None), numbers)
        recorded = self._record(into, pool, starts, away, candidates, random)
        first, second = self._best(candidates), self._best(random)
        final = self._final(candidates.theta[first], rows.theta[0], random.theta[second])
        order = self._order(candidates)
        means = tuple(self._mean(one) for one in (rows.tried[:half], candidates.tried, random.tried))
        return Improvement(
            source=source,
            method=config.method_name,
            critic=None if given.run is None or given.critics is None else name_of(given.critics.fitted.config.critic),
            env=given.dataset.env.name,
            horizon=given.dataset.env.horizon,
            starts=None if self.world is None else describe(self.world),
            start_noise=None if self.world is None else self.world.noise,
            budget=config.budget if self.world else 0,
            episodes=self.spent,
            rows=rows.tried,
            stored=[float(one) for one in stored],
            looks=pool.looks,
            stop=pool.stop,
            candidates=[candidates.tried[one] for one in order],
            random=[random.tried[one] for one in order],
            final=final,
            recorded=recorded,
            policies=self._write(folder, candidates, order),
            verdict=verdict(
                config.method_name, candidates.tried[first], final, float(stored[0]), len(pool.theta), means
            ),
        )

    def _rows(
        self, theta: Float[np.ndarray, "n P"], numbers: Int[np.ndarray, "n"], stored: Float[np.ndarray, "n"]
    ) -> tuple[_Screened, Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """The best rows, in the order of new episodes, or of stored returns without them."""
        outcomes = self._play(theta, self.plan.screen, _ROWS)
        again = [None] * len(theta) if outcomes is None else [estimate(one, self.varies) for one in outcomes.returns]
        order = np.argsort([-(stored[i] if one is None else one.mean) for i, one in enumerate(again)], kind="stable")
        tried = [Tried(int(numbers[one]), 0.0, None, None, again[one]) for one in order]
        return _Screened(theta[order], tried, None), numbers[order], stored[order]

    def _screen(self, theta: Float[np.ndarray, "n P"], pool: Pool, numbers: Int[np.ndarray, "n"]) -> _Screened:
        outcomes = self._play(theta, self.plan.screen, _SCREEN)
        pick = lambda values, one: None if values is None else float(values[one])  # noqa: E731
        tried = [
            Tried(
                int(numbers[pool.origin[one]]),
                float(pool.distance[one]),
                pick(pool.promised, one),
                pick(pool.judged, one),
                None if outcomes is None else estimate(outcomes.returns[one], self.varies),
                None if pool.steps is None else int(pool.steps[one]),
            )
            for one in range(len(theta))
        ]
        return _Screened(theta, tried, outcomes)

    def _order(self, screened: _Screened) -> list[int]:
        """The best first: by real episodes, else as proposed."""
        means = [0.0 if one.screened is None else one.screened.mean for one in screened.tried]
        return [int(one) for one in np.argsort(-np.array(means), kind="stable")]

    def _best(self, screened: _Screened) -> int:
        return self._order(screened)[0]

    def _mean(self, tried: list[Tried]) -> float:
        return float(np.mean([np.nan if one.screened is None else one.screened.mean for one in tried]))

    def _final(self, *policies: Float[np.ndarray, "P"]) -> Final | None:
        outcomes = self._play(np.stack(policies), self.plan.final, _FINAL)
        if outcomes is None:
            return None
        mine, row, random = outcomes.returns
        each = [estimate(one, self.varies) for one in (mine, row, random)]
        gains = [difference(mine, one) for one in (row, random)]
        return Final(*each, *gains)

    def _play(self, theta: Float[np.ndarray, "n P"], episodes: int, stream: int) -> Outcomes | None:
        """Real episodes, counted; None without rollouts."""
        if self.world is None:
            return None
        before, done, total = self.spent, [0], max(self.plan.episodes, self.config.budget)

        def advance(episodes: int, steps: int) -> None:
            done[0] += episodes
            if self.progress is not None:
                self.progress(before + done[0], max(total, before + done[0]))

        found = self.world.outcomes(self.spec, theta, episodes, stream, advance)
        self.spent += len(theta) * episodes
        return found

    def _returns(self) -> Callable[[Float[np.ndarray, "n P"], int], Float[np.ndarray, "n"]] | None:
        """One real episode of each policy of a generation, for the method that spends its own."""
        world = self.world
        if world is None:
            return None
        return lambda theta, generation: world.outcomes(self.spec, theta, 1, _ES + generation).returns[:, 0]

    def _problem(self, starts: Float[np.ndarray, "n P"], count: int) -> Problem:
        """What a method of the user's is given."""
        return problem_of(self.given.dataset, self.given.table, starts, count, self.config.seed)

    def _size(self) -> int:
        """Episodes that the data set took."""
        return sum(piece.size for piece in self.given.table.pieces("returns"))

    def _record(
        self, into: Path | None, pool: Pool, starts: np.ndarray, away: np.ndarray, mine: _Screened, random: _Screened
    ) -> int:
        if into is None or self.world is None or mine.outcomes is None or random.outcomes is None:
            return 0
        theta, origin = np.concatenate([pool.theta, away]), starts[np.concatenate([pool.origin, pool.origin])]
        names = [self.config.method_name] * len(pool.theta) + ["random"] * len(away)
        both = [
            None if one is None or other is None else np.concatenate([one, other])
            for one, other in zip(mine.outcomes, random.outcomes, strict=True)
        ]
        distances = np.concatenate([pool.distance, pool.distance])
        return record(into, self.world, self.spec, theta, origin, distances, names, Outcomes(*both), self.config)  # pyright: ignore[reportArgumentType]

    def _write(self, folder: Path, candidates: _Screened, order: list[int]) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        files, notes = [], {"env": self.given.dataset.env.name, "horizon": str(self.given.dataset.env.horizon)}
        for rank, one in enumerate(order[: self.config.keep], 1):
            tried = candidates.tried[one]
            said = "nothing was rolled out" if tried.screened is None else f"{tried.screened.mean:.2f} when screened"
            path = folder / f"improved-{rank}.safetensors"
            save_policy(path, self.spec, candidates.theta[one], method=self.config.method_name, returns=said, **notes)
            files.append(str(path))
        return files
