/* The SRWM on a CPU, forward and backward over time; the mathematics is in ../srwm/README.md.

   The four blocks y, q, k, b stand side by side in one matrix W, each padded to whole vectors. */

#include "memories.h"

typedef struct {
    int64_t B, T, H, D, O, saved_size; /* saved_size: numbers for each batch element and head */
    float decay, limit;
    int32_t unit_keys, threads;
    const float *x, *weights[4], *state[4]; /* state: all NULL for zeros */
    int64_t state_stride[4];                /* from batch element to batch element */
    const uint8_t *resets;                  /* or NULL */
    float *y, *final[4], *saved;            /* saved may be NULL in a forward call */
    const float *dy, *dfinal[4];            /* dfinal: all NULL for zeros */
    float *dx, *dweights, *dstate[4];       /* dstate: all NULL if not wanted */
} SRWMCall;

/* Where the blocks y, q, k and b stand in a row of W, in padded columns; of a step's saved row. */
typedef struct {
    int D, P, N, row;
    int width[4], start[5];
    int64_t matrix;
} Layout;

static Layout layout_of(const SRWMCall *call) {
    Layout l = {.D = (int)call->D, .P = padded((int)call->D)};
    int widths[4] = {(int)call->O, l.D, l.D, 4};
    for (int c = 0; c < 4; c++) {
        l.width[c] = widths[c];
        l.start[c + 1] = l.start[c] + padded(widths[c]);
    }
    l.N = l.start[4];
    l.row = 2 * l.P + l.N + 8; /* q, k, u = (q - k) W, b (4), the limit's factors (4) */
    l.matrix = (int64_t)l.D * l.N;
    return l;
}

/* The four blocks, from `offset` numbers on in each, side by side; added to `base` unless that is NULL. */
static void load_blocks(const Layout *l, float *w, const float *const blocks[4], const int64_t offset[4],
                        const float *base) {
    for (int c = 0; c < 4; c++) {
        const float *from = blocks[c] + offset[c];
        for (int i = 0; i < l->D; i++, from += l->width[c])
            for (int j = 0; j < l->width[c]; j += LANES) {
                const int64_t at = (int64_t)i * l->N + l->start[c] + j;
                const vec entry = load_first(from + j, l->width[c] - j);
                store(w + at, base == NULL ? entry : entry + load(base + at));
            }
    }
}

/* And back; less `base` unless that is NULL. */
static void store_blocks(const Layout *l, const float *w, float *const blocks[4], const int64_t offset[4],
                         const float *base) {
    for (int c = 0; c < 4; c++) {
        float *to = blocks[c] + offset[c];
        for (int i = 0; i < l->D; i++, to += l->width[c])
            for (int j = 0; j < l->width[c]; j += LANES) {
                const int64_t at = (int64_t)i * l->N + l->start[c] + j;
                store_first(to + j, base == NULL ? load(w + at) : load(w + at) - load(base + at), l->width[c] - j);
            }
    }
}

/* Offsets of matrix n of each block, or of head h of batch element b where that has a stride of its own. */
static void offsets_of(const Layout *l, int64_t n, int64_t offset[4]) {
    for (int c = 0; c < 4; c++) offset[c] = n * l->D * l->width[c];
}

static void state_offsets(const Layout *l, const SRWMCall *call, int64_t b, int64_t h, int64_t offset[4]) {
    offsets_of(l, h, offset);
    for (int c = 0; c < 4; c++) offset[c] += b * call->state_stride[c];
}

/* Which of a block's D padded columns are there, as bits. */
INLINE ivec there(int D, int first) {
    ivec lane = {0, 1, 2, 3, 4, 5, 6, 7};
    return lane < D - first;
}

/* z -> softmax(z), or e^z of length 1. */
INLINE void key(const float *z, int D, int P, int unit_keys, float *out) {
    vec top = {}, sum = {};
    top -= INFINITY;
    for (int i = 0; i < P; i += LANES) {
        vec entry = load(z + i);
        top = pick((entry > top) & there(D, i), entry, top);
    }
    float largest = largest_of_lanes(top);
    for (int i = 0; i < P; i += LANES) {
        vec e = pick(there(D, i), exponential(load(z + i) - largest), (vec){});
        store(out + i, e);
        sum += unit_keys ? e * e : e;
    }
    float total = sum_of_lanes(sum);
    total = 1.0f / (unit_keys ? sqrtf(total) : total);
    for (int i = 0; i < P; i += LANES) store(out + i, load(out + i) * total);
}

/* r = b u, block by block. */
INLINE void scaled_by_block(const Layout *l, const float *factors, const float *u, float *r) {
    for (int c = 0; c < 4; c++)
        for (int j = l->start[c]; j < l->start[c + 1]; j += LANES) store(r + j, factors[c] * load(u + j));
}

/* w = slow + decay (from - slow) + k^T r. */
static void decayed_update(float *w, const float *from, const float *slow, int N, int rows, float decay, const float *k,
                           const float *r) {
    float rest = 1.0f - decay;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < N; j += LANES) {
            int64_t at = (int64_t)i * N + j;
            store(w + at, decay * load(from + at) + rest * load(slow + at) + k[i] * load(r + j));
        }
}

/* Frobenius norm of block c of w, or of w - slow. */
static float size_of_block(const Layout *l, const float *w, const float *slow, int c) {
    vec squares = {};
    for (int i = 0; i < l->D; i++)
        for (int j = l->start[c]; j < l->start[c + 1]; j += LANES) {
            int64_t at = (int64_t)i * l->N + j;
            vec entry = slow == NULL ? load(w + at) : load(w + at) - load(slow + at);
            squares += entry * entry;
        }
    return sqrtf(sum_of_lanes(squares));
}

/* Each block's shift from the slow weights, scaled to at most `allowed`; factors: what it was multiplied by. A factor of 1
   leaves the block as it is, bit by bit; 0 drops a shift that is not finite. */
static void limited(const Layout *l, float *w, const float *slow, const float *allowed, float *factors) {
    for (int c = 0; c < 4; c++) {
        float size = size_of_block(l, w, slow, c), factor = size <= allowed[c] ? 1.0f : allowed[c] / size;
        factors[c] = factor = isfinite(size) ? factor : 0.0f;
        for (int i = 0; i < l->D && factor < 1.0f; i++)
            for (int j = l->start[c]; j < l->start[c + 1]; j += LANES) {
                int64_t at = (int64_t)i * l->N + j;
                vec base = load(slow + at);
                store(w + at, factor > 0.0f ? base + factor * (load(w + at) - base) : base);
            }
    }
}

static int64_t forward_scratch(const Layout *l, int64_t H) {
    return H * (l->matrix + LANES) + l->matrix + 2 * l->N + l->P + l->row;
}

static void srwm_forward_tasks(const void *argument, int64_t first, int64_t last, float *scratch) {
    const SRWMCall *call = argument;
    const Layout l = layout_of(call);
    const int64_t T = call->T, H = call->H;
    float *weights = scratch, *sizes = weights + H * l.matrix, *w = sizes + H * LANES, *z = w + l.matrix, *r = z + l.N;
    float *d = r + l.N, *row = d + l.P;
    int64_t at[4];
    for (int64_t h = 0; h < H && first < last; h++) {
        offsets_of(&l, h, at);
        load_blocks(&l, weights + h * l.matrix, call->weights, at, NULL);
        for (int c = 0; c < 4 && call->limit > 0; c++)
            sizes[h * LANES + c] = call->limit * size_of_block(&l, weights + h * l.matrix, NULL, c);
    }
    for (int64_t task = first; task < last; task++) {
        const int64_t h = task % H, b = task / H;
        const float *slow = weights + h * l.matrix, *allowed = sizes + h * LANES;
        const uint8_t *resets = call->resets == NULL ? NULL : call->resets + b * T;
        float *saved = call->saved == NULL ? NULL : call->saved + task * call->saved_size;
        if (call->state[0] == NULL) {
            memcpy(w, slow, l.matrix * sizeof(float));
        } else {
            state_offsets(&l, call, b, h, at);
            load_blocks(&l, w, call->state, at, slow);
        }
        for (int64_t t = 0; t < T; t++) {
            if (resets != NULL && resets[t]) memcpy(w, slow, l.matrix * sizeof(float));
            if (saved != NULL) {
                row = saved + t * l.row;
                if (t % CHUNK == 0) memcpy(saved + T * l.row + t / CHUNK * l.matrix, w, l.matrix * sizeof(float));
            }
            float *q = row, *k = q + l.P, *u = k + l.P, *rates = u + l.N, *factors = rates + 4;
            product(w, l.N, l.D, call->x + ((b * T + t) * H + h) * l.D, z);
            copy(call->y + ((b * T + t) * H + h) * l.width[0], z, l.width[0]); /* before the update, as published */
            key(z + l.start[1], l.D, l.P, call->unit_keys, q);
            key(z + l.start[2], l.D, l.P, call->unit_keys, k);
            vec rate = 1.0f / (1.0f + exponential(-load(z + l.start[3])));
            store_first(rates, rate, 4);
            for (int i = 0; i < l.P; i += LANES) store(d + i, load(q + i) - load(k + i));
            product(w, l.N, l.D, d, u);
            scaled_by_block(&l, rates, u, r);
            if (call->decay == 1.0f) add_outer(w, w, l.N, l.D, k, r);
            else decayed_update(w, w, slow, l.N, l.D, call->decay, k, r);
            if (call->limit > 0) limited(&l, w, slow, allowed, factors);
            else memset(factors, 0, sizeof(quad)); /* nothing reads them, but no number of an output is left unwritten */
        }
        offsets_of(&l, task, at);
        store_blocks(&l, w, call->final, at, slow);
    }
}

/* z -> gradient, for a key or a query of gradient `grad`. */
INLINE void key_backward(const float *q, const float *grad, int P, int unit_keys, float *dz) {
    vec products = {};
    for (int i = 0; i < P; i += LANES) products += load(q + i) * load(grad + i);
    float along = sum_of_lanes(products);
    for (int i = 0; i < P; i += LANES) {
        vec entry = load(q + i);
        store(dz + i, entry * (load(grad + i) - (unit_keys ? entry * along : (vec){} + along)));
    }
}

/* ws: W as the steps from start to stop - 1 find it, transposed: the saved matrix, and what each update made of it. */
static void replay(const SRWMCall *call, const Layout *l, const float *saved, const uint8_t *resets, const float *slow,
                   int64_t start, int64_t stop, float *r, float *ws) {
    const int64_t size = (int64_t)l->N * l->P;
    transpose(ws, l->P, saved + call->T * l->row + start / CHUNK * l->matrix, l->N, l->D, l->N);
    for (int64_t t = start; t + 1 < stop; t++) {
        const float *k = saved + t * l->row + l->P, *u = k + l->P, *rates = u + l->N, *factors = rates + 4;
        float *w = ws + (t - start) * size, *next = w + size;
        if (resets != NULL && resets[t + 1]) {
            memcpy(next, slow, size * sizeof(float));
            continue;
        }
        scaled_by_block(l, rates, u, r);
        if (call->decay == 1.0f) add_outer(next, w, l->P, l->N, r, k);
        else decayed_update(next, w, slow, l->P, l->N, call->decay, r, k);
        for (int c = 0; c < 4 && call->limit > 0; c++) {
            if (factors[c] == 1.0f) continue;
            for (int64_t n = (int64_t)l->start[c] * l->P; n < (int64_t)l->start[c + 1] * l->P; n += LANES) {
                vec base = load(slow + n);
                store(next + n, factors[c] > 0 ? base + factors[c] * (load(next + n) - base) : base);
            }
        }
    }
}

static int64_t backward_scratch(const Layout *l, int64_t T, int64_t H) {
    return (H + (T < CHUNK ? T : CHUNK)) * l->N * l->P + 2 * l->matrix + 4 * l->N + 4 * l->P;
}

/* Whether the state of a sequence fades: by a decay, or by a limit at one step or another. */
static int fading(const SRWMCall *call, const Layout *l, const float *saved) {
    const float *factors = saved + 2 * l->P + l->N + 4;
    int fades = call->decay != 1.0f;
    for (int64_t t = 0; t < call->T && call->limit > 0; t++, factors += l->row)
        for (int c = 0; c < 4; c++) fades |= factors[c] < 1.0f;
    return fades;
}

/* A bar in the README is a d in a name here. */
static void srwm_backward_tasks(const void *argument, int64_t first, int64_t last, float *scratch) {
    const SRWMCall *call = argument;
    const Layout l = layout_of(call);
    const int64_t T = call->T, H = call->H, size = (int64_t)l.N * l.P;
    /* weights, slow and ws are transposed. g: gradient of W, of the shift if it fades. total: of the slow weights. */
    float *weights = scratch, *g = weights + H * size, *total = g + l.matrix, *r = total + l.matrix, *dr = r + l.N;
    float *du = dr + l.N, *dz = du + l.N, *d = dz + l.N, *dk = d + l.P, *dd = dk + l.P, *dx = dd + l.P, *ws = dx + l.P;
    int64_t at[4];
    for (int64_t h = 0; h < H && first < last; h++) {
        offsets_of(&l, h, at);
        load_blocks(&l, g, call->weights, at, NULL);
        transpose(weights + h * size, l.P, g, l.N, l.D, l.N);
    }
    for (int64_t task = first; task < last; task++) {
        const int64_t h = task % H, b = task / H;
        const uint8_t *resets = call->resets == NULL ? NULL : call->resets + b * T;
        const float *saved = call->saved + task * call->saved_size, *slow = weights + h * size;
        const int fades = fading(call, &l, saved);
        offsets_of(&l, task, at);
        memset(g, 0, l.matrix * sizeof(float));
        memset(total, 0, l.matrix * sizeof(float));
        if (call->dfinal[0] != NULL) load_blocks(&l, g, call->dfinal, at, NULL);
        /* If it does not fade, the slow weights' gradient is that of W at the beginning of each episode, less that of the
           final state, which is W_T - slow; else it is the sum of what each step adds to the gradient of W. */
        if (!fades) add(total, g, -1.0f, l.matrix);
        for (int64_t start = (T - 1) / CHUNK * CHUNK, stop = T; start >= 0; stop = start, start -= CHUNK) {
            replay(call, &l, saved, resets, slow, start, stop, r, ws);
            for (int64_t t = stop - 1; t >= start; t--) {
                const float *q = saved + t * l.row, *k = q + l.P, *u = k + l.P, *rates = u + l.N, *factors = rates + 4;
                const float *w = ws + (t - start) * size, *x = call->x + ((b * T + t) * H + h) * l.D;
                for (int i = 0; i < l.D && call->limit > 0; i++)
                    scaled_by_block(&l, factors, g + (int64_t)i * l.N, g + (int64_t)i * l.N);

                /* W <- W + k^T r, r = b u. */
                scaled_by_block(&l, rates, u, r);
                product(g, l.N, l.D, k, dr);
                row_products(g, l.N, l.D, r, dk);
                scaled_by_block(&l, rates, dr, du);
                /* u = (q - k) W. */
                product(w, l.P, l.N, du, dd);
                for (int i = 0; i < l.P; i += LANES) {
                    store(d + i, load(q + i) - load(k + i));
                    store(dk + i, load(dk + i) - load(dd + i));
                }
                /* q, k, b from z = x W, of which y is a part. */
                copy_padded(dz, call->dy + ((b * T + t) * H + h) * l.width[0], l.width[0]);
                key_backward(q, dd, l.P, call->unit_keys, dz + l.start[1]);
                key_backward(k, dk, l.P, call->unit_keys, dz + l.start[2]);
                vec sums[4] = {};
                for (int c = 0; c < 4; c++)
                    for (int j = l.start[c]; j < l.start[c + 1]; j += LANES) sums[c] += load(dr + j) * load(u + j);
                quad rate = load_quad(rates);
                quad db = rate * (1.0f - rate) * sums_of_lanes(sums[0], sums[1], sums[2], sums[3]);
                store(dz + l.start[3], (vec){db[0], db[1], db[2], db[3]});
                product(w, l.P, l.N, dz, dx);
                copy(call->dx + ((b * T + t) * H + h) * l.D, dx, l.D);
                add_two_outer(g, fades ? total : NULL, l.N, l.D, call->decay, d, du, x, dz);

                if (resets != NULL && resets[t]) { /* what came before has no part in this episode */
                    if (!fades) add(total, g, 1.0f, l.matrix);
                    memset(g, 0, l.matrix * sizeof(float));
                }
            }
        }
        if (!fades) add(total, g, 1.0f, l.matrix);
        if (call->dstate[0] != NULL) store_blocks(&l, g, call->dstate, at, NULL);
        float *share = call->dweights + b * H * l.D * (l.width[0] + 2 * l.D + 4), *shares[4];
        for (int c = 0; c < 4; c++) {
            shares[c] = share;
            share += H * l.D * l.width[c];
        }
        offsets_of(&l, h, at);
        store_blocks(&l, total, shares, at, NULL);
    }
}

/* x [B, T, H, D], weights [H, D, *], state [B, H, D, *], resets [B, T] -> y [B, T, H, O], final [B, H, D, *], saved
   [B, H, saved_size]. 0, or 1 if there is no memory. */
int srwm_forward(const SRWMCall *call) {
    const Layout l = layout_of(call);
    return spread(srwm_forward_tasks, call, call->B * call->H, forward_scratch(&l, call->H), call->threads);
}

/* And dy [B, T, H, O], dfinal [B, H, D, *] -> dx [B, T, H, D], dweights [B, H D (O + 2 D + 4)], each batch element's share,
   block after block, dstate [B, H, D, *]. */
int srwm_backward(const SRWMCall *call) {
    const Layout l = layout_of(call);
    return spread(srwm_backward_tasks, call, call->B * call->H, backward_scratch(&l, call->T, call->H), call->threads);
}
