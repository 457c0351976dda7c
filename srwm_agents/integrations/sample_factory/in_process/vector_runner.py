"""One vector environment and the rollout buffer that it writes to."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

import numpy as np
import torch
from sample_factory.algo.utils.misc import EPISODIC, POLICY_ID_KEY
from sample_factory.algo.utils.rl_utils import prepare_and_normalize_obs
from sample_factory.algo.utils.shared_buffers import BufferMgr
from sample_factory.algo.utils.tensor_dict import TensorDict
from sample_factory.utils.attr_dict import AttrDict

from srwm_agents.graphs import WARM_UP, Graphed
from srwm_agents.integrations.sample_factory.environment import GAME_ENTRY, GAME_KEYS, make_environment
from srwm_agents.integrations.sample_factory.in_process.streams import Mark

POLICY = 0
"""Index of the only policy."""


class VectorRunner:
    """Steps one vector environment in three phases: :meth:`act`, :meth:`send`, :meth:`observe`.

    Only ``send`` waits for the device, and only ``observe`` for the simulator. All work on tensors is in two functions
    that read and write the same addresses at every step: where in the rollout they write is an index on the device.
    With ``cfg.cuda_graphs`` each of them is one launch.
    """

    def __init__(self, cfg: Any, number: int, buffer_mgr: BufferMgr, model: Any, device: torch.device) -> None:
        """Make and reset the ``number``-th vector environment of the run; ``model`` chooses its actions."""
        self._cfg = cfg
        self._model = model
        self._buffers = buffer_mgr.traj_buffer_queues[str(device)]
        self._trajectories = buffer_mgr.traj_tensors_torch[str(device)]
        self._environment = make_environment(cfg.env, cfg, AttrDict(env_id=number))
        self._vector = self._environment.vector
        observation, _ = self._vector.reset()
        size = self._vector.num_envs
        self._observation = {
            name: torch.as_tensor(entry, device=device).clone(memory_format=torch.contiguous_format)
            for name, entry in {**observation, GAME_ENTRY: self._environment.game_entry}.items()
        }
        self._state = torch.zeros(size, cfg.rnn_size, device=device)
        actions = self._environment.actions
        shape, kind = (size, actions.count), torch.float32 if actions.continuous else torch.int64
        self._chosen = torch.zeros(shape, dtype=kind, device=device)
        self._actions = torch.zeros(shape, dtype=kind, pin_memory=device.type == "cuda")
        self._rows = torch.zeros(size, dtype=torch.int64, device=device)  # of the trajectories
        self._index = torch.zeros(1, dtype=torch.int64, device=device)  # of the step in the rollout
        self._version = torch.zeros(1, device=device)
        self._arrived: dict[str, Any] = {}  # with the last step, not yet taken in; on a GPU always the same tensors
        launch = Graphed if cfg.cuda_graphs else _as_it_is
        self._launch_take_in = launch(self._take_in)
        self._launch_choose = launch(self._choose_actions)
        self._acted = Mark(device)
        self._slice: slice | None = None
        self._rollout: Any = None  # the slice's trajectory tensors
        self._step = 0  # of the rollout; the index on the device is the same number
        self._acting_version = -1
        self.playing = False
        """Whether the simulator is stepping on actions that were sent."""
        self.first_turn = 0
        """The actor thread's turn, counted over all vectors, at which this one starts."""

    def warm_up(self) -> None:
        """Play the first steps, unrecorded: in them the model is compiled and graphs are captured.

        To be called before anything is learned: a capture must not meet random numbers that the learner's thread draws,
        nor one thread's compilation the other's.
        """
        for _ in range(WARM_UP + 1):
            self._launch_choose({})
            self._fetch_actions()
            self.send()
            self._receive()
            self._index.zero_()

    @property
    def has_buffer(self) -> bool:
        """Whether a rollout has been begun that is not full."""
        return self._rollout is not None

    def acquire_buffer(self) -> bool:
        """Begin a rollout in a free trajectory buffer; False if there is none."""
        try:
            self._slice = self._buffers.get(block=False)
        except Empty:
            return False
        assert self._slice is not None
        self._rollout = self._trajectories[self._slice]
        self._rollout["policy_id"].fill_(POLICY)
        for name, entry in self._observation.items():
            self._rollout["obs"][name][:, 0] = entry
        self._rollout["obs"][GAME_ENTRY][:] = self._observation[GAME_ENTRY][:, None]
        torch.arange(self._slice.start, self._slice.stop, out=self._rows)
        self._index.zero_()
        return True

    def act(self, version: int) -> None:
        """Launch the model's step on the last observation; ``version`` is that of the model's weights."""
        if version != self._acting_version:
            self._version.fill_(version)
            self._acting_version = version
        if self._step % self._cfg.recurrence == 0:  # the learner does not use the other states, and they are large
            self._keep_state()
        self._launch_choose({})
        self._fetch_actions()

    def _fetch_actions(self) -> None:
        self._actions.copy_(self._chosen, non_blocking=True)
        self._acted.set()

    def _choose_actions(self, _inputs: Any) -> None:
        """Choose actions, write what the learner needs of them into the rollout, and go on to the next state."""
        inputs = prepare_and_normalize_obs(self._model, TensorDict(self._observation))
        outputs = self._model.step(inputs, self._state)
        at = (self._rows, self._index)
        self._trajectories["actions"][at] = outputs["actions"].view(len(self._rows), -1).float()
        for name in ("action_logits", "log_prob_actions", "values"):
            self._trajectories[name][at] = outputs[name]
        self._trajectories["policy_version"][at] = self._version
        self._state.copy_(outputs["new_rnn_states"])
        self._chosen.copy_(outputs["actions"].view(self._chosen.shape))

    def send(self) -> None:
        """Wait for the actions of :meth:`act` and start the simulator's step."""
        self._acted.wait()
        self._environment.send(self._actions.numpy())
        self.playing = True

    def observe(self) -> tuple[slice | None, dict[str, Any] | None]:
        """Wait for the simulator and write rewards, dones and the next observation into the rollout.

        Returns:
            the buffer slice of the rollout if it is now full (the current stream may still be writing to it), and
            Sample Factory's report on episodes that ended; each None if there is none.
        """
        infos = self._receive()
        self._step += 1
        return self._finished() if self._step == self._cfg.rollout else None, self._episodes(infos)

    def _receive(self) -> dict[str, Any]:
        observation, rewards, terminated, truncated, infos = self._vector.step_wait()
        self.playing = False
        self._arrived = {
            "rewards": torch.as_tensor(rewards),
            "terminated": torch.as_tensor(terminated),
            "truncated": torch.as_tensor(truncated),
            "observation": {name: torch.as_tensor(entry) for name, entry in observation.items()},
        }
        self._launch_take_in({})
        return infos

    def _take_in(self, _inputs: Any) -> None:
        """Write what the last actions led to, and go on to the rollout's next step."""
        arrived, limit = self._arrived, self._cfg.reward_clip
        at, following = (self._rows, self._index), (self._rows, self._index + 1)
        self._trajectories["rewards"][at] = (arrived["rewards"] * self._cfg.reward_scale).clamp(-limit, limit)
        dones = arrived["terminated"] | arrived["truncated"]
        self._trajectories["dones"][at] = dones
        self._trajectories["time_outs"][at] = arrived["truncated"]
        for name, entry in arrived["observation"].items():
            self._observation[name].copy_(entry)
            self._trajectories["obs"][name][following] = self._observation[name]
        self._state.masked_fill_(dones[:, None], 0)
        self._index.add_(1)

    def _keep_state(self) -> None:
        """Write the state before the next step into the rollout, if it has room for it (``trajectories.py``)."""
        states = self._rollout["rnn_states"]
        if self._step < states.shape[1]:
            states[:, self._step] = self._state

    def _finished(self) -> slice | None:
        """Add the state after the last step, and release the buffer."""
        self._keep_state()
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

    def close(self) -> None:
        """Wait for a step under way and free the simulator."""
        if self.playing:
            self._vector.step_wait()
        self._vector.close()


def _as_it_is(function: Callable[[Any], None]) -> Callable[[Any], None]:
    return function
