/* What the kernels of the memories for a CPU share: vectors, products with matrices, tasks on threads.

   One task is one head of one batch element: its matrix stays in the cache for the whole sequence. Tasks are spread over
   threads. All arrays are float32 and contiguous, apart from a given state, whose batch stride is an argument.

   Matrices are worked on as rows of whole vectors of LANES numbers; padded entries of a matrix, of its gradient and of
   all vectors stay zero. The backward pass multiplies a matrix from its other side, and keeps it transposed, so that no
   product with it is a sum across lanes.

   The forward pass saves the matrix at every CHUNK-th step, and of each step what its update consists of. The backward
   pass takes one chunk after another, from the last: it replays the chunk's updates from the saved matrix, keeping every
   one, and then goes back over the steps. Resets, a decay and a limit are replayed as they were, and no rounding grows.

   LANES and CHUNK are set by library.py. */

#pragma once

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define SHARED static __attribute__((unused))

enum { MOST_THREADS = 256 };

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float quad __attribute__((vector_size(16)));
typedef int32_t iquad __attribute__((vector_size(16)));
/* The same among other numbers in memory. */
typedef float stored_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float stored_quad __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (iquad){__VA_ARGS__})
#endif

INLINE vec load(const float *p) { return (vec)*(const stored_vec *)p; }
INLINE void store(float *p, vec v) { *(stored_vec *)p = (stored_vec)v; }
INLINE quad load_quad(const float *p) { return (quad)*(const stored_quad *)p; }
INLINE void store_quad(float *p, quad v) { *(stored_quad *)p = (stored_quad)v; }
INLINE int padded(int width) { return (width + LANES - 1) / LANES * LANES; }

INLINE vec pick(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

/* Vectors of eight to four, by adding halves. */
INLINE quad folded(vec v) {
    quad low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, (const char *)&v + sizeof low, sizeof high);
    return low + high;
}

INLINE float sum_of_lanes(vec v) {
    quad q = folded(v);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* The sums of four vectors. */
INLINE quad sums_of_lanes(vec a, vec b, vec c, vec d) {
    quad p = folded(a), q = folded(b), r = folded(c), s = folded(d);
    quad pq = SHUFFLE(p, q, 0, 4, 1, 5) + SHUFFLE(p, q, 2, 6, 3, 7);
    quad rs = SHUFFLE(r, s, 0, 4, 1, 5) + SHUFFLE(r, s, 2, 6, 3, 7);
    return SHUFFLE(pq, rs, 0, 1, 4, 5) + SHUFFLE(pq, rs, 2, 3, 6, 7);
}

INLINE float largest_of_lanes(vec v) {
    float top = v[0];
    for (int n = 1; n < LANES; n++) top = v[n] > top ? v[n] : top;
    return top;
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

/* ---- rows of `width` numbers: whole vectors in a matrix of the kernels, and next to each other outside ---- */

/* The first `count` of a vector, which is LANES or less. */
INLINE void store_first(float *to, vec v, int count) {
    if (count >= LANES) {
        store(to, v);
        return;
    }
    int n = 0;
    quad low = {v[0], v[1], v[2], v[3]}, high = {v[4], v[5], v[6], v[7]};
    if (count & 4) store_quad(to, low), low = high, n = 4;
    if (count & 2) to[n] = low[0], to[n + 1] = low[1], low = (quad){low[2], low[3]}, n += 2;
    if (count & 1) to[n] = low[0];
}

/* A vector of the first `count` numbers, which is LANES or less, and zeros. */
INLINE vec load_first(const float *from, int count) {
    if (count >= LANES) return load(from);
    quad low = {}, high = {};
    if (count & 4) {
        low = load_quad(from);
        for (int n = 4; n < count; n++) high[n - 4] = from[n];
    } else {
        for (int n = 0; n < count; n++) low[n] = from[n];
    }
    return (vec){low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
}

/* Out of a kernel's own vectors, which are whole. */
INLINE void copy(float *to, const float *from, int width) {
    for (int j = 0; j < width; j += LANES) store_first(to + j, load(from + j), width - j);
}

/* Into them. */
INLINE void copy_padded(float *to, const float *from, int width) {
    for (int j = 0; j < width; j += LANES) store(to + j, load_first(from + j, width - j));
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

SHARED void product(const float *w, int N, int rows, const float *a, float *out) {
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
    for (int i = 0; i < rows; i++) {
        const float factor = a[i];
        for (int j = 0; j < n; j++) {
            int64_t at = (int64_t)i * N + j * LANES;
            store(to + at, load(from + at) + factor * row[j]);
        }
    }
}

SHARED void add_outer(float *to, const float *from, int N, int rows, const float *a, const float *r) {
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

/* out[i] = sum over j of g[i][j] r[j]. */
SHARED void row_products(const float *g, int N, int rows, const float *r, float *out) {
    int i = 0;
    for (; i + 4 <= rows; i += 4, g += 4 * (int64_t)N) {
        vec a = {}, b = {}, c = {}, d = {};
        for (int j = 0; j < N; j += LANES) {
            vec factor = load(r + j);
            a += load(g + j) * factor;
            b += load(g + (int64_t)N + j) * factor;
            c += load(g + 2 * (int64_t)N + j) * factor;
            d += load(g + 3 * (int64_t)N + j) * factor;
        }
        store_quad(out + i, sums_of_lanes(a, b, c, d));
    }
    for (; i < rows; i++, g += N) {
        vec a = {};
        for (int j = 0; j < N; j += LANES) a += load(g + j) * load(r + j);
        out[i] = sum_of_lanes(a);
    }
}

/* g = keep g + a^T r + b^T s, and, where there is a `total`, total += a^T r + b^T s. */
INLINE void add_two_outer_of(const int n, float *g, float *total, int N, int rows, float keep, const float *a,
                             const float *r, const float *b, const float *s) {
    vec first[n], second[n];
    for (int j = 0; j < n; j++) first[j] = load(r + j * LANES), second[j] = load(s + j * LANES);
    for (int i = 0; i < rows; i++) {
        const float left = a[i], right = b[i];
        for (int j = 0; j < n; j++) {
            int64_t at = (int64_t)i * N + j * LANES;
            if (total == NULL) {
                store(g + at, load(g + at) + left * first[j] + right * second[j]);
            } else {
                vec both = left * first[j] + right * second[j];
                store(g + at, keep * load(g + at) + both);
                store(total + at, load(total + at) + both);
            }
        }
    }
}

SHARED void add_two_outer(float *g, float *total, int N, int rows, float keep, const float *a, const float *r,
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

/* to += factor from, `size` numbers in whole vectors. */
SHARED void add(float *to, const float *from, float factor, int64_t size) {
    for (int64_t n = 0; n < size; n += LANES) store(to + n, load(to + n) + factor * load(from + n));
}

/* to[j][i] = from[i][j] for the first `columns` of them; rows of `to` are M numbers, its padding is not written. */
SHARED void transpose(float *to, int M, const float *from, int N, int rows, int columns) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) to[(int64_t)j * M + i] = from[(int64_t)i * N + j];
}

/* ---- tasks on threads ---- */

/* A call's tasks: threads take `stretch` of them at a time, so that none waits for one whose processor is busy. */
typedef struct {
    void (*run)(const void *call, int64_t first, int64_t last, float *scratch);
    const void *call;
    int64_t count, stretch, scratch, next;
    int failed;
} Tasks;

static void *take_tasks(void *argument) {
    Tasks *tasks = argument;
    float *scratch = NULL;
    int64_t first = __atomic_fetch_add(&tasks->next, tasks->stretch, __ATOMIC_RELAXED);
    if (first >= tasks->count) return NULL;
    if (posix_memalign((void **)&scratch, 64, (size_t)tasks->scratch * sizeof(float)) != 0) {
        __atomic_store_n(&tasks->failed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    memset(scratch, 0, (size_t)tasks->scratch * sizeof(float));
    for (; first < tasks->count; first = __atomic_fetch_add(&tasks->next, tasks->stretch, __ATOMIC_RELAXED)) {
        const int64_t last = first + tasks->stretch;
        tasks->run(tasks->call, first, last < tasks->count ? last : tasks->count, scratch);
    }
    free(scratch);
    return NULL;
}

/* Run tasks 0 to count - 1, each thread with `scratch` numbers of its own, zeros at first. 0, or 1 without memory.
   Threads live for one call: a process that forks afterwards inherits none. */
SHARED int spread(void (*run)(const void *, int64_t, int64_t, float *), const void *call, int64_t count, int64_t scratch,
                  int threads) {
    pthread_t ids[MOST_THREADS];
    int started[MOST_THREADS];
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > count) threads = (int)count;
    Tasks tasks = {run, call, count, threads > 1 ? (count + 4 * threads - 1) / (4 * threads) : count, scratch, 0, 0};
    for (int n = 1; n < threads; n++) started[n] = pthread_create(&ids[n], NULL, take_tasks, &tasks) == 0;
    take_tasks(&tasks);
    for (int n = 1; n < threads; n++)
        if (started[n]) pthread_join(ids[n], NULL);
    return tasks.failed;
}
