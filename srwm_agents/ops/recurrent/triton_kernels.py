"""Triton kernels of the LSTM and the GRU: one program per ``ROWS`` batch elements, fused over time.

What a step needs of the input is given; what is left is one product of the state [ROWS, H] and W_hh, and elementwise
arithmetic. W_hh is larger than shared memory (256 KiB at H = 128), so every step reads it anew from the L2 cache, in
tiles of ``BK`` columns, of which some are loaded while others are multiplied. All gates of all units are summed up at
once and stay in registers, as does what else a step keeps. Only the product's left side, of which a tile is read at a
time too, goes through global memory: the forward kernel reads the outputs of the step before back, the backward kernel
the gates' gradients of the same step. A barrier stands between the two, since other threads wrote them; and loops over
steps have one stage: the compiler, which does not see that what is loaded was just written, must not load it earlier.

Products of float32 are made of three of TF32 (Ootomo & Yokota, 2022, arXiv:2203.03341, without their scaling). What
that leaves out is 3e-7 of a sum of 128 products, where float32 rounds off 2e-7; a single product of TF32 has 11 bits.
Triton's "tf32x3" does the same, but keeps infinities apart from NaN, where here an infinite state makes NaN: that more
than doubles the instructions of the loop.

``rows`` are batch elements, ``j`` a gate's units, ``k`` what a product sums over; ``live`` says which rows exist and
are not reset at the step. Padded entries of states stay exactly zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import tanh

ROWS = tl.constexpr(16)
"""Batch elements of a program: the fewest that a tensor core's product takes."""


@triton.jit
def _program_rows(B):
    """The program's batch elements, and which of them exist."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return rows, rows < B


@triton.jit
def _live(resets_ptr, at, real):
    """Which rows exist and are not reset at their step number ``at``."""
    if resets_ptr is not None:
        real = real & (tl.load(resets_ptr + at, mask=real, other=1) == 0)
    return real


@triton.jit
def _part(ptr, at, gate: tl.constexpr, GATES: tl.constexpr, real, j, H: tl.constexpr):
    """Part ``gate`` [ROWS, J] of a step in a tensor [B, T, GATES · H]."""
    mask = real[:, None] & (j < H)[None, :]
    return tl.load(ptr + (at * GATES * H + gate * H)[:, None] + j[None, :], mask=mask, other=0.0)


@triton.jit
def _three(ptr, at, GATES: tl.constexpr, real, j, H: tl.constexpr):
    """The first three parts of a step."""
    return (_part(ptr, at, 0, GATES, real, j, H), _part(ptr, at, 1, GATES, real, j, H),
            _part(ptr, at, 2, GATES, real, j, H))  # fmt: skip


@triton.jit
def _four(ptr, at, GATES: tl.constexpr, real, j, H: tl.constexpr):
    """The first four parts of a step."""
    return (_part(ptr, at, 0, GATES, real, j, H), _part(ptr, at, 1, GATES, real, j, H),
            _part(ptr, at, 2, GATES, real, j, H), _part(ptr, at, 3, GATES, real, j, H))  # fmt: skip


@triton.jit
def _store(ptr, at, gate: tl.constexpr, GATES: tl.constexpr, real, j, H: tl.constexpr, values):
    """Write part ``gate`` [ROWS, J] of a step in a tensor [B, T, GATES · H]."""
    mask = real[:, None] & (j < H)[None, :]
    tl.store(ptr + (at * GATES * H + gate * H)[:, None] + j[None, :], values, mask=mask)


@triton.jit
def _left(pointers, live, k, SIZE: tl.constexpr):
    """A product's left tile [ROWS, K] of rows that begin at ``pointers``; 0 where not ``live``."""
    return tl.load(pointers[:, None] + k[None, :], mask=live[:, None] & (k < SIZE)[None, :], other=0.0)


@triton.jit
def _gate_weights(w_ptr, gate: tl.constexpr, k, j, H: tl.constexpr):
    """Tile [K, J] of a gate's weights [H, H], transposed: of state entry k to unit j."""
    mask = (k < H)[:, None] & (j < H)[None, :]
    return tl.load(w_ptr + gate * H * H + j[None, :] * H + k[:, None], mask=mask, other=0.0)


@triton.jit
def _split(x):
    """float32 as the sum of a TF32 number, its first 11 bits, and the rest."""
    first = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return first, x - first


@triton.jit
def _add_product(first, rest, right, total):
    """total + left · right, of float32; the left factor is given as :func:`_split` returns it."""
    right_first, right_rest = _split(right)
    total = tl.dot(rest, right_first, total, input_precision="tf32")
    total = tl.dot(first, right_rest, total, input_precision="tf32")
    return tl.dot(first, right_first, total, input_precision="tf32")


@triton.jit
def _product(pointers, live, w_ptr, j, H: tl.constexpr, SIZE: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr,
             STAGES: tl.constexpr):  # fmt: skip
    """[ROWS, J] of rows [SIZE] at ``pointers``, zeros where not ``live``, times w [SIZE, H]."""
    total = tl.zeros((ROWS, BH), tl.float32)
    for first in tl.range(0, SIZE, BK, num_stages=STAGES):
        k = first + tl.arange(0, BK)
        mask = (k < SIZE)[:, None] & (j < H)[None, :]
        w = tl.load(w_ptr + k[:, None] * H + j[None, :], mask=mask, other=0.0)
        first_left, rest_left = _split(_left(pointers, live, k, SIZE))
        total = _add_product(first_left, rest_left, w, total)
    return total


@triton.jit(do_not_specialize=["B", "T"])
def lstm_forward_kernel(
    x_ptr, w_ptr, b_ptr, h_ptr, c_ptr, resets_ptr,
    y_ptr, final_ptr, saved_ptr,
    B, T,
    H: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Forward over time.

    x [B, T, 4H], w [4H, H], b [4H], h, c [B, H], resets [B, T] or None
    -> y [B, T, H], final (c) [B, H], saved [B, T, 6H] (the gates' values i, f, g, o, and the step's c and h before it,
    zeros after a reset) or None.
    """
    rows, real = _program_rows(B)
    j = tl.arange(0, BH)
    tile = (rows * H)[:, None] + j[None, :]
    mask = real[:, None] & (j < H)[None, :]
    c = tl.load(c_ptr + tile, mask=mask, other=0.0)
    bias_i = tl.load(b_ptr + j, mask=j < H, other=0.0)
    bias_f = tl.load(b_ptr + H + j, mask=j < H, other=0.0)
    bias_g = tl.load(b_ptr + 2 * H + j, mask=j < H, other=0.0)
    bias_o = tl.load(b_ptr + 3 * H + j, mask=j < H, other=0.0)
    # Loads run one step ahead, so that their latency hides behind the step's product.
    live_next = _live(resets_ptr, rows * T, real)
    i_next, f_next, g_next, o_next = _four(x_ptr, rows * T, 4, real, j, H)
    if saved_ptr is not None:
        h = tl.load(h_ptr + tile, mask=mask & live_next[:, None], other=0.0)
        _store(saved_ptr, rows * T, 5, 6, real, j, H, h)
    for t in tl.range(0, T, num_stages=1):
        at = rows * T + t
        ahead = rows * T + tl.minimum(t + 1, T - 1)
        before = tl.where(t > 0, y_ptr + (at - 1) * H, h_ptr + rows * H)
        live = live_next
        i, f, g, o = (i_next + bias_i[None, :], f_next + bias_f[None, :],
                      g_next + bias_g[None, :], o_next + bias_o[None, :])  # fmt: skip
        live_next = _live(resets_ptr, ahead, real)
        i_next, f_next, g_next, o_next = _four(x_ptr, ahead, 4, real, j, H)
        c = tl.where(live[:, None], c, 0.0)
        if saved_ptr is not None:
            _store(saved_ptr, at, 4, 6, real, j, H, c)
        for first in tl.range(0, H, BK, num_stages=STAGES):
            k = first + tl.arange(0, BK)
            first_left, rest_left = _split(_left(before, live, k, H))
            i = _add_product(first_left, rest_left, _gate_weights(w_ptr, 0, k, j, H), i)
            f = _add_product(first_left, rest_left, _gate_weights(w_ptr, 1, k, j, H), f)
            g = _add_product(first_left, rest_left, _gate_weights(w_ptr, 2, k, j, H), g)
            o = _add_product(first_left, rest_left, _gate_weights(w_ptr, 3, k, j, H), o)
        i, f, g, o = tl.sigmoid(i), tl.sigmoid(f), tanh(g), tl.sigmoid(o)
        c = f * c + i * g
        h = o * tanh(c)
        _store(y_ptr, at, 0, 1, real, j, H, h)
        if saved_ptr is not None:
            _store(saved_ptr, at, 0, 6, real, j, H, i)
            _store(saved_ptr, at, 1, 6, real, j, H, f)
            _store(saved_ptr, at, 2, 6, real, j, H, g)
            _store(saved_ptr, at, 3, 6, real, j, H, o)
            _store(saved_ptr, ahead, 5, 6, real & (t < T - 1), j, H, tl.where(live_next[:, None], h, 0.0))
        tl.debug_barrier()
    tl.store(final_ptr + tile, c, mask=mask)


@triton.jit(do_not_specialize=["B", "T"])
def lstm_backward_kernel(
    w_ptr, resets_ptr, saved_ptr, dy_ptr, dfinal_ptr,
    dx_ptr, dh_ptr, dc_ptr,
    B, T,
    H: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Backward over time.

    In: w, resets and saved as in the forward kernel, dy [B, T, H], dfinal (of c) [B, H] or None.
    Out: dx [B, T, 4H], which is the gates' gradient too, dh, dc [B, H].
    """
    rows, real = _program_rows(B)
    j = tl.arange(0, BH)
    tile = (rows * H)[:, None] + j[None, :]
    mask = real[:, None] & (j < H)[None, :]
    dh = tl.zeros((ROWS, BH), tl.float32)
    dc = tl.zeros((ROWS, BH), tl.float32)
    if dfinal_ptr is not None:
        dc += tl.load(dfinal_ptr + tile, mask=mask, other=0.0)
    last = rows * T + T - 1
    live_next = _live(resets_ptr, last, real)
    i_next, f_next, g_next, o_next = _four(saved_ptr, last, 6, real, j, H)
    c_next = _part(saved_ptr, last, 4, 6, real, j, H)
    dy_next = _part(dy_ptr, last, 0, 1, real, j, H)
    for step in tl.range(0, T, num_stages=1):
        at = last - step
        ahead = tl.maximum(at - 1, rows * T)
        live, i, f, g, o, c_before = live_next, i_next, f_next, g_next, o_next, c_next
        dh += dy_next
        live_next = _live(resets_ptr, ahead, real)
        i_next, f_next, g_next, o_next = _four(saved_ptr, ahead, 6, real, j, H)
        c_next = _part(saved_ptr, ahead, 4, 6, real, j, H)
        dy_next = _part(dy_ptr, ahead, 0, 1, real, j, H)
        # h = o tanh(c), and c = f c_before + i g.
        tanh_c = tanh(f * c_before + i * g)
        dc += dh * o * (1 - tanh_c * tanh_c)
        _store(dx_ptr, at, 0, 4, real, j, H, dc * g * i * (1 - i))
        _store(dx_ptr, at, 1, 4, real, j, H, dc * c_before * f * (1 - f))
        _store(dx_ptr, at, 2, 4, real, j, H, dc * i * (1 - g * g))
        _store(dx_ptr, at, 3, 4, real, j, H, dh * tanh_c * o * (1 - o))
        tl.debug_barrier()
        dh = _product(dx_ptr + at * 4 * H, live, w_ptr, j, H, 4 * H, BH, BK, STAGES)
        dc = tl.where(live[:, None], dc * f, 0.0)
    tl.store(dh_ptr + tile, dh, mask=mask)
    tl.store(dc_ptr + tile, dc, mask=mask)


@triton.jit(do_not_specialize=["B", "T"])
def gru_forward_kernel(
    x_ptr, w_ptr, b_ptr, h_ptr, resets_ptr,
    y_ptr, saved_ptr,
    B, T,
    H: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Forward over time.

    x [B, T, 3H], w [3H, H], b [3H], h [B, H], resets [B, T] or None
    -> y [B, T, H], saved [B, T, 5H] (r, z, n, what r multiplies, and the step's h before it, zeros after a reset) or
    None.
    """
    rows, real = _program_rows(B)
    j = tl.arange(0, BH)
    tile = (rows * H)[:, None] + j[None, :]
    mask = real[:, None] & (j < H)[None, :]
    h = tl.load(h_ptr + tile, mask=mask, other=0.0)
    bias_r = tl.load(b_ptr + j, mask=j < H, other=0.0)
    bias_z = tl.load(b_ptr + H + j, mask=j < H, other=0.0)
    bias_n = tl.load(b_ptr + 2 * H + j, mask=j < H, other=0.0)
    live_next = _live(resets_ptr, rows * T, real)
    r_next, z_next, n_next = _three(x_ptr, rows * T, 3, real, j, H)
    for t in tl.range(0, T, num_stages=1):
        at = rows * T + t
        ahead = rows * T + tl.minimum(t + 1, T - 1)
        before = tl.where(t > 0, y_ptr + (at - 1) * H, h_ptr + rows * H)
        live = live_next
        r, z, n = r_next + bias_r[None, :], z_next + bias_z[None, :], n_next
        live_next = _live(resets_ptr, ahead, real)
        r_next, z_next, n_next = _three(x_ptr, ahead, 3, real, j, H)
        h = tl.where(live[:, None], h, 0.0)
        if saved_ptr is not None:
            _store(saved_ptr, at, 4, 5, real, j, H, h)
        m = tl.zeros((ROWS, BH), tl.float32) + bias_n[None, :]
        for first in tl.range(0, H, BK, num_stages=STAGES):
            k = first + tl.arange(0, BK)
            first_left, rest_left = _split(_left(before, live, k, H))
            r = _add_product(first_left, rest_left, _gate_weights(w_ptr, 0, k, j, H), r)
            z = _add_product(first_left, rest_left, _gate_weights(w_ptr, 1, k, j, H), z)
            m = _add_product(first_left, rest_left, _gate_weights(w_ptr, 2, k, j, H), m)
        r, z = tl.sigmoid(r), tl.sigmoid(z)
        n = tanh(n + r * m)
        h = n + z * (h - n)
        _store(y_ptr, at, 0, 1, real, j, H, h)
        if saved_ptr is not None:
            _store(saved_ptr, at, 0, 5, real, j, H, r)
            _store(saved_ptr, at, 1, 5, real, j, H, z)
            _store(saved_ptr, at, 2, 5, real, j, H, n)
            _store(saved_ptr, at, 3, 5, real, j, H, m)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["B", "T"])
def gru_backward_kernel(
    w_ptr, resets_ptr, saved_ptr, dy_ptr,
    dx_ptr, dgates_ptr, dh_ptr,
    B, T,
    H: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Backward over time.

    In: w, resets and saved as in the forward kernel, dy [B, T, H].
    Out: dx and dgates [B, T, 3H], gradients of what input and state give to the gates, dh [B, H].
    """
    rows, real = _program_rows(B)
    j = tl.arange(0, BH)
    tile = (rows * H)[:, None] + j[None, :]
    mask = real[:, None] & (j < H)[None, :]
    dh = tl.zeros((ROWS, BH), tl.float32)
    last = rows * T + T - 1
    live_next = _live(resets_ptr, last, real)
    r_next, z_next, n_next, m_next = _four(saved_ptr, last, 5, real, j, H)
    h_next = _part(saved_ptr, last, 4, 5, real, j, H)
    dy_next = _part(dy_ptr, last, 0, 1, real, j, H)
    for step in tl.range(0, T, num_stages=1):
        at = last - step
        ahead = tl.maximum(at - 1, rows * T)
        live, r, z, n, m, h_before = live_next, r_next, z_next, n_next, m_next, h_next
        dh += dy_next
        live_next = _live(resets_ptr, ahead, real)
        r_next, z_next, n_next, m_next = _four(saved_ptr, ahead, 5, real, j, H)
        h_next = _part(saved_ptr, ahead, 4, 5, real, j, H)
        dy_next = _part(dy_ptr, ahead, 0, 1, real, j, H)
        # h = n + z (h_before - n), and n = tanh(x_n + r m).
        dn = dh * (1 - z) * (1 - n * n)
        dr = dn * m * r * (1 - r)
        dz = dh * (h_before - n) * z * (1 - z)
        _store(dgates_ptr, at, 0, 3, real, j, H, dr)
        _store(dgates_ptr, at, 1, 3, real, j, H, dz)
        _store(dgates_ptr, at, 2, 3, real, j, H, dn * r)
        tl.debug_barrier()
        _store(dx_ptr, at, 0, 3, real, j, H, dr)
        _store(dx_ptr, at, 1, 3, real, j, H, dz)
        _store(dx_ptr, at, 2, 3, real, j, H, dn)
        dh = tl.where(live[:, None], dh * z, 0.0)
        dh += _product(dgates_ptr + at * 3 * H, live, w_ptr, j, H, 3 * H, BH, BK, STAGES)
    tl.store(dh_ptr + tile, dh, mask=mask)
