"""How the kernels for a CPU are compiled, found again, and done without."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from srwm_agents.ops import BackendUnavailableError, SRWMState, SRWMWeights, delta_rule, srwm
from srwm_agents.ops.compiled import library


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As a process that has compiled nothing yet, with an empty cache; the folder of its kernels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "FLAGS", tuple(flag.replace("-O3", "-O0") for flag in library.FLAGS))  # in less time
    library._load.cache_clear()
    library._warn.cache_clear()
    yield tmp_path / "cache" / "srwm_agents" / "kernels"
    library._load.cache_clear()
    library._warn.cache_clear()


def make_inputs(batch: int = 3, steps: int = 40) -> tuple[Tensor, SRWMWeights, SRWMState]:
    generator = torch.Generator().manual_seed(0)
    weights = SRWMWeights(*(torch.randn(2, 8, n, generator=generator) for n in (6, 8, 8, 4)))
    state = SRWMState(*(0.1 * torch.randn(batch, *block.shape, generator=generator) for block in weights))
    return torch.randn(batch, steps, 2, 8, generator=generator).softmax(-1), weights, state


def test_compiled_once_and_for_every_process(fresh: Path) -> None:
    x, weights, _ = make_inputs()
    srwm(x, weights, backend="cpu")
    (made,) = fresh.iterdir()
    assert made.suffix == ".so"
    assert fresh.stat().st_mode & 0o077 == 0
    before = made.stat()
    library._load.cache_clear()
    srwm(x, weights, backend="cpu")
    assert [(p, p.stat().st_mtime_ns) for p in fresh.iterdir()] == [(made, before.st_mtime_ns)]


def test_another_compiler_or_source_is_another_file(fresh: Path, monkeypatch, tmp_path) -> None:
    first = library.build(fresh)
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-DOTHER"))
    assert library.build(fresh) != first
    assert len(list(fresh.iterdir())) == 2


@pytest.mark.parametrize("broken", [True, False], ids=["cut short", "not written"])
def test_a_cache_that_cannot_be_used_is_done_without(fresh: Path, monkeypatch, tmp_path, broken) -> None:
    if broken:
        library.build(fresh).write_bytes(b"")
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    x, weights, _ = make_inputs()
    torch.testing.assert_close(srwm(x, weights, backend="cpu")[0], srwm(x, weights, backend="naive")[0])


def test_without_a_compiler_the_naive_op_runs_and_a_warning_says_so_once(fresh: Path, monkeypatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    x, weights, state = make_inputs()
    with pytest.warns(RuntimeWarning, match=r"several times slower.* no C compiler .*pip install 'srwm-agents\[cpu\]'"):
        y, _ = srwm(x, weights, state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(srwm(x, weights, state)[0], y)
        assert torch.equal(srwm(x, weights, state, backend="naive")[0], y)
    with pytest.raises(BackendUnavailableError, match=r"backend 'cpu' cannot run here: there is no C compiler"):
        srwm(x, weights, backend="cpu")


@pytest.mark.parametrize(
    ("given", "error"),
    [("no-such-compiler -O2", "no-such-compiler is not on the path"), ("false", "false failed: exit status 1")],
)
def test_a_compiler_that_fails_is_named(fresh: Path, monkeypatch, given: str, error: str) -> None:
    monkeypatch.setenv("CC", given)
    x, weights, _ = make_inputs()
    with pytest.raises(BackendUnavailableError, match=error):
        srwm(x, weights, backend="cpu")
    assert not fresh.exists() or not list(fresh.iterdir())


def test_what_it_does_not_take() -> None:
    x, weights, _ = make_inputs()
    doubles = SRWMWeights(*(block.double() for block in weights))
    with pytest.raises(BackendUnavailableError, match=r"float32 or torch.bfloat16, not torch.float64"):
        srwm(x.double(), doubles, backend="cpu")
    naive = srwm(x.double(), doubles, backend="naive")[0]
    assert torch.equal(srwm(x.double(), doubles)[0], naive)  # "auto" takes the naive op there
    meta = SRWMWeights(*(block.to("meta") for block in weights))
    with pytest.raises(BackendUnavailableError, match="tensors on a CPU, not meta"):
        srwm(x.to("meta"), meta, backend="cpu")
    assert srwm(x.to("meta"), meta)[0].shape == naive.shape


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "WORK_PER_THREAD", 1)
    x, weights, state = make_inputs(batch=5)
    q, k, v = x, x.flip(1), x.square()

    def results(threads: int) -> list[Tensor]:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        leaves = [z.clone().requires_grad_() for z in (x, *weights, *state)]
        weights_, state_ = SRWMWeights(*leaves[1:5]), SRWMState(*leaves[5:])
        y, final = srwm(leaves[0], weights_, state_, decay=0.9, limit=3.0, backend="cpu")
        inputs = [z.clone().requires_grad_() for z in (q, k, v)]
        out, fast = delta_rule(inputs[0], inputs[1], inputs[2], torch.full(x.shape[:3], 0.5), backend="cpu")
        total = y.square().sum() + sum(block.sin().sum() for block in final) + out.square().sum() + fast.sum()
        return [y, *final, out, fast, *torch.autograd.grad(total, [*leaves, *inputs])]

    one = results(1)
    for threads in (2, 7, 300):
        assert all(torch.equal(a, b) for a, b in zip(one, results(threads), strict=True))


def test_a_forked_process_computes() -> None:
    x, weights, _ = make_inputs()
    true = srwm(x, weights, backend="cpu")[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(srwm(x, weights, backend="cpu")[0], true) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_part_of_a_flat_state_and_an_empty_batch() -> None:
    x, weights, state = make_inputs()
    flat = torch.cat([block.flatten(1) for block in state], dim=1)
    parts = flat.split([block[0].numel() for block in state], dim=1)
    views = SRWMState(*(part.view(block.shape) for part, block in zip(parts, state, strict=True)))
    assert not views.q.is_contiguous()
    assert torch.equal(srwm(x, weights, views, backend="cpu")[0], srwm(x, weights, state, backend="cpu")[0])
    y, final = srwm(x[:0], weights, SRWMState(*(block[:0] for block in state)), backend="cpu")
    assert y.shape == (0, 40, 2, 6)
    assert final.q.shape == (0, 2, 8, 8)


def test_numbers_that_are_not_finite_show() -> None:
    x, weights, state = make_inputs(batch=2)
    x[0, 3] = torch.nan
    y, final = srwm(x, weights, state, backend="cpu")
    assert y[0, :3].isfinite().all()
    assert y[0, 4:].isnan().all()
    assert y[1].isfinite().all()
    assert final.q[0].isnan().all()
    big = SRWMWeights(*(1e4 * block for block in weights))  # saturates softmaxes and learning rates
    y, _ = srwm(x[1:, :2], big, backend="cpu")
    torch.testing.assert_close(y, srwm(x[1:, :2], big, backend="naive")[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_and_fake_tensors_see_the_operator() -> None:
    """Without gradients the kernel is called without its operator, but not where somebody listens."""
    x, weights, _ = make_inputs()
    with torch.no_grad():
        traced: Any = torch.jit.trace(lambda x: srwm(x, weights, backend="cpu")[0], x, check_trace=False)
        torch.testing.assert_close(traced(2 * x), srwm(2 * x, weights, backend="cpu")[0])
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            y, _ = srwm(mode.from_tensor(x), weights, backend="cpu")
    assert isinstance(y, torch._subclasses.FakeTensor)


ACTING = """
import sys
import torch
from srwm_agents.cores import make_core
core = make_core("srwm", input_size=8, hidden_size=16, num_layers=1, num_heads=2)
print("torch._dynamo" in sys.modules)
with torch.no_grad():
    core(torch.zeros(1, 1, 8))
print("srwm_agents.ops.srwm.cpu" in sys.modules, [name for name in sys.modules if name.endswith("triton_kernels")])
"""


def test_acting_imports_neither_a_compiler_nor_triton_kernels() -> None:
    result = subprocess.run([sys.executable, "-c", ACTING], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["False", "True []"]
