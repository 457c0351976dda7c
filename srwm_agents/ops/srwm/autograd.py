"""The SRWM on Triton kernels: how they are launched, and sequences cut into launches.

Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.srwm.operators import NO_BLOCKS, Kernels, register
from srwm_agents.ops.srwm.triton_kernels import srwm_backward_kernel, srwm_forward_kernel
from srwm_agents.ops.srwm.triton_narrow import srwm_narrow_forward_kernel
from srwm_agents.ops.srwm.types import Rule, SRWMState, SRWMWeights
from srwm_agents.ops.triton_support import contiguous, differentiable, on_device, padded

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = srwm_forward_kernel
_narrow_forward_kernel: Any = srwm_narrow_forward_kernel
_backward_kernel: Any = srwm_backward_kernel


class Launch(NamedTuple):
    """How one kernel is launched for one padded width; the fastest of those measured on an H200."""

    warps: int
    lane_columns: int
    """At most so many neighbouring columns in one thread; see ``tile_offsets``."""
    registers: int
    """At most so many a thread: fewer let more programs share a multiprocessor, until they spill."""
    unroll: int = 1
    """Steps of the loop over time that are unrolled: several need no moves of what was loaded ahead, but registers."""
    ahead: bool = True
    """Whether the backward kernel loads a step's inputs during the step after it, which takes registers."""


NARROW_WIDTH = 16
"""Up to this width, and without a limit, the forward pass is ``triton_narrow``'s kernel."""
NARROW_FORWARD = Launch(1, 1, 96, unroll=2)
GATHER = True
FORWARD = {16: Launch(1, 1, 255), 32: Launch(1, 2, 255), 64: Launch(4, 1, 255), 128: Launch(8, 2, 255)}
"""By the smallest key at or above the padded width of the wider of D and O."""
FORWARD_WITH_LIMIT = {**FORWARD, 32: Launch(2, 2, 255), 64: Launch(8, 2, 255)}
"""More threads share the shifts that are measured, which else do not fit the registers; chosen by that, not timed."""
BACKWARD = {16: Launch(1, 4, 128), 32: Launch(2, 4, 255), 64: Launch(4, 4, 255), 128: Launch(8, 4, 255, ahead=False)}
BACKWARD_WITH_DECAY = {**BACKWARD, 16: Launch(1, 4, 255), 64: Launch(8, 2, 255)}
"""With a decay, the slow weights' gradient is a second accumulator in registers."""
BACKWARD_OF_Y = {128: Launch(8, 4, 255)}
"""Widths at which the y block's gradient has a launch of its own: all four blocks and their gradients exceed the
registers of a multiprocessor (at D = 128, 389 floats a thread of 255), and what spills exceeds its cache."""

LARGEST_GROWTH = 100.0
"""Largest factor by which undoing a decay may multiply a rounding (6e-8 in float32): an error of 6e-6 at most."""
LIMITED_STEPS = 64
"""The most steps of a launch with a limit: each step that meets it replays those before it."""


def steps_at_once(rule: Rule) -> int | None:
    """How many steps one launch may undo, None for any number: roundings grow by 1 / decay a step."""
    steps = LIMITED_STEPS if rule.limit else None
    if rule.decay != 1:
        undone = max(1, int(-math.log(LARGEST_GROWTH) / math.log(rule.decay)))
        steps = undone if steps is None else min(steps, undone)
    return steps


@functools.cache
def _launch(dim: int, out: int, decays: bool, limits: bool, unit_keys: bool, backward: bool) -> list[dict[str, Any]]:
    """The constants and options of a kernel's launches, as keyword arguments: one, or two in the backward pass of wide
    heads. Without "LIMITS", they are for the narrow forward kernel."""
    decays = decays or (backward and limits)  # the gradient of a limit's factor has the form of a decay's
    block_d, block_o = padded(dim), padded(out)
    width = max(block_d, block_o)
    common = {
        "D": dim, "OUT": out, "BD": block_d, "ROW": _row(dim, out, limits), "DECAYS": decays, "UNIT_KEYS": unit_keys,
    }  # fmt: skip

    def launched(table: dict[int, Launch], **constants: Any) -> dict[str, Any]:
        launch = next(launch for key, launch in table.items() if width <= key)
        if backward:
            constants["AHEAD"] = launch.ahead
        return {
            **common, **constants, "BO": block_o, "LIMITS": limits,
            "LANE_COLUMNS": launch.lane_columns, "SHARE": launch.warps > 1, "UNROLL": launch.unroll,
            "num_warps": launch.warps, "maxnreg": launch.registers,
        }  # fmt: skip

    if backward:
        table = BACKWARD_WITH_DECAY if decays else BACKWARD
        if width not in BACKWARD_OF_Y:
            return [launched(table, Y=True, REST=True)]
        return [launched(BACKWARD_OF_Y, Y=True, REST=False), launched(table, Y=False, REST=True)]
    if width <= NARROW_WIDTH and not limits:
        return [{
            **common, "BY": padded(out + 4), "UNROLL": NARROW_FORWARD.unroll, "GATHER": GATHER,
            "num_warps": NARROW_FORWARD.warps, "maxnreg": NARROW_FORWARD.registers,
        }]  # fmt: skip
    return [launched(FORWARD_WITH_LIMIT if limits else FORWARD)]


def _row(dim: int, out: int, limits: bool) -> int:
    """Numbers that the forward kernel saves of a step."""
    return 4 * dim + out + (12 if limits else 8)


def _saved_shape(x: Tensor, wy: Tensor, limit: float) -> tuple[int, ...]:
    """[B, H, T, row]."""
    batch, steps, heads, dim = x.shape
    return batch, heads, steps, _row(dim, wy.shape[-1], limit > 0)


def _reads_state(resets: Tensor | None, limit: float) -> bool:
    """The backward pass starts from the final state; it reads the initial one only where it replays."""
    return resets is not None or limit > 0


def _forward(x, weights, state, resets, decay, unit_keys, limit, y, final, saved) -> None:
    _, steps, heads, dim = x.shape
    (constants,) = _launch(dim, y.shape[-1], decay != 1, limit > 0, unit_keys, backward=False)
    arguments = [*contiguous(x, *weights, *state, resets), y, *final, saved, steps, heads, decay]
    with on_device(x):
        if "LIMITS" in constants:
            _forward_kernel[(len(x) * heads,)](*arguments, limit, **constants)
        else:
            _narrow_forward_kernel[(len(x) * heads,)](*arguments, **constants)


def _backward(
    x, weights, state, resets, decay, unit_keys, limit, final, saved, dy, dfinal, dx, shares, dstate
) -> None:  # fmt: skip
    batch, steps, heads, dim = x.shape
    launches = _launch(dim, dy.shape[-1], decay != 1, limit > 0, unit_keys, backward=True)
    read = contiguous(x, *weights, *state, resets, *final, saved, dy, *dfinal)
    parts = None
    if len(launches) > 1:
        parts = torch.empty((batch, heads, steps, 3 * dim + 1), dtype=torch.float32, device=x.device)
    with on_device(x):
        for constants in launches:
            _backward_kernel[(batch * heads,)](*read, dx, shares, *dstate, parts, steps, heads, decay, **constants)


srwm_forward_op, srwm_forward = register("srwm", Kernels(_forward, _backward, _saved_shape, _reads_state))


def srwm_triton(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, rule: Rule
) -> tuple[Tensor, SRWMState]:
    """The SRWM on the kernels. Arguments as of :func:`srwm_agents.ops.srwm.srwm`, which has checked them; T > 0."""
    save = differentiable(x, *weights, *(state or ()))
    steps = (steps_at_once(rule) if save else None) or x.shape[1]
    outputs = []
    for start in range(0, x.shape[1], steps):
        part = slice(start, start + steps)
        part_resets = None if resets is None else resets[:, part]
        y, *final, _saved = srwm_forward(x[:, part], *weights, *(state or NO_BLOCKS), part_resets, *rule, save)
        state = SRWMState(*final)
        outputs.append(y)
    assert state is not None
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), state
