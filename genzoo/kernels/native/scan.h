/* The selective scan, forward and backward, for one precision (REAL, see vectors.h).
 *
 * Work is cut into (sample, channel block) pieces; inside a piece time advances in tiles of TILE steps. Channels lie
 * along the lanes, states are unrolled over registers, so neither exp(dt A) nor the state ever goes to memory beyond
 * the cache. The forward keeps the state at the start of each tile when a backward will follow; the backward walks the
 * tiles the other way and recomputes each from its checkpoint. A reverse scan differs only in the rows it visits.
 */
#define TILE 32
#define GROUP 4                    /* channel blocks that share one partial sum of dB and dC in the backward */
#define STATES_FORWARD (VECTOR_BYTES == 64 ? 16 : 8)
#define STATES_BACKWARD 4
#define LOG2E ((REAL)1.4426950408889634074)

typedef struct {
    tensor u, delta, B, C;
    const REAL *A, *D, *bias;      /* (d, n); (d) or NULL */
    REAL *checkpoints;             /* (b, tiles, n, padded d) or NULL */
    REAL *last_state;              /* (b, d, n) or NULL */
    int64_t reverse;
} NAME(direction);

typedef struct {
    int64_t batch, length, width, states, softplus, directions;
    tensor z, out;
    NAME(direction) dir[2];
    REAL *rates[2];                /* A log2(e), because the kernels use 2^x, as (blocks, n, BLOCK) */
} NAME(scan);

static inline int64_t NAME(tiles)(int64_t length) { return (length + TILE - 1) / TILE; }
static inline int64_t NAME(blocks)(int64_t width) { return (width + BLOCK - 1) / BLOCK; }

/* Rows of (d, n) as (n, BLOCK) for one block, times a factor. */
static void NAME(transpose_block)(const REAL *A, int64_t d, int width, int64_t n, REAL factor, REAL *out) {
    for (int i = 0; i < BLOCK; i++)
        for (int64_t k = 0; k < n; k++) out[k * BLOCK + i] = i < width ? A[(d + i) * n + k] * factor : 0;
}

static void NAME(lay_out_rates)(NAME(scan) *call) {
    const int64_t blocks = NAME(blocks)(call->width), size = call->states * BLOCK;
    for (int i = 0; i < call->directions; i++) {
        call->rates[i] = scratch((size_t)(blocks * size) * sizeof(REAL));
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t d = block * BLOCK, left = call->width - d;
            NAME(transpose_block)(call->dir[i].A, d, (int)(left < BLOCK ? left : BLOCK), call->states, LOG2E,
                                  call->rates[i] + block * size);
        }
    }
}

static void NAME(free_rates)(NAME(scan) *call) {
    for (int i = 0; i < call->directions; i++) free(call->rates[i]);
}

static void NAME(read_vector)(const REAL *x, int64_t d, int width, REAL *out) {
    for (int i = 0; i < BLOCK; i++) out[i] = x && i < width ? x[d + i] : 0;
}

/* In place: delta becomes dt; slope, if wanted, becomes d dt / d delta. */
static inline __attribute__((always_inline)) void NAME(discretise)(REAL *delta, REAL *slope, const REAL *bias, int count, int softplus) {
    for (int s = 0; s < count; s++)
        for (int v = 0; v < BLOCK; v += LANES) {
            V p = LOAD(delta + s * BLOCK + v) + LOAD(bias + v), derivative = SPLAT(1);
            STORE(delta + s * BLOCK + v, softplus ? NAME(softplus)(p, &derivative) : p);
            if (slope) STORE(slope + s * BLOCK + v, derivative);
        }
}

/* Advance `states` states of one vector of channels over a tile, adding their read-out to y. */
static inline __attribute__((always_inline)) void NAME(advance)(
    const int states, int count, const REAL *dt, const REAL *drive, const REAL *A, const REAL *B, const REAL *C,
    int64_t n, REAL *h, REAL *y, const NAME(ahead) *later, int vector) {
    const char *u = later[0].first + vector * later[0].bytes, *delta = later[1].first + vector * later[1].bytes;
    const char *z = later[2].first + vector * later[2].bytes, *out = later[3].first + vector * later[3].bytes;
    V state[STATES_FORWARD];
#pragma GCC unroll 16
    for (int k = 0; k < states; k++) state[k] = LOAD(h + k * BLOCK);
    for (int s = 0; s < count; s++) {
        __builtin_prefetch(u), __builtin_prefetch(delta), __builtin_prefetch(z), __builtin_prefetch(out, 1);
        u += later[0].step, delta += later[1].step, z += later[2].step, out += later[3].step;
        V step = LOAD(dt + s * BLOCK), input = LOAD(drive + s * BLOCK);
        V sums[4] = {SPLAT(0), SPLAT(0), SPLAT(0), SPLAT(0)};      /* short chains round less than one long one */
#pragma GCC unroll 16
        for (int k = 0; k < states; k++) {
            V a = NAME(exp2_product)(step, LOAD(A + k * BLOCK));
            state[k] = a * state[k] + input * B[s * n + k];
            sums[k & 3] += state[k] * C[s * n + k];
        }
        STORE(y + s * BLOCK, LOAD(y + s * BLOCK) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
    }
#pragma GCC unroll 16
    for (int k = 0; k < states; k++) STORE(h + k * BLOCK, state[k]);
}

static void NAME(advance_all)(int64_t n, int count, const REAL *dt, const REAL *drive, const REAL *A, const REAL *B,
                              const REAL *C, REAL *h, REAL *y, int width, const NAME(ahead) *later) {
    for (int v = 0; v < width; v += LANES) {
        int64_t k = 0;
#define ARGUMENTS count, dt + v, drive + v, A + k * BLOCK + v, B + k, C + k, n, h + k * BLOCK + v, y + v, later, v / LANES
        for (; k + STATES_FORWARD <= n; k += STATES_FORWARD) NAME(advance)(STATES_FORWARD, ARGUMENTS);
        for (; k + 4 <= n; k += 4) NAME(advance)(4, ARGUMENTS);
        for (; k < n; k++) NAME(advance)(1, ARGUMENTS);
#undef ARGUMENTS
    }
}

typedef struct { REAL *dt, *u, *drive, *y, *z, *B, *C, *h, *bias, *D, *sum; } NAME(buffers);

/* One direction of one block. With `sum`, the outputs of the first direction wait there for the second. */
static void NAME(forward_direction)(const NAME(scan) *call, int which, int64_t b, int64_t block, NAME(buffers) *w) {
    const NAME(direction) *p = &call->dir[which];
    const int64_t n = call->states, length = call->length, d = block * BLOCK, tiles = NAME(tiles)(length);
    const int64_t padded = NAME(blocks)(call->width) * BLOCK;
    const int width = (int)(call->width - d < BLOCK ? call->width - d : BLOCK);
    const int is_last = which == call->directions - 1, gated = is_last && call->z.data;
    const REAL *rates = call->rates[which] + block * n * BLOCK;
    NAME(read_vector)(p->bias, d, width, w->bias);
    NAME(read_vector)(p->D, d, width, w->D);
    memset(w->h, 0, (size_t)n * BLOCK * sizeof(REAL));
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t start = tile * TILE, step = p->reverse ? -1 : 1, first = p->reverse ? length - 1 - start : start;
        const int count = (int)(length - start < TILE ? length - start : TILE);
        if (p->checkpoints)
            for (int64_t k = 0; k < n; k++)
                memcpy(p->checkpoints + ((b * tiles + tile) * n + k) * padded + d, w->h + k * BLOCK, BLOCK * sizeof(REAL));
        NAME(read_tile)(&p->delta, b, first, step, count, d, width, BLOCK, w->dt);
        NAME(read_tile)(&p->u, b, first, step, count, d, width, BLOCK, w->u);
        NAME(read_tile)(&p->B, b, first, step, count, 0, (int)n, (int)n, w->B);
        NAME(read_tile)(&p->C, b, first, step, count, 0, (int)n, (int)n, w->C);
        NAME(discretise)(w->dt, NULL, w->bias, count, (int)call->softplus);
        for (int s = 0; s < count; s++) {
            REAL *sum = w->sum + (first + s * step) * BLOCK;
            for (int v = 0; v < BLOCK; v += LANES) {
                V u = LOAD(w->u + s * BLOCK + v), y = u * LOAD(w->D + v);
                STORE(w->drive + s * BLOCK + v, u * LOAD(w->dt + s * BLOCK + v));
                STORE(w->y + s * BLOCK + v, which ? y + LOAD(sum + v) : y);
            }
        }
        const int64_t next = first + step * TILE;
        const tensor none = {0}, *gate = gated ? &call->z : &none, *result = is_last ? &call->out : &none;
        const NAME(ahead) later[4] = {NAME(fetch_later)(&p->u, b, next, step, d, length),
                                      NAME(fetch_later)(&p->delta, b, next, step, d, length),
                                      NAME(fetch_later)(gate, b, first, step, d, length),
                                      NAME(fetch_later)(result, b, first, step, d, length)};
        NAME(advance_all)(n, count, w->dt, w->drive, rates, w->B, w->C, w->h, w->y, width, later);
        if (!is_last) {
            for (int s = 0; s < count; s++)
                memcpy(w->sum + (first + s * step) * BLOCK, w->y + s * BLOCK, BLOCK * sizeof(REAL));
            continue;
        }
        if (gated) {
            NAME(read_tile)(&call->z, b, first, step, count, d, width, BLOCK, w->z);
            for (int i = 0; i < count * BLOCK; i += LANES) {
                V z = LOAD(w->z + i);
                STORE(w->y + i, LOAD(w->y + i) * z * NAME(sigmoid)(z));
            }
        }
        NAME(write_tile)(&call->out, b, first, step, count, d, width, BLOCK, w->y);
    }
    if (p->last_state)
        for (int i = 0; i < width; i++)
            for (int64_t k = 0; k < n; k++) p->last_state[(b * call->width + d + i) * n + k] = w->h[k * BLOCK + i];
}

static void NAME(forward)(NAME(scan) *call, int threads) {
    const int64_t blocks = NAME(blocks)(call->width), pieces = call->batch * blocks, n = call->states;
    const size_t tile = TILE * BLOCK, sum = call->directions == 2 ? (size_t)call->length * BLOCK : 0;
    (void)threads;
    NAME(lay_out_rates)(call);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        REAL *memory = scratch((5 * tile + 2 * TILE * (size_t)n + (size_t)n * BLOCK + 2 * BLOCK + sum) * sizeof(REAL));
        NAME(buffers) w;
        w.dt = memory, w.u = w.dt + tile, w.drive = w.u + tile, w.y = w.drive + tile, w.z = w.y + tile;
        w.h = w.z + tile, w.bias = w.h + n * BLOCK, w.D = w.bias + BLOCK;
        w.sum = w.D + BLOCK, w.B = w.sum + sum, w.C = w.B + TILE * n;
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < pieces; piece++)
            for (int which = 0; which < call->directions; which++)
                NAME(forward_direction)(call, which, piece / blocks, piece % blocks, &w);
        free(memory);
        restore_denormals(saved);
    }
    NAME(free_rates)(call);
}
