"""The layer's heads are introspective nets."""

from __future__ import annotations

import torch

from srwm_agents.introspective import IntrospectiveNet
from srwm_agents.layers import IntrospectiveLayer


def test_each_head_is_a_net_read_one_step_later() -> None:
    torch.manual_seed(0)
    layer = IntrospectiveLayer(hidden_size=6, num_heads=2).double()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    state = tuple(torch.zeros(3, *shape, dtype=torch.float64) for shape in layer.state_shapes)
    out, (_, _, shift) = layer.mix(x, state, None)
    for head in range(2):
        net = IntrospectiveNet(3, 3, num_evals=0, steps_per_input=1, output_activation="tanh", dtype=torch.float64)
        with torch.no_grad():
            net.weight.copy_(layer.w_initial[head])
        inputs = x[:, :, 3 * head : 3 * head + 3]
        longer = torch.cat([inputs, torch.zeros(3, 1, 3, dtype=torch.float64)], dim=1)
        torch.testing.assert_close(out[:, :, head], net(longer).output[:, 1:])
        torch.testing.assert_close(shift[:, head], net(inputs).state.weight - net.weight)


def test_autocast_leaves_the_pointers_their_digits() -> None:
    torch.manual_seed(0)
    layer = IntrospectiveLayer(hidden_size=6, num_heads=2)
    state = tuple(torch.zeros(1, *shape) for shape in layer.state_shapes)
    x = torch.randn(1, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow, _ = layer.mix(x, state, None)
    torch.testing.assert_close(narrow, layer.mix(x, state, None)[0])
