"""Plays a saved agent, or the baselines, in new bandits or MDPs, and writes their regret over the trial.

    python -m experiments.adaptation.regret --task bandit_10_100 --agent train_dir/NAME/agent --out regret.csv
    python -m experiments.adaptation.regret --task bandit_10_100 --baselines --out bandit_10_100.csv.xz
    python -m experiments.adaptation.regret --baselines    # of all tasks, into experiments/adaptation/baselines/

The table has a row for each policy ("sampled" and "greedy" of an agent; a baseline's name) and each pull of a bandit or
episode of an MDP, with means over trials:

- ``regret``: what the choices of that pull (episode) lose, in expected reward; see ``TrialVectorEnv.regrets``;
- ``cumulative`` and ``cumulative_error``: the sum so far, and its standard error over trials;
- ``total`` and ``total_error``: the reward so far as it was drawn, and its standard error;
- ``trials``; ``number``: the constant or epsilon that was chosen for a baseline; empty where there is none.

Of long trials not every row is written: the first twenty steps, the last one, and forty between, at equal ratios.
Every player gets the same problems for the same seed. A baseline's number is chosen on other problems.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from experiments.adaptation.baselines import Maker, players
from experiments.adaptation.environments import BanditVectorEnv, TabularMDPVectorEnv, TrialVectorEnv
from experiments.adaptation.tasks import TASKS
from experiments.runs import write_compressed
from srwm_agents import Agent, AgentPolicy, load_agent
from srwm_agents.agent import AgentError
from srwm_agents.envs.added_entries import LAST_ACTION, LAST_REWARD
from srwm_agents.envs.gymnasium_vector import make_gymnasium
from srwm_agents.policy import check_fits

Array = npt.NDArray[Any]

BASELINES = Path(__file__).parent / "baselines"
COLUMNS = (*("policy", "step", "trials", "regret", "cumulative", "cumulative_error", "total", "total_error", "number"),)
EVERY_STEP, FURTHER_STEPS = 20, 40
"""Rows of a trial that are written: so many first ones, and so many more up to the last."""
TUNING_SEED = 1_000_003
"""Added to the seed for problems on which a baseline's number is chosen."""


@dataclass(frozen=True)
class Played:
    """N trials of one player, [steps, N] each."""

    regrets: Array
    rewards: Array

    def table(self, each: int) -> pd.DataFrame:
        """Means over trials of every ``each`` steps; the columns from ``step`` to ``total_error``."""
        steps, trials = self.regrets.shape
        regrets = self.regrets.reshape(steps // each, each, trials).sum(axis=1)
        sums = regrets.cumsum(axis=0)
        totals = self.rewards.reshape(steps // each, each, trials).sum(axis=1).cumsum(axis=0)
        return pd.DataFrame(
            {
                "step": np.arange(1, len(regrets) + 1),
                "trials": trials,
                "regret": regrets.mean(axis=1),
                "cumulative": sums.mean(axis=1),
                "cumulative_error": _standard_error(sums),
                "total": totals.mean(axis=1),
                "total_error": _standard_error(totals),
            }
        )


def play(env: TrialVectorEnv, maker: Maker, seed: int) -> Played:
    """Play one trial in each environment; the problems depend on the seed alone."""
    observation, _ = env.reset(seed=seed)
    player = maker(env, np.random.default_rng([seed, 1]))
    regrets, rewards = np.zeros((env.steps, env.num_envs)), np.zeros((env.steps, env.num_envs))
    for step in range(env.steps):
        actions = player.act(observation)
        regrets[step] = env.regrets(actions)
        observation, rewards[step], *_ = env.step(actions)
        player.see(actions, rewards[step], observation)
    return Played(regrets, rewards)


class AgentPlayer:
    """A saved agent, which keeps its memory through the trial."""

    def __init__(self, agent: Agent, env: TrialVectorEnv, rng: np.random.Generator, *, deterministic: bool) -> None:
        """``deterministic``: the likeliest actions, else sampled ones."""
        self._policy = AgentPolicy(agent, deterministic=deterministic, seed=int(rng.integers(2**31)))
        self._extras = set(agent.config.extras)
        self._actions = int(env.single_action_space.n)  # type: ignore[attr-defined]
        # Where the last action begins in the observation.
        self._begin = 0 if isinstance(env, BanditVectorEnv) else env.problems.states  # type: ignore[attr-defined]

    def act(self, observation: Array) -> Array:
        entries = {"obs": observation}
        if LAST_ACTION in self._extras:
            entries[LAST_ACTION] = observation[:, self._begin : self._begin + self._actions]
        if LAST_REWARD in self._extras:
            reward = self._begin + self._actions
            entries[LAST_REWARD] = observation[:, reward : reward + 1].clip(-1, 1)
        return self._policy(entries)

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        """It sees the rewards in its next observation."""


def make(task: str, trials: int) -> TrialVectorEnv:
    """The environments of a task."""
    kind = BanditVectorEnv if TASKS[task].is_bandit else TabularMDPVectorEnv
    return kind(trials, **TASKS[task].kwargs)


def agent_table(agent: Agent, task: str, trials: int, seed: int) -> pd.DataFrame:
    """An agent's regret, sampled and greedy.

    Raises:
        AgentError: it does not fit the task.
    """
    probe = make_gymnasium(
        TASKS[task].env,
        1,
        kwargs=TASKS[task].kwargs,
        last_action=LAST_ACTION in agent.config.extras,
        last_reward=LAST_REWARD in agent.config.extras,
    )
    check_fits(agent, probe)
    probe.close()
    env = make(task, trials)

    def maker(deterministic: bool) -> Maker:
        return lambda env, rng: AgentPlayer(agent, env, rng, deterministic=deterministic)

    makers = {"sampled": (maker(False), None), "greedy": (maker(True), None)}
    return _tables(env, task, makers, seed)


def baseline_table(task: str, trials: int, seed: int) -> pd.DataFrame:
    """The baselines' regret, those with a number tuned on as many other problems."""
    env = make(task, trials)
    other = make(task, trials)

    def total(maker: Maker) -> float:
        return float(play(other, maker, seed + TUNING_SEED).rewards.sum(axis=0).mean())

    return _tables(env, task, players(env, total), seed)


def _tables(
    env: TrialVectorEnv, task: str, makers: Mapping[str, tuple[Maker, float | None]], seed: int
) -> pd.DataFrame:
    each = 1 if TASKS[task].is_bandit else env.problems.horizon  # type: ignore[attr-defined]
    tables = []
    for policy, (maker, number) in makers.items():
        table = play(env, maker, seed).table(each)
        table["policy"], table["number"] = policy, number
        tables.append(table)
    return pd.concat(tables)[list(COLUMNS)]


def kept(steps: int) -> Array:
    """Numbers of the steps that are written of a trial."""
    further = np.geomspace(EVERY_STEP, steps, FURTHER_STEPS + 1).round().astype(int) if steps > EVERY_STEP else []
    return np.unique([*range(1, min(steps, EVERY_STEP) + 1), *further])


def write(table: pd.DataFrame, file: Path) -> None:
    """Write a table's rows of the steps that are kept, six significant digits; compressed if the name ends with .xz."""
    rows = table[table["step"].isin(kept(int(table["step"].max())))]
    text = rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".xz":
        write_compressed(file, text)
    else:
        file.write_text(text)


def _standard_error(values: Array) -> Array:
    """Of the means of [steps, N] over N."""
    return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])


def main(arguments: list[str] | None = None) -> int:
    """Play and write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--agent", type=Path, help="folder or file of a saved agent")
    parser.add_argument("--baselines", action="store_true", help="the baselines in place of an agent")
    parser.add_argument("--out", type=Path, help="table to write: .csv or .csv.xz")
    parser.add_argument("--trials", type=int, default=1000, help="problems, a trial each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of problems and players (default: %(default)s)")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=found, help="of the agent; decides sampled actions (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.trials < 2:
        parser.error(f"--trials is {args.trials}, expected at least 2")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}, expected at least 0")
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError):
        parser.error(f"--device is {args.device!r}, which PyTorch cannot use here; try cpu or cuda")
    if args.baselines == (args.agent is not None):
        parser.error("name one of --agent and --baselines")
    if args.baselines and args.task is None and args.out is None:
        for task in TASKS:
            write(baseline_table(task, args.trials, args.seed), BASELINES / f"{task}.csv.xz")
            print(f"{task} done", flush=True)
        return 0
    if args.task is None or args.out is None:
        parser.error("name --task and --out")
    if args.baselines:
        table = baseline_table(args.task, args.trials, args.seed)
    else:
        try:
            table = agent_table(load_agent(args.agent, args.device), args.task, args.trials, args.seed)
        except AgentError as error:
            parser.error(str(error))
    write(table, args.out)
    print(table.groupby("policy", sort=False).tail(1).to_string(index=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
