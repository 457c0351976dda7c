"""The layers of other papers, each against that paper's formulas written as a plain loop in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srwm_agents.layers import FFMLayer, GatedDeltaLayer, MinGRULayer, MLSTMLayer, ResidualLayer, SHMLayer

HIDDEN, HEADS, B, T = 6, 2, 2, 40
D = HIDDEN // HEADS

Parts = tuple[Tensor, ...]


def min_gru(layer: Any, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
    """Feng et al., 2024, algorithm 1."""
    z = torch.sigmoid(layer.gate(x))
    h = (1 - z) * state[0] + z * layer.candidate(x)
    return h, (h,)


def gated_delta(layer: Any, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
    """Yang et al., 2024, equation 10; the matrix there is values by keys."""
    q, k, v, gate, beta, step = layer.slow(x).unflatten(-1, (HEADS, -1)).split((D, D, D, D, 1, 1), dim=-1)
    q, k, v, gate = (F.silu(part) for part in (q, k, v, gate))
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    beta = torch.sigmoid(beta)[..., None]
    decay = torch.exp(-layer.log_rate.exp()[:, None] * F.softplus(step + layer.step_bias[:, None]))[..., None]
    erase = torch.eye(D, dtype=x.dtype) - beta * k[..., :, None] * k[..., None, :]
    matrix = state[0].mT @ (decay * erase) + beta * v[..., :, None] * k[..., None, :]
    y = (matrix @ q[..., None]).squeeze(-1)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.read_scale * gate
    return layer.project(y.flatten(-2)), (matrix.mT,)


def shm(layer: Any, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
    """Le et al., 2025, section 3."""
    q, k, v, w, eta = layer.slow(x).unflatten(-1, (HEADS, -1)).split((D, D, D, D, 1), dim=-1)
    q, k = (F.relu(part) / (1e-5 + F.relu(part).sum(-1, keepdim=True)) for part in (q, k))
    calibration = 1 + torch.tanh(layer.theta[..., :, None] * w[..., None, :])
    matrix = state[0] * calibration + torch.sigmoid(eta)[..., None] * v[..., :, None] * k[..., None, :]
    return layer.project((matrix @ q[..., None]).squeeze(-1).flatten(-2)), (matrix,)


def ffm(layer: Any, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
    """Morad et al., 2023, section 4, with complex numbers."""
    m = layer.trace_size
    value, through, in_gate, out_gate = layer.pre(x).split((m, HIDDEN, m, HIDDEN), dim=-1)
    decay, turn = torch.exp(-layer.log_alpha.exp())[:, None], torch.exp(1j * layer.omega)
    traces = decay * turn * torch.view_as_complex(state[0].contiguous()) + (value * torch.sigmoid(in_gate))[..., None]
    read = layer.post(torch.view_as_real(traces).flatten(-3))
    read = (read - read.mean(-1, keepdim=True)) / (read.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    gate = torch.sigmoid(out_gate)
    return gate * read + (1 - gate) * through, (torch.view_as_real(traces),)


def mlstm(layer: Any, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
    """Beck et al., 2024, section 2.3, with the stabiliser of appendix A; the matrix there is values by keys."""
    q, k, v, out = layer.slow(x).unflatten(-1, (HEADS, -1)).split(D, dim=-1)
    k = k / math.sqrt(D)
    log_input, forget = layer.gates(x).chunk(2, dim=-1)
    log_forget = torch.log(torch.sigmoid(forget))
    scale = torch.maximum(log_forget + state[2], log_input)
    admit, keep = torch.exp(log_input - scale), torch.exp(log_forget + state[2] - scale)
    matrix = keep[..., None, None] * state[0].mT + admit[..., None, None] * v[..., :, None] * k[..., None, :]
    normaliser = keep[..., None] * state[1] + admit[..., None] * k
    below = torch.maximum((normaliser * q).sum(-1).abs(), torch.exp(-scale))[..., None]
    h = (matrix @ q[..., None]).squeeze(-1) / below
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return layer.project((torch.sigmoid(out) * layer.read_scale * h).flatten(-2)), (matrix.mT, normaliser, scale)


PAPERS: dict[str, tuple[Callable[[], ResidualLayer], Callable[..., tuple[Tensor, Parts]]]] = {
    "min_gru": (lambda: MinGRULayer(HIDDEN), min_gru),
    "gated_delta": (lambda: GatedDeltaLayer(HIDDEN, HEADS), gated_delta),
    "shm": (lambda: SHMLayer(HIDDEN, HEADS), shm),
    "ffm": (lambda: FFMLayer(HIDDEN, trace_size=5, context_size=3), ffm),
    "mlstm": (lambda: MLSTMLayer(HIDDEN, HEADS), mlstm),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_layer_is_its_papers_formulas(name: str) -> None:
    """Outputs, final state, and the gradients of every parameter, the input and the state, with resets."""
    torch.manual_seed(0)
    make, formulas = PAPERS[name]
    layer = make().double()
    for parameter in layer.parameters():  # none at a special value, such as gates of 0
        torch.nn.init.normal_(parameter, std=0.5)
    h = torch.randn(B, T, HIDDEN, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(B, *shape, dtype=torch.float64, requires_grad=True) for shape in layer.state_shapes)
    resets = torch.rand(B, T) < 0.1

    outputs, now = [], state
    for t in range(T):
        now = tuple(part * ~resets[:, t].reshape(B, *[1] * (part.dim() - 1)) for part in now)
        y, now = formulas(layer, h[:, t], now)
        outputs.append(h[:, t] + y)
    expected = (torch.stack(outputs, dim=1), *now)
    out, final = layer(h, state, resets)
    torch.testing.assert_close((out, *final), expected, rtol=1e-9, atol=1e-9)

    leaves = [h, *state, *layer.parameters()]
    upstream = [torch.randn_like(part) for part in expected]
    got = torch.autograd.grad((out, *final), leaves, upstream)
    torch.testing.assert_close(got, torch.autograd.grad(expected, leaves, upstream), rtol=1e-7, atol=1e-9)


def test_a_trace_forgets_and_turns_as_its_parameters_say() -> None:
    """One write, then silence: exp(-alpha t) of its size after t steps, turned by omega t."""
    layer = FFMLayer(HIDDEN).double()
    alpha, omega = layer.log_alpha.exp(), layer.omega
    torch.testing.assert_close(torch.exp(-1024 * alpha[-1]), torch.tensor(0.01).double(), rtol=1e-5, atol=0)
    x = torch.zeros(1, 300, layer.trace_size, dtype=torch.float64)
    x[:, 0] = 1
    states, _ = layer._traces(x, layer.initial_state(1), None)
    steps = torch.arange(300).double()[:, None, None]
    expected = torch.exp(-alpha[:, None] * steps) * torch.exp(1j * omega * steps)
    torch.testing.assert_close(torch.view_as_complex(states[0].contiguous()), expected, rtol=1e-9, atol=1e-9)


def test_heads_and_sizes_that_do_not_fit_are_named() -> None:
    for layer in (GatedDeltaLayer, SHMLayer, MLSTMLayer):
        with pytest.raises(ValueError, match="hidden_size is 7, expected a multiple of num_heads = 2"):
            layer(7, 2)
