"""The public op: checks its argument, picks a backend, calls it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from srwm_agents.ops.checks import check_backend
from srwm_agents.ops.triton_support import use_kernels


def max_pool(x: Tensor, *, backend: str = "auto") -> Tensor:
    """The largest of each 3×3 window, windows two apart, one pixel of padding.

    The same numbers and gradients as ``torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)``, which is the naive
    backend; where several entries of a window are largest, the first gets the gradient. On a GPU this is a kernel
    because the library's and the compiler's gradient of it take several times as long as their memory traffic.

    Args:
        x: [N, C, H, W].
        backend: "auto" | "naive" | "triton" (float32 or bfloat16, computed in channels-last layout). "auto" picks the
            fastest that can run; an explicit one never falls back.

    Returns:
        [N, C, (H + 1) // 2, (W + 1) // 2].

    Raises:
        ValueError: a wrong shape; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run this here.
    """
    check_backend(backend)
    if x.dim() != 4:
        raise ValueError(f"x has shape {list(x.shape)}, expected [N, C, H, W]")
    if use_kernels(backend, x, why_not=_why_not_triton(x)) and x.numel() > 0:
        from srwm_agents.ops.max_pool.autograd import max_pool_op

        return max_pool_op(x)[0]
    return functional.max_pool2d(x, 3, stride=2, padding=1)


def _why_not_triton(x: Tensor) -> str | None:
    if x.shape[1:].numel() >= 2**31:
        return f"it takes images of fewer than 2**31 numbers, not {list(x.shape[1:])}"
    return None
