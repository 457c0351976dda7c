"""Actor thread: round-robin over vector environments, overlapping simulation and inference."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from sample_factory.algo.sampling.sampler import AbstractSampler
from sample_factory.algo.utils.env_info import EnvInfo
from sample_factory.algo.utils.heartbeat import HeartbeatStoppableEventLoopObject
from sample_factory.algo.utils.misc import POLICY_ID_KEY, SAMPLES_COLLECTED, new_trajectories_signal
from sample_factory.algo.utils.shared_buffers import BufferMgr
from sample_factory.model.actor_critic import create_actor_critic
from sample_factory.utils.timing import Timing
from signal_slot.signal_slot import EventLoop, TightLoop, Timer, signal

from srwm_agents.integrations.sample_factory.in_process.streams import LoopThread, wait_for_stream
from srwm_agents.integrations.sample_factory.in_process.vector_runner import POLICY, VectorRunner
from srwm_agents.integrations.sample_factory.in_process.weights import WeightsHandover, tensors_of

_REPORT_EVERY_SECONDS = 3.0
_WAIT_SECONDS = 0.01
"""How long a turn waits for newer weights where there is nothing else to do; then signals are looked at."""


class ActingWorker(HeartbeatStoppableEventLoopObject):
    """Inference and rollout worker in one; the only object on the actor thread's event loop."""

    def __init__(
        self,
        event_loop: EventLoop,
        cfg: Any,
        env_info: EnvInfo,
        buffer_mgr: BufferMgr,
        handover: WeightsHandover,
        device: torch.device,
    ) -> None:
        super().__init__(event_loop, type(self).__name__, cfg.heartbeat_interval)
        self._cfg = cfg
        self._env_info = env_info
        self._buffer_mgr = buffer_mgr
        self._handover = handover
        self._device = device
        self._timing = Timing(name=f"{self.object_id} profile")
        self._loop: TightLoop | None = None
        self._vectors: list[VectorRunner] = []
        self._turn_number = 0
        self._awaiting_actions: deque[VectorRunner] = deque()
        self._version = -1
        self._samples = 0
        self._trajectories = 0  # sent to the learner

    @signal
    def report_msg(self) -> None:
        """Signal with messages for the runner."""

    @torch.no_grad()
    def init(self, _model_data: Any = None) -> None:
        """Make the model and the vector environments, and start acting; the handover must hold the first weights."""
        self._model = create_actor_critic(self._cfg, self._env_info.obs_space, self._env_info.action_space)
        self._model.model_to_device(self._device)
        self._model.eval().requires_grad_(False)
        self._weights = tensors_of(self._model)
        number = self._cfg.num_workers * self._cfg.worker_num_splits
        self._vectors = [VectorRunner(self._cfg, i, self._buffer_mgr, self._model, self._device) for i in range(number)]
        self._version = self._handover.take(self._weights, self._version)
        for vector in self._vectors:
            vector.warm_up()
        # Staggered over a rollout, so that the learner gets trajectories at an even rate.
        for i, vector in enumerate(self._vectors):
            vector.first_turn = i * self._cfg.rollout
        self._loop = TightLoop(self.event_loop)
        self._loop.iteration.connect(self._turn)
        self._report_timer = Timer(self.event_loop, _REPORT_EVERY_SECONDS)
        self._report_timer.timeout.connect(self._report)

    @torch.no_grad()
    def _turn(self) -> None:
        """Take in the next vector's step, choose its next actions, and send those that the device has made."""
        assert self._loop is not None
        vector = self._vectors[self._turn_number % len(self._vectors)]
        self._turn_number += 1
        if self._turn_number <= vector.first_turn:
            return
        if vector in self._awaiting_actions:
            self._send(len(self._awaiting_actions))
        if vector.playing:
            with self._timing.add_time("observe"):
                finished, episodes = vector.observe()
            if episodes is not None:
                self.report_msg.emit(episodes)
            if finished is not None:
                with self._timing.add_time("finish_rollout"):
                    wait_for_stream(self._device)
                self._trajectories += finished.stop - finished.start
                rollout = {"policy_id": POLICY, "traj_buffer_idx": finished}
                self.emit(new_trajectories_signal(POLICY), [rollout], str(self._device))
        may_begin = vector.has_buffer or self._weights_are_new_enough()
        if may_begin and (vector.has_buffer or vector.acquire_buffer()):
            with self._timing.add_time("act"):
                self._version = self._handover.take(self._weights, self._version)
                vector.act(self._version)
            self._samples += self._env_info.num_agents
            self._awaiting_actions.append(vector)
            # With three vectors or more the host takes in another one meanwhile. With two the other's simulator is
            # waited for next, and this one's would stand still until then.
            self._send(len(self._awaiting_actions) - (len(self._vectors) > 2))
        elif not self._awaiting_actions and not any(other.playing for other in self._vectors):
            if may_begin:
                self._loop.stop()  # until the learner releases buffers
            else:
                self._weights_are_new_enough(_WAIT_SECONDS)

    def _weights_are_new_enough(self, seconds: float = 0.0) -> bool:
        """Whether another rollout may begin (``--max_pending_iterations``), perhaps within some seconds."""
        allowed = self._cfg.max_pending_iterations
        if allowed < 0:
            return True
        sent = self._trajectories // self._buffer_mgr.trajectories_per_training_iteration
        return self._handover.wait_for(sent - allowed, seconds)

    def _send(self, number: int) -> None:
        with self._timing.add_time("wait_for_actions"):
            for _ in range(number):
                self._awaiting_actions.popleft().send()

    def on_buffers_available(self, _policy_id: int, _training_iteration: int) -> None:
        """Go on acting: trajectory buffers are free again."""
        if self._loop is not None:
            self._loop.start()

    def _report(self) -> None:
        self.report_msg.emit({SAMPLES_COLLECTED: self._samples, POLICY_ID_KEY: POLICY})
        self._samples = 0

    def on_stop(self, *args: Any) -> None:
        if self._loop is not None:
            self._loop.stop()
        for vector in self._vectors:
            vector.close()
        self.stop.emit(self.object_id, {self.object_id: self._timing})
        super().on_stop(*args)


class InProcessSampler(AbstractSampler):
    """Sample Factory's sampler interface to the :class:`ActingWorker`."""

    def __init__(self, *args: Any, handover: WeightsHandover, device: torch.device) -> None:
        """``args`` as :class:`AbstractSampler`'s."""
        super().__init__(*args, unique_name=type(self).__name__)
        # Acting has priority: its kernels are short, and all simulator threads wait for them.
        self.thread = LoopThread("acting", device, priority=-1)
        self.worker = ActingWorker(self.thread.event_loop, self.cfg, self.env_info, self.buffer_mgr, handover, device)
        self.thread.event_loop.owner = self.worker

    def init(self) -> None:
        self.thread.start()
        self.started.emit()
        self.initialized.emit()

    def connect_model_initialized(self, policy_id: int, model_initialized_signal: Any) -> None:
        model_initialized_signal.connect(self.worker.init)

    def connect_on_new_trajectories(self, policy_id: int, on_new_trajectories_handler: Any) -> None:
        self.worker.connect(new_trajectories_signal(policy_id), on_new_trajectories_handler)

    def connect_trajectory_buffers_available(self, buffers_available_signal: Any) -> None:
        buffers_available_signal.connect(self.worker.on_buffers_available)

    def connect_stop_experience_collection(self, stop_experience_collection_signal: Any) -> None:
        """Ignored: acting stops by itself when no buffer is free; stopping earlier would only idle the simulator."""

    def connect_resume_experience_collection(self, resume_experience_collection_signal: Any) -> None:
        """Ignored, as the stop signal is."""

    def connect_report_msg(self, report_msg_handler: Any) -> None:
        self.worker.report_msg.connect(report_msg_handler)

    def connect_update_training_info(self, update_training_info_signal: Any) -> None:
        """Ignored: Procgen does not depend on training progress."""

    def stoppable_components(self) -> list[HeartbeatStoppableEventLoopObject]:
        return [self.worker]

    def heartbeat_components(self) -> list[HeartbeatStoppableEventLoopObject]:
        return [self.worker]

    def join(self) -> None:
        self.thread.join()
