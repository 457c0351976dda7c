"""One acting step of an agent as a graph: observation, state and reset in; logits, value and next state out."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srwm_agents.agent import Agent, AgentError
from srwm_agents.extras import MissingPackageError, require
from srwm_agents.files import write_atomically

OUTPUTS = ("logits", "value", "next_state")
METADATA_KEY = "srwm_agents"
"""Where a file of either format holds, as JSON, ``state_size`` and the agent's configuration, ``agent``."""
TOLERANCE = 1e-4
"""Largest difference between graph and agent that is no error: float32 sums in another order, a few steps long."""

Arguments = tuple[dict[str, Tensor], Tensor, Tensor]
Runner = Callable[[dict[str, Tensor], Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class ExportError(AgentError):
    """An agent cannot be exported here, or what was written does not compute the same; the message says why."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how well it agrees with the agent."""

    path: Path
    """The file."""
    inputs: tuple[str, ...]
    """Names of the inputs, in order."""
    outputs: tuple[str, ...]
    """Names of the outputs, in order."""
    difference: float
    """The largest difference from the agent in any output of a few steps."""


class ActingStep(nn.Module):
    """What is exported: one step for a batch of environments."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, observation: dict[str, Tensor], state: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries [B, …], state [B, state_size], reset bool [B] -> logits [B, A], value [B], next state."""
        sequence = {name: entry[:, None] for name, entry in observation.items()}
        logits, value, state = self.agent(sequence, state, reset[:, None])
        return logits[:, 0], value[:, 0], state


def export_agent(agent: Agent, path: str | os.PathLike[str], format: str = "onnx") -> Exported:
    """Write one acting step of ``agent`` as a file that runs without this package.

    Inputs are the agent's observations (images uint8 [B, C, H, W], numbers float32 [B, width], categories int64
    [B, K]; for Procgen ``obs`` and ``last_reward`` [B, 1], …), ``state`` float32 [B, state_size] (zeros are a fresh
    episode) and ``reset`` bool [B] (forget before this step); outputs ``logits`` [B, num_actions] (the parameters of
    the policy's distributions), ``value`` [B] and ``next_state``. B is free. The file is run for a few steps and
    compared with the agent before it takes its place. It also holds the agent's configuration.

    Args:
        agent: from :func:`srwm_agents.load_agent`; it is not changed.
        path: the file to write; an older one is replaced only by a good one.
        format: "onnx" (needs the extra ``srwm-agents[export]``) | "torch" (``torch.export``; load it with
            ``torch.export.load(path).module()``). TorchScript is deprecated in PyTorch and not offered.

    Raises:
        ExportError: an unknown format, a missing package, or a graph that does not compute what the agent does.
    """
    if format not in FORMATS:
        raise ExportError(f"format is {format!r}, allowed: {', '.join(FORMATS)}")
    step = ActingStep(_portable_copy(agent)).eval()
    difference = math.inf

    def write(fresh: Path) -> None:
        nonlocal difference
        with torch.no_grad(), _quiet():
            run = FORMATS[format](step, fresh)
            difference = _largest_difference(step, run)
        if not difference <= TOLERANCE:
            raise ExportError(f"the {format} graph differs from the agent by {difference:.1e}, allowed: {TOLERANCE}")

    target = write_atomically(path, write)
    return Exported(target, (*_entries(step.agent), "state", "reset"), OUTPUTS, difference)


def _portable_copy(agent: Agent) -> Agent:
    """On the CPU and with the op in plain PyTorch: kernels of one GPU are no portable graph."""
    settings = {**agent.config.core_settings, "backend": "naive"}
    copy = Agent(replace(agent.config, core_settings=settings))
    copy.load_state_dict(agent.state_dict())
    return copy.eval()


def _entries(agent: Agent) -> tuple[str, ...]:
    return tuple(agent.config.entries)


def _example(agent: Agent, batch: int, seed: int) -> Arguments:
    generator = torch.Generator().manual_seed(seed)
    observation = {}
    for name, entry in agent.config.entries.items():
        shape = (batch, *entry.shape)
        if entry.kind == "image":
            observation[name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        elif entry.kind == "vector":
            observation[name] = torch.rand(shape, generator=generator) * 2 - 1
        else:
            columns = [torch.randint(size, (batch,), generator=generator) for size in entry.sizes]
            observation[name] = torch.stack(columns, dim=1)
    return observation, agent.initial_state(batch), torch.zeros(batch, dtype=torch.bool)


def _metadata(agent: Agent) -> str:
    return json.dumps({"state_size": agent.core.state_size, "agent": asdict(agent.config)})


def _dynamic_shapes(agent: Agent) -> tuple[Any, ...]:
    batch = torch.export.Dim("batch")
    return {name: {0: batch} for name in _entries(agent)}, {0: batch}, {0: batch}


def _export_torch(step: ActingStep, path: Path) -> Runner:
    program = torch.export.export(step, _example(step.agent, 2, 0), dynamic_shapes=_dynamic_shapes(step.agent))
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA_KEY: _metadata(step.agent)})
    return torch.export.load(path).module()


def _export_onnx(step: ActingStep, path: Path) -> Runner:
    try:
        require("export", "onnx", "onnxscript", "onnxruntime")  # torch.onnx says less clearly what is missing
    except MissingPackageError as error:
        raise ExportError(str(error)) from error
    import onnxruntime

    names = (*_entries(step.agent), "state", "reset")
    program = torch.onnx.export(
        step,
        _example(step.agent, 2, 0),
        input_names=names,
        output_names=OUTPUTS,
        dynamic_shapes=_dynamic_shapes(step.agent),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = _metadata(step.agent)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(observation: dict[str, Tensor], state: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feeds = zip(names, (*observation.values(), state, reset), strict=True)
        logits, value, following = session.run(OUTPUTS, {name: tensor.numpy() for name, tensor in feeds})
        return torch.from_numpy(logits), torch.from_numpy(value), torch.from_numpy(following)

    return run


FORMATS: dict[str, Callable[[ActingStep, Path], Runner]] = {"onnx": _export_onnx, "torch": _export_torch}
"""Name: writes the file, and returns how to run what was written."""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def _largest_difference(step: ActingStep, run: Runner, batch: int = 3, steps: int = 4) -> float:
    """Over a few steps with resets, each side carrying its own state, with another batch than was traced."""
    largest = 0.0
    _, state, _ = _example(step.agent, batch, 0)
    other = state
    for t in range(steps):
        observation, _, reset = _example(step.agent, batch, seed=t + 1)
        reset[t % batch] = t > 0
        *ours, state = step(observation, state, reset)
        *theirs, other = run(observation, other, reset)
        for a, b in zip((*ours, state), (*theirs, other), strict=True):
            if a.shape != b.shape:
                raise ExportError(f"an output has shape {list(b.shape)}, the agent's has {list(a.shape)}")
            if not (a.isfinite().all() and b.isfinite().all()):  # max() would pass over NaN
                raise ExportError("an output of the agent or of the graph is NaN or infinite")
            largest = max(largest, (a - b).abs().max().item() if a.numel() else 0.0)
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on themselves, which a user can do nothing about."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
