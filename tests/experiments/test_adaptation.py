"""In-context adaptation: the environments' dynamics and regrets, the baselines' totals, and an agent's regret."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env

from experiments import places, studies
from experiments.adaptation import baselines, environments, regret, train
from experiments.adaptation import table as table_of_runs
from experiments.adaptation.environments import BanditVectorEnv, TabularMDPVectorEnv
from experiments.adaptation.problems import dirichlet, plan
from experiments.adaptation.tasks import PUBLISHED, TASKS
from experiments.recipes import read_yaml, recipe_names
from srwm_agents import Agent
from srwm_agents.agent import AgentConfig, save_agent
from srwm_agents.envs.compatibility import FINAL_OBSERVATION
from srwm_agents.envs.gymnasium_task import GymnasiumTask
from srwm_agents.envs.gymnasium_vector import make_gymnasium
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import finish_config

BANDIT, MDP = TASKS["bandit_5_10"].env, TASKS["mdp_10"].env


def test_a_bandit_shows_the_last_action_and_reward_and_draws_arms_for_each_episode() -> None:
    env = BanditVectorEnv(3, arms=4, pulls=2)
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [[0] * 5] * 3
    arms = env.problems.probabilities.copy()
    env.problems.probabilities[:] = np.eye(4)[[0, 1, 2]]  # sure rewards, to be seen
    observation, rewards, terminated, truncated, infos = env.step(np.array([0, 1, 3]))
    assert rewards.tolist() == [1, 1, 0]
    assert observation.tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]]
    assert not terminated.any()
    assert not truncated.any()
    assert infos == {}
    observation, rewards, terminated, *_, infos = env.step(np.array([0, 0, 0]))
    assert terminated.all()
    assert observation.tolist() == [[0] * 5] * 3  # the next episode's first
    assert infos[FINAL_OBSERVATION][0].tolist() == [1, 0, 0, 0, 1]
    assert (env.problems.probabilities != arms).all()


def test_regrets_of_arms() -> None:
    env = BanditVectorEnv(2, arms=3)
    env.reset(seed=0)
    env.problems.probabilities[:] = [[0.25, 0.5, 1.0], [0.75, 0.5, 0.25]]
    assert env.regrets(np.array([0, 1])).tolist() == [0.75, 0.25]
    assert env.regrets(np.array([2, 0])).tolist() == [0, 0]


def test_an_mdp_shows_states_actions_rewards_and_beginnings() -> None:
    env = TabularMDPVectorEnv(2, states=3, actions=2, horizon=2, episodes=2)
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [[1, 0, 0, 0, 0, 0, 1]] * 2
    env.problems.transitions[:] = np.eye(3)[[1, 2, 0]][None, :, None]  # 0 to 1 to 2 to 0, whatever is done
    env.problems._cumulative[:] = env.problems.transitions.cumsum(-1)
    observation, rewards, *_ = env.step(np.array([0, 1]))
    assert observation[:, :5].tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 0, 1]]
    assert observation[:, 5].tolist() == rewards.tolist()
    assert observation[:, 6].tolist() == [0, 0]
    observation, _, terminated, *_ = env.step(np.array([0, 1]))  # an episode ends, the trial goes on
    assert observation[:, [0, 1, 2, 6]].tolist() == [[1, 0, 0, 1]] * 2
    assert observation[:, 3:5].tolist() == [[1, 0], [0, 1]]
    assert not terminated.any()
    env.step(np.array([0, 1]))
    *_, terminated, _, infos = env.step(np.array([0, 1]))
    assert terminated.all()
    assert infos[FINAL_OBSERVATION][1][[0, 4, 6]].tolist() == [1, 1, 1]


def test_the_prior_and_the_dynamics_are_as_the_paper_has_them() -> None:
    env = TabularMDPVectorEnv(400)
    env.reset(seed=1)
    problems = env.problems
    assert problems.means.shape == (400, 10, 5)
    assert problems.means.mean() == pytest.approx(1, abs=0.02)
    assert problems.means.var() == pytest.approx(1, abs=0.04)
    # A flat Dirichlet distribution's components: mean 1/S, variance (S - 1) / (S² (S + 1)).
    assert problems.transitions.sum(-1) == pytest.approx(1)
    assert problems.transitions.var() == pytest.approx(9 / 1100, rel=0.03)
    rng, rows = np.random.default_rng(0), np.zeros(400, int)
    problems.means[:], problems.transitions[:] = problems.means[0], problems.transitions[0]
    problems._cumulative[:] = problems.transitions.cumsum(-1)
    rewards, states = zip(*(problems.move(rows + 3, rows + 2, rng) for _ in range(100)), strict=True)
    assert np.mean(rewards) == pytest.approx(problems.means[0, 3, 2], abs=0.02)
    assert np.var(rewards) == pytest.approx(1, abs=0.03)
    frequencies = np.bincount(np.concatenate(states), minlength=10) / 40_000
    assert frequencies == pytest.approx(problems.transitions[0, 3, 2], abs=0.01)


def test_value_iteration_is_the_best_of_all_policies() -> None:
    """Against every policy of a small MDP, which may differ from step to step."""
    rng = np.random.default_rng(0)
    means, transitions = rng.normal(size=(1, 2, 2)), dirichlet(np.ones((1, 2, 2, 2)), rng)

    def value(policy: np.ndarray, state: int, step: int) -> float:
        if step == 3:
            return 0.0
        action = policy[step, state]
        following = sum(transitions[0, state, action, s] * value(policy, s, step + 1) for s in range(2))
        return means[0, state, action] + following

    policies = [np.array(list(np.binary_repr(i, 6)), int).reshape(3, 2) for i in range(64)]
    best = plan(means, transitions, 3)
    assert best[0, 0].max(axis=-1) == pytest.approx([max(value(p, s, 0) for p in policies) for s in range(2)])


def test_summed_regrets_are_the_loss_of_expected_reward() -> None:
    """The performance difference lemma: in expectation, regrets and rewards add up to the best policy's return."""
    env = TabularMDPVectorEnv(3000, episodes=1)
    played = regret.play(env, baselines.Random, 3)
    env.reset(seed=3)  # the same problems
    best = env.problems.best[:, 0, 0].max(axis=-1)
    loss = best - played.rewards.sum(axis=0)
    error = (loss - played.regrets.sum(axis=0)).std() / np.sqrt(3000)
    assert loss.mean() == pytest.approx(played.regrets.sum(axis=0).mean(), abs=3 * error)


@pytest.mark.parametrize(
    ("task", "policies", "within"),
    [
        # Standard errors of the paper's totals, which are means over 1,000 problems too, are not given.
        ("bandit_5_10", ("random", "ucb1", "thompson", "greedy"), 0.04),
        ("bandit_10_100", ("random", "ucb1", "thompson", "greedy", "epsilon_greedy"), 0.02),
        ("mdp_10", ("random", "psrl"), 0.05),
    ],
)
def test_totals_are_the_published_ones(task: str, policies: tuple[str, ...], within: float, monkeypatch) -> None:
    monkeypatch.setattr(baselines, "GRIDS", {k: (kind, grid[1:3]) for k, (kind, grid) in baselines.GRIDS.items()})
    monkeypatch.setattr(baselines, "MDP_GRIDS", {})
    table = regret.baseline_table(task, 300 if task == "mdp_10" else 1000, 0)
    last = table.groupby("policy").tail(1)
    totals, regrets = (dict(zip(last["policy"], last[column], strict=True)) for column in ("total", "cumulative"))
    assert regrets["best"] == 0
    for policy in policies:
        assert totals[policy] == pytest.approx(PUBLISHED[task][policy], rel=within), policy
    assert regrets.get("psrl", regrets.get("thompson")) < 0.75 * regrets["random"]


def test_thompson_sampling_finds_an_easy_arm() -> None:
    env = BanditVectorEnv(200, arms=2, pulls=100)
    draw = env.problems.draw

    def easy(rows: np.ndarray, rng: np.random.Generator) -> None:
        draw(rows, rng)
        env.problems.probabilities[:] = [0.9, 0.1]

    env.problems.draw = easy  # type: ignore[method-assign]
    regrets = regret.play(env, baselines.Thompson, 0).regrets
    assert regrets[:2].mean() == pytest.approx(0.4, abs=0.1)  # nothing is known yet
    assert regrets[-20:].mean() < 0.02


def test_ways_to_play_give_the_same_numbers() -> None:
    """The vector, a single environment, and the trainer's vector."""
    kwargs: dict[str, Any] = {"episodes": 2, "horizon": 3}
    vector, single = TabularMDPVectorEnv(1, **kwargs), gymnasium.make(MDP, **kwargs)
    trainers = make_gymnasium(MDP, 1, 5, kwargs=kwargs, last_action=True, last_reward=True)
    first, _ = vector.reset(seed=5)
    assert first[0].tolist() == single.reset(seed=5)[0].tolist() == trainers.reset()[0]["obs"][0].tolist()
    for step, action in enumerate([0, 4, 1, 1, 2, 3, 0]):
        observations, rewards, terminated, _, infos = vector.step(np.array([action]))
        ours, ended = observations[0], bool(terminated[0])
        theirs = trainers.step([action])
        assert theirs[0]["obs"][0].tolist() == ours.tolist()
        assert theirs[1][0] == rewards[0]
        if step < 6:  # a single environment does not begin the next trial by itself
            one, reward, over, _, _ = single.step(action)
            assert (reward, over) == (rewards[0], ended)
            assert one.tolist() == (infos[FINAL_OBSERVATION][0] if ended else ours).tolist()
        if not ended:
            assert theirs[0]["last_action"][0].tolist() == ours[10:15].tolist()
    trainers.close()


def test_environments_are_gymnasiums() -> None:
    for env in (gymnasium.make(BANDIT, pulls=3), gymnasium.make(MDP, episodes=2)):
        check_env(env.unwrapped, skip_render_check=True)
    assert GymnasiumTask(BANDIT).has_vector()
    assert GymnasiumTask(MDP, {"episodes": 3}).has_vector()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BanditVectorEnv(2, arms=1), "arms is 1, expected a whole number of at least 2"),
        (lambda: BanditVectorEnv(2, pulls=2.5), "pulls is 2.5, expected"),  # type: ignore[arg-type]
        (lambda: TabularMDPVectorEnv(2, episodes=0), "episodes is 0, expected"),
        (lambda: BanditVectorEnv(2).step(np.array([0, 5])), "an action is 5, allowed: 0 to 4"),
        (lambda: BanditVectorEnv(2).step(np.array([0])), "actions are int64 \\[1\\], expected whole numbers \\[2\\]"),
    ],
)
def test_wrong_settings_and_actions_are_named(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def agent(task: str, **inputs: int) -> Agent:
    env = regret.make(task, 1)
    return Agent(
        AgentConfig(
            image_shape=(),
            num_actions=int(env.single_action_space.n),  # type: ignore[attr-defined]
            core="gru",
            core_settings={"hidden_size": 8, "num_layers": 1},
            extras={"obs": env.single_observation_space.shape[0], **inputs},  # type: ignore[index]
        )
    )


@pytest.mark.parametrize("task", ["bandit_5_10", "mdp_10"])
def test_an_agents_regret(task: str, tmp_path: Path, capsys) -> None:
    """One that knows nothing has the regret of random actions when it is sampled, whatever inputs it has."""
    for inputs in ({}, {"last_action": 5, "last_reward": 1}):
        save_agent(agent(task, **inputs), tmp_path / "agent")
        out = tmp_path / "regret.csv.xz"
        assert regret.main([f"--task={task}", f"--agent={tmp_path / 'agent'}", f"--out={out}", "--trials=200"]) == 0
        table = pd.read_csv(out)
        assert table.columns.tolist() == list(regret.COLUMNS)
        assert table["policy"].unique().tolist() == ["sampled", "greedy"]
        assert len(table) == 2 * 10
        last = table.iloc[9]
        random = regret.play(regret.make(task, 200), baselines.Random, 0).regrets.sum(axis=0).mean()
        assert last["cumulative"] == pytest.approx(random, rel=0.15)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        regret.main(["--task=bandit_10_100", f"--agent={tmp_path / 'agent'}", f"--out={out}"])
    assert "observation 'obs' has shape" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one of --agent and --baselines"),
        (["--baselines", "--agent=a"], "name one of --agent and --baselines"),
        (["--baselines", "--task=mdp_10"], "name --task and --out"),
        (["--task=bandit_7_10"], "invalid choice: 'bandit_7_10'"),
        (["--trials=1"], "--trials is 1, expected at least 2"),
        (["--seed=-1"], "--seed is -1, expected at least 0"),
        (["--device=abacus"], "--device is 'abacus'"),
        (["--task=mdp_10", "--agent=no_such", "--out=x.csv"], "no_such"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        regret.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_steps_that_are_kept() -> None:
    assert regret.kept(10).tolist() == list(range(1, 11))
    steps = regret.kept(500)
    assert steps[:21].tolist() == [*range(1, 21), 22]
    assert steps[-1] == 500
    assert len(steps) == 60
    # Equal ratios, but for rounding to whole steps: up to one step of twenty.
    assert np.diff(np.log(steps[20:])) == pytest.approx(np.log(25) / 40, abs=0.05)


def test_jobs_have_the_tasks_flags() -> None:
    job, *_ = train.STUDY.jobs("srwm", "bandit_10_100,mdps", "3")
    assert job.group == "srwm_s3"
    flags = set(job.flags(1000))
    assert {'--env_kwargs={"arms": 10, "pulls": 100}', "--rollout=100", "--batch_size=6400", "--seed=3"} <= flags
    assert f"--env={environments.__name__}:Bandit-v0" in flags
    (small,) = train.STUDY.jobs("small_gru", "bandit_5_10", "1")
    assert "--rollout=20" in small.flags(1000)


def test_a_run_is_evaluated_and_collected(monkeypatch, tmp_path: Path) -> None:
    """Also one that was stopped, but none that failed; what was collected before of other tasks stays."""
    monkeypatch.setattr(train, "STUDY", dataclasses.replace(train.STUDY, runs=tmp_path / "runs"))
    monkeypatch.setattr(studies, "visible_gpus", list)
    statuses = {"bandit_5_10": studies.STOPPED, "bandit_10_10": 0, "mdp_10": 1}
    evaluated = []

    def run(command: list[Any], place: places.Place, log: Any, until: float) -> int:
        flags = dict(text[2:].split("=", 1) for text in command if str(text).startswith("--"))
        if command[1] == "train_rl.py":
            folder = Path(flags["train_dir"]) / flags["experiment"]
            row = f"1000,2.0,{BANDIT},100,5.5,10.0,"
            head = "frames,seconds,game,episodes,mean_return,mean_length,normalised_score"
            (folder / "curves.csv").write_text(f"{head}\n{row}\n")
            return statuses[flags["experiment"]]
        evaluated.append(flags["task"])
        table = pd.DataFrame([["sampled", 1, 1000, 0.1, 0.1, 0.01, 0.5, 0.02, None]], columns=list(regret.COLUMNS))
        regret.write(table, Path(flags["out"]))
        return 0

    monkeypatch.setattr(places, "run", run)
    where = f"--train_dir={tmp_path / 't'}"
    for task in statuses:
        assert train.main([where, "--recipes=gru", f"--tasks={task}", "--frames=1000"]) == 0
        assert train.main([where, "--collect"]) == 0
    assert evaluated == ["bandit_5_10", "bandit_10_10"]
    assert set(read_yaml(tmp_path / "runs/gru_s1/config.yaml")["tasks"]) == set(statuses)
    assert set(pd.read_csv(tmp_path / "runs/gru_s1/curves.csv.xz")["game"]) == set(statuses)
    found = table_of_runs.agents(tmp_path / "runs")
    assert found["game"].tolist() == sorted(evaluated)
    assert found["recipe"].tolist() == ["gru", "gru"]


@pytest.mark.parametrize("recipe", ["srwm", "small_srwm"])
@pytest.mark.parametrize("task", ["bandit_5_10", "bandit_10_100", "bandit_50_500", "mdp_10", "mdp_75"])
def test_every_run_can_be_configured(recipe: str, task: str, tmp_path: Path) -> None:
    """Sizes go together, and no flag is without effect."""
    (job,) = train.STUDY.jobs(recipe, task, "1")
    cfg = finish_config(parse_train_args([*job.flags(1000), f"--train_dir={tmp_path}", "--device=cpu"]))
    longest = {"bandit_5_10": 128}.get(task, min(125, TASKS[task].steps))
    assert cfg.rollout == (20 if recipe == "small_srwm" else longest)
    assert (cfg.last_action, cfg.last_reward) == (False, False)


@pytest.mark.parametrize("recipe", [name for name in recipe_names(train.STUDY.recipes) if not name.endswith("common")])
def test_recipes_are_of_cores(recipe: str) -> None:
    (job,) = train.STUDY.jobs(recipe, "bandit_5_10", "1")
    assert job.resolved.settings["core"] == recipe.removeprefix("small_").removeprefix("long_")
