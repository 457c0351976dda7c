"""Triton kernels of the delta rule: one program per batch element and head, fused over time.

Same plan as the SRWM's kernels: the fast matrix ``S`` lives in registers; the forward kernel keeps, for each step, the
error ``e = v - k S`` (the rest of a step's update is input), so memory is O(T O) a head; the backward kernel takes each
rank-1 update ``S <- S + k^T beta e`` back out, and crosses a reset by replaying the updates of the segment before it.

``i`` runs over rows (keys) of ``S``, ``j`` over columns (values); a suffix says along which a vector lies in the tile.
Padded entries stay exactly zero. Everything is computed in float32 whatever the inputs are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import segment_start, tile_offsets


@triton.jit
def _load_inputs(q_ptr, k_ptr, v_ptr, beta_ptr, t, H, i, j, D: tl.constexpr, OUT: tl.constexpr):
    """q, k, v and beta of step ``t``."""
    q_i = tl.load(q_ptr + t * H * D + i, mask=i < D, other=0.0)
    k_i = tl.load(k_ptr + t * H * D + i, mask=i < D, other=0.0)
    v_j = tl.load(v_ptr + t * H * OUT + j, mask=j < OUT, other=0.0)
    beta = tl.load(beta_ptr + t * H)
    return q_i, k_i, v_j, beta


@triton.jit(do_not_specialize=["T", "H"])
def delta_forward_kernel(
    q_ptr, k_ptr, v_ptr, beta_ptr, s_ptr, resets_ptr,
    y_ptr, f_ptr, errors_ptr,
    T, H,
    D: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr, LANE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Forward over time.

    q, k [B, T, H, D], v [B, T, H, O], beta [B, T, H], s [B, H, D, O] or None, resets [B, T] or None
    -> y [B, T, H, O], f [B, H, D, O], errors [B, H, T, O] or None.
    """
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    i = tl.arange(0, BD)
    j = tl.arange(0, BO)
    tile = tile_offsets(i, j, OUT, LANE_COLUMNS) + program * D * OUT
    mask = (i[None, :] < D) & (j[:, None] < OUT)
    first = batch * T * H + head
    q_ptr += first * D
    k_ptr += first * D
    v_ptr += first * OUT
    y_ptr += first * OUT
    beta_ptr += first
    if errors_ptr is not None:
        errors_ptr += program * T * OUT

    never = T < 0
    if s_ptr is not None:
        s = tl.load(s_ptr + tile, mask=mask, other=0.0)
    else:
        # Not tl.zeros: a masked load gives the tile the register layout that its accesses have.
        s = tl.load(f_ptr + tile, mask=mask & never, other=0.0)
    if resets_ptr is not None:
        resets_ptr += batch * T
        reset_next = tl.load(resets_ptr)
    # Loads run one step ahead, so that their latency hides behind the step's arithmetic.
    q_next, k_next, v_next, beta_next = _load_inputs(q_ptr, k_ptr, v_ptr, beta_ptr, 0, H, i, j, D, OUT)
    for t in range(T):
        q_i, k_i, v_j = q_next.to(tl.float32), k_next.to(tl.float32), v_next.to(tl.float32)
        beta = beta_next.to(tl.float32)
        ahead = tl.minimum(t + 1, T - 1)
        q_next, k_next, v_next, beta_next = _load_inputs(q_ptr, k_ptr, v_ptr, beta_ptr, ahead, H, i, j, D, OUT)
        if resets_ptr is not None:
            reset = reset_next
            reset_next = tl.load(resets_ptr + ahead)
            s = tl.where(reset != 0, 0.0, s)
        error = v_j - tl.sum(k_i[None, :] * s, axis=1)
        if errors_ptr is not None:
            tl.store(errors_ptr + t * OUT + j, error, mask=j < OUT)
        s += k_i[None, :] * (beta * error)[:, None]
        tl.store(y_ptr + t * H * OUT + j, tl.sum(q_i[None, :] * s, axis=1), mask=j < OUT)  # read after the write
    tl.store(f_ptr + tile, s, mask=mask)


@triton.jit(do_not_specialize=["T", "H"])
def delta_backward_kernel(
    q_ptr, k_ptr, v_ptr, beta_ptr, s_ptr, resets_ptr, f_ptr, errors_ptr,
    dy_ptr, df_ptr,
    dq_ptr, dk_ptr, dv_ptr, dbeta_ptr, ds_ptr,
    T, H,
    D: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr, LANE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Backward over time.

    In: the forward kernel's inputs and outputs, dy [B, T, H, O], df [B, H, D, O] or None.
    Out: dq, dk [B, T, H, D], dv [B, T, H, O], dbeta [B, T, H], ds [B, H, D, O] or None.
    """
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    i = tl.arange(0, BD)
    j = tl.arange(0, BO)
    tile = tile_offsets(i, j, OUT, LANE_COLUMNS) + program * D * OUT
    mask = (i[None, :] < D) & (j[:, None] < OUT)
    first = batch * T * H + head
    q_ptr += first * D
    k_ptr += first * D
    dq_ptr += first * D
    dk_ptr += first * D
    v_ptr += first * OUT
    dv_ptr += first * OUT
    dy_ptr += first * OUT
    beta_ptr += first
    dbeta_ptr += first
    errors_ptr += program * T * OUT

    never = T < 0
    s = tl.load(f_ptr + tile, mask=mask, other=0.0)
    # g is the gradient of the loss with respect to S, after step t and then before it.
    g = tl.where(never, s, 0.0)  # zeros in the layout of s
    if df_ptr is not None:
        g += tl.load(df_ptr + tile, mask=mask, other=0.0)
    if resets_ptr is not None:
        resets_ptr += batch * T
    last = T - 1
    while last >= 0:  # over segments; what happens between them takes no registers from the loop over steps
        if resets_ptr is not None:
            start, after_reset = segment_start(resets_ptr, last)
        else:
            start = 0
        q_next, k_next, _, beta_next = _load_inputs(q_ptr, k_ptr, v_ptr, beta_ptr, last, H, i, j, D, OUT)
        error_next = tl.load(errors_ptr + last * OUT + j, mask=j < OUT, other=0.0)
        dy_next = tl.load(dy_ptr + last * H * OUT + j, mask=j < OUT, other=0.0)
        for step in range(last - start + 1):
            t = last - step
            q_i, k_i, dy = q_next.to(tl.float32), k_next.to(tl.float32), dy_next.to(tl.float32)
            beta, error = beta_next.to(tl.float32), error_next
            ahead = tl.maximum(t - 1, 0)
            q_next, k_next, _, beta_next = _load_inputs(q_ptr, k_ptr, v_ptr, beta_ptr, ahead, H, i, j, D, OUT)
            error_next = tl.load(errors_ptr + ahead * OUT + j, mask=j < OUT, other=0.0)
            dy_next = tl.load(dy_ptr + ahead * H * OUT + j, mask=j < OUT, other=0.0)

            # y = q S, with S after the write.
            tl.store(dq_ptr + t * H * D + i, tl.sum(s * dy[:, None], axis=0), mask=i < D)
            g += q_i[None, :] * dy[:, None]
            # S <- S + k^T u, u = beta e, undone.
            u = beta * error
            du = tl.sum(k_i[None, :] * g, axis=1)
            dk_i = tl.sum(g * u[:, None], axis=0)
            s -= k_i[None, :] * u[:, None]
            tl.store(dbeta_ptr + t * H, tl.sum(du * error, axis=0))
            # e = v - k S, with S before the write.
            de = beta * du
            tl.store(dv_ptr + t * H * OUT + j, de, mask=j < OUT)
            dk_i -= tl.sum(s * de[:, None], axis=0)
            tl.store(dk_ptr + t * H * D + i, dk_i, mask=i < D)
            g -= k_i[None, :] * de[:, None]
        last = start - 1

        if resets_ptr is not None:  # noqa: SIM102 (this one is decided when compiling, the next when running)
            if after_reset:
                g = tl.where(never, g, 0.0)
                # The previous segment's end: its start plus all its rank-1 updates.
                start, after_reset = segment_start(resets_ptr, last)
                s = tl.where(never, s, 0.0)
                if s_ptr is not None:
                    s = tl.load(s_ptr + tile, mask=mask & (after_reset == 0), other=0.0)
                for t in tl.range(start, last + 1, loop_unroll_factor=4):  # four loads under way at once
                    _, k_t, _, beta_t = _load_inputs(q_ptr, k_ptr, v_ptr, beta_ptr, t, H, i, j, D, OUT)
                    error = tl.load(errors_ptr + t * OUT + j, mask=j < OUT, other=0.0)
                    s += k_t.to(tl.float32)[None, :] * (beta_t.to(tl.float32) * error)[:, None]

    if ds_ptr is not None:
        tl.store(ds_ptr + tile, g, mask=mask)
