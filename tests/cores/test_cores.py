"""Every core of the registry keeps the one contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srwm_agents.cores import CORES, CoreConfig, core_setting_names, make_core
from srwm_agents.cores.stack import NoCarryCore
from srwm_agents.layers import SRWMLayer

SETTINGS = {"input_size": 7, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "ff_size": 32}
B, T = 3, 9


def make(name: str, **settings):
    torch.manual_seed(0)
    return make_core(name, **{**SETTINGS, "rollout_length": 4, **settings})


def inputs(core, resets_probability: float = 0.3):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(B, T, 7, generator=g)
    state = 0.1 * torch.randn(B, core.state_size, generator=g)
    if isinstance(core, NoCarryCore):
        state[:, -1] = torch.tensor([1.0, 2.0, 3.0])
    return x, state, torch.rand(B, T, generator=g) < resets_probability


@pytest.mark.parametrize("name", CORES)
def test_shapes_and_fresh_state(name: str) -> None:
    core = make(name)
    state = core.initial_state(B)
    assert state.shape == (B, core.state_size)
    assert state.dtype == torch.float32
    assert not state.any()
    out, final = core(torch.randn(B, T, 7), state)
    assert out.shape == (B, T, core.output_size)
    assert final.shape == state.shape


@pytest.mark.parametrize("name", CORES)
def test_acting_step_by_step_equals_the_whole_sequence(name: str) -> None:
    core = make(name)
    x, state, resets = inputs(core)
    out, final = core(x, state, resets)
    outputs = []
    for t in range(T):
        y, state = core(x[:, t : t + 1], state, resets[:, t : t + 1])
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CORES)
def test_two_chunks_equal_one(name: str) -> None:
    core = make(name)
    x, state, resets = inputs(core)
    out, final = core(x, state, resets)
    first, middle = core(x[:, :4], state, resets[:, :4])
    second, last = core(x[:, 4:], middle, resets[:, 4:])
    torch.testing.assert_close(torch.cat([first, second], 1), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CORES)
def test_a_reset_is_a_fresh_episode(name: str) -> None:
    core = make(name)
    x, state, _ = inputs(core)
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 5] = True
    out, final = core(x, state, resets)
    fresh, fresh_final = core(x[:, 5:], core.initial_state(B))
    torch.testing.assert_close(out[:, 5:], fresh, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(final, fresh_final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CORES.keys() - {"srwm_no_carry", "fake_sr", "feedforward"}))
def test_the_final_state_carries_gradient(name: str) -> None:
    core = make(name)
    x, state, _ = inputs(core)
    state.requires_grad_()
    _, final = core(x, state)
    final.square().sum().backward()
    assert state.grad is not None
    assert state.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in memory_parameters(core))


def memory_parameters(core):
    """Those that make the state; queries and what is read out do not."""
    written = ("w_", "slow", "lstm", "gru", "layers.0.gate.", "candidate", "log_rate", "step_bias", "theta", "gates")
    written += ("layers.0.pre", "log_alpha", "omega")
    return [p for name, p in core.named_parameters() if any(part in name for part in written)]


@pytest.mark.parametrize("name", ["fake_sr", "feedforward"])
def test_cores_without_memory_have_no_state(name: str) -> None:
    core = make(name)
    assert core.state_size == 0
    x, state, _ = inputs(core)
    out, _ = core(x, state)
    torch.testing.assert_close(core(x[:, 3:4], state)[0], out[:, 3:4])


def test_srwm_state_is_the_papers_size() -> None:
    assert make_core("srwm", input_size=257).state_size == 2 * 8 * 16 * (3 * 16 + 4)


def test_detaching_every_step_takes_the_gradient_from_self_modification() -> None:
    """What the published agents did, and why it is off by default."""
    grads = {}
    for detach in (False, True):
        core = make("srwm", detach_state_every_step=detach, num_layers=1)
        x, state, _ = inputs(core)
        out, _ = core(x, state)
        out.square().sum().backward()
        grads[detach] = {name: p.grad for name, p in core.named_parameters() if "w_" in name}
    for block in ("w_q", "w_k", "w_beta"):
        assert grads[False][f"layers.0.{block}"].abs().sum() > 0
        detached = grads[True][f"layers.0.{block}"]
        assert detached is None or detached.abs().sum() == 0
    assert grads[True]["layers.0.w_y"].abs().sum() > 0


def test_no_carry_drops_its_state_after_each_rollout() -> None:
    core, carrying = make("srwm_no_carry"), make("srwm")
    carrying.load_state_dict(core.state_dict())
    x, _, _ = inputs(core)
    out, _ = core(x, core.initial_state(B))
    for start in range(0, T, 4):
        part = x[:, start : start + 4]
        expected, _ = carrying(part, carrying.initial_state(B))
        torch.testing.assert_close(out[:, start : start + 4], expected, rtol=1e-5, atol=1e-5)


def test_wrong_settings_and_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="unknown core 'rnn', allowed: srwm"):
        make_core("rnn", input_size=7)
    with pytest.raises(ValueError, match="unknown core setting 'width', allowed: input_size"):
        make_core("srwm", input_size=7, width=3)
    with pytest.raises(ValueError, match="input_size is missing"):
        make_core("srwm")
    with pytest.raises(ValueError, match="hidden_size is 15, expected a multiple of num_heads = 2"):
        make("srwm", hidden_size=15)
    with pytest.raises(ValueError, match="num_layers is 0, expected at least 1"):
        make("lstm", num_layers=0)
    with pytest.raises(ValueError, match=r"state_decay is 0\.0, expected above 0 and at most 1"):
        make("srwm", state_decay=0.0)
    core = make("srwm")
    with pytest.raises(ValueError, match=r"x has shape \[3, 7\], expected \[B, T, 7\]"):
        core(torch.zeros(3, 7), core.initial_state(3))
    with pytest.raises(ValueError, match=r"state has shape \[2, "):
        core(torch.zeros(3, 1, 7), core.initial_state(2))


@pytest.mark.parametrize("name", CORES)
def test_every_core_takes_the_same_settings(name: str) -> None:
    make(
        name,
        input_norm=True,
        dropout=0.1,
        query_scale=0.5,
        beta_mean=-1.0,
        state_decay=0.9,
        input_softmax=False,
        unit_keys=True,
    )


@pytest.mark.parametrize("name", CORES)
def test_each_setting_names_the_cores_that_use_it(name: str) -> None:
    used = set()

    class Spy:
        """The configuration, recording which fields are read."""

        def __getattr__(self, setting: str):
            used.add(setting)
            return getattr(config, setting)

    settings: dict[str, Any] = SETTINGS
    config = CoreConfig(**settings)
    core = CORES[name](Spy())  # type: ignore[arg-type]
    core(torch.randn(B, T, 7))
    assert used - {"input_size"} == set(core_setting_names(core=name))


@pytest.mark.parametrize("steps", [1, T])
def test_a_norm_keeps_an_lstm_from_saturating(steps: int) -> None:
    """However large an encoder's features grow, with resets and without, in one step and in many."""
    core = make("lstm", input_norm=True)
    x, state, _ = (entry[:, :steps] if entry.ndim == 3 else entry for entry in inputs(core))
    resets = torch.zeros(B, steps, dtype=torch.bool)
    for given in (None, resets):
        large, larger = core(1e4 * x, state, given), core(1e6 * x, state, given)
        torch.testing.assert_close(
            larger, large, rtol=1e-3, atol=1e-3
        )  # the embedding's bias counts for the small ones
    bare = make("lstm")
    assert (bare(1e4 * x, state)[0] - bare(x, state)[0]).abs().max() > 0.01  # far beyond the tolerances above


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("input_norm", [False, True])
def test_the_size_of_an_input_is_not_lost(name: str, input_norm: bool) -> None:
    """A layer norm of two raw numbers is a sign; behind an embedding it leaves their sizes to be seen."""
    torch.manual_seed(0)
    core = make_core(name, **{**SETTINGS, "input_size": 2}, input_softmax=False, input_norm=input_norm)
    x = torch.tensor([[[0.2, 0.1]], [[2.0, 1.0]]])
    out, _ = core(x)
    assert (out[0] - out[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["srwm", "srwm_no_carry", "sr_delta"])
def test_a_state_that_decays_forgets(name: str) -> None:
    """What two long pasts have left in the state differs less, the faster it decays; the decay reaches the op."""
    generator = torch.Generator().manual_seed(0)
    pasts = torch.randn(2, 40, 7, generator=generator)
    common = torch.randn(1, 20, 7, generator=generator).expand(2, -1, -1)
    differences = []
    for decay in (1.0, 0.5):
        torch.manual_seed(0)
        core = make(name, state_decay=decay, rollout_length=100)
        _, state = core(torch.cat([pasts, common], dim=1), core.initial_state(2))
        layers: Any = core.layers
        shift = state[:, : sum(block.numel() for block in layers[0].weights)]
        differences.append((shift[0] - shift[1]).norm() / shift.norm())
    assert differences[1] < 0.02 * differences[0]


@pytest.mark.parametrize("name", ["srwm", "srwm_no_carry", "sr_delta"])
def test_a_limit_holds_what_would_explode(name: str) -> None:
    """Where query and key let an update multiply the matrix, a state grows without end, but not beyond its limit."""
    torch.manual_seed(0)
    free, limited = make(name, input_softmax=False), make(name, input_softmax=False, state_limit=3.0)
    limited.load_state_dict(free.state_dict())
    layers = [next(m for m in core.modules() if isinstance(m, SRWMLayer)) for core in (free, limited)]
    for layer in layers:
        with torch.no_grad():
            # A key that is nearer to the query than to itself; W_y learns at full rate, what makes the rest does not.
            layer.w_k.zero_()[..., 0] = 1.0
            layer.w_q.zero_()[..., 0] = 20.0
            layer.w_beta.fill_(-20.0)[..., 0] = 20.0
    h = torch.zeros(2, 400, layers[0].num_heads * layers[0].head_size)
    h[..., :: layers[0].head_size] = 1.0
    sizes = []
    for layer in layers:
        state = tuple(torch.zeros(2, *shape) for shape in layer.state_shapes)
        with torch.no_grad():
            for step in h.split(20, dim=1):
                _, state = layer(step, state, None)
        sizes.append(state[0].norm(dim=(-2, -1)) / layer.w_y.norm(dim=(-2, -1)))
    assert not (sizes[0] < 100).any()
    torch.testing.assert_close(sizes[1], torch.full_like(sizes[1], 3.0))


def test_a_limit_leaves_small_states_and_drops_broken_ones() -> None:
    core, limited = make("srwm"), make("srwm", state_limit=10.0)
    limited.load_state_dict(core.state_dict())
    x, _, _ = inputs(core)
    results = []
    for each in (core, limited):
        out, state = each(x, each.initial_state(B))
        (out.sum() + state.sum()).backward()
        results.append((out, state, [parameter.grad for parameter in each.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    _, after = limited(x, torch.full_like(state, torch.nan))
    assert after.isfinite().all()
    with pytest.raises(ValueError, match=r"state_limit is -1\.0, expected at least 0"):
        make("srwm", state_limit=-1.0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "min_gru",
            {"gate.weight": (16, 16), "gate.bias": (16,), "candidate.weight": (16, 16), "candidate.bias": (16,)},
        ),
        (
            "gated_delta",
            {
                "project.weight": (16, 16),
                "slow.weight": (68, 16),
                "log_rate": (2,),
                "step_bias": (2,),
                "read_scale": (8,),
            },
        ),
        ("shm", {"project.weight": (16, 16), "slow.weight": (66, 16), "theta": (2, 8)}),
        (
            "ffm",
            {
                "pre.weight": (96, 16),
                "pre.bias": (96,),
                "post.weight": (16, 256),
                "post.bias": (16,),
                "log_alpha": (32,),
                "omega": (4,),
            },
        ),
        (
            "mlstm",
            {
                "project.weight": (16, 16),
                "slow.weight": (64, 16),
                "slow.bias": (64,),
                "gates.weight": (4, 16),
                "gates.bias": (4,),
                "read_scale": (2, 8),
            },
        ),
    ],
)
def test_saved_agents_find_their_parameters(name: str, parameters: dict[str, tuple[int, ...]]) -> None:
    """Names and shapes are what files have; to change one makes every agent saved before unreadable."""
    saved = make(name, num_layers=1).state_dict()
    layer = {key.removeprefix("layers.0."): tuple(value.shape) for key, value in saved.items() if "layers.0." in key}
    assert layer == parameters


def test_sizes_of_an_ffm_are_settings() -> None:
    assert make("ffm", num_layers=1, trace_size=5, context_size=3).state_size == 2 * 5 * 3
    with pytest.raises(ValueError, match="trace_size is 0, expected at least 1"):
        make("ffm", trace_size=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_kernels_and_steps_make_the_same_recurrent_core(name: str) -> None:
    """On a GPU two layers with resets are two kernels, on a CPU they go step by step."""
    core = make(name)
    x, state, resets = inputs(core)
    results = []
    for device in ("cpu", "cuda"):
        core.to(device)
        outputs = core(x.to(device), state.to(device), resets.to(device))
        grads = torch.autograd.grad([z.sin().sum() for z in outputs], list(core.parameters()))
        results.append([z.cpu() for z in (*outputs, *grads)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
