"""The SRWM's forward kernel for narrow heads, whose matrix fits one warp.

What limits narrow heads is the number of instructions a step, most of which are no arithmetic with ``W``. So the four
blocks are two tiles here, [q | k] and [y | b], each of as many columns as a warp has lanes at D = 16: a lane owns whole
columns, products with ``W`` need no exchange between lanes, and the two softmaxes share one. Names, memory and what is
saved for the backward kernel: as in :mod:`srwm_agents.ops.srwm.triton_kernels`, whose forward kernel takes the rest:
wider heads, for which [y | b] would be nearly half padding, and a limit of the state.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import segment_stop, tile_offsets


@triton.jit
def _load_packed(
    y_ptr, q_ptr, k_ptr, b_ptr, n, to, td, tb, mo, mq, mk, mb,
    D: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The ``n``-th matrix as [q | k] and [y | b], in float32; zero outside the masks."""
    q = tl.load(q_ptr + n * D * D + td, mask=mq, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + n * D * D + td - BD, mask=mk, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + n * D * OUT + to, mask=mo, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + n * D * 4 + tb, mask=mb, other=0.0).to(tl.float32)
    return q + k, y + b


@triton.jit
def _rates(b, jo, first, A: tl.constexpr, B: tl.constexpr, OUT: tl.constexpr, GATHER: tl.constexpr):
    """Learning rates of a tile's columns: the ``A``-th of y, q, k, b in its ``first`` columns, else the ``B``-th."""
    if GATHER:
        rates = tl.gather(b, tl.where(first, OUT + A, OUT + B), axis=0)
    else:
        a_rate = tl.sum(tl.where(jo == OUT + A, b, 0.0), axis=0)
        rates = tl.where(first, a_rate, tl.sum(tl.where(jo == OUT + B, b, 0.0), axis=0))
    return rates


@triton.jit(do_not_specialize=["T", "H", "decay"])
def srwm_narrow_forward_kernel(
    x_ptr, wy_ptr, wq_ptr, wk_ptr, wb_ptr, sy_ptr, sq_ptr, sk_ptr, sb_ptr, resets_ptr,
    y_ptr, fy_ptr, fq_ptr, fk_ptr, fb_ptr, saved_ptr,
    T, H, decay,
    D: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr, BY: tl.constexpr,
    ROW: tl.constexpr, DECAYS: tl.constexpr, UNIT_KEYS: tl.constexpr, UNROLL: tl.constexpr, GATHER: tl.constexpr,
):  # fmt: skip
    """Forward over time; arguments and results as of ``srwm_forward_kernel``, without a limit.

    BY: columns of the tile [y | b], a power of two at or above O + 4.
    """
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    i = tl.arange(0, BD)
    jd = tl.arange(0, 2 * BD)
    jo = tl.arange(0, BY)
    is_q, is_k, is_y, is_b = jd < D, (jd >= BD) & (jd < BD + D), jo < OUT, (jo >= OUT) & (jo < OUT + 4)
    td = tile_offsets(i, jd, D, 1)
    to = tile_offsets(i, jo, OUT, 1)
    tb = tile_offsets(i, jo - OUT, 4, 1)
    rows = i[None, :] < D
    mq, mk, mo, mb = rows & is_q[:, None], rows & is_k[:, None], rows & is_y[:, None], rows & is_b[:, None]

    x_ptr += (batch * T * H + head) * D
    y_ptr += (batch * T * H + head) * OUT
    if saved_ptr is not None:
        saved_ptr += program * T * ROW
    wy_ptr += head * D * OUT
    wq_ptr += head * D * D
    wk_ptr += head * D * D
    wb_ptr += head * D * 4

    wp, wy = _load_packed(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, mq, mk, mb, D, OUT, BD)
    if sy_ptr is not None:
        sp, sy = _load_packed(sy_ptr, sq_ptr, sk_ptr, sb_ptr, program, to, td, tb, mo, mq, mk, mb, D, OUT, BD)
        wp, wy = wp + sp, wy + sy

    is_first = jd < BD  # in the tile's q half, padding included
    at = tl.where(is_first, jd, jd - BD + D)  # of a column of [q | k] in a saved row
    of_q = (tl.arange(0, 2) == 0)[:, None]
    if resets_ptr is not None:
        resets_ptr += batch * T
    start = 0
    while start < T:  # over segments; what happens between them takes no registers from the loop over steps
        stop = T
        if resets_ptr is not None:
            stop = segment_stop(resets_ptr, start, T)
            if tl.load(resets_ptr + start) != 0:
                wp, wy = _load_packed(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, mq, mk, mb, D, OUT, BD)
        # Loads run one step ahead, so that their latency hides behind the step's arithmetic.
        x_next = tl.load(x_ptr + start * H * D + i, mask=i < D, other=0.0)
        for t in tl.range(start, stop, loop_unroll_factor=UNROLL):
            x_i = x_next.to(tl.float32)
            x_next = tl.load(x_ptr + tl.minimum(t + 1, T - 1) * H * D + i, mask=i < D, other=0.0)

            p = tl.reshape(tl.sum(x_i[None, :] * wp, axis=1), [2, BD])
            y_j = tl.sum(x_i[None, :] * wy, axis=1)
            tl.store(y_ptr + t * H * OUT + jo, y_j, mask=is_y)  # before the update, as published
            b_j = 1.0 / (1.0 + tl.exp(-y_j))  # of b's columns
            if BD != D:
                p = tl.where((i < D)[None, :], p, float("-inf"))
            p = tl.exp(p - tl.max(p, axis=1)[:, None])
            p = p * (tl.rsqrt(tl.sum(p * p, axis=1)) if UNIT_KEYS else 1.0 / tl.sum(p, axis=1))[:, None]

            # Along rows from here on: d = q - k, and k.
            d_i = tl.sum(tl.where(of_q, p, -p), axis=0)
            k_i = tl.sum(tl.where(of_q, 0.0, p), axis=0)
            up = _rates(b_j, jo, is_first, 1, 2, OUT, GATHER) * tl.sum(d_i[None, :] * wp, axis=1)
            uy = _rates(b_j, jo, is_y, 0, 3, OUT, GATHER) * tl.sum(d_i[None, :] * wy, axis=1)
            if saved_ptr is not None:
                row_ptr = saved_ptr + t * ROW
                tl.store(row_ptr + at, tl.reshape(p, [2 * BD]), mask=is_q | is_k)
                tl.store(row_ptr + 2 * D + at, up, mask=is_q | is_k)
                tl.store(row_ptr + 4 * D + jo, uy, mask=is_y | is_b)
                tl.store(row_ptr + 4 * D + 4 + jo, b_j, mask=is_b)
            if DECAYS:
                slow_p, slow_y = _load_packed(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, mq, mk, mb, D, OUT, BD)
                wp = decay * wp + (1.0 - decay) * slow_p
                wy = decay * wy + (1.0 - decay) * slow_y
            wp += k_i[None, :] * up[:, None]
            wy += k_i[None, :] * uy[:, None]
        start = stop

    # The state is the shift from the slow weights.
    slow_p, slow_y = _load_packed(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, mq, mk, mb, D, OUT, BD)
    tl.store(fy_ptr + program * D * OUT + to, wy - slow_y, mask=mo)
    tl.store(fq_ptr + program * D * D + td, wp - slow_p, mask=mq)
    tl.store(fk_ptr + program * D * D + td - BD, wp - slow_p, mask=mk)
    tl.store(fb_ptr + program * D * 4 + tb, wy - slow_y, mask=mb)
