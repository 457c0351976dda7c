"""Sample Factory's runner with sampler and learner as threads."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from sample_factory.algo.learning.batcher import Batcher
from sample_factory.algo.runners.runner import Runner
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.algo.utils.shared_buffers import BufferMgr, policy_device
from sample_factory.algo.utils.torch_utils import init_torch_runtime

from srwm_agents.integrations.sample_factory.in_process.acting import InProcessSampler
from srwm_agents.integrations.sample_factory.in_process.streams import LoopThread, wait_for_stream
from srwm_agents.integrations.sample_factory.in_process.trajectories import only_first_states
from srwm_agents.integrations.sample_factory.in_process.vector_runner import POLICY
from srwm_agents.integrations.sample_factory.in_process.weights import WeightsHandover


class InProcessBatcher(Batcher):
    """Batcher that releases trajectory buffers when their copies are done, not when they are only launched."""

    def init(self) -> None:
        with only_first_states(self.cfg):
            super().init()

    def _release_traj_tensors(self, batch_idx: int) -> None:
        wait_for_stream(policy_device(self.cfg, self.policy_id))
        super()._release_traj_tensors(batch_idx)


def limit_buffers(buffer_mgr: BufferMgr, vectors: int) -> None:
    """Limit the free buffers to those that the vectors write to and one training iteration more.

    Sample Factory allocates twice as many as are being written to. Where acting is faster than learning, all of them
    fill up with waiting trajectories, which increases policy lag.
    """
    for queue in buffer_mgr.traj_buffer_queues.values():
        waiting = math.ceil(
            buffer_mgr.trajectories_per_training_iteration / buffer_mgr.sampling_trajectories_per_iteration
        )
        while queue.qsize() > vectors + waiting:
            queue.get()


class ThreadedRunner(Runner):
    """Runner with three threads in one process: its own, the learner's (with the batcher), and the sampler's."""

    threads: tuple[LoopThread, ...] = ()

    def init(self) -> Any:
        init_torch_runtime(self.cfg, max_num_threads=None)
        with only_first_states(self.cfg):
            status = super().init()
        if status != ExperimentStatus.SUCCESS:
            return status
        device = policy_device(self.cfg, POLICY)
        handover = WeightsHandover(device)
        learning = LoopThread("learning", device)
        assert self.buffer_mgr is not None
        assert self.env_info is not None
        limit_buffers(self.buffer_mgr, self.cfg.num_workers * self.cfg.worker_num_splits)
        batcher = InProcessBatcher(learning.event_loop, POLICY, self.buffer_mgr, self.cfg, self.env_info)
        worker: Any = self._make_learner(learning.event_loop, POLICY, batcher)
        worker.learner.handover = handover
        learning.event_loop.owner = worker
        self.batchers[POLICY], self.learners[POLICY] = batcher, worker
        make_sampler: Any = partial(InProcessSampler, handover=handover, device=device)
        sampler = self._make_sampler(make_sampler, self.event_loop)
        self.sampler = sampler
        self.threads = (learning, sampler.thread)
        self.connect_components()
        return status

    def _on_start(self) -> None:
        self.threads[0].start()
        super()._on_start()

    def _on_everything_stopped(self) -> None:
        for thread in self.threads:
            thread.join()
        super()._on_everything_stopped()
