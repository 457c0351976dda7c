"""One vector environment and the rollout buffer that it writes to."""

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
"""Index of the only policy."""


class VectorRunner:
    """Steps one vector environment in three phases: :meth:`act`, :meth:`send`, :meth:`observe`.

    Only ``send`` waits for the device, and only ``observe`` for the simulator.
    """

    def __init__(self, cfg: Any, number: int, buffer_mgr: BufferMgr, device: torch.device) -> None:
        """Make and reset the ``number``-th vector environment of the run."""
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
        self._rollout: Any = None  # the slice's trajectory tensors
        self._step = 0  # of the rollout
        self.playing = False
        """Whether the simulator is stepping on actions that were sent."""
        self.first_turn = 0
        """The actor thread's turn, counted over all vectors, at which this one starts."""

    def acquire_buffer(self) -> bool:
        """Whether there is a trajectory buffer to write to; takes a free one if none is held."""
        if self._rollout is None:
            try:
                self._slice = self._buffers.get(block=False)
            except Empty:
                return False
            self._rollout = self._trajectories[self._slice]
            self._rollout["policy_id"].fill_(POLICY)
        return True

    def act(self, model: Any, version: int) -> None:
        """Launch the model's step on the last observation and the copies of its outputs into the rollout."""
        rollout, t = self._rollout, self._step
        rollout["obs"][:, t] = self._observation
        if t % self._cfg.recurrence == 0:  # the learner does not use the other states, and they are large
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
        """Wait for the actions of :meth:`act` and start the simulator's step."""
        self._acted.wait()
        self._vector.step_async(self._actions.numpy())
        self.playing = True

    def observe(self) -> tuple[slice | None, dict[str, Any] | None]:
        """Wait for the simulator and write rewards and dones into the rollout.

        Returns:
            the buffer slice of the rollout if it is now full (the current stream may still be writing to it), and
            Sample Factory's report on episodes that ended; each None if there is none.
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
        """Add the observation after the last step, which the learner bootstraps from, and release the buffer."""
        self._rollout["obs"][:, self._step] = self._observation
        self._rollout["rnn_states"][:, self._step] = self._state
        finished = self._slice
        self._rollout = self._slice = None
        self._step = 0
        return finished

    def _episodes(self, infos: dict[str, Any]) -> dict[str, Any] | None:
        ended = np.flatnonzero(infos["episode_ended"])
        if not len(ended):
            return None
        returns, lengths = infos["episode_return"][ended], infos["episode_length"][ended]
        report = dict(zip(GAME_KEYS, (self._vector.game_index[ended], returns, lengths), strict=True))
        return {EPISODIC: {"reward": returns, "len": lengths, **report}, POLICY_ID_KEY: POLICY}

    def _tensors(self, observation: dict[str, Any]) -> dict[str, torch.Tensor]:
        observation[GAME_ENTRY] = self._environment.game_entry
        return {name: torch.as_tensor(entry) for name, entry in observation.items()}

    def close(self) -> None:
        """Wait for a step under way and free the simulator."""
        if self.playing:
            self._vector.step_wait()
        self._vector.close()
