"""``python -m srwm_agents distributed train`` with a log of every rollout, for ``test_two_hosts.py``.

Each rollout's policy is recomputed here from the published weights and the rollout's initial state: equal logits mean
that the collector acted with those weights and from that state.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.distributed import training
from srwm_agents.distributed.command import main
from srwm_agents.distributed.pool import CollectorPool
from srwm_agents.distributed.rollouts import CollectedRollout


class WatchedPool(CollectorPool):
    """Writes a JSON line about each rollout to the file that the environment variable WATCH names."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.published = {}
        self.agent = Agent(AgentConfig.from_json(self._settings.agent))

    def publish(self, weights, version) -> None:
        self.published[version] = weights
        super().publish(weights, version)

    def next_rollout(self, timeout: float) -> CollectedRollout | None:
        rollout = super().next_rollout(timeout)
        if rollout is not None:
            arrays = rollout.arrays
            line = {
                "place": rollout.place,
                "version": rollout.version,
                "state": float(np.abs(arrays["rnn_states"]).sum()),
                "difference": self._difference(rollout),
            }
            with Path(os.environ["WATCH"]).open("a") as file:
                file.write(json.dumps(line) + "\n")
        return rollout

    def _difference(self, rollout: CollectedRollout) -> float:
        arrays = rollout.arrays
        weights = self.published[rollout.version]
        self.agent.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        steps = arrays["dones"].shape[1]
        resets = torch.zeros(arrays["dones"].shape, dtype=torch.bool)
        resets[:, 1:] = torch.tensor(arrays["dones"][:, :-1])
        observation = {name: torch.tensor(arrays["obs"][name][:, :steps]) for name in ("obs", "last_reward")}
        with torch.no_grad():
            logits, _, _ = self.agent(observation, torch.tensor(arrays["rnn_states"][:, 0]), resets)
        return float((logits - torch.tensor(arrays["action_logits"])).abs().max())


if __name__ == "__main__":
    training.CollectorPool = WatchedPool
    sys.exit(main(sys.argv[1:]))
