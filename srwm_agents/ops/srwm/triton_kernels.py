"""Triton kernels of the SRWM: one program per batch element and head, fused over time.

The four blocks of ``W`` live in the program's registers for the whole sequence. The forward kernel writes, for each
step, what the backward kernel cannot rebuild (``q, k, b`` and ``u = b v``, ``v = (q - k) W``): 4D + O + 8 numbers, so
memory is O(T D) a head. The backward kernel starts from the final ``W`` and takes each rank-1 update back out,
``W_{t-1} = W_t - k^T u``. Updates are re-read, never recomputed, so undoing adds one rounding error a step and
does not amplify it. A reset cuts that chain: the end state of the segment before it is its start plus all its
rank-1 updates, which are at hand, so a replay (no products with ``W``) rebuilds it without any stored ``W``.

With a decay of the state below 1 (``DECAYS``), ``W_t = decay W_{t-1} + (1 - decay) W_slow + k^T u``. Undoing
divides by it, and roundings grow by ``1 / decay`` a step, so the caller must keep sequences short. The slow weights
are read again at each step (they are in the cache), since registers have no room for them.

With a limit of the state (``LIMITS``), each step ends with a factor of at most 1 a block on the shift, which is saved
with the step. A step with a factor below 1 is not undone by a division: what it left, without its factor, is replayed
as at a reset, and from there the backward pass goes on as if there had been no limit. So the limit costs the backward
pass next to nothing where it is not met. A caller with many steps keeps sequences short here, too: each such step
replays its whole sequence.

Narrow heads have a forward kernel of their own (:mod:`srwm_agents.ops.srwm.triton_narrow`). With ``SHARE``, for
programs of several warps, blocks share reductions: what those cost is the exchange between warps, not the sums.

Names: ``i`` runs over rows (inputs) of ``W``, ``j`` over columns; a suffix ``_i``/``_j`` says along which of the two a
vector lies in the tile, since the same vector in both places is two register layouts. Blocks are y, q, k, b as in
:mod:`srwm_agents.ops.srwm.types`. Widths that are not powers of two are padded and masked: padded entries of ``W``, of
its gradient and of all vectors stay exactly zero. Everything is computed in float32 whatever the inputs are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import segment_start, segment_stop, tile_offsets


@triton.jit
def _add_two(a0, a1, b0, b1):
    return a0 + b0, a1 + b1


@triton.jit
def _add_three(a0, a1, a2, b0, b1, b2):
    return a0 + b0, a1 + b1, a2 + b2


@triton.jit
def _max_two(a0, a1, b0, b1):
    return tl.maximum(a0, b0), tl.maximum(a1, b1)


@triton.jit
def _sum_two(a, b, axis: tl.constexpr, SHARE: tl.constexpr):
    """Sums of two tensors of one shape; with ``SHARE`` in one reduction, hence one exchange between warps."""
    if SHARE:
        a, b = tl.reduce((a, b), axis, _add_two)
    else:
        a, b = tl.sum(a, axis=axis), tl.sum(b, axis=axis)
    return a, b


@triton.jit
def _sum_three(y, q, k, axis: tl.constexpr, SAME: tl.constexpr, SHARE: tl.constexpr):
    """Sums of something of the y, q and k blocks; ``SAME`` says that all three are of one shape."""
    if SAME and SHARE:
        y, q, k = tl.reduce((y, q, k), axis, _add_three)
    else:
        y = tl.sum(y, axis=axis)
        q, k = _sum_two(q, k, axis, SHARE)
    return y, q, k


@triton.jit
def _sum_over_columns(
    ay, aq, ak, ab, cy, cq, ck, cb,
    BD: tl.constexpr, BO: tl.constexpr, Y: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """``[a_y | a_q | a_k | a_b] @ [c_y | c_q | c_k | c_b]``: [BD]; without ``Y`` or ``REST`` (q, k, b) of the others.

    Blocks of equal width share a reduction, in which b joins once the others' columns are down to four groups: in a
    single warp they lie in the same lanes as b's columns.
    """
    if REST:
        products = aq * cq[:, None] + ak * ck[:, None]
        if Y and BO == BD:
            products += ay * cy[:, None]
        total = tl.sum(tl.sum(tl.reshape(products, [4, BD // 4, BD]), axis=1) + ab * cb[:, None], axis=0)
        if Y and BO != BD:
            total += tl.sum(ay * cy[:, None], axis=0)
    else:
        total = tl.sum(ay * cy[:, None], axis=0)
    return total


@triton.jit
def _entry(vector_j, j, index: tl.constexpr):
    """One entry of a vector, as a scalar."""
    return tl.sum(tl.where(j == index, vector_j, 0.0), axis=0)


@triton.jit
def _load_blocks(
    y_ptr, q_ptr, k_ptr, b_ptr, n, to, td, tb, mo, md, mb,
    D: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """The four blocks of the ``n``-th matrix, in float32; zero outside the masks."""
    y = tl.load(y_ptr + n * D * OUT + to, mask=mo, other=0.0).to(tl.float32)
    q = tl.load(q_ptr + n * D * D + td, mask=md, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + n * D * D + td, mask=md, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + n * D * 4 + tb, mask=mb, other=0.0).to(tl.float32)
    return y, q, k, b


@triton.jit
def _store_blocks(
    y_ptr, q_ptr, k_ptr, b_ptr, n, to, td, tb, mo, md, mb, y, q, k, b,
    D: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """Write the four blocks of the ``n``-th matrix."""
    tl.store(y_ptr + n * D * OUT + to, y, mask=mo)
    tl.store(q_ptr + n * D * D + td, q, mask=md)
    tl.store(k_ptr + n * D * D + td, k, mask=md)
    tl.store(b_ptr + n * D * 4 + tb, b, mask=mb)


@triton.jit
def _size(tile):
    """Frobenius norm, as a scalar."""
    return tl.sqrt(tl.sum(tl.sum(tile * tile, axis=1), axis=0))


@triton.jit
def _limited(w, allowed, slow_ptr, mask):
    """``w`` with its shift from the slow weights scaled down to the size ``allowed``, and the factor: 1 leaves ``w`` as
    it is, bit by bit; 0 drops a shift that is not finite."""
    slow = tl.load(slow_ptr, mask=mask, other=0.0).to(tl.float32)
    shift = w - slow
    size = _size(shift)
    factor = tl.where(size < float("inf"), tl.minimum(allowed / tl.maximum(size, 1e-37), 1.0), 0.0)
    scaled = tl.where(factor > 0.0, slow + factor * shift, slow)
    return tl.where(factor < 1.0, scaled, w), factor


@triton.jit
def _decayed(w, factor, slow_ptr, mask):
    """``w`` with its shift from the slow weights multiplied by ``factor``."""
    return factor * w + (1.0 - factor) * tl.load(slow_ptr, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["T", "H", "decay", "limit"])
def srwm_forward_kernel(
    x_ptr, wy_ptr, wq_ptr, wk_ptr, wb_ptr, sy_ptr, sq_ptr, sk_ptr, sb_ptr, resets_ptr,
    y_ptr, fy_ptr, fq_ptr, fk_ptr, fb_ptr, saved_ptr,
    T, H, decay, limit,
    D: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
    ROW: tl.constexpr, DECAYS: tl.constexpr, LIMITS: tl.constexpr, UNIT_KEYS: tl.constexpr,
    LANE_COLUMNS: tl.constexpr, SHARE: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Forward over time, four blocks in four tiles.

    x [B, T, H, D], w* [H, D, *], s* [B, H, D, *] or None, resets [B, T] or None -> y [B, T, H, O], f* [B, H, D, *],
    saved [B, H, T, ROW] or None, a row being q (D), k (D), u_q (D), u_k (D), u_y (O), u_b (4), b (4) and, with LIMITS,
    the limit's factors (4), both in the order y, q, k, b.
    """
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    i = tl.arange(0, BD)
    jo = tl.arange(0, BO)
    jd = tl.arange(0, BD)
    jb = tl.arange(0, 4)
    to = tile_offsets(i, jo, OUT, LANE_COLUMNS)
    td = tile_offsets(i, jd, D, LANE_COLUMNS)
    tb = tile_offsets(i, jb, 4, LANE_COLUMNS)
    mo = (i[None, :] < D) & (jo[:, None] < OUT)
    md = (i[None, :] < D) & (jd[:, None] < D)
    mb = (i[None, :] < D) & (jb[:, None] < 4)

    x_ptr += (batch * T * H + head) * D
    y_ptr += (batch * T * H + head) * OUT
    if saved_ptr is not None:
        saved_ptr += program * T * ROW
    wy_ptr += head * D * OUT
    wq_ptr += head * D * D
    wk_ptr += head * D * D
    wb_ptr += head * D * 4

    wy, wq, wk, wb = _load_blocks(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, md, mb, D, OUT)
    if LIMITS:
        ly, lq, lk, lb = limit * _size(wy), limit * _size(wq), limit * _size(wk), limit * _size(wb)
    if sy_ptr is not None:
        sy, sq, sk, sb = _load_blocks(sy_ptr, sq_ptr, sk_ptr, sb_ptr, program, to, td, tb, mo, md, mb, D, OUT)
        wy, wq, wk, wb = wy + sy, wq + sq, wk + sk, wb + sb

    if resets_ptr is not None:
        resets_ptr += batch * T
    start = 0
    while start < T:  # over segments; what happens between them takes no registers from the loop over steps
        stop = T
        if resets_ptr is not None:
            stop = segment_stop(resets_ptr, start, T)
            if tl.load(resets_ptr + start) != 0:
                wy, wq, wk, wb = _load_blocks(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, md, mb, D, OUT)
        # Loads run one step ahead, so that their latency hides behind the step's arithmetic.
        x_next = tl.load(x_ptr + start * H * D + i, mask=i < D, other=0.0)
        for t in tl.range(start, stop, loop_unroll_factor=UNROLL):
            x_i = x_next.to(tl.float32)
            x_next = tl.load(x_ptr + tl.minimum(t + 1, T - 1) * H * D + i, mask=i < D, other=0.0)

            y_j, q_j, k_j = _sum_three(x_i[None, :] * wy, x_i[None, :] * wq, x_i[None, :] * wk, 1, BO == BD, SHARE)
            b_j = tl.sum(x_i[None, :] * wb, axis=1)
            tl.store(y_ptr + t * H * OUT + jo, y_j, mask=jo < OUT)  # before the update, as published
            b_j = 1.0 / (1.0 + tl.exp(-b_j))
            if BD != D:
                q_j = tl.where(jd < D, q_j, float("-inf"))
                k_j = tl.where(jd < D, k_j, float("-inf"))
            if SHARE:
                q_max, k_max = tl.reduce((q_j, k_j), 0, _max_two)
            else:
                q_max, k_max = tl.max(q_j, axis=0), tl.max(k_j, axis=0)
            q_j = tl.exp(q_j - q_max)
            k_j = tl.exp(k_j - k_max)
            if UNIT_KEYS:
                q_size, k_size = _sum_two(q_j * q_j, k_j * k_j, 0, SHARE)
                q_j, k_j = q_j * tl.rsqrt(q_size), k_j * tl.rsqrt(k_size)
            else:
                q_size, k_size = _sum_two(q_j, k_j, 0, SHARE)
                q_j, k_j = q_j * (1.0 / q_size), k_j * (1.0 / k_size)

            d_i, k_i = q_j - k_j, k_j  # used along rows from here on
            vy, vq, vk = _sum_three(d_i[None, :] * wy, d_i[None, :] * wq, d_i[None, :] * wk, 1, BO == BD, SHARE)
            uy, uq, uk = _entry(b_j, jb, 0) * vy, _entry(b_j, jb, 1) * vq, _entry(b_j, jb, 2) * vk
            ub = _entry(b_j, jb, 3) * tl.sum(d_i[None, :] * wb, axis=1)
            if saved_ptr is not None:
                row_ptr = saved_ptr + t * ROW
                tl.store(row_ptr + jd, q_j, mask=jd < D)
                tl.store(row_ptr + D + jd, k_j, mask=jd < D)
                tl.store(row_ptr + 2 * D + jd, uq, mask=jd < D)
                tl.store(row_ptr + 3 * D + jd, uk, mask=jd < D)
                tl.store(row_ptr + 4 * D + jo, uy, mask=jo < OUT)
                tl.store(row_ptr + 4 * D + OUT + jb, ub)
                tl.store(row_ptr + 4 * D + OUT + 4 + jb, b_j)
            if DECAYS:
                wy = _decayed(wy, decay, wy_ptr + to, mo)
                wq = _decayed(wq, decay, wq_ptr + td, md)
                wk = _decayed(wk, decay, wk_ptr + td, md)
                wb = _decayed(wb, decay, wb_ptr + tb, mb)
            wy += k_i[None, :] * uy[:, None]
            wq += k_i[None, :] * uq[:, None]
            wk += k_i[None, :] * uk[:, None]
            wb += k_i[None, :] * ub[:, None]
            if LIMITS:
                wy, factor_y = _limited(wy, ly, wy_ptr + to, mo)
                wq, factor_q = _limited(wq, lq, wq_ptr + td, md)
                wk, factor_k = _limited(wk, lk, wk_ptr + td, md)
                wb, factor_b = _limited(wb, lb, wb_ptr + tb, mb)
                if saved_ptr is not None:
                    row_ptr = saved_ptr + t * ROW + 4 * D + OUT + 8
                    tl.store(row_ptr, factor_y)
                    tl.store(row_ptr + 1, factor_q)
                    tl.store(row_ptr + 2, factor_k)
                    tl.store(row_ptr + 3, factor_b)
        start = stop

    # The state is the shift from the slow weights.
    ay, aq, ak, ab = _load_blocks(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, md, mb, D, OUT)
    _store_blocks(
        fy_ptr, fq_ptr, fk_ptr, fb_ptr, program, to, td, tb, mo, md, mb, wy - ay, wq - aq, wk - ak, wb - ab, D, OUT
    )


@triton.jit
def _load_saved(saved_ptr, t, i, jo, jd, jb, D: tl.constexpr, OUT: tl.constexpr, ROW: tl.constexpr):
    """What the forward pass kept of step ``t``: q, k, u = b v of each block, b."""
    row_ptr = saved_ptr + t * ROW
    q_i = tl.load(row_ptr + i, mask=(i < D), other=0.0)
    k_i = tl.load(row_ptr + D + i, mask=(i < D), other=0.0)
    uq = tl.load(row_ptr + 2 * D + jd, mask=(jd < D), other=0.0)
    uk = tl.load(row_ptr + 3 * D + jd, mask=(jd < D), other=0.0)
    uy = tl.load(row_ptr + 4 * D + jo, mask=(jo < OUT), other=0.0)
    ub = tl.load(row_ptr + 4 * D + OUT + jb)
    by = tl.load(row_ptr + 4 * D + OUT + 4)
    bq = tl.load(row_ptr + 4 * D + OUT + 5)
    bk = tl.load(row_ptr + 4 * D + OUT + 6)
    bb = tl.load(row_ptr + 4 * D + OUT + 7)
    return q_i, k_i, uy, uq, uk, ub, by, bq, bk, bb


@triton.jit
def _load_factors(ptr):
    """A limit's factors of one step, as scalars."""
    return tl.load(ptr), tl.load(ptr + 1), tl.load(ptr + 2), tl.load(ptr + 3)


@triton.jit
def _last_limited(factors_ptr, t, ROW: tl.constexpr):
    """The last step at or before ``t`` that a limit has scaled, -1 if there is none."""
    found = tl.minimum(t, -1)
    top = t
    while (found < 0) & (top >= 0):
        at = top - tl.arange(0, 64)
        block = tl.arange(0, 4)
        factors = tl.load(factors_ptr + at[:, None] * ROW + block[None, :], mask=(at >= 0)[:, None], other=1.0)
        found = tl.max(tl.where(tl.min(factors, axis=1) < 1.0, at, -1), axis=0)
        top -= 64
    return found


@triton.jit
def _zeros_like(tile, never):
    """Zeros in the register layout of ``tile``: ``tl.zeros`` would bring its own, and a conversion at every use."""
    return tl.where(never, tile, 0.0)


@triton.jit
def _add_to(ptr, tile, mask, seen, ONCE: tl.constexpr):
    """``ptr += tile``, or ``ptr = tile`` unless ``seen``: no buffer has to be cleared beforehand. With ``ONCE`` nothing
    is ever seen."""
    if not ONCE:
        tile += tl.load(ptr, mask=mask & seen, other=0.0)
    tl.store(ptr, tile, mask=mask)


@triton.jit(do_not_specialize=["T", "H", "decay"])
def srwm_backward_kernel(
    x_ptr, wy_ptr, wq_ptr, wk_ptr, wb_ptr, sy_ptr, sq_ptr, sk_ptr, sb_ptr, resets_ptr,
    fy_ptr, fq_ptr, fk_ptr, fb_ptr, saved_ptr,
    dy_ptr, dfy_ptr, dfq_ptr, dfk_ptr, dfb_ptr,
    dx_ptr, dw_ptr, dsy_ptr, dsq_ptr, dsk_ptr, dsb_ptr, parts_ptr,
    T, H, decay,
    D: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr, Y: tl.constexpr, REST: tl.constexpr,
    ROW: tl.constexpr, DECAYS: tl.constexpr, LIMITS: tl.constexpr, UNIT_KEYS: tl.constexpr,
    LANE_COLUMNS: tl.constexpr, SHARE: tl.constexpr, UNROLL: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Backward over time; derivation in this folder's README.

    In: the forward kernel's inputs and outputs, dy [B, T, H, O], df* [B, H, D, *] or None.
    Out: dx [B, T, H, D]; dw [B, H D (O + 2D + 4)], each batch element's share of the slow weights' gradient (blocks
    one after another, each [H, D, *]), to be summed over B by the caller; ds* [B, H, D, *] or None.

    The gradient of the y block needs none of the others', so a launch may do it alone (``Y`` without ``REST``) where
    all four do not fit the registers. It leaves in parts [B, H, T, 3D + 1] what it adds at each step to the gradients
    of k as it is written with, of q - k, of x, and of b_y, the last as the sum of du u; the launch for the others
    (``REST`` without ``Y``) reads that.
    """
    SAME: tl.constexpr = Y and REST and BO == BD  # y, q and k share reductions
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    i = tl.arange(0, BD)
    jo = tl.arange(0, BO)
    jd = tl.arange(0, BD)
    jb = tl.arange(0, 4)
    to = tile_offsets(i, jo, OUT, LANE_COLUMNS)
    td = tile_offsets(i, jd, D, LANE_COLUMNS)
    tb = tile_offsets(i, jb, 4, 1)
    mo = (i[None, :] < D) & (jo[:, None] < OUT)
    md = (i[None, :] < D) & (jd[:, None] < D)
    mb = (i[None, :] < D) & (jb[:, None] < 4)

    x_ptr += (batch * T * H + head) * D
    dx_ptr += (batch * T * H + head) * D
    dy_ptr += (batch * T * H + head) * OUT
    saved_ptr += program * T * ROW
    if parts_ptr is not None:
        parts_ptr += program * T * (3 * D + 1)
    wy_ptr += head * D * OUT
    wq_ptr += head * D * D
    wk_ptr += head * D * D
    wb_ptr += head * D * 4
    dw_ptr += batch * H * D * (OUT + 2 * D + 4)
    dwy_ptr = dw_ptr + head * D * OUT
    dwq_ptr = dw_ptr + H * D * OUT + head * D * D
    dwk_ptr = dw_ptr + H * D * (OUT + D) + head * D * D
    dwb_ptr = dw_ptr + H * D * (OUT + 2 * D) + head * D * 4

    wy, wq, wk, wb = _load_blocks(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, md, mb, D, OUT)
    sy, sq, sk, sb = _load_blocks(fy_ptr, fq_ptr, fk_ptr, fb_ptr, program, to, td, tb, mo, md, mb, D, OUT)
    wy, wq, wk, wb = wy + sy, wq + sq, wk + sk, wb + sb
    never = T < 0
    # g is the gradient of the loss with respect to W, after step t and then before it; with a decay, with respect to
    # the state, and a is what the slow weights get apart from it: the same gradient of each step, without decay.
    if dfy_ptr is not None:
        gy, gq, gk, gb = _load_blocks(dfy_ptr, dfq_ptr, dfk_ptr, dfb_ptr, program, to, td, tb, mo, md, mb, D, OUT)
    else:
        gy, gq, gk, gb = _zeros_like(wy, never), _zeros_like(wq, never), _zeros_like(wk, never), _zeros_like(wb, never)

    if DECAYS:
        growth = 1.0 / decay
        ay, aq, ak, ab = _zeros_like(wy, never), _zeros_like(wq, never), _zeros_like(wk, never), _zeros_like(wb, never)

    if resets_ptr is not None:
        resets_ptr += batch * T
    seen = never  # whether an earlier (later in time) segment has written its share of dw: not yet
    rebuild = never  # whether w must be replayed before it can be undone: the final one need not
    last = T - 1
    while last >= 0:  # over segments; what happens between them takes no registers from the loop over steps
        # Steps ``start`` to ``last`` are undone one after another; ``origin`` is where the state's history begins.
        if resets_ptr is not None:
            origin, after_reset = segment_start(resets_ptr, last)
        else:
            origin, after_reset = last * 0, never
        start = origin
        if LIMITS:
            factors_ptr = saved_ptr + 4 * D + OUT + 8
            ey, eq, ek, eb = _load_factors(factors_ptr + last * ROW)
            rebuild = rebuild | (tl.minimum(tl.minimum(ey, eq), tl.minimum(ek, eb)) < 1.0)
            gy, gq, gk, gb = ey * gy, eq * gq, ek * gk, eb * gb
            start = tl.maximum(origin, _last_limited(factors_ptr, last - 1, ROW) + 1)
        if LIMITS or resets_ptr is not None:  # decided when compiling; the next one when running
            if rebuild:
                # What step ``last`` wrote, before it was limited: the origin plus all rank-1 updates since.
                wy, wq, wk, wb = _load_blocks(wy_ptr, wq_ptr, wk_ptr, wb_ptr, 0, to, td, tb, mo, md, mb, D, OUT)
                if sy_ptr is not None:
                    given = after_reset == 0
                    sy, sq, sk, sb = _load_blocks(
                        sy_ptr, sq_ptr, sk_ptr, sb_ptr, program, to, td, tb, mo & given, md & given, mb & given, D, OUT
                    )
                    wy, wq, wk, wb = wy + sy, wq + sq, wk + sk, wb + sb
                for t in tl.range(origin, last + 1, loop_unroll_factor=4):  # four loads under way at once
                    _, k_i, uy, uq, uk, ub, _, _, _, _ = _load_saved(saved_ptr, t, i, jo, jd, jb, D, OUT, ROW)
                    if LIMITS:
                        ey, eq, ek, eb = _load_factors(factors_ptr + t * ROW)
                        whole = t == last
                        ey, eq = tl.where(whole, 1.0, ey), tl.where(whole, 1.0, eq)
                        ek, eb = tl.where(whole, 1.0, ek), tl.where(whole, 1.0, eb)
                        uy, uq, uk, ub = ey * uy, eq * uq, ek * uk, eb * ub
                        wy = _decayed(wy, decay * ey, wy_ptr + to, mo)
                        wq = _decayed(wq, decay * eq, wq_ptr + td, md)
                        wk = _decayed(wk, decay * ek, wk_ptr + td, md)
                        wb = _decayed(wb, decay * eb, wb_ptr + tb, mb)
                    elif DECAYS:
                        wy = _decayed(wy, decay, wy_ptr + to, mo)
                        wq = _decayed(wq, decay, wq_ptr + td, md)
                        wk = _decayed(wk, decay, wk_ptr + td, md)
                        wb = _decayed(wb, decay, wb_ptr + tb, mb)
                    wy += k_i[None, :] * uy[:, None]
                    wq += k_i[None, :] * uq[:, None]
                    wk += k_i[None, :] * uk[:, None]
                    wb += k_i[None, :] * ub[:, None]
            rebuild = T >= 0
        # With AHEAD, a step's loads stand where the step before it is through with the registers that they fill: their
        # latency hides behind the rest of that step's arithmetic, and nothing has to be moved. Where registers are
        # short, a step loads what it needs itself.
        q_i, k_i, uy, uq, uk, ub, by, bq, bk, bb = _load_saved(saved_ptr, last, i, jo, jd, jb, D, OUT, ROW)
        x_n = tl.load(x_ptr + last * H * D + i, mask=(i < D), other=0.0)
        dy_n = tl.load(dy_ptr + last * H * OUT + jo, mask=(jo < OUT), other=0.0)
        for step in tl.range(0, last - start + 1, loop_unroll_factor=UNROLL):
            t = last - step
            if not AHEAD:
                q_i, k_i, uy, uq, uk, ub, by, bq, bk, bb = _load_saved(saved_ptr, t, i, jo, jd, jb, D, OUT, ROW)
            # W_c <- W_c + k^T u_c, undone. Its gradient in k, in u, then in v = u / b.
            dk_i = _sum_over_columns(gy, gq, gk, gb, uy, uq, uk, ub, BD, BO, Y, REST)
            duy, duq, duk = _sum_three(k_i[None, :] * gy, k_i[None, :] * gq, k_i[None, :] * gk, 1, SAME, SHARE)
            dub = tl.sum(k_i[None, :] * gb, axis=1)
            wy -= k_i[None, :] * uy[:, None]
            wq -= k_i[None, :] * uq[:, None]
            wk -= k_i[None, :] * uk[:, None]
            wb -= k_i[None, :] * ub[:, None]
            if DECAYS:
                wy = _decayed(wy, growth, wy_ptr + to, mo)
                wq = _decayed(wq, growth, wq_ptr + td, md)
                wk = _decayed(wk, growth, wk_ptr + td, md)
                wb = _decayed(wb, growth, wb_ptr + tb, mb)
            dvy, dvq, dvk, dvb = by * duy, bq * duq, bk * duk, bb * dub

            # v_c = (q - k) W_c with W_{t-1}.
            dd_i = _sum_over_columns(wy, wq, wk, wb, dvy, dvq, dvk, dvb, BD, BO, Y, REST)
            if not (Y and REST):
                part_ptr = parts_ptr + t * (3 * D + 1)
            if not Y:
                dk_i += tl.load(part_ptr + i, mask=i < D, other=0.0)
                dd_i += tl.load(part_ptr + D + i, mask=i < D, other=0.0)
            if REST:
                # q, k and b from their pre-activations z = x W.
                dk_i -= dd_i
                along_q, along_k = _sum_two(q_i * dd_i, k_i * dk_i, 0, SHARE)
                if UNIT_KEYS:
                    dzq = q_i * (dd_i - q_i * along_q)
                    dzk = k_i * (dk_i - k_i * along_k)
                else:
                    dzq = q_i * (dd_i - along_q)
                    dzk = k_i * (dk_i - along_k)
                # db = sum of du v = sum of du u / b, and dz = b (1 - b) db.
                eb_y, eb_q, eb_k = _sum_three(duy * uy, duq * uq, duk * uk, 0, SAME, SHARE)
                if not Y:
                    eb_y = tl.load(part_ptr + 3 * D)
                dzb = tl.where(jb == 0, (1 - by) * eb_y, 0.0)
                dzb = tl.where(jb == 1, (1 - bq) * eb_q, dzb)
                dzb = tl.where(jb == 2, (1 - bk) * eb_k, dzb)
                dzb = tl.where(jb == 3, (1 - bb) * tl.sum(dub * ub, axis=0), dzb)
            else:
                tl.store(part_ptr + i, dk_i, mask=i < D)
                tl.store(part_ptr + D + i, dd_i, mask=i < D)
                tl.store(part_ptr + 3 * D, tl.sum(duy * uy, axis=0))
                dzq, dzk, dzb = uq, uk, ub  # of blocks that this launch leaves alone: the compiler drops them

            d_i = q_i - k_i
            ahead = tl.maximum(t - 1, 0)
            if AHEAD:
                q_i, k_i, uy, uq, uk, ub, by, bq, bk, bb = _load_saved(saved_ptr, ahead, i, jo, jd, jb, D, OUT, ROW)
            else:
                x_n = tl.load(x_ptr + t * H * D + i, mask=(i < D), other=0.0)
                dy_n = tl.load(dy_ptr + t * H * OUT + jo, mask=(jo < OUT), other=0.0)
            x_i, dy = x_n.to(tl.float32), dy_n.to(tl.float32)
            # dzq and dzk are used along columns here.
            dx_i = _sum_over_columns(wy, wq, wk, wb, dy, dzq, dzk, dzb, BD, BO, Y, REST)
            if not REST:
                tl.store(part_ptr + 2 * D + i, dx_i, mask=i < D)
            else:
                if not Y:
                    dx_i += tl.load(part_ptr + 2 * D + i, mask=i < D, other=0.0)
                tl.store(dx_ptr + t * H * D + i, dx_i, mask=i < D)
            if DECAYS:
                cy = d_i[None, :] * dvy[:, None] + x_i[None, :] * dy[:, None]
                cq = d_i[None, :] * dvq[:, None] + x_i[None, :] * dzq[:, None]
                ck = d_i[None, :] * dvk[:, None] + x_i[None, :] * dzk[:, None]
                cb = d_i[None, :] * dvb[:, None] + x_i[None, :] * dzb[:, None]
                gy, gq, gk, gb = decay * gy + cy, decay * gq + cq, decay * gk + ck, decay * gb + cb
                ay, aq, ak, ab = ay + cy, aq + cq, ak + ck, ab + cb
            else:
                gy += d_i[None, :] * dvy[:, None]
                gy += x_i[None, :] * dy[:, None]
                gq += d_i[None, :] * dvq[:, None]
                gq += x_i[None, :] * dzq[:, None]
                gk += d_i[None, :] * dvk[:, None]
                gk += x_i[None, :] * dzk[:, None]
                gb += d_i[None, :] * dvb[:, None]
                gb += x_i[None, :] * dzb[:, None]
            if AHEAD:
                x_n = tl.load(x_ptr + ahead * H * D + i, mask=(i < D), other=0.0)
                dy_n = tl.load(dy_ptr + ahead * H * OUT + jo, mask=(jo < OUT), other=0.0)
        last = start - 1

        if resets_ptr is not None:  # noqa: SIM102 (this one is decided when compiling, the next when running)
            if after_reset & (start == origin):
                # The segment started from the slow weights: its gradient goes to them alone.
                if not DECAYS:
                    if Y:
                        _add_to(dwy_ptr + to, gy, mo, seen, False)
                    if REST:
                        _add_to(dwq_ptr + td, gq, md, seen, False)
                        _add_to(dwk_ptr + td, gk, md, seen, False)
                        _add_to(dwb_ptr + tb, gb, mb, seen, False)
                    seen = T >= 0
                tl.debug_barrier()
                gy, gq = _zeros_like(gy, never), _zeros_like(gq, never)
                gk, gb = _zeros_like(gk, never), _zeros_like(gb, never)

    if dsy_ptr is not None:
        if Y:
            tl.store(dsy_ptr + program * D * OUT + to, gy, mask=mo)
        if REST:
            tl.store(dsq_ptr + program * D * D + td, gq, mask=md)
            tl.store(dsk_ptr + program * D * D + td, gk, mask=md)
            tl.store(dsb_ptr + program * D * 4 + tb, gb, mask=mb)
    if DECAYS:
        gy, gq, gk, gb = ay, aq, ak, ab
    elif dfy_ptr is not None:
        # final = W_T - slow.
        cy, cq, ck, cb = _load_blocks(dfy_ptr, dfq_ptr, dfk_ptr, dfb_ptr, program, to, td, tb, mo, md, mb, D, OUT)
        gy, gq, gk, gb = gy - cy, gq - cq, gk - ck, gb - cb
    if Y:
        _add_to(dwy_ptr + to, gy, mo, seen, resets_ptr is None)
    if REST:
        _add_to(dwq_ptr + td, gq, md, seen, resets_ptr is None)
        _add_to(dwk_ptr + td, gk, md, seen, resets_ptr is None)
        _add_to(dwb_ptr + tb, gb, mb, seen, resets_ptr is None)
