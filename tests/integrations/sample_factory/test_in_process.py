"""In-process training: contents of rollouts, consistent weights, buffers, settings."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from srwm_agents.integrations.sample_factory.config import ConfigError
from srwm_agents.integrations.sample_factory.in_process.runner import limit_buffers
from srwm_agents.integrations.sample_factory.in_process.streams import LoopThread
from srwm_agents.integrations.sample_factory.in_process.trajectories import only_first_states
from srwm_agents.integrations.sample_factory.in_process.vector_runner import VectorRunner
from srwm_agents.integrations.sample_factory.in_process.weights import WeightsHandover, tensors_of

# Sample Factory prints a line for each of these at import; ours is imported first to keep gym quiet.
from sample_factory.algo.utils.misc import EPISODIC  # isort: skip
from sample_factory.algo.utils.shared_buffers import BufferMgr  # isort: skip

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def module(value: float, device: str) -> nn.Module:
    model = nn.BatchNorm1d(4).to(device)
    with torch.no_grad():
        for tensor in tensors_of(model):
            tensor.fill_(value)
    return model


@pytest.mark.parametrize("device", DEVICES)
def test_each_version_of_the_weights_is_copied_once(device: str) -> None:
    handover = WeightsHandover(torch.device(device))
    learner, actor = module(1, device), module(0, device)
    handover.put(tensors_of(learner), 5)
    for tensor in tensors_of(learner):
        tensor.fill_(2)  # the stored copy must not change
    assert handover.take(tensors_of(actor), -1) == 5
    assert all((tensor == 1).all() for tensor in tensors_of(actor))
    for tensor in tensors_of(actor):
        tensor.fill_(3)
    assert handover.take(tensors_of(actor), 5) == 5
    assert all((tensor == 3).all() for tensor in tensors_of(actor)), "nothing new, nothing copied"


@pytest.mark.parametrize("device", DEVICES)
def test_weights_of_different_versions_never_mix(device: str) -> None:
    """One thread puts weights that all have one value; another must never take a mixture."""
    handover = WeightsHandover(torch.device(device))
    learner = [torch.zeros(1000, device=device) for _ in range(50)]
    actor = [torch.zeros(1000, device=device) for _ in range(50)]
    handover.put(learner, 0)
    if device == "cuda":
        torch.cuda.synchronize()  # the copy above is on another stream than the thread's fills of the same tensors
    taken = set()

    def learn() -> None:
        on_stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else torch.no_grad()
        with on_stream:
            for version in range(1, 200):
                for tensor in learner:
                    tensor.fill_(version)
                handover.put(learner, version)

    thread = threading.Thread(target=learn)
    thread.start()
    version = -1
    while version < 199:
        version = handover.take(actor, version)
        values = {float(tensor.min()) for tensor in actor} | {float(tensor.max()) for tensor in actor}
        assert values == {float(version)}
        taken.add(version)
    thread.join()
    assert len(taken) > 1


@pytest.mark.parametrize(
    ("device", "graphs", "vtrace"),
    [
        ("cpu", False, True),
        *(pytest.param("cuda", *more, marks=pytest.mark.gpu) for more in ((False, False), (True, True))),
    ],
)
def test_a_rollout_equals_a_replay_of_its_actions(make_model, monkeypatch, device: str, graphs: bool, vtrace) -> None:
    """A second vector environment with the same seeds and the recorded actions gives the same rollout."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if device == "cuda" else "")  # where Sample Factory looks
    placement = ["--device=gpu", "--actor_worker_gpus", "0", f"--cuda_graphs={graphs}"] if device == "cuda" else []
    cfg, info, model = make_model("--in_process=True", "--reward_scale=0.5", "--reward_clip=2", *placement)
    where = torch.device(device, 0) if device == "cuda" else CPU
    model.model_to_device(where)
    model.eval()
    cfg.with_vtrace = vtrace
    with only_first_states(cfg):
        buffers = BufferMgr(cfg, info)
    games, mirror = (VectorRunner(cfg, 0, buffers, model, where) for _ in range(2))
    env = mirror._vector
    taken: list[np.ndarray] = []
    begin = games._vector.step_async
    monkeypatch.setattr(games._vector, "step_async", lambda actions: begin(taken.append(actions.copy()) or actions))
    with torch.no_grad():
        games.warm_up()
    for actions in taken:
        mirror._vector.step_async(actions)
        mirror._receive()
    observation = {name: entry.clone() for name, entry in mirror._observation.items()}
    episodes, ended_in_all, finished = [], 0, None
    rollouts = buffers.traj_tensors_torch[str(where)]
    state = games._state.clone()
    with torch.no_grad():
        for _ in range(30):  # rollouts
            assert games.acquire_buffer()
            for t in range(cfg.rollout):
                games.act(version=7)
                games.send()
                finished, report = games.observe()
                assert (finished is not None) == (t == cfg.rollout - 1)
                episodes += [] if report is None else [report[EPISODIC]]
            rollout = rollouts[finished]
            torch.testing.assert_close(rollout["rnn_states"][:, 0], state)
            for t in range(cfg.rollout):
                for name, entry in observation.items():
                    torch.testing.assert_close(rollout["obs"][name][:, t], entry.to(rollout["obs"][name].dtype))
                out = model({name: entry.clone() for name, entry in observation.items()}, state)
                torch.testing.assert_close(rollout["action_logits"][:, t], out["action_logits"])
                torch.testing.assert_close(rollout["values"][:, t], out["values"].view(-1))
                actions = rollout["actions"][:, t].view(-1).long()
                log_probs = out["action_logits"].log_softmax(-1).gather(1, actions[:, None]).view(-1)
                torch.testing.assert_close(rollout["log_prob_actions"][:, t], log_probs)
                observation, rewards, ended, _, _ = env.step(actions.cpu().numpy())
                observation = {name: torch.as_tensor(entry) for name, entry in observation.items()}
                observation["game_index"] = mirror._observation["game_index"]
                rewards, ended = torch.as_tensor(rewards), torch.as_tensor(ended)
                torch.testing.assert_close(rollout["rewards"][:, t], (rewards * 0.5).clamp(-2, 2))
                assert (rollout["dones"][:, t] == ended).all()
                state = out["new_rnn_states"] * ~ended[:, None]
                ended_in_all += int(ended.sum())
            torch.testing.assert_close(rollout["obs"]["obs"][:, cfg.rollout], observation["obs"])
            if vtrace:
                assert rollout["rnn_states"].shape[1] == 1
            else:
                torch.testing.assert_close(rollout["rnn_states"][:, cfg.rollout], state)
            assert (rollout["policy_version"] == 7).all()
            assert (rollout["policy_id"] == 0).all()
            buffers.traj_buffer_queues[str(where)].put(finished)
    assert ended_in_all > 0
    assert sum(len(report["game_return"]) for report in episodes) == ended_in_all
    assert set(np.concatenate([report["game_index"] for report in episodes])) <= {0, 1}
    games.close()
    mirror.close()


@pytest.mark.parametrize(("batches", "expected"), [(1, 3), (2, 3), (4, 4)])
def test_free_buffers_are_limited(make_model, monkeypatch, batches: int, expected: int) -> None:
    """Two vectors of 8 write; iterations of 4, 8 and 16 trajectories need one, one and two further slices."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    flags = ("--num_workers=2", "--worker_num_splits=1", f"--num_batches_per_epoch={batches}")
    cfg, info, _ = make_model("--in_process=True", *flags)
    buffers = BufferMgr(cfg, info)
    limit_buffers(buffers, vectors=2)
    assert buffers.traj_buffer_queues["cpu"].qsize() == expected


def test_a_failed_loop_is_marked() -> None:
    thread = LoopThread("failing", CPU)
    loop: Any = thread.event_loop
    loop._loop_iteration = lambda: 1 / 0
    thread.start()
    thread.join(10)
    assert thread.failed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_policies=2"], "--in_process=True needs --num_policies=1, but it is 2"),
        (["--batched_sampling=False"], "--in_process=True needs --batched_sampling=True, but it is False"),
        (["--async_rl=False"], "--in_process=True needs --async_rl=True, but it is False"),
    ],
)
def test_settings_that_cannot_work_in_one_process(make_cfg, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_cfg("--in_process=True", "--num_workers=2", *flags)


def test_a_preset_for_a_gpu_uses_processes_on_a_cpu(make_cfg) -> None:
    cfg = make_cfg("--preset=fast", "--games=starpilot,leaper", "--num_envs_per_worker=768", "--serial_mode=False")
    assert not cfg.in_process
