/* Kernels of the memories for a CPU: the SRWM and the delta rule, forward and backward over time.

   One task is one head of one batch element: its matrix stays in the cache for the whole sequence. Tasks are spread over
   threads, head after head, so that a thread lays out a head's slow weights once. All arrays are float32 and contiguous,
   apart from the given state, whose batch stride is an argument; shapes are in the comments of the four functions at the
   end, the mathematics in ../srwm/README.md.

   Matrices are worked on as rows of whole vectors of LANES numbers. The SRWM's four blocks y, q, k, b stand side by side
   in one matrix W, each padded to whole vectors; padded entries of W, of its gradient and of all vectors stay zero. The
   backward pass needs products of W with rows and reads W transposed, so that no product with W is a sum across lanes.

   The forward pass saves W at every CHUNK-th step, and of each step what its update consists of. The backward pass takes
   one chunk after another, from the last: it replays the chunk's updates from the saved W, keeping every W, and then goes
   back over the steps. Resets, a decay and a limit are replayed as they were, and no rounding grows. */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* LANES numbers make a vector; the forward pass saves W at every CHUNK-th step. Both are set by library.py. */
enum { MOST_THREADS = 256 };

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef float half __attribute__((vector_size(2 * LANES), aligned(4)));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE int padded(int width) { return (width + LANES - 1) / LANES * LANES; }

INLINE vec pick(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

INLINE float sum_of_lanes(vec v) {
    half low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, (const char *)&v + sizeof low, sizeof high);
    low += high;
    return (low[0] + low[2]) + (low[1] + low[3]);
}

/* e^x: 2^n e^r with |r| <= ln(2) / 2 and e^r as a polynomial (that of Cephes); arguments end at +-87. NaN stays NaN. */
INLINE vec exponential(vec x) {
    x = pick(x < -87.0f, (vec){} - 87.0f, x);
    x = pick(x > 87.0f, (vec){} + 87.0f, x);
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer, in the low bits */
    vec n = shifted - 12582912.0f;
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    ivec bits = (ivec)shifted << 23;
    return p * (vec)(bits + 0x3f800000);
}

/* ---- rows of `width` numbers that are not whole vectors outside of a matrix ---- */

INLINE void copy(float *to, const float *from, int width) {
    int j = 0;
    for (; j + LANES <= width; j += LANES) store(to + j, load(from + j));
    if (width & 4) memcpy(to + j, from + j, 16), j += 4;
    if (width & 2) memcpy(to + j, from + j, 8), j += 2;
    if (width & 1) to[j] = from[j];
}

INLINE void copy_padded(float *to, const float *from, int width) {
    if (width % LANES) store(to + width / LANES * LANES, (vec){});
    copy(to, from, width);
}

/* ---- matrices of `rows` rows of `n` vectors, N numbers from row to row ---- */

/* out[j] = sum over i of a[i] w[i][j], for n <= 8; several sums at once hide the latency of their additions. */
INLINE void product_of(const int n, const int sums, const float *w, int N, int rows, const float *a, float *out) {
    vec sum[sums][n];
    for (int s = 0; s < sums; s++)
        for (int j = 0; j < n; j++) sum[s][j] = (vec){};
    int i = 0;
    for (; i + sums <= rows; i += sums)
        for (int s = 0; s < sums; s++)
            for (int j = 0; j < n; j++) sum[s][j] += a[i + s] * load(w + (int64_t)(i + s) * N + j * LANES);
    for (; i < rows; i++)
        for (int j = 0; j < n; j++) sum[0][j] += a[i] * load(w + (int64_t)i * N + j * LANES);
    for (int j = 0; j < n; j++) {
        for (int s = 1; s < sums; s++) sum[0][j] += sum[s][j];
        store(out + j * LANES, sum[0][j]);
    }
}

static void product(const float *w, int N, int rows, const float *a, float *out) {
    for (int left = N / LANES; left > 0; left -= 8, w += 8 * LANES, out += 8 * LANES) switch (left) {
        case 1: product_of(1, 8, w, N, rows, a, out); break;
        case 2: product_of(2, 4, w, N, rows, a, out); break;
        case 3: product_of(3, 2, w, N, rows, a, out); break;
        case 4: product_of(4, 2, w, N, rows, a, out); break;
        case 5: product_of(5, 1, w, N, rows, a, out); break;
        case 6: product_of(6, 1, w, N, rows, a, out); break;
        case 7: product_of(7, 1, w, N, rows, a, out); break;
        default: product_of(8, 1, w, N, rows, a, out);
        }
}

/* to = from + a^T r, both laid out alike; they may be one. */
INLINE void add_outer_of(const int n, float *to, const float *from, int N, int rows, const float *a, const float *r) {
    vec row[n];
    for (int j = 0; j < n; j++) row[j] = load(r + j * LANES);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++) {
            int64_t at = (int64_t)i * N + j * LANES;
            store(to + at, load(from + at) + a[i] * row[j]);
        }
}

static void add_outer(float *to, const float *from, int N, int rows, const float *a, const float *r) {
    for (int left = N / LANES; left > 0; left -= 8, to += 8 * LANES, from += 8 * LANES, r += 8 * LANES) switch (left) {
        case 1: add_outer_of(1, to, from, N, rows, a, r); break;
        case 2: add_outer_of(2, to, from, N, rows, a, r); break;
        case 3: add_outer_of(3, to, from, N, rows, a, r); break;
        case 4: add_outer_of(4, to, from, N, rows, a, r); break;
        case 5: add_outer_of(5, to, from, N, rows, a, r); break;
        case 6: add_outer_of(6, to, from, N, rows, a, r); break;
        case 7: add_outer_of(7, to, from, N, rows, a, r); break;
        default: add_outer_of(8, to, from, N, rows, a, r);
        }
}

/* along[j] = sum over i of a[i] g[i][j], and across[i] += sum over j of g[i][j] r[j]. */
INLINE void two_products_of(const int n, const float *g, int N, int rows, const float *a, const float *r, float *along,
                            float *across) {
    vec row[n], sum[n];
    for (int j = 0; j < n; j++) row[j] = load(r + j * LANES), sum[j] = (vec){};
    for (int i = 0; i < rows; i++) {
        vec total = {};
        for (int j = 0; j < n; j++) {
            vec entry = load(g + (int64_t)i * N + j * LANES);
            sum[j] += a[i] * entry;
            total += entry * row[j];
        }
        across[i] += sum_of_lanes(total);
    }
    for (int j = 0; j < n; j++) store(along + j * LANES, sum[j]);
}

static void two_products(const float *g, int N, int rows, const float *a, const float *r, float *along, float *across) {
    for (int i = 0; i < rows; i++) across[i] = 0.0f;
    for (int left = N / LANES; left > 0; left -= 7, g += 7 * LANES, r += 7 * LANES, along += 7 * LANES) switch (left) {
        case 1: two_products_of(1, g, N, rows, a, r, along, across); break;
        case 2: two_products_of(2, g, N, rows, a, r, along, across); break;
        case 3: two_products_of(3, g, N, rows, a, r, along, across); break;
        case 4: two_products_of(4, g, N, rows, a, r, along, across); break;
        case 5: two_products_of(5, g, N, rows, a, r, along, across); break;
        case 6: two_products_of(6, g, N, rows, a, r, along, across); break;
        default: two_products_of(7, g, N, rows, a, r, along, across);
        }
}

/* g = keep g + a^T r + b^T s, and, where there is a `total`, total += a^T r + b^T s. */
INLINE void add_two_outer_of(const int n, float *g, float *total, int N, int rows, float keep, const float *a,
                             const float *r, const float *b, const float *s) {
    vec first[n], second[n];
    for (int j = 0; j < n; j++) first[j] = load(r + j * LANES), second[j] = load(s + j * LANES);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++) {
            int64_t at = (int64_t)i * N + j * LANES;
            if (total == NULL) {
                store(g + at, load(g + at) + a[i] * first[j] + b[i] * second[j]);
            } else {
                vec both = a[i] * first[j] + b[i] * second[j];
                store(g + at, keep * load(g + at) + both);
                store(total + at, load(total + at) + both);
            }
        }
}

static void add_two_outer(float *g, float *total, int N, int rows, float keep, const float *a, const float *r,
                          const float *b, const float *s) {
    for (int j = 0; j < N;) {
        float *sums = total == NULL ? NULL : total + j;
        int left = (N - j) / LANES;
        int n = left >= 7 ? 7 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (n == 7 && sums == NULL) add_two_outer_of(7, g + j, NULL, N, rows, keep, a, r + j, b, s + j);
        else if (n == 7) add_two_outer_of(7, g + j, sums, N, rows, keep, a, r + j, b, s + j);
        else if (n == 4) add_two_outer_of(4, g + j, sums, N, rows, keep, a, r + j, b, s + j);
        else if (n == 2) add_two_outer_of(2, g + j, sums, N, rows, keep, a, r + j, b, s + j);
        else add_two_outer_of(1, g + j, sums, N, rows, keep, a, r + j, b, s + j);
        j += n * LANES;
    }
}

/* to[j][i] = from[i][j] for the first `columns` of them; rows of `to` are M numbers, its padding is not written. */
static void transpose(float *to, int M, const float *from, int N, int rows, int columns) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) to[(int64_t)j * M + i] = from[(int64_t)i * N + j];
}

/* ---- tasks on threads ---- */

typedef struct {
    void (*run)(const void *call, int64_t first, int64_t last, float *scratch);
    const void *call;
    int64_t first, last, scratch;
    int failed;
} Share;

static void *run_share(void *argument) {
    Share *share = argument;
    float *scratch = NULL;
    share->failed = posix_memalign((void **)&scratch, 64, (size_t)share->scratch * sizeof(float)) != 0;
    if (share->failed) return NULL;
    memset(scratch, 0, (size_t)share->scratch * sizeof(float));
    share->run(share->call, share->first, share->last, scratch);
    free(scratch);
    return NULL;
}

/* Run tasks 0 to count - 1, each thread a stretch of them with `scratch` zeros of its own. 0, or 1 without memory.
   Threads live for one call: a process that forks afterwards inherits none. */
static int spread(void (*run)(const void *, int64_t, int64_t, float *), const void *call, int64_t count, int64_t scratch,
                  int threads) {
    Share shares[MOST_THREADS];
    pthread_t ids[MOST_THREADS];
    int started[MOST_THREADS], failed = 0;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > count) threads = (int)count;
    for (int n = 0; n < threads; n++)
        shares[n] = (Share){run, call, count * n / threads, count * (n + 1) / threads, scratch, 0};
    for (int n = 1; n < threads; n++) started[n] = pthread_create(&ids[n], NULL, run_share, &shares[n]) == 0;
    for (int n = 0; n < threads; n++)
        if (n == 0 || !started[n]) run_share(&shares[n]);
    for (int n = 0; n < threads; n++) {
        if (n > 0 && started[n]) pthread_join(ids[n], NULL);
        failed |= shares[n].failed;
    }
    return failed;
}

/* ---- the SRWM ---- */

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

/* The four blocks, from `offset` numbers on in each, side by side. */
static void load_blocks(const Layout *l, float *w, const float *const blocks[4], const int64_t offset[4]) {
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < l->D; i++)
            copy_padded(w + (int64_t)i * l->N + l->start[c], blocks[c] + offset[c] + i * l->width[c], l->width[c]);
}

static void store_blocks(const Layout *l, const float *w, float *const blocks[4], const int64_t offset[4]) {
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < l->D; i++)
            copy(blocks[c] + offset[c] + i * l->width[c], w + (int64_t)i * l->N + l->start[c], l->width[c]);
}

/* Offsets of matrix n of each block, or of head h of batch element b where that has a stride of its own. */
static void offsets_of(const Layout *l, int64_t n, int64_t offset[4]) {
    for (int c = 0; c < 4; c++) offset[c] = n * l->D * l->width[c];
}

static void state_offsets(const Layout *l, const SRWMCall *call, int64_t b, int64_t h, int64_t offset[4]) {
    offsets_of(l, h, offset);
    for (int c = 0; c < 4; c++) offset[c] += b * call->state_stride[c];
}

/* z -> softmax(z), or e^z of length 1. */
INLINE void key(const float *z, int D, int P, int unit_keys, float *out) {
    float top = -INFINITY, total = 0.0f;
    for (int i = 0; i < D; i++) top = z[i] > top ? z[i] : top;
    vec sum = {};
    for (int i = 0; i < P; i += LANES) {
        vec e = exponential(load(z + i) - top);
        for (int n = D - i; n < LANES; n++) e[n] = 0.0f;
        store(out + i, e);
        sum += unit_keys ? e * e : e;
    }
    total = sum_of_lanes(sum);
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

/* Each block's shift from the slow weights, scaled to at most `allowed`; factors: what it was multiplied by. */
static void limited(const Layout *l, float *w, const float *slow, const float *allowed, float *factors) {
    for (int c = 0; c < 4; c++) {
        vec squares = {};
        for (int i = 0; i < l->D; i++)
            for (int j = l->start[c]; j < l->start[c + 1]; j += LANES) {
                vec shift = load(w + (int64_t)i * l->N + j) - load(slow + (int64_t)i * l->N + j);
                squares += shift * shift;
            }
        float size = sqrtf(sum_of_lanes(squares));
        float factor = size <= allowed[c] ? 1.0f : allowed[c] / size;
        factors[c] = factor = isfinite(size) ? factor : 0.0f;
        if (factor < 1.0f)
            for (int i = 0; i < l->D; i++)
                for (int j = l->start[c]; j < l->start[c + 1]; j += LANES) {
                    int64_t at = (int64_t)i * l->N + j;
                    vec base = load(slow + at);
                    store(w + at, factor > 0.0f ? base + factor * (load(w + at) - base) : base);
                }
    }
}

static void srwm_forward_tasks(const void *argument, int64_t first, int64_t last, float *scratch) {
    const SRWMCall *call = argument;
    const Layout l = layout_of(call);
    const int64_t T = call->T, H = call->H;
    float *slow = scratch, *w = slow + l.matrix, *z = w + l.matrix, *r = z + l.N, *d = r + l.N, *row = d + l.P;
    float allowed[4] = {0};
    int64_t at[4];
    for (int64_t task = first, laid_out = -1; task < last; task++) {
        const int64_t h = task / call->B, b = task % call->B;
        const int64_t sequence = b * H + h;
        if (h != laid_out) {
            offsets_of(&l, h, at);
            load_blocks(&l, slow, call->weights, at);
            laid_out = h;
            for (int c = 0; c < 4 && call->limit > 0; c++) {
                vec squares = {};
                for (int i = 0; i < l.D; i++)
                    for (int j = l.start[c]; j < l.start[c + 1]; j += LANES) {
                        vec entry = load(slow + (int64_t)i * l.N + j);
                        squares += entry * entry;
                    }
                allowed[c] = call->limit * sqrtf(sum_of_lanes(squares));
            }
        }
        if (call->state[0] == NULL) {
            memcpy(w, slow, l.matrix * sizeof(float));
        } else {
            state_offsets(&l, call, b, h, at);
            load_blocks(&l, w, call->state, at);
            for (int64_t n = 0; n < l.matrix; n += LANES) store(w + n, load(w + n) + load(slow + n));
        }
        float *saved = call->saved == NULL ? NULL : call->saved + sequence * call->saved_size;
        for (int64_t t = 0; t < T; t++) {
            if (call->resets != NULL && call->resets[b * T + t]) memcpy(w, slow, l.matrix * sizeof(float));
            if (saved != NULL) {
                row = saved + t * l.row;
                if (t % CHUNK == 0) memcpy(saved + T * l.row + t / CHUNK * l.matrix, w, l.matrix * sizeof(float));
            }
            float *q = row, *k = q + l.P, *u = k + l.P, *rates = u + l.N, *factors = rates + 4;
            const float *x = call->x + ((b * T + t) * H + h) * l.D;

            product(w, l.N, l.D, x, z);
            copy(call->y + ((b * T + t) * H + h) * l.width[0], z, l.width[0]); /* before the update, as published */
            key(z + l.start[1], l.D, l.P, call->unit_keys, q);
            key(z + l.start[2], l.D, l.P, call->unit_keys, k);
            vec rate = 1.0f / (1.0f + exponential(-load(z + l.start[3])));
            memcpy(rates, &rate, 16);

            for (int i = 0; i < l.P; i += LANES) store(d + i, load(q + i) - load(k + i));
            product(w, l.N, l.D, d, u);
            scaled_by_block(&l, rates, u, r);
            if (call->decay == 1.0f) add_outer(w, w, l.N, l.D, k, r);
            else decayed_update(w, w, slow, l.N, l.D, call->decay, k, r);
            if (call->limit > 0) limited(&l, w, slow, allowed, factors);
            else memset(factors, 0, 16);
        }
        for (int64_t n = 0; n < l.matrix; n += LANES) store(w + n, load(w + n) - load(slow + n));
        offsets_of(&l, sequence, at);
        store_blocks(&l, w, call->final, at);
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

static void srwm_backward_tasks(const void *argument, int64_t first, int64_t last, float *scratch) {
    const SRWMCall *call = argument;
    const Layout l = layout_of(call);
    const int64_t T = call->T, H = call->H, transposed = (int64_t)l.N * l.P;
    const int fades = call->decay != 1.0f || call->limit > 0;
    float *slow = scratch, *g = slow + transposed, *total = g + l.matrix, *rows = total + l.matrix;
    float *r = rows + l.matrix, *dr = r + l.N, *du = dr + l.N, *dz = du + l.N, *d = dz + l.N;
    float *dk = d + l.P, *dd = dk + l.P, *dx = dd + l.P, *ws = dx + l.P; /* ws: a chunk's W, transposed */
    int64_t at[4];
    for (int64_t task = first, laid_out = -1; task < last; task++) {
        const int64_t h = task / call->B, b = task % call->B;
        const int64_t sequence = b * H + h;
        const uint8_t *resets = call->resets == NULL ? NULL : call->resets + b * T;
        const float *saved = call->saved + sequence * call->saved_size;
        if (h != laid_out) {
            offsets_of(&l, h, at);
            load_blocks(&l, rows, call->weights, at);
            transpose(slow, l.P, rows, l.N, l.D, l.N);
            laid_out = h;
        }
        offsets_of(&l, sequence, at);
        if (call->dfinal[0] == NULL) memset(g, 0, l.matrix * sizeof(float));
        else load_blocks(&l, g, call->dfinal, at);
        /* The gradient of the slow weights. Without decay and limit it is that of W at the beginning of each episode, less
           that of the final state, W_T - slow; with them the sum of what each step adds to the gradient of W. */
        for (int64_t n = 0; n < l.matrix; n += LANES) store(total + n, fades ? (vec){} : -load(g + n));

        for (int64_t chunk = (T - 1) / CHUNK; chunk >= 0; chunk--) {
            const int64_t start = chunk * CHUNK, stop = start + CHUNK < T ? start + CHUNK : T;
            transpose(ws, l.P, saved + T * l.row + chunk * l.matrix, l.N, l.D, l.N);
            for (int64_t t = start; t + 1 < stop; t++) {
                const float *k = saved + t * l.row + l.P, *u = k + l.P, *rates = u + l.N, *factors = rates + 4;
                float *w = ws + (t - start) * transposed, *next = w + transposed;
                if (resets != NULL && resets[t + 1]) {
                    memcpy(next, slow, transposed * sizeof(float));
                    continue;
                }
                scaled_by_block(&l, rates, u, r);
                if (!fades) {
                    add_outer(next, w, l.P, l.N, r, k);
                    continue;
                }
                decayed_update(next, w, slow, l.P, l.N, call->decay, r, k);
                for (int c = 0; c < 4 && call->limit > 0; c++)
                    for (int64_t n = (int64_t)l.start[c] * l.P; n < (int64_t)l.start[c + 1] * l.P; n += LANES) {
                        vec base = load(slow + n);
                        if (factors[c] < 1.0f)
                            store(next + n, factors[c] > 0 ? base + factors[c] * (load(next + n) - base) : base);
                    }
            }
            for (int64_t t = stop - 1; t >= start; t--) {
                const float *q = saved + t * l.row, *k = q + l.P, *u = k + l.P, *rates = u + l.N, *factors = rates + 4;
                const float *w = ws + (t - start) * transposed;
                const float *x = call->x + ((b * T + t) * H + h) * l.D;
                for (int i = 0; i < l.D && call->limit > 0; i++) scaled_by_block(&l, factors, g + (int64_t)i * l.N, g + (int64_t)i * l.N);

                /* W <- W + k^T r, r = b u. */
                scaled_by_block(&l, rates, u, r);
                two_products(g, l.N, l.D, k, r, dr, dk);
                scaled_by_block(&l, rates, dr, du);
                /* u = (q - k) W. */
                product(w, l.P, l.N, du, dd);
                for (int i = 0; i < l.P; i += LANES) {
                    store(d + i, load(q + i) - load(k + i));
                    store(dk + i, load(dk + i) - load(dd + i));
                }
                /* q, k, b from z = x W, of which y is a part. */
                copy(dz, call->dy + ((b * T + t) * H + h) * l.width[0], l.width[0]);
                key_backward(q, dd, l.P, call->unit_keys, dz + l.start[1]);
                key_backward(k, dk, l.P, call->unit_keys, dz + l.start[2]);
                for (int c = 0; c < 4; c++) {
                    vec products = {};
                    for (int j = l.start[c]; j < l.start[c + 1]; j += LANES) products += load(dr + j) * load(u + j);
                    dz[l.start[3] + c] = rates[c] * (1.0f - rates[c]) * sum_of_lanes(products);
                }
                product(w, l.P, l.N, dz, dx);
                copy(call->dx + ((b * T + t) * H + h) * l.D, dx, l.D);
                add_two_outer(g, fades ? total : NULL, l.N, l.D, call->decay, d, du, x, dz);

                if (resets != NULL && resets[t]) { /* what came before has no part in it */
                    for (int64_t n = 0; n < l.matrix && !fades; n += LANES) store(total + n, load(total + n) + load(g + n));
                    memset(g, 0, l.matrix * sizeof(float));
                }
            }
        }
        for (int64_t n = 0; n < l.matrix && !fades; n += LANES) store(total + n, load(total + n) + load(g + n));
        if (call->dstate[0] != NULL) store_blocks(&l, g, call->dstate, at);
        float *share = call->dweights + b * H * l.D * (l.width[0] + 2 * l.D + 4), *shares[4];
        for (int c = 0; c < 4; c++) {
            shares[c] = share;
            share += H * l.D * l.width[c];
        }
        offsets_of(&l, h, at);
        store_blocks(&l, total, shares, at);
    }
}

/* x [B, T, H, D], weights [H, D, *], state [B, H, D, *], resets [B, T] -> y [B, T, H, O], final [B, H, D, *], saved
   [B, H, saved_size]. 0, or 1 if there is no memory. */
int srwm_forward(const SRWMCall *call) {
    const Layout l = layout_of(call);
    int64_t scratch = 2 * l.matrix + 2 * l.N + l.P + l.row;
    return spread(srwm_forward_tasks, call, call->B * call->H, scratch, call->threads);
}

/* And dy [B, T, H, O], dfinal [B, H, D, *] -> dx [B, T, H, D], dweights [B, H D (O + 2 D + 4)], each batch element's share,
   block after block, dstate [B, H, D, *]. */
int srwm_backward(const SRWMCall *call) {
    const Layout l = layout_of(call);
    int64_t steps = call->T < CHUNK ? call->T : CHUNK;
    int64_t scratch = (1 + steps) * l.N * l.P + 3 * l.matrix + 4 * l.N + 4 * l.P;
    return spread(srwm_backward_tasks, call, call->B * call->H, scratch, call->threads);
}
