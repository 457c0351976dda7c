/* The delta rule on a CPU, forward and backward over time.

       S <- S + k^T u        u = beta e        e = v - k S        y = q S, read after the write */

#include "memories.h"

typedef struct {
    int64_t B, T, H, D, O, saved_size, state_stride, threads; /* saved_size: numbers for each batch element and head */
    const float *q, *k, *v, *beta, *state;                    /* state: NULL for zeros */
    const uint8_t *resets;                                    /* or NULL */
    float *y, *final, *saved;                                 /* saved may be NULL in a forward call */
    const float *dy, *dfinal;                                 /* dfinal: NULL for zeros */
    float *dq, *dk, *dv, *dbeta, *dstate;                     /* dstate: NULL if not wanted */
} DeltaCall;

/* D rows of N padded columns; transposed O rows of P. A saved row is e. */
typedef struct {
    int D, P, O, N;
    int64_t matrix, transposed;
} DeltaLayout;

static DeltaLayout delta_layout(const DeltaCall *call) {
    DeltaLayout l = {.D = (int)call->D, .O = (int)call->O};
    l.P = padded(l.D), l.N = padded(l.O);
    l.matrix = (int64_t)l.D * l.N, l.transposed = (int64_t)l.O * l.P;
    return l;
}

static void load_matrix(const DeltaLayout *l, float *s, const float *from) {
    for (int i = 0; i < l->D; i++) copy_padded(s + (int64_t)i * l->N, from + (int64_t)i * l->O, l->O);
}

static void store_matrix(const DeltaLayout *l, const float *s, float *to) {
    for (int i = 0; i < l->D; i++) copy(to + (int64_t)i * l->O, s + (int64_t)i * l->N, l->O);
}

/* to = factor from, whole vectors. */
INLINE void scaled(float *to, const float *from, float factor, int N) {
    for (int j = 0; j < N; j += LANES) store(to + j, factor * load(from + j));
}

INLINE float dot(const float *a, const float *b, int N) {
    vec products = {};
    for (int j = 0; j < N; j += LANES) products += load(a + j) * load(b + j);
    return sum_of_lanes(products);
}

static int64_t delta_forward_scratch(const DeltaLayout *l) { return l->matrix + 4 * l->N; }

static void delta_forward_tasks(const void *argument, int64_t first, int64_t last, float *scratch) {
    const DeltaCall *call = argument;
    const DeltaLayout l = delta_layout(call);
    const int64_t T = call->T, H = call->H;
    float *s = scratch, *out = s + l.matrix, *u = out + l.N, *v = u + l.N, *error = v + l.N;
    for (int64_t task = first; task < last; task++) {
        const int64_t h = task % H, b = task / H;
        float *saved = call->saved == NULL ? NULL : call->saved + task * call->saved_size;
        if (call->state == NULL) memset(s, 0, l.matrix * sizeof(float));
        else load_matrix(&l, s, call->state + b * call->state_stride + h * l.D * l.O);
        for (int64_t t = 0; t < T; t++) {
            const int64_t at = (b * T + t) * H + h;
            if (call->resets != NULL && call->resets[b * T + t]) memset(s, 0, l.matrix * sizeof(float));
            if (saved != NULL) {
                error = saved + t * l.N;
                if (t % CHUNK == 0) memcpy(saved + T * l.N + t / CHUNK * l.matrix, s, l.matrix * sizeof(float));
            }
            copy_padded(v, call->v + at * l.O, l.O);
            product(s, l.N, l.D, call->k + at * l.D, out);
            for (int j = 0; j < l.N; j += LANES) store(error + j, load(v + j) - load(out + j));
            scaled(u, error, call->beta[at], l.N);
            add_outer(s, s, l.N, l.D, call->k + at * l.D, u);
            product(s, l.N, l.D, call->q + at * l.D, out);
            copy(call->y + at * l.O, out, l.O);
        }
        store_matrix(&l, s, call->final + task * l.D * l.O);
    }
}

static int64_t delta_backward_scratch(const DeltaLayout *l, int64_t T) {
    return (T < CHUNK ? T : CHUNK) * l->transposed + l->matrix + 4 * l->N + 3 * l->P;
}

/* A d in front of a name: the loss's gradient in it. */
static void delta_backward_tasks(const void *argument, int64_t first, int64_t last, float *scratch) {
    const DeltaCall *call = argument;
    const DeltaLayout l = delta_layout(call);
    const int64_t T = call->T, H = call->H;
    /* g: gradient of S. ss: S as each step of the chunk finds it, transposed. */
    float *g = scratch, *dy = g + l.matrix, *u = dy + l.N, *du = u + l.N, *de = du + l.N, *k = de + l.N;
    float *row = k + l.P, *dk = row + l.P, *ss = dk + l.P;
    for (int64_t task = first; task < last; task++) {
        const int64_t h = task % H, b = task / H;
        const uint8_t *resets = call->resets == NULL ? NULL : call->resets + b * T;
        const float *saved = call->saved + task * call->saved_size;
        if (call->dfinal == NULL) memset(g, 0, l.matrix * sizeof(float));
        else load_matrix(&l, g, call->dfinal + task * l.D * l.O);
        for (int64_t start = (T - 1) / CHUNK * CHUNK, stop = T; start >= 0; stop = start, start -= CHUNK) {
            transpose(ss, l.P, saved + T * l.N + start / CHUNK * l.matrix, l.N, l.D, l.O);
            for (int64_t t = start; t < stop; t++) {
                const int64_t at = (b * T + t) * H + h;
                float *s = ss + (t - start) * l.transposed;
                if (resets != NULL && resets[t]) memset(s, 0, l.transposed * sizeof(float));
                if (t + 1 == stop) break;
                copy_padded(k, call->k + at * l.D, l.D);
                scaled(u, saved + t * l.N, call->beta[at], l.N);
                add_outer(s + l.transposed, s, l.P, l.O, u, k);
            }
            for (int64_t t = stop - 1; t >= start; t--) {
                const int64_t at = (b * T + t) * H + h;
                const float *before = ss + (t - start) * l.transposed, *error = saved + t * l.N, beta = call->beta[at];

                /* y = q S after the write, which is what was before and k^T u, u = beta e. */
                scaled(u, error, beta, l.N);
                copy_padded(k, call->k + at * l.D, l.D);
                copy_padded(dy, call->dy + at * l.O, l.O);
                product(before, l.P, l.O, dy, row);
                const float along = dot(u, dy, l.N);
                for (int i = 0; i < l.P; i += LANES) store(row + i, load(row + i) + along * load(k + i));
                copy(call->dq + at * l.D, row, l.D);
                add_outer(g, g, l.N, l.D, call->q + at * l.D, dy);
                /* S <- S + k^T u. */
                product(g, l.N, l.D, k, du);
                row_products(g, l.N, l.D, u, dk);
                call->dbeta[at] = dot(du, error, l.N);
                /* e = v - k S before the write. */
                scaled(de, du, beta, l.N);
                copy(call->dv + at * l.O, de, l.O);
                product(before, l.P, l.O, de, row);
                for (int i = 0; i < l.P; i += LANES) store(dk + i, load(dk + i) - load(row + i));
                copy(call->dk + at * l.D, dk, l.D);
                scaled(de, de, -1.0f, l.N);
                add_outer(g, g, l.N, l.D, k, de);

                if (resets != NULL && resets[t]) memset(g, 0, l.matrix * sizeof(float));
            }
        }
        if (call->dstate != NULL) store_matrix(&l, g, call->dstate + task * l.D * l.O);
    }
}

/* q, k [B, T, H, D], v [B, T, H, O], beta [B, T, H], state [B, H, D, O], resets [B, T] -> y [B, T, H, O], final [B, H, D, O],
   saved [B, H, saved_size]. 0, or 1 if there is no memory. */
int delta_forward(const DeltaCall *call) {
    const DeltaLayout l = delta_layout(call);
    return spread(delta_forward_tasks, call, call->B * call->H, delta_forward_scratch(&l), (int)call->threads);
}

/* And dy [B, T, H, O], dfinal [B, H, D, O] -> dq, dk [B, T, H, D], dv [B, T, H, O], dbeta [B, T, H], dstate [B, H, D, O]. */
int delta_backward(const DeltaCall *call) {
    const DeltaLayout l = delta_layout(call);
    return spread(delta_backward_tasks, call, call->B * call->H, delta_backward_scratch(&l, call->T), (int)call->threads);
}
