"""Distributed training on two hosts with addresses and names of their own, of which one is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"
PORT = "6399"
FLAGS = [
    *("--device=cpu", "--seed=0", "--games=starpilot,leaper", "--num_workers=2", "--num_envs_per_worker=8"),
    *("--encoder_conv_architecture=convnet_impala", "--encoder_conv_mlp_layers", "16"),
    *("--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32", "--rollout=8", "--batch_size=64"),
    *("--learning_rate=0.01", "--policy_head_scale=1", "--train_for_env_steps=100000000"),
]
NODE = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
# No authentication token: nothing else is on this link.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.timeout(900)]


def test_two_hosts_train_and_one_survives(hosts, tmp_path) -> None:
    watch, log = tmp_path / "watch.jsonl", tmp_path / "log.txt"
    watch.touch()

    def rollouts(host: str) -> list[dict]:
        lines = [json.loads(line) for line in watch.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if line["place"].startswith(f"host-{host} ({hosts.ADDRESSES[host]}")]

    with log.open("w") as out:

        def start(host: str, *command: str | Path) -> subprocess.Popen[str]:
            return hosts.start(host, command, out, **ENVIRONMENT, WATCH=str(watch))

        def until(condition: Callable[[], object], seconds: float = 300) -> None:
            end = time.monotonic() + seconds
            while not condition():
                assert learner.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)

        a, b = hosts.ADDRESSES.values()
        start(
            "a", RAY, "start", "--head", f"--node-ip-address={a}", f"--port={PORT}", "--include-dashboard=false", *NODE
        )
        start("b", RAY, "start", f"--address={a}:{PORT}", f"--node-ip-address={b}", *NODE)
        learner = start(
            "a",
            *(sys.executable, Path(__file__).parent / "watched_training.py", "train", f"--ray_address={a}:{PORT}"),
            *(*FLAGS, f"--train_dir={tmp_path}", "--experiment=e"),
        )
        until(lambda: len({line["version"] for line in rollouts("b")}) > 4 and rollouts("a"))
        remote = rollouts("b")
        # Host b's collector acted with the published weights of many versions, from the states in its rollouts.
        assert max(line["difference"] for line in remote) < 1e-3
        assert remote[0]["state"] == 0
        assert all(line["state"] > 0 for line in remote[1:])

        hosts.kill("b")
        until(lambda: "lost collector" in log.read_text())
        assert "go on" in log.read_text()
        played, last = len(rollouts("a")), rollouts("a")[-1]["version"]
        until(lambda: len(rollouts("a")) > played + 10 and rollouts("a")[-1]["version"] > last + 5)

        # `ip netns exec`, `unshare` and `sh` each exec the next program, so this process is the learner.
        learner.send_signal(signal.SIGTERM)
        assert learner.wait(60) == 128 + signal.SIGTERM, log.read_text()
        assert "stopped and saved" in log.read_text()
        assert (tmp_path / "e" / "agent" / "model.safetensors").is_file()
