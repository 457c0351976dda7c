"""eval_rl.py as a user calls it, right and wrong."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import pandas as pd
import psutil
import pytest
import torch

import eval_rl
from srwm_agents import Agent, AgentConfig, load_agent, save_agent
from srwm_agents.evaluation.rollouts import Forgetful
from srwm_agents.evaluation.side_by_side import Player

ROOT = Path(__file__).parents[2]

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32}
ENVIRONMENT = {"games": ["starpilot", "leaper"], "distribution_mode": "easy", "num_levels": 20, "start_level": 0}


def make_experiment(folder, **changes):
    torch.manual_seed(0)
    config = {
        "core": "srwm",
        "core_settings": SETTINGS,
        "num_actions": 15,
        "encoder": "convnet_impala",
        "environment": ENVIRONMENT,
        **changes,
    }
    return save_agent(Agent(AgentConfig(**config)), folder / "agent")


@pytest.fixture
def train_dir(tmp_path):
    make_experiment(tmp_path / "mine")
    return tmp_path


def evaluate(train_dir, *more: str) -> int:
    return eval_rl.main(
        [
            "--train_dir",
            str(train_dir),
            "--experiment",
            "mine",
            "--device",
            "cpu",
            "--episodes",
            "3",
            "--processes=1",
            *more,
        ]
    )


def test_reports_and_video(train_dir, capsys) -> None:
    assert evaluate(train_dir, "--splits", "train,test", "--video", "--video_seconds", "1") == 0
    folder = train_dir / "mine" / "evaluation"
    table = pd.read_csv(folder / "eval_sampled.csv")
    assert len(table) == 2 * 4  # two games, training levels and three unseen splits
    assert (table["episodes"] == 3).all()
    episodes = pd.read_csv(folder / "eval_sampled_episodes.csv")
    assert len(episodes) == 24
    unseen = episodes.loc[episodes["split"] == "test 1200-1399", "level"]
    assert len(unseen) == 6
    assert unseen.between(1200, 1399).all()
    document = json.loads((folder / "eval_sampled.json").read_text())
    assert document["policy"] == "sampled"
    assert [row["split"] for row in document["aggregate"]][-2:] == ["test 1400-1599", "all three test ranges"]
    assert len(document["aggregate"]) == 5
    frames = iio.imread(folder / "gameplay_sampled.mp4", plugin="pyav")
    assert frames.shape[0] == 15
    assert frames.std() > 10  # not black
    assert "test 1400-1599: 6 episodes, mean normalised score" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_numbers(train_dir) -> None:
    tables = []
    for seed in ("5", "5", "6"):
        assert evaluate(train_dir, "--splits", "train", "--seed", seed, "--policy", "greedy") == 0
        tables.append((train_dir / "mine" / "evaluation" / "eval_greedy_episodes.csv").read_text())
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.slow
def test_ranges_side_by_side_give_the_same_numbers(train_dir, capsys) -> None:
    tables = []
    for processes in ("1", "2"):
        assert evaluate(train_dir, "--splits", "train,validation", "--games", "leaper", "--processes", processes) == 0
        tables.append((train_dir / "mine" / "evaluation" / "eval_sampled_episodes.csv").read_text())
        assert "validation: 3 episodes, mean normalised score" in capsys.readouterr().out
    assert tables[0] == tables[1]


def start(folder: Path) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """An evaluation that takes minutes, in a process group of its own, and its two processes that play."""
    flags = ["--agent=random", "--games=leaper", "--splits=train,validation", "--episodes=40000", "--max_envs=4"]
    command = [sys.executable, ROOT / "eval_rl.py", *flags, "--processes=2", f"--output={folder}"]
    pipe, environment = subprocess.PIPE, os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)
    players: list[psutil.Process] = []
    while len(players) < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.2)
        children = psutil.Process(run.pid).children()
        players = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return run, players


@pytest.mark.slow
def test_a_process_that_is_killed_is_named(tmp_path) -> None:
    run, players = start(tmp_path)
    players[-1].kill()
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 1
    assert re.search(r"the process that played (train|validation) ended \(killed by signal 9\)", errors)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in players)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_nothing_stays_of_an_evaluation_that_is_killed(tmp_path, whole_group: bool) -> None:
    """Neither processes, which would play on for ever, nor semaphores, which only a resource tracker could remove."""
    run, players = start(tmp_path)
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in (psutil.Process(run.pid), *players)]
    assert "/dev/shm/sem." not in "".join(maps)
    time.sleep(5)  # some are still starting then, on a slow machine
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGKILL)
    run.communicate(timeout=60)
    assert not psutil.wait_procs(players, timeout=60)[1]


def test_all_ranges_are_played_by_the_agent_that_was_loaded(train_dir) -> None:
    """Training may replace the file meanwhile."""
    agent = load_agent(train_dir / "mine" / "agent")
    player = Player.of(agent)
    (train_dir / "mine" / "agent" / "model.safetensors").unlink()
    player = pickle.loads(pickle.dumps(player))  # as another process gets it
    made = player.policy()
    assert isinstance(made, Agent)
    assert made.config == agent.config
    assert not made.training
    for name, tensor in agent.state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor)
    assert isinstance(Player(None, forget=True).policy(), Forgetful)


@pytest.mark.slow
def test_an_interrupted_evaluation_keeps_whole_rounds(tmp_path) -> None:
    run, _ = start(tmp_path)
    time.sleep(12)  # every environment has finished some episodes by then, but on a very slow machine
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 130, errors
    assert not (tmp_path / "eval_sampled.csv").exists(), "that name is for whole evaluations"
    if "nothing was written" not in errors:
        assert re.search(r"interrupted after [\d,]+ of 80,000 episodes", errors)
        episodes = pd.read_csv(tmp_path / "eval_sampled_interrupted_episodes.csv")
        assert 0 < len(episodes) < 80000
        assert (episodes.groupby("split").size() % 4 == 0).all()


@pytest.mark.slow
def test_ctrl_c_while_processes_start_is_one_line(tmp_path) -> None:
    run, _ = start(tmp_path)
    os.killpg(run.pid, signal.SIGINT)
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 130, errors
    assert len(errors.splitlines()) == 1, errors
    assert "interrupted" in errors
    assert not any(tmp_path.iterdir())


def test_a_range_of_levels_and_some_games(train_dir) -> None:
    assert evaluate(train_dir, "--start_level", "500", "--num_levels", "10", "--games", "leaper") == 0
    episodes = pd.read_csv(train_dir / "mine" / "evaluation" / "eval_sampled_episodes.csv")
    assert set(episodes["game"]) == {"leaper"}
    assert episodes["level"].between(500, 509).all()


def test_an_agent_by_its_folder_and_without_its_memory(train_dir) -> None:
    common = ["--agent", str(train_dir / "mine" / "agent"), "--device", "cpu", "--episodes", "2", "--splits", "train"]
    for more in ([], ["--forget"]):
        assert eval_rl.main([*common, "--games", "starpilot", *more]) == 0
    folder = train_dir / "mine" / "evaluation" / "agent"
    assert not json.loads((folder / "eval_sampled.json").read_text())["forget"]
    assert json.loads((folder / "eval_sampled_forget.json").read_text())["forget"]
    common[1] += "/model.safetensors"
    assert eval_rl.main([*common, "--games", "starpilot", "--policy", "greedy"]) == 0
    assert json.loads((folder / "eval_greedy.json").read_text())["agent"] == "agent"


def test_the_random_policy(tmp_path) -> None:
    arguments = ["--agent", "random", "--games", "starpilot", "--episodes", "2", "--splits", "train"]
    assert eval_rl.main([*arguments, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "eval_sampled.csv").is_file()


@pytest.mark.slow
def test_a_video_alone_needs_a_video_encoder(tmp_path) -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'av' else find(name, *rest)\n"
        "sys.modules['av'] = None\n"  # an import of it fails
        "from srwm_agents.__main__ import main; raise SystemExit(main(sys.argv[1:]))\n"
    )
    arguments = [
        "eval",
        "--agent=random",
        "--games=starpilot",
        "--episodes=1",
        "--splits=train",
        f"--output={tmp_path}",
    ]
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "eval_sampled.csv").is_file()
    ran = subprocess.run([*command, "--video"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "av is not installed; install with: pip install 'srwm-agents[eval]'" in ran.stderr
    assert ran.stderr.count("\n") == 1


def truncate(folder) -> None:
    weights = folder / "mine" / "agent" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("prepare", "more", "message"),
    [
        (None, ["--experiment", "yours"], "no experiment 'yours' in"),
        (None, ["--games", "bigfish"], "the agent was not trained on 'bigfish', allowed: starpilot, leaper"),
        (None, ["--games", "leapr"], "unknown game 'leapr'; did you mean 'leaper'?"),
        (None, ["--splits", "tset"], "unknown split 'tset'"),
        (None, ["--start_level", "3"], "--start_level and --num_levels go together"),
        (None, ["--splits", ","], "--splits is ',', expected some of: train, validation, test"),
        (None, ["--splits", "test", "--start_level", "3", "--num_levels", "5"], "name --splits or --start_level"),
        (None, ["--device", "cuda:77"], "--device is 'cuda:77', which PyTorch cannot use here"),
        (None, ["--video_seconds", "0"], "--video_seconds is 0.0, expected more than 0"),
        (None, ["--episodes", "0"], "--episodes is 0, expected at least 1"),
        (None, ["--distribution_mode", "memory"], "has no distribution_mode 'memory'"),
        (None, ["--load_checkpoint_kind", "best"], "no agent at"),
        (truncate, [], "truncated or altered"),
        (lambda d: make_experiment(d / "mine", num_actions=7), [], "has 7 actions, Procgen has 15"),
        (lambda d: make_experiment(d / "mine", image_shape=(1, 84, 84)), [], "sees images of [1, 84, 84]"),
        (lambda d: make_experiment(d / "mine", extras={"speed": 2}), [], "wants the input 'speed'"),
    ],
)
def test_errors_are_one_line(train_dir, capsys, prepare, more, message: str) -> None:
    if prepare is not None:
        prepare(train_dir)
    assert evaluate(train_dir, *more) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m srwm_agents eval: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (train_dir / "mine" / "evaluation").exists()


def test_unknown_flags_and_help(capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        eval_rl.main(["--episods", "3"])
    assert exit_info.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as exit_info:
        eval_rl.main(["--help"])
    assert exit_info.value.code == 0
    assert "32 of an agent that plays Procgen on a CPU" in " ".join(capsys.readouterr().out.split())
