"""SIGKILL at random moments: nothing saved is lost, the next start goes on, and nothing is left behind.

Seeded, a few kills of each kind; ``SRWM_KILLS=30`` makes that many, and ``-s`` prints a line for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import eval_rl
import srwm_agents.evaluation.rollouts  # so that no run has to import it
import srwm_agents.fewshot.training
import srwm_agents.integrations.sample_factory.training  # noqa: F401
import train_rl
from srwm_agents import Agent, AgentConfig, load_agent, save_agent
from srwm_agents.fewshot import command as few_shot_command
from srwm_agents.fewshot import load_classifier
from srwm_agents.fewshot.data import glyphs
from srwm_agents.integrations.sample_factory.checkpoint import list_checkpoints, load_checkpoint
from srwm_agents.introspective import command as introspective_command
from srwm_agents.introspective.checkpoint import load_training

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(36_000)]

SAVE_EVERY = 2
"""Seconds between the saves of all runs here; in serial mode nothing else is done when saving takes as long."""
FURTHER_WITHIN = 900.0
"""Seconds in which a run starts and saves something new, on a machine that hardly has time for it."""
LONGEST_UPDATE = 20.0
"""Seconds: a save waits for the update that is going on, which may take so long on a machine that is busy."""
ENDED_WITHIN = 120.0
"""Seconds in which the processes of a killed run end: they look for their parent twice a second, but one that is still
starting first when it has, which takes long on a busy machine."""
TAG = "SRWM_TEST_RUN"


def wait_for(condition: Callable[[], Any], seconds: float, every: float = 0.02) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


class Run:
    """A command in a forked process, which has all modules already, with the processes that it starts."""

    def __init__(self, log: Path, command: Callable[[], int]) -> None:
        self.log = log
        self.began = time.monotonic()
        self.status: int | None = None
        self._tag = f"{os.getpid()}-{time.monotonic_ns()}"
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.setpgid(0, 0)
                os.environ[TAG] = self._tag  # which all that is started from here inherits
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(output, 1)
                os.dup2(output, 2)
                # pytest's capture has put objects of its own there.
                sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
                sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
                status = command()
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.setpgid(self.pid, self.pid)

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def alive(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is None

    def others(self) -> list[int]:
        """The processes beside the forked one, daemons too."""
        wanted = f"{TAG}={self._tag}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def shared_memory(self) -> set[Path]:
        """What its processes have mapped of ``/dev/shm`` and not deleted yet."""
        names: set[str] = set()
        for pid in (self.pid, *self.others()):
            try:
                names |= set(re.findall(r"(/dev/shm/\S+)$", Path("/proc", str(pid), "maps").read_text(), re.MULTILINE))
            except OSError:
                continue
        return set(map(Path, names))

    def kill(self, whole_group: bool) -> None:
        (os.killpg if whole_group else os.kill)(self.pid, signal.SIGKILL)
        if self.alive:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait(self, seconds: float) -> int:
        if not wait_for(lambda: not self.alive, seconds):
            self.kill(whole_group=True)
            pytest.fail(f"still running after {seconds} s:\n{self.text}")
        assert self.status is not None
        return self.status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """``start(command, log)``: a run, which ends with the test."""
    runs: list[Run] = []

    def begin(command: Callable[[], int], log: str = "out.txt") -> Run:
        runs.append(Run(tmp_path / log, command))
        return runs[-1]

    yield begin
    for run in runs:
        if run.alive:
            run.kill(whole_group=True)


@dataclass(frozen=True)
class Training:
    """A kind of run that saves and can be resumed."""

    command: Callable[[Path, bool], int]
    """(folder of the experiments, whether to end soon) -> exit status."""
    saved: Callable[[Path], int]
    """How far the newest checkpoint in the experiment's folder is, which is loaded; 0 without one."""
    models: Callable[[Path], dict[str, int]]
    """How far each of the saved models is; all are loaded."""
    checkpoint: str
    """Glob pattern of the checkpoints."""
    begun: str
    """What the run prints when it goes on from {saved}."""

    def written(self, folder: Path) -> tuple[int, float]:
        """The number in the newest checkpoint's name, if it has one, and when it was written; zeros without one."""
        found = [(0, 0.0)]
        for file in folder.glob(self.checkpoint):
            with contextlib.suppress(FileNotFoundError):  # it has just been removed
                found.append((int([0, *re.findall(r"\d+", file.stem)][-1]), file.stat().st_mtime))
        return max(found)

    def is_further(self, folder: Path, before: tuple[int, float]) -> bool:
        """Whether a checkpoint of later updates than those of ``before`` is there."""
        number, when = self.written(folder)
        return number > before[0] if number else when > before[1] and before[0] == 0 and "*" not in self.checkpoint


SMALL = [
    *("--device=cpu", "--seed=0", "--games=leaper", "--encoder_conv_architecture=convnet_impala"),
    *("--encoder_conv_mlp_layers", "16", "--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32"),
    *("--num_workers=1", "--num_envs_per_worker=4", "--rollout=8", "--batch_size=32"),
    *(f"--save_every_sec={SAVE_EVERY}", "--experiment_summaries_interval=1", "--stats_avg=5", "--experiment=e"),
]


def games(*flags: str) -> Training:
    def command(folder: Path, ends: bool) -> int:
        frames = frames_of(folder / "e") + 500 if ends else 10**9
        return train_rl.main([*SMALL, *flags, f"--train_dir={folder}", f"--train_for_env_steps={frames}"])

    def frames_of(folder: Path) -> int:
        checkpoints = list_checkpoints(folder / "checkpoint_p0", "checkpoint")
        return int(load_checkpoint(checkpoints[-1])["env_steps"]) if checkpoints else 0

    def models(folder: Path) -> dict[str, int]:
        names = [name for name in ("agent", "agent_average") if (folder / name / "model.safetensors").exists()]
        return {name: load_agent(folder / name).config.training["frames"] for name in names}

    return Training(command, frames_of, models, "checkpoint_p0/checkpoint_*.pth", "resuming at {saved:,} frames")


def few_shot() -> Training:
    flags = [
        *("--image_size=16", "--encoder_channels=4", "--hidden_size=8", "--num_heads=2", "--num_layers=1"),
        *("--ff_size=8", "--batch_size=4", "--validation_episodes=20", "--device=cpu", "--experiment=e"),
        *("--validate_every=40", "--log_every=5", f"--save_every_sec={SAVE_EVERY}"),
    ]

    def command(folder: Path, ends: bool) -> int:
        glyphs.CLASSES = {"train": 30, "val": 12, "test": 12}
        more = f"--train_steps={saved(folder / 'e') + 10 if ends else 10**9}"
        return few_shot_command.main(["train", f"--train_dir={folder}", *flags, more])

    def saved(folder: Path) -> int:
        file = folder / "checkpoint.pt"
        return int(torch.load(file, weights_only=True)["step"]) if file.exists() else 0

    def models(folder: Path) -> dict[str, int]:
        names = [name for name in ("agent", "agent_best") if (folder / name / "model.safetensors").exists()]
        return {name: load_classifier(folder / name).config.training["steps"] for name in names}

    return Training(command, saved, models, "checkpoint.pt", "at update {saved:,}")


def introspective() -> Training:
    def command(folder: Path, ends: bool) -> int:
        introspective_command.SAVE_EVERY_SECONDS = SAVE_EVERY
        updates = saved(folder / "e") + 2 if ends else 10**9
        flags = ["--task=recall", f"--updates={updates}", f"--train_dir={folder}", "--experiment=e"]
        return introspective_command.main(["train", *flags])

    def saved(folder: Path) -> int:
        return load_training(folder).update if (folder / "checkpoint.safetensors").exists() else 0

    return Training(command, saved, lambda _: {}, "checkpoint.safetensors", "after {saved} updates")


KINDS: dict[str, Callable[[], Training]] = {
    "serial": lambda: games("--serial_mode=True"),
    "processes": lambda: games("--serial_mode=False"),
    "threads": lambda: games("--serial_mode=False", "--in_process=True"),
    "few_shot": few_shot,
    "introspective": introspective,
}


def kills(usual: int) -> int:
    return int(os.environ.get("SRWM_KILLS", usual))


def temporary_files(folder: Path) -> list[Path]:
    return [file for pattern in (".tmp-*", "*/.tmp-*") for file in folder.glob(pattern)]


def wait_for_the_moment(rng: random.Random, kind: Training, run: Run, folder: Path, to_begin: float) -> str:
    """Wait until a random moment of a run, which must go on until then; what kind of moment it is."""
    moment = rng.choice(("start", "between saves", "write", "write"))
    if moment == "start":
        wait_for(lambda: not run.alive, rng.uniform(0, to_begin))
    else:
        before = kind.written(folder)
        assert wait_for(lambda: kind.is_further(folder, before) or not run.alive, FURTHER_WITHIN), run.text
        wait_for(lambda: not run.alive, rng.uniform(0, 2 * SAVE_EVERY))
        if moment == "write":
            wait_for(lambda: temporary_files(folder) or not run.alive, 3 * SAVE_EVERY + LONGEST_UPDATE, every=0.0002)
            time.sleep(rng.uniform(0, 0.02))
    assert run.alive, run.text
    return moment


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_is_killed_goes_on(name: str, tmp_path: Path, start) -> None:
    kind, rng = KINDS[name](), random.Random(f"{name} {os.environ.get('SRWM_KILLS_SEED', 0)}")
    folder = tmp_path / "e"
    saved, models, to_begin = 0, dict[str, int](), 10.0
    left: set[Path] = set()
    for number in range(kills(1)):
        run = start(lambda: kind.command(tmp_path, False))
        moment = wait_for_the_moment(rng, kind, run, folder, to_begin)
        mapped, whole_group = run.shared_memory(), rng.random() < 0.3
        run.kill(whole_group)
        since = time.time() - kind.written(folder)[1] if moment != "start" else 0.0
        if moment != "start":
            to_begin = 0.8 * to_begin + 0.2 * (time.monotonic() - run.began)
            text = kind.begun.format(saved=saved)
            assert not saved or text in run.text, f"{text!r} is not in:\n{run.text}"
            assert not {file for file in left if file.exists()}, f"kill {number} left these, and the next start too"
            left = set()
        assert wait_for(lambda run=run: not run.others(), ENDED_WITHIN), f"kill {number} left processes"
        left |= mapped
        reached, now = kind.saved(folder), kind.models(folder)
        print(f"{name} {number}: {moment}, {'group' if whole_group else 'main'}, {saved} -> {reached}, {since:.1f} s")
        assert reached >= saved
        assert moment == "start" or reached > saved, "what was saved since the start is lost"
        assert since < SAVE_EVERY + LONGEST_UPDATE
        assert models.keys() <= now.keys()
        for model, at in now.items():
            assert models.get(model, 0) <= at <= reached, model
        saved, models = reached, now
    last = start(lambda: kind.command(tmp_path, True))
    assert last.wait(FURTHER_WITHIN) == 0, last.text
    assert not saved or kind.begun.format(saved=saved) in last.text
    assert kind.saved(folder) > saved
    assert not temporary_files(folder)
    assert wait_for(lambda: not last.others(), ENDED_WITHIN)
    assert not {file for file in left if file.exists()}


def check_reports(folder: Path) -> int | None:
    """The seed of the evaluation in a folder, whose files must be of one; None where there is none."""
    if not (folder / "eval_sampled.json").exists():
        return None
    document = json.loads((folder / "eval_sampled.json").read_text())
    table, episodes = pd.read_csv(folder / "eval_sampled.csv"), pd.read_csv(folder / "eval_sampled_episodes.csv")
    assert table["return"].tolist() == pytest.approx([row["return"] for row in document["games"]])
    assert table["return"].tolist() == pytest.approx(episodes.groupby("split", sort=False)["return"].mean().tolist())
    return document["seed"]


def test_an_evaluation_that_is_killed_while_its_agent_is_saved(tmp_path: Path, start) -> None:
    """An agent that is replaced all the time: each evaluation is of a whole one, and its processes end with it."""
    rng = random.Random(f"evaluation {os.environ.get('SRWM_KILLS_SEED', 0)}")
    settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32}
    environment = {"games": ["leaper"], "distribution_mode": "easy", "num_levels": 20, "start_level": 0}
    agent = Agent(AgentConfig("srwm", settings, 15, encoder="convnet_impala", environment=environment))
    save_agent(agent, tmp_path / "e" / "agent")
    folder = tmp_path / "e" / "evaluation"

    def keep_saving() -> int:
        while True:
            save_agent(agent, tmp_path / "e" / "agent")
            time.sleep(0.05)

    def evaluate(seed: int) -> int:
        flags = [f"--train_dir={tmp_path}", "--experiment=e", "--device=cpu", "--splits=train,validation"]
        return eval_rl.main([*flags, "--episodes=2", "--max_envs=2", "--processes=2", f"--seed={seed}"])

    writer = start(keep_saving, "writer.txt")
    took = 20.0
    for number in range(kills(2)):
        seed = check_reports(folder)
        run = start(lambda number=number: evaluate(number))
        if number % 4 == 0:
            assert run.wait(FURTHER_WITHIN) == 0, run.text
            took = time.monotonic() - run.began
            assert check_reports(folder) == number
            assert not temporary_files(folder.parent)
        else:
            wait_for(lambda run=run: not run.alive, rng.uniform(0, took))
            mapped, whole_group = run.shared_memory(), rng.random() < 0.5
            if run.alive:
                run.kill(whole_group)
                assert check_reports(folder) in (seed, number, None)
            processes = len(run.others())
            print(f"evaluation {number}: {'group' if whole_group else 'main'}, status {run.status}, {processes}")
            assert wait_for(lambda run=run: not run.others(), ENDED_WITHIN), f"kill {number} left processes"
            assert not {file for file in mapped if file.exists()}, f"kill {number} left shared memory"
        assert writer.alive, writer.text
    writer.kill(whole_group=True)
    load_agent(tmp_path / "e" / "agent")
