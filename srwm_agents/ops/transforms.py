"""Operators under the transforms of ``torch.func``: gradients, and rules for ``vmap``.

A rule makes the mapped dimension part of one that the operator has, so that one launch computes all entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Mapped = Sequence[int | None]
"""For each argument the dimension that is mapped, None where there is none."""


def transformable(
    operator: Any,
    *,
    launch: Callable[..., Any] | None = None,
    vmap: Callable[..., tuple[Any, Any]],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register an operator's rules; the result is called in the operator's place, with positional arguments.

    A gradient registered with an operator of ``torch.library`` raises within ``torch.func.grad``, ``vjp`` and
    ``jacrev``; that of a ``torch.autograd.Function`` with a ``setup_context`` does not, so within them that is called.

    Args:
        operator: from ``torch.library.custom_op``, taking tensors and constants.
        launch: the function that the operator was made of, called by itself where values are all that is asked for: on
            a CPU an operator of Python costs as much as a small kernel.
        vmap: as for ``torch.library.register_vmap``; it calls this function's result.
        setup_context, backward: as for ``torch.library.register_autograd``; None: the gradient raises
            ``NotImplementedError``.
    """

    def no_gradient(*_: Any) -> Any:
        name = operator._qualname.replace("::", ".")
        raise NotImplementedError(f"{name} has no gradient: take second derivatives with backend='naive'")

    setup_context = setup_context or (lambda ctx, inputs, output: None)
    backward = backward or no_gradient
    operator.register_autograd(backward, setup_context=setup_context)
    operator.register_vmap(vmap)
    rules = {"forward": operator.__call__, "setup_context": setup_context, "backward": backward, "vmap": vmap}
    function: Any = type(
        operator._name, (torch.autograd.Function,), {name: staticmethod(rule) for name, rule in rules.items()}
    )

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():  # it traces the operator itself, as it does all transforms
            return operator(*arguments)
        # The operator would drop a tangent of forward-mode gradients without an error; this one raises.
        if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
            return function.apply(*arguments)
        return launch(*arguments) if launch is not None and values_only(arguments) else operator(*arguments)

    return call


def values_only(arguments: Sequence[Any]) -> bool:
    """Whether nothing needs to know which operator was called: no autograd, mode, tracer or subclass of tensors."""
    tensors = [z for z in arguments if isinstance(z, Tensor)]
    return (
        not (torch.is_grad_enabled() and any(z.requires_grad for z in tensors))
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._get_tracing_state()
        and all(type(z) in (Tensor, torch.nn.Parameter) for z in tensors)
    )


def fold_all(arguments: Sequence[Any], mapped: Mapped, size: int, places: Mapped) -> list[Any]:
    """Make each tensor's mapped dimension part of the one that ``places`` names, as the slower index.

    A tensor that is not mapped is repeated ``size`` times. Tensors without a place, None and constants stay as they
    are.
    """
    return [
        argument if place is None or argument is None else _fold(argument, dim, size, place)
        for argument, dim, place in zip(arguments, mapped, places, strict=True)
    ]


def _fold(tensor: Tensor, mapped: int | None, size: int, place: int) -> Tensor:
    if mapped is None:
        tensor = tensor.unsqueeze(place).expand(*tensor.shape[:place], size, *tensor.shape[place:])
    else:
        tensor = tensor.movedim(mapped, place)
    return tensor.flatten(place, place + 1)


def unfold(tensor: Tensor, size: int, place: int) -> Tensor:
    """Undo :func:`fold_all` for one tensor: the mapped dimension stands at ``place``."""
    return tensor.unflatten(place, (size, tensor.shape[place] // size))


def one_by_one(
    call: Callable[..., Sequence[Tensor]], size: int, mapped: Mapped, arguments: Sequence[Any]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Call once for each of the ``size`` entries and stack the outputs; for what no fold can express."""
    results = [
        call(*(z if at is None else z.select(at, i) for z, at in zip(arguments, mapped, strict=True)))
        for i in range(size)
    ]
    outputs = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return outputs, (0,) * len(outputs)
