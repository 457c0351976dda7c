"""Training in the processes of torchrun: in step with one another, stopped together, resumed by any number of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.checkpoint import CheckpointError
from srwm_agents.integrations.sample_factory.config import ConfigError, Machine, finish_config
from srwm_agents.integrations.sample_factory.ranks import EpisodesToMain, Ranks, told_once
from srwm_agents.launch import Launch
from srwm_agents.learning.pooling import SingleLearner

# Sample Factory prints a line for each of these at import; ours is imported first to keep gym quiet.
from sample_factory.algo.runners import runner as sf_runner  # isort: skip
from sample_factory.algo.utils.misc import EPISODIC, POLICY_ID_KEY  # isort: skip
from srwm_agents.integrations.sample_factory.ranks import writing_nothing  # isort: skip

ROOT = Path(__file__).parents[3]
GPUS = torch.cuda.device_count()
"""Counted before a test lets this process see one alone."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def environment() -> dict[str, str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    variables.pop("CUDA_VISIBLE_DEVICES", None)  # which Sample Factory sets in the process of its tests
    return {**variables, "OMP_NUM_THREADS": "1"}


# Updates -------------------------------------------------------------------------------------------------------------

LEARNING = ["--normalize_advantages=True", "--lr_schedule=linear_decay", "--train_for_env_steps=2000"]


@pytest.mark.parametrize(
    ("device", "number", "options"),
    [
        ("cpu", 2, ["--balance_games=True", "--reward_treatment=return_norm"]),
        pytest.param("cpu", 4, ["--popart=True", "--critic=shared", "--optimizer=rmsprop"], marks=pytest.mark.slow),
        *(
            pytest.param(
                *("gpu", 2, ["--balance_games=True", "--reward_treatment=return_norm", f"--cuda_graphs={graphs}"]),
                marks=pytest.mark.gpu,
            )
            for graphs in (True, False)
        ),
    ],
)
def test_ranks_learn_what_one_learns_from_their_batches_together(
    make_learner, make_batch, small_flags, tmp_path, device: str, number: int, options: list[str]
) -> None:
    """Eight updates: on a GPU the first three are ordinary, and then one is captured and replayed."""
    if device == "gpu" and number > GPUS:
        pytest.skip(f"{number} GPUs are needed, there are {GPUS}")
    flags = [*LEARNING, *options, f"--device={device}", *(["--in_process=True"] if device == "gpu" else [])]
    alone = make_learner(*flags, "--batch_size=64")
    before = {name: tensor.cpu().clone() for name, tensor in alone.actor_critic.state_dict().items()}
    batches = [make_batch(alone, seed) for seed in range(8)]
    torch.save([plain(batch) for batch in batches], tmp_path / "batches.pt")
    for batch in batches:
        alone.train(batch)
    expected = {name: tensor.cpu() for name, tensor in alone.actor_critic.state_dict().items()}

    small = [flag for flag in small_flags if not flag.startswith(("--device", "--serial_mode", "--batch_size"))]
    script = Path(__file__).parent / "learn_on_ranks.py"
    command = [*TORCHRUN, f"--nproc_per_node={number}", script, tmp_path, *small, *flags]
    subprocess.run(
        [*map(str, command), f"--batch_size={64 // number}"], env=environment(), cwd=ROOT, check=True, timeout=280
    )
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in range(number)]
    for rank in ranks:
        assert rank["frames"] == alone.env_steps == 8 * 64
        assert rank["rate"] == pytest.approx(alone.curr_lr)
        assert rank["captured"] == ("--cuda_graphs=True" in flags)
        for name, tensor in rank["weights"].items():
            assert torch.equal(tensor, ranks[0]["weights"][name]), name
    # Sums in another order (on a GPU of TF32's products), and Adam divides small gradients by their own size: what
    # counts is the step as a whole. Statistics that are not pooled change it by more than .2.
    moved = flat(expected) - flat(before)
    difference = (flat(ranks[0]["weights"]) - flat(expected)).norm() / moved.norm()
    assert moved.norm() > 1e-3
    assert difference < (0.1 if device == "gpu" else 1e-4), difference


def plain(tree: Any) -> Any:
    return tree.cpu() if isinstance(tree, torch.Tensor) else {name: plain(entry) for name, entry in tree.items()}


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in weights.values()])


class Others(SingleLearner):
    """A pool whose other learners say a number of their own."""

    world_size = 2

    def __init__(self, theirs: int = 0) -> None:
        self.theirs = theirs
        self.calls = 0

    def largest(self, number: int) -> int:
        self.calls += 1
        return max(number, self.theirs)


def test_all_stop_before_the_same_batch(make_learner, make_batch) -> None:
    """A learner whose own flag is not set stops because another's is, and says so; nothing more is exchanged then."""
    learner = make_learner("--num_batches_per_epoch=2")
    batch = make_batch(learner)
    learner.stop_flag = torch.zeros(1, dtype=torch.uint8)
    learner.pool = others = Others()
    learner.train(batch)
    assert (learner.train_step, learner.env_steps) == (2, 2 * 64)
    others.theirs = 128 + signal.SIGTERM
    assert learner.train(batch) is None
    assert (learner.train_step, int(learner.stop_flag), others.calls) == (2, 143, 2)
    assert learner.train(batch) is None
    assert learner.agree_to_stop(1)
    assert others.calls == 2, "the others make no further call either"


def test_a_batch_that_was_begun_is_finished(make_learner, make_batch) -> None:
    """The others make all of its updates, and would wait."""
    learner = make_learner("--num_batches_per_epoch=4")
    batch = make_batch(learner)
    learner.stop_flag = torch.ones(1, dtype=torch.uint8)
    learner.pool = Others()
    buffer, size, invalid = learner._prepare_batch(batch)
    learner._train(buffer, learner.cfg.batch_size, size, invalid)
    assert learner.train_step == 4


def test_ranks_that_would_begin_apart_are_refused(make_learner) -> None:
    learner = make_learner()
    learner.pool = Others(theirs=640)
    with pytest.raises(CheckpointError, match="here training would begin at 0 frames, but at 640 in another process"):
        learner._refuse_another_beginning()


def test_only_the_main_rank_saves(make_learner, tmp_path) -> None:
    learner = make_learner()
    learner.pool = Others()
    learner.pool.is_main = False
    learner.save()
    learner.save_milestone()
    assert not list(tmp_path.glob("**/*.pth"))


# Settings ------------------------------------------------------------------------------------------------------------


def of_rank(small_flags: list[str], tmp_path: Path, rank: int, *flags: str) -> Any:
    small = [flag for flag in small_flags if not flag.startswith("--serial_mode")]
    args = parse_train_args([*small, "--num_workers=2", f"--train_dir={tmp_path}", "--experiment=e", *flags])
    return finish_config(args, Machine(cuda=False, cores=2, rank=rank, world_size=3))


def test_ranks_play_games_of_their_own(small_flags, tmp_path) -> None:
    ranks = [of_rank(small_flags, tmp_path, rank) for rank in range(3)]
    vectors = ranks[0].num_workers * ranks[0].worker_num_splits
    seeds = [cfg.seed + number for cfg in ranks for number in range(vectors)]
    assert len(set(seeds)) == 3 * vectors
    assert all(cfg.in_process and cfg.request["seed"] == 0 for cfg in ranks)


def test_cores_are_shared(monkeypatch) -> None:
    monkeypatch.setattr("srwm_agents.integrations.sample_factory.deriving.available_cores", lambda: 9)
    assert Machine.share(Launch()) == Machine.here()
    assert Machine.share(Launch(5, 8, 1, 4)).cores == 2
    assert Machine.share(Launch(15, 16, 15, 16)).cores == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--serial_mode=True"], "--serial_mode is True, allowed in the processes of torchrun: False"),
        (["--in_process=False"], "--in_process is False, allowed in the processes of torchrun: True"),
        (["--with_vtrace=False"], "--with_vtrace is False, allowed in the processes of torchrun: True"),
        (["--normalize_input=True"], "--normalize_input is True, allowed with several learner processes: False"),
        (["--lr_schedule=kl_adaptive_epoch"], "--lr_schedule is kl_adaptive_epoch, allowed with several"),
        (["--num_policies=2"], "--in_process=True needs --num_policies=1, but it is 2"),
    ],
)
def test_settings_that_ranks_cannot_have(small_flags, tmp_path, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        of_rank(small_flags, tmp_path, 0, *flags)


def test_one_process_of_a_machine_tells_an_error(monkeypatch, capsys) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for local_rank in range(2):
        with contextlib.suppress(ValueError), told_once(Launch(local_rank, 2, local_rank, 2)):
            sys.stderr.write("told\n")
            # The first is told at once; torchrun ends the other before its turn comes.
            assert capsys.readouterr().err == ("told\n" if local_rank == 0 else "")
            raise ValueError
        assert len(waited) == local_rank
    assert capsys.readouterr().err == "told\n"


# Statistics ----------------------------------------------------------------------------------------------------------


def test_episodes_of_all_ranks_reach_the_main_one() -> None:
    post: list[bytes] = []
    peers: Any = SimpleNamespace(send=post.append, received=lambda: [post.pop(0) for _ in range(len(post))])
    sender = EpisodesToMain(peers)
    games, returns, lengths = np.array([0, 1, 1]), np.array([1.5, -2.0, 3.0]), np.array([10, 20, 30])
    episodes = {"reward": returns, "len": lengths, "game_index": games, "game_return": returns, "game_length": lengths}
    sender._send(None, {EPISODIC: episodes}, 0)  # type: ignore[arg-type]
    messages: list[dict[str, Any]] = []
    ranks = Ranks.__new__(Ranks)
    ranks.peers = peers
    ranks.receive_episodes(SimpleNamespace(_process_msg=messages.append))
    (message,) = messages
    assert message[POLICY_ID_KEY] == 0
    assert message[EPISODIC].keys() == episodes.keys()
    for name, column in episodes.items():
        np.testing.assert_array_equal(message[EPISODIC][name], column)
    assert not post


def test_another_rank_writes_no_summaries(tmp_path) -> None:
    original = sf_runner.SummaryWriter
    with writing_nothing(True):
        writer = sf_runner.SummaryWriter(str(tmp_path / "s"), flush_secs=1)
        writer.add_scalar("x", 1, 1)
        sf_runner.save_git_diff(str(tmp_path))
    writer.flush()
    assert not list(tmp_path.rglob("*"))
    assert sf_runner.SummaryWriter is original


# Whole runs ----------------------------------------------------------------------------------------------------------


class Run:
    """``train_rl.py`` in processes of torchrun, or in one without it."""

    def __init__(self, folder: Path, small_flags: list[str], number: int, *flags: str) -> None:
        self.folder, self.log = folder / "e", folder / f"out_{time.monotonic_ns()}.txt"
        small = [flag for flag in small_flags if not flag.startswith("--serial_mode")]
        often = ("--experiment_summaries_interval=1", "--save_every_sec=1")
        starter = [*TORCHRUN, f"--nproc_per_node={number}"] if number > 1 else [sys.executable]
        self.process = subprocess.Popen(
            [*starter, ROOT / "train_rl.py", *small, *often, *flags, f"--train_dir={folder}", "--experiment=e"],
            env=environment(),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )

    def wait(self, seconds: float = 150) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                process.kill()
            pytest.fail(f"still running after {seconds} s:\n{self.log.read_text()}")

    @property
    def told(self) -> list[str]:
        """The lines of the training command, without torchrun's own."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("train_rl.py: ")]

    def ranks(self) -> list[psutil.Process]:
        """Processes of the ranks, in their order."""
        children = psutil.Process(self.process.pid).children()
        return sorted(
            (child for child in children if "train_rl.py" in " ".join(child.cmdline())),
            key=lambda child: int(child.environ()["RANK"]),
        )

    def until_saved(self, frames: int = 1, seconds: float = 150) -> None:
        """Wait for a checkpoint of more frames."""
        end = time.monotonic() + seconds
        while self.frames < frames:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.2)

    @property
    def frames(self) -> int:
        """Of the latest checkpoint."""
        names = [file.stem for file in self.folder.glob("checkpoint_p0/checkpoint_*.pth")]
        return max((int(name.split("_")[2]) for name in names), default=0)


@pytest.mark.hosts
def test_a_run_is_resumed_by_any_number_of_ranks(small_flags, tmp_path) -> None:
    first = Run(tmp_path, small_flags, 2, "--train_for_env_steps=1500")
    assert first.wait() == 0, first.log.read_text()
    assert first.frames > 1500
    assert first.frames % (2 * 32) == 0, "of both ranks"
    assert len(list(first.folder.glob(".summary/0/events*"))) == 1
    assert "2 processes, each on a CPU" in first.log.read_text()
    assert first.log.read_text().count("agent:  ") == 1
    second = Run(tmp_path, small_flags, 1, "--train_for_env_steps=2500", "--in_process=True")
    assert second.wait() == 0, second.log.read_text()
    assert second.frames > 2500
    third = Run(tmp_path, small_flags, 3, "--train_for_env_steps=1000000")
    third.until_saved(second.frames + 1)
    third.process.send_signal(signal.SIGTERM)  # which torchrun passes on to all of them
    third.wait(40)
    assert "stopped and saved; the same command goes on" in third.log.read_text()
    assert (third.frames - second.frames) % (3 * 32) == 0
    curves = pd.read_csv(third.folder / "curves.csv")
    assert curves["frames"].is_monotonic_increasing
    assert 0 < curves["frames"].max() <= third.frames


@pytest.mark.slow
def test_one_rank_that_is_asked_to_stop_stops_all(small_flags, tmp_path) -> None:
    run = Run(tmp_path, small_flags, 2, "--train_for_env_steps=1000000")
    run.until_saved()
    run.ranks()[1].send_signal(signal.SIGTERM)
    run.wait(60)
    assert "stopped and saved; the same command goes on" in run.log.read_text()
    assert not run.told


@pytest.mark.hosts
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "another process that torchrun started has ended, or cannot be reached"),
        (signal.SIGSTOP, "no sign of life from rank 1 of torchrun's 2 for 15 s"),
    ],
)
def test_a_rank_that_is_gone_ends_the_others(small_flags, tmp_path, number: int, message: str) -> None:
    run = Run(tmp_path, small_flags, 2, "--train_for_env_steps=1000000")
    run.until_saved()
    main, other = run.ranks()
    other.send_signal(number)
    try:
        main.wait(30)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.kill()
    run.wait(60)
    assert run.told == [f"train_rl.py: error: {message}"]
    assert run.frames > 0


@pytest.mark.slow
def test_a_wrong_flag_is_told_once(small_flags, tmp_path) -> None:
    run = Run(tmp_path, small_flags, 2, "--normalize_input=True")
    assert run.wait() == 1
    assert len(run.told) == 1
    assert "--normalize_input is True" in run.told[0]
