"""One vector of games in play, and the rollout that it is filling."""

from __future__ import annotations

from queue import Empty
from typing import Any

import numpy as np
import torch
from sample_factory.algo.utils.misc import EPISODIC, POLICY_ID_KEY
from sample_factory.algo.utils.rl_utils import prepare_and_normalize_obs
from sample_factory.algo.utils.shared_buffers import BufferMgr
from sample_factory.algo.utils.tensor_dict import TensorDict
from sample_factory.utils.attr_dict import AttrDict

from srwm_agents.integrations.sample_factory.environment import ENV_NAME, GAME_ENTRY, GAME_KEYS, make_environment
from srwm_agents.integrations.sample_factory.in_process.streams import Mark

POLICY = 0
"""There is one policy."""


class GamesInPlay:
    """Goes round and round: :meth:`act` on what was observed, :meth:`send` the actions, :meth:`observe` what they did.

    Nothing but ``send`` waits for the device, and nothing but ``observe`` waits for the simulator.
    """

    def __init__(self, cfg: Any, number: int, buffer_mgr: BufferMgr, device: torch.device) -> None:
        """The ``number``-th vector of the run, whose first episodes begin here."""
        self._cfg = cfg
        self._buffers = buffer_mgr.traj_buffer_queues[str(device)]
        self._trajectories = buffer_mgr.traj_tensors_torch[str(device)]
        self._environment = make_environment(ENV_NAME, cfg, AttrDict(env_id=number))
        self._vector = self._environment.vector
        observation, _ = self._vector.reset()
        self._observation = self._tensors(observation)
        self._state = torch.zeros(self._vector.num_envs, cfg.rnn_size, device=device)
        self._actions = torch.zeros(self._vector.num_envs, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._acted = Mark(device)
        self._slice: slice | None = None
        self._rollout: Any = None  # what the slice is of, while there is one
        self._step = 0  # of the rollout
        self.playing = False
        """Whether the simulator is at work on actions that were sent."""
        self.begins_at_turn = 0
        """The turn, counted over all vectors, from which on this one plays."""

    def find_room(self) -> bool:
        """Whether there is a trajectory buffer to write to; takes a free one if need be."""
        if self._rollout is None:
            try:
                self._slice = self._buffers.get(block=False)
            except Empty:
                return False
            self._rollout = self._trajectories[self._slice]
            self._rollout["policy_id"].fill_(POLICY)
        return True

    def act(self, model: Any, version: int) -> None:
        """Give the device the model's step on the last observation, and what it leaves in the rollout."""
        rollout, t = self._rollout, self._step
        rollout["obs"][:, t] = self._observation
        if t % self._cfg.recurrence == 0:  # the other states are of no use to a learner, and large
            rollout["rnn_states"][:, t] = self._state
        inputs = prepare_and_normalize_obs(model, TensorDict(self._observation))
        outputs = model(inputs, self._state)
        rollout["actions"][:, t] = outputs["actions"].view(rollout["actions"][:, t].shape)
        for name in ("action_logits", "log_prob_actions", "values"):
            rollout[name][:, t] = outputs[name]
        rollout["policy_version"][:, t] = version
        self._state.copy_(outputs["new_rnn_states"])
        self._actions.copy_(outputs["actions"].view(-1), non_blocking=True)
        self._acted.set()

    def send(self) -> None:
        """Wait for the actions of :meth:`act` and set the simulator to work on them."""
        self._acted.wait()
        self._vector.step_async(self._actions.numpy())
        self.playing = True

    def observe(self) -> tuple[slice | None, dict[str, Any] | None]:
        """Wait for the simulator and record what happened.

        Returns:
            the trajectories of a rollout that is now full, whose last numbers may still be under way on the current
            stream, and Sample Factory's report on episodes that ended; None where there is nothing.
        """
        observation, rewards, terminated, _, infos = self._vector.step_wait()
        self.playing = False
        self._observation = self._tensors(observation)
        rewards, ended = torch.as_tensor(rewards), torch.as_tensor(terminated)
        rollout, t, limit = self._rollout, self._step, self._cfg.reward_clip
        rollout["rewards"][:, t] = (rewards * self._cfg.reward_scale).clamp(-limit, limit)
        rollout["dones"][:, t] = ended
        self._state.masked_fill_(ended[:, None], 0)
        self._step += 1
        return self._finished() if self._step == self._cfg.rollout else None, self._episodes(infos)

    def _finished(self) -> slice | None:
        """What comes after the last step goes with it: the learner takes its value."""
        self._rollout["obs"][:, self._step] = self._observation
        self._rollout["rnn_states"][:, self._step] = self._state
        finished = self._slice
        self._rollout = self._slice = None
        self._step = 0
        return finished

    def _episodes(self, infos: dict[str, Any]) -> dict[str, Any] | None:
        ended = np.flatnonzero(infos["_episode"])
        if not len(ended):
            return None
        returns, lengths = infos["episode"]["r"][ended], infos["episode"]["l"][ended]
        report = dict(zip(GAME_KEYS, (self._vector.game_index[ended], returns, lengths), strict=True))
        return {EPISODIC: {"reward": returns, "len": lengths, **report}, POLICY_ID_KEY: POLICY}

    def _tensors(self, observation: dict[str, Any]) -> dict[str, torch.Tensor]:
        observation[GAME_ENTRY] = self._environment.game_entry
        return {name: torch.as_tensor(entry) for name, entry in observation.items()}

    def close(self) -> None:
        """Let the simulator go, once it has done what it was sent."""
        if self.playing:
            self._vector.step_wait()
        self._vector.close()
