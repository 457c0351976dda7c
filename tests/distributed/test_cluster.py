"""A Ray cluster of three nodes on this machine: lost and new collectors, a killed and resumed learner."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from srwm_agents import load_agent
from srwm_agents.distributed.pool import CollectorError, CollectorPool
from srwm_agents.distributed.rollouts import CollectedRollout
from srwm_agents.distributed.training import collector_settings
from srwm_agents.integrations.sample_factory.checkpoint import list_checkpoints

ROOT = Path(__file__).parents[2]
SMALL_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node without CPUs for collectors, and two nodes with CPUs for one each."""
    before = {process.pid for process in psutil.process_iter()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the nodes' workers import what the tests do
        made = Cluster(initialize_head=True, head_node_args={**SMALL_NODE, "num_cpus": 0})
        try:
            for _ in range(2):
                made.add_node(**SMALL_NODE)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
            # No Ray process may be left after a test.
            mine = [one for one in psutil.process_iter() if one.pid not in before and "ray" in one.name()]
            for process in psutil.wait_procs(mine, timeout=10)[1]:
                process.kill()


class Log:
    """The log lines of a pool."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def has(self, words: str) -> bool:
        return any(words in line for line in self.lines)


def collect(
    pool: CollectorPool, done: Callable[[list[CollectedRollout]], bool], seconds: float = 300
) -> list[CollectedRollout]:
    rollouts: list[CollectedRollout] = []
    end = time.monotonic() + seconds
    while not done(rollouts):
        assert time.monotonic() < end, [rollout.place for rollout in rollouts]
        rollout = pool.next_rollout(0.5)
        if rollout is not None:
            rollouts.append(rollout)
    return rollouts


def places(rollouts: list[CollectedRollout]) -> set[str]:
    return {rollout.place for rollout in rollouts}


@pytest.fixture
def make_pool(cluster) -> Iterator[Callable[..., CollectorPool]]:
    """Function from settings to a pool on the cluster, which is closed after the test."""
    pools: list[CollectorPool] = []
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def make(*args, **kwargs) -> CollectorPool:
        pools.append(CollectorPool(*args, **kwargs))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    ray.shutdown()


def test_lost_collectors_are_replaced(cluster, make_pool, make_distributed_learner) -> None:
    learner = make_distributed_learner()
    log = Log()
    pool = make_pool(collector_settings(learner), 2, log=log)
    weights = learner.weights()
    pool.publish(weights, 0)
    first = collect(pool, lambda rollouts: len(places(rollouts)) == 2 and len(rollouts) > 6)
    # One on each node, and none on the head, where the learner is.
    nodes = {node_of(place) for place in places(first)}
    assert len(nodes) == 2
    assert not any(cluster.head_node.node_id.startswith(node) for node in nodes)
    for place in places(first):
        remembered = [np.abs(r.arrays["rnn_states"]).sum() > 0 for r in first if r.place == place]
        assert remembered == [False] + [True] * (len(remembered) - 1)

    # New weights are used: with all weights zero the policy is uniform.
    pool.publish({name: np.zeros_like(weight) for name, weight in weights.items()}, 7)
    later = collect(pool, lambda rollouts: {r.place for r in rollouts if r.version == 7} == places(first))
    assert all((rollout.arrays["action_logits"] == 0).all() == (rollout.version == 7) for rollout in later)

    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    collect(pool, lambda _: log.has("lost collector"))
    survivors = collect(pool, lambda rollouts: len(rollouts) > 4)
    assert len(places(survivors)) == 1
    assert log.has("1 of 2 go on")

    joined = cluster.add_node(**SMALL_NODE)
    after = collect(pool, lambda rollouts: len(places(rollouts)) == 2)
    assert any(joined.node_id.startswith(node_of(place)) for place in places(after))
    assert log.has(f"node {joined.node_id[:8]}): 2 of 2"), log.lines

    # An error that any machine would raise ends the run.
    pool.publish({"core.embed.weight": np.zeros(3, np.float32)}, 8)
    with pytest.raises(CollectorError, match=r"collector \d+ failed"):
        collect(pool, lambda _: False)


def node_of(place: str) -> str:
    found = re.search("node ([0-9a-f]+)", place)
    assert found is not None
    return found[1]


class Run:
    """The command in a process, and its output."""

    def __init__(self, folder: Path, flags: list[str]) -> None:
        self.log = folder / f"out_{time.monotonic_ns()}.txt"
        command = [sys.executable, "-m", "srwm_agents", "distributed", "train", *flags, f"--train_dir={folder}"]
        self.process = subprocess.Popen(
            [*command, "--experiment=e"], stdout=self.log.open("w"), stderr=subprocess.STDOUT, cwd=ROOT
        )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], object], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.1)


@pytest.mark.hosts
def test_a_killed_learner_resumes(cluster, small_flags, tmp_path) -> None:
    flags = [
        *small_flags,
        "--num_workers=1",
        f"--ray_address={cluster.address}",
        "--save_every_sec=1",
        "--train_for_env_steps=1000000",
    ]
    checkpoints = tmp_path / "e" / "checkpoint_p0"
    run = Run(tmp_path, flags)
    run.until(lambda: list_checkpoints(checkpoints, "checkpoint"))
    run.process.kill()
    run.process.wait()
    frames = int(re.findall(r"\d+", list_checkpoints(checkpoints, "checkpoint")[-1].name)[1])

    again = Run(tmp_path, flags)
    again.until(lambda: "runs on" in again.text)
    assert f"resuming at {frames:,} frames" in again.text
    again.until(lambda: list_checkpoints(checkpoints, "checkpoint")[-1].name > f"checkpoint_{0:09d}")
    time.sleep(1)
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(30) == 128 + signal.SIGTERM, again.text
    assert "stopped and saved" in again.text
    agent = load_agent(tmp_path / "e" / "agent")
    assert agent.config.training["frames"] > frames
    assert agent.config.environment["games"] == ["starpilot", "leaper"]
    assert (tmp_path / "e" / "curves.csv").is_file()
