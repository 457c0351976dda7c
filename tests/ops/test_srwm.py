"""The naive SRWM op: against the formula written out element by element, gradcheck, resets, state, errors."""

from __future__ import annotations

import math

import pytest
import torch

from srwm_agents.ops import BackendUnavailableError, SRWMState, SRWMWeights, srwm

B, T, H, D, O = 2, 5, 2, 3, 4  # noqa: E741


def make_inputs(out: int = O, seed: int = 0, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(seed)
    weights = SRWMWeights(*(torch.randn(H, D, width, generator=g, dtype=dtype) for width in (out, D, D, 4)))
    state = SRWMState(*(0.3 * torch.randn(B, *block.shape, generator=g, dtype=dtype) for block in weights))
    x = torch.randn(B, T, H, D, generator=g, dtype=dtype)
    return x, weights, state


def by_hand(x, weights, state, resets, decay=1.0, unit_keys=False, limit=0.0):
    """The paper's formulas with Python floats: no tensor operation is shared with the op."""
    y = torch.zeros(*x.shape[:3], weights.y.shape[-1], dtype=torch.float64)
    finals = [torch.zeros_like(part) for part in state]
    for b in range(x.shape[0]):
        for h in range(x.shape[2]):
            slow = [block[h].tolist() for block in weights]
            w = [
                [[s + d for s, d in zip(srow, drow, strict=True)] for srow, drow in zip(sm, dm, strict=True)]
                for sm, dm in zip(slow, [part[b, h].tolist() for part in state], strict=True)
            ]

            def product(row, matrix):
                return [sum(row[i] * matrix[i][j] for i in range(len(row))) for j in range(len(matrix[0]))]

            def softmax(values):
                top = max(values)
                exps = [math.exp(v - top) for v in values]
                return [e / (math.hypot(*exps) if unit_keys else sum(exps)) for e in exps]

            for t in range(x.shape[1]):
                if resets is not None and resets[b, t]:
                    w = [[list(row) for row in matrix] for matrix in slow]
                row = x[b, t, h].tolist()
                out = product(row, w[0])
                q, k = softmax(product(row, w[1])), softmax(product(row, w[2]))
                beta = [1 / (1 + math.exp(-v)) for v in product(row, w[3])]
                y[b, t, h] = torch.tensor(out, dtype=torch.float64)
                for c in range(4):
                    new, old = product(q, w[c]), product(k, w[c])
                    w[c] = [
                        [
                            slow[c][i][j] + decay * (w[c][i][j] - slow[c][i][j]) + k[i] * beta[c] * (new[j] - old[j])
                            for j in range(len(new))
                        ]
                        for i in range(len(k))
                    ]
                    if limit:
                        shift = [
                            [w[c][i][j] - slow[c][i][j] for j in range(len(slow[c][i]))] for i in range(len(slow[c]))
                        ]
                        size = math.hypot(*(entry for row in shift for entry in row))
                        allowed = limit * math.hypot(*(entry for row in slow[c] for entry in row))
                        factor = min(1.0, allowed / size)
                        w[c] = [
                            [slow[c][i][j] + factor * shift[i][j] for j in range(len(shift[i]))]
                            for i in range(len(shift))
                        ]
            for c in range(4):
                finals[c][b, h] = torch.tensor(w[c], dtype=torch.float64) - weights[c][h]
    return y, SRWMState(*finals)


@pytest.mark.parametrize("limit", [0.0, 0.15])
@pytest.mark.parametrize("unit_keys", [False, True])
@pytest.mark.parametrize("decay", [1.0, 0.8])
@pytest.mark.parametrize("with_resets", [False, True])
def test_equals_the_formula_written_out(with_resets: bool, decay: float, unit_keys: bool, limit: float) -> None:
    x, weights, state = make_inputs()
    resets = torch.tensor([[True, False, False, True, True], [False] * 5]) if with_resets else None
    y, final = srwm(x, weights, state, resets=resets, decay=decay, unit_keys=unit_keys, limit=limit)
    expected_y, expected_final = by_hand(x, weights, state, resets, decay, unit_keys, limit)
    torch.testing.assert_close(y, expected_y, rtol=1e-12, atol=1e-12)
    for part, expected in zip(final, expected_final, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("decay", "unit_keys", "with_resets"),
    [(1.0, False, False), (1.0, False, True), (0.8, False, True), (0.8, True, True)],
)
def test_gradcheck_in_inputs_weights_and_state(with_resets: bool, decay: float, unit_keys: bool) -> None:
    x, weights, state = make_inputs()
    resets = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.3 if with_resets else None
    leaves = [tensor.requires_grad_() for tensor in (x, *weights, *state)]

    def run(x, *parts):
        y, final = srwm(
            x, SRWMWeights(*parts[:4]), SRWMState(*parts[4:]), resets=resets, decay=decay, unit_keys=unit_keys
        )
        return (y, *final)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("limit", [0.0, 0.15])
def test_step_by_step_equals_the_whole_sequence(limit: float) -> None:
    x, weights, state = make_inputs()
    resets = torch.tensor([[False, True, False, False, True], [True, False, False, True, False]])
    y, final = srwm(x, weights, state, resets=resets, limit=limit)
    outputs, running = [], state
    for t in range(T):
        y_t, running = srwm(x[:, t : t + 1], weights, running, resets=resets[:, t : t + 1], limit=limit)
        outputs.append(y_t)
    torch.testing.assert_close(torch.cat(outputs, 1), y)
    for part, expected in zip(running, final, strict=True):
        torch.testing.assert_close(part, expected)


def sizes(shift: torch.Tensor, slow: torch.Tensor) -> torch.Tensor:
    """Of a state's block in units of its slow weights, [B, H]."""
    return shift.norm(dim=(-2, -1)) / slow.norm(dim=(-2, -1))


def test_a_limit_bounds_every_step_and_scales_nothing_below_it() -> None:
    x, weights, state = make_inputs()
    met = []
    for limit in (0.1, 0.3):
        running = state
        for t in range(T):
            _, free = srwm(x[:, t : t + 1], weights, running)
            _, running = srwm(x[:, t : t + 1], weights, running, limit=limit)
            for shift, unlimited, slow in zip(running, free, weights, strict=True):
                torch.testing.assert_close(sizes(shift, slow), sizes(unlimited, slow).clamp(max=limit))
                below = sizes(unlimited, slow) < limit
                assert torch.equal(shift[below], unlimited[below])
                met.append(~below)
    assert torch.stack(met).any()
    assert not torch.stack(met).all()


def test_the_gradient_takes_a_limits_factors_for_constants() -> None:
    """Of one step after another: the gradient of step t, with its factor written as a number."""
    x, weights, state = make_inputs()
    limit = 0.15
    leaves = [tensor.requires_grad_() for tensor in (x, *weights, *state)]
    running, outputs, met = state, [], 0
    for t in range(T):
        y, free = srwm(x[:, t : t + 1], weights, running)
        outputs.append(y)
        factors = [
            (limit / sizes(shift, slow)).clamp(max=1).detach()[..., None, None]
            for shift, slow in zip(free, weights, strict=True)
        ]
        met += sum(int((factor < 1).sum()) for factor in factors)
        running = SRWMState(*(shift * factor for shift, factor in zip(free, factors, strict=True)))
    assert 0 < met < 4 * T * B * H
    y, final = srwm(x, weights, state, limit=limit)
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(z.shape, generator=generator, dtype=z.dtype) for z in (y, *final)]
    got = torch.autograd.grad([y, *final], leaves, upstream)
    expected = torch.autograd.grad([torch.cat(outputs, 1), *running], leaves, upstream)
    torch.testing.assert_close(got, expected)


def test_a_limit_drops_a_state_that_is_not_finite() -> None:
    x, weights, state = make_inputs()
    state.q[0, 1], state.y[1, 0, 0, 0] = torch.nan, torch.inf
    _, final = srwm(x, weights, state, limit=1.0)
    assert all(block.isfinite().all() for block in final)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.int8, torch.float32, torch.float64])
def test_resets_are_any_numbers_but_zero(dtype: torch.dtype) -> None:
    x, weights, state = make_inputs()
    resets = torch.tensor([[False, True, False, False, True], [True, False, False, True, False]])
    expected = srwm(x, weights, state, resets=resets)
    numbers = resets.to(dtype) if dtype == torch.bool else resets.to(dtype) * 2
    y, final = srwm(x, weights, state, resets=numbers)
    assert torch.equal(y, expected[0])
    assert all(torch.equal(*blocks) for blocks in zip(final, expected[1], strict=True))


def test_without_a_decay_a_long_sequence_can_grow_without_bound_and_with_one_it_does_not() -> None:
    """Why there is a decay: where keys are soft, the update is no contraction."""
    generator = torch.Generator().manual_seed(0)
    weights = SRWMWeights(*(torch.randn(1, 8, n, generator=generator) * 8**-0.5 for n in (8, 8, 8, 4)))
    x = torch.randn(16, 800, 1, 8, generator=generator)
    largest = [max(block.abs().max().item() for block in srwm(x, weights, decay=d)[1]) for d in (1.0, 0.9)]
    assert largest[0] > 20
    assert largest[1] < 1


def test_keys_of_length_one_multiply_nothing() -> None:
    """A sharp query on the peak of a soft key, step after step: the published rule grows by 1 + b/4 each time."""
    dim = 8
    weights = SRWMWeights(*(torch.zeros(1, dim, n, dtype=torch.float64) for n in (1, dim, dim, 4)))
    x = torch.zeros(1, 200, 1, dim, dtype=torch.float64)
    x[..., 0] = 1
    weights.y[0, 3] = 1  # what the query reads
    weights.q[0, 0, 3] = 20  # q is 1 at 3
    weights.k[0, 0, 3] = math.log(dim - 1)  # k is one half there, and spread over the rest
    weights.beta[0, 0] = torch.tensor([20, -20, -20, -20])  # only W_y is rewritten, with b = 1
    published, unit = (srwm(x, weights, decay=0.95, unit_keys=unit_keys)[1].y for unit_keys in (False, True))
    assert published.abs().max() > 1e6
    assert unit.abs().max() < 10


def test_a_reset_forgets_everything_before_it() -> None:
    x, weights, state = make_inputs()
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 3] = True
    y, _ = srwm(x, weights, state, resets=resets)
    fresh, _ = srwm(x[:, 3:], weights)
    torch.testing.assert_close(y[:, 3:], fresh)
    x_before = x.clone().requires_grad_()
    srwm(x_before, weights, state, resets=resets)[0][:, 3:].sum().backward()
    assert x_before.grad is not None
    assert x_before.grad[:, :3].abs().max() == 0


def test_the_output_is_read_before_the_update() -> None:
    x, weights, _ = make_inputs()
    y, _ = srwm(x[:, :1], weights)
    torch.testing.assert_close(y[:, 0], torch.einsum("bhd,hdo->bho", x[:, 0], weights.y))


def test_no_steps_return_the_state() -> None:
    x, weights, state = make_inputs()
    y, final = srwm(x[:, :0], weights, state)
    assert y.shape == (B, 0, H, O)
    for part, expected in zip(final, state, strict=True):
        torch.testing.assert_close(part, expected)


def test_second_order_gradients_exist() -> None:
    x, weights, state = make_inputs(out=D)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(srwm(x, weights, state)[0].square().sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_wrong_arguments_are_named() -> None:
    x, weights, state = make_inputs()
    with pytest.raises(ValueError, match=r"x has shape .* expected \[B, T, H, D\]"):
        srwm(x[0], weights)
    with pytest.raises(ValueError, match=r"weights.q has shape"):
        srwm(x, weights._replace(q=weights.q[:, :2]))
    with pytest.raises(ValueError, match=r"state.beta has shape"):
        srwm(x, weights, state._replace(beta=state.beta[:1]))
    with pytest.raises(ValueError, match=r"resets has shape"):
        srwm(x, weights, resets=torch.zeros(B, T + 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"resets is on meta, but x is on cpu"):
        srwm(x, weights, resets=torch.zeros(B, T, device="meta"))
    for limit in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"limit is {limit}, expected a number at or above 0"):
            srwm(x, weights, limit=limit)
    with pytest.raises(ValueError, match=r"decay is 1.5, expected 0 < decay <= 1"):
        srwm(x, weights, decay=1.5)
    with pytest.raises(ValueError, match=r"backend is 'cuda', allowed: auto, naive, triton"):
        srwm(x, weights, backend="cuda")


def test_an_explicit_backend_never_falls_back() -> None:
    x, weights, _ = make_inputs()  # float64 is the naive op's alone
    with pytest.raises(BackendUnavailableError):
        srwm(x, weights, backend="triton")
