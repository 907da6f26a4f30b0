/* The selective scan, forward and backward, for one precision (REAL, see vectors.h).
 *
 * Work is cut into (sample, group of channel blocks) pieces; inside a piece time advances in tiles of TILE steps, and
 * all blocks go through a tile before the next one, because their rows share pages. Channels lie along the lanes,
 * states are unrolled over registers, so neither exp(dt A) nor the state ever goes to memory beyond the cache. The forward keeps the state at the start of each tile when a backward will follow; the backward walks the
 * tiles the other way and recomputes each from its checkpoint. A reverse scan differs only in the rows it visits.
 */
#define TILE 32
#define GROUP 4                    /* channel blocks of a piece, which share one partial sum of dB and dC in the backward */
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

/* The part of the tensors that a tile of one block covers; tiles beyond the last are empty. */
static inline NAME(span) NAME(span_of)(const NAME(scan) *call, const NAME(direction) *p, int64_t b, int64_t tile, int64_t block) {
    const int64_t start = tile * TILE, left = call->length - start, d = block * BLOCK;
    NAME(span) at = {b, p->reverse ? call->length - 1 - start : start, p->reverse ? -1 : 1, d, 0, 0};
    at.count = (int)(left < TILE ? left : TILE);
    at.width = (int)(call->width - d < BLOCK ? call->width - d : BLOCK);
    return at;
}

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
        V sums[2] = {SPLAT(0), SPLAT(0)};      /* short chains round less than one long one */
#pragma GCC unroll 4
        for (int k = 0; k < states; k += AT_ONCE) {
            const int some = states - k < AT_ONCE ? states - k : AT_ONCE;
            V a[AT_ONCE];
            NAME(exp2_products)(some, step, A + k * BLOCK, a);
            EACH(i, some) state[k + i] = a[i] * state[k + i] + input * B[s * n + k + i];
            EACH(i, some) sums[i & 1] += state[k + i] * C[s * n + k + i];
        }
        STORE(y + s * BLOCK, LOAD(y + s * BLOCK) + (sums[0] + sums[1]));
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

typedef struct {
    REAL *dt, *drive, *y, *rows;   /* of one tile of a block; rows: two converted rows */
    REAL *B, *C;                   /* of one tile */
    REAL *h, *bias, *D;            /* of all blocks of the piece */
    tensor sum;                    /* where the outputs of the first direction wait for the second */
} NAME(buffers);

/* dt, the drive dt u and the skip D u of a tile of one block. */
static void NAME(forward_inputs)(const NAME(scan) *call, const NAME(direction) *p, NAME(span) at, const REAL *bias,
                                 const REAL *D, NAME(buffers) *w) {
    for (int s = 0; s < at.count; s++) {
        const REAL *delta = NAME(view_row)(&p->delta, at, s, w->rows), *u = NAME(view_row)(&p->u, at, s, w->rows + BLOCK);
        for (int v = 0; v < BLOCK; v += LANES) {
            V x = LOAD(delta + v) + LOAD(bias + v), input = LOAD(u + v), slope;
            V dt = call->softplus ? NAME(softplus)(x, &slope) : x;
            STORE(w->dt + s * BLOCK + v, dt);
            STORE(w->drive + s * BLOCK + v, dt * input);
            STORE(w->y + s * BLOCK + v, LOAD(D + v) * input);
        }
    }
}

/* Add what the first direction left, or leave it for the second; gate and write. */
static void NAME(forward_outputs)(const NAME(scan) *call, int which, NAME(span) at, NAME(buffers) *w) {
    const int is_last = which == call->directions - 1, gated = is_last && call->z.data;
    const tensor *to = is_last ? &call->out : &w->sum;
    const int direct = to->type == REAL_TYPE && at.width == BLOCK;
    for (int s = 0; s < at.count; s++) {
        const REAL *z = gated ? NAME(view_row)(&call->z, at, s, w->rows) : NULL;
        const REAL *sum = which ? NAME(view_row)(&w->sum, at, s, w->rows + BLOCK) : NULL;
        char *target = NAME(row)(to, at.b, at.first + s * at.step, at.d);
        REAL *out = direct ? (REAL *)target : w->y + s * BLOCK;
        for (int v = 0; v < BLOCK; v += LANES) {
            V y = LOAD(w->y + s * BLOCK + v), gate;
            if (sum) y += LOAD(sum + v);
            if (z) gate = LOAD(z + v), y *= gate * NAME(sigmoid)(gate);
            STORE(out + v, y);
        }
        if (!direct) NAME(write_row)(target, to->type, at.width, out);
    }
}

/* The tile of one block: the rows to read after this one are fetched while it is computed. */
static void NAME(forward_tile)(const NAME(scan) *call, int which, NAME(span) at, NAME(span) next, const REAL *rates,
                               int64_t slot, NAME(buffers) *w) {
    const NAME(direction) *p = &call->dir[which];
    const int64_t n = call->states, length = call->length;
    const tensor *read_last = which + 1 == call->directions ? &call->z : &w->sum;
    const NAME(ahead) later[4] = {NAME(fetch_later)(&p->u, next, length), NAME(fetch_later)(&p->delta, next, length),
                                  NAME(fetch_later)(read_last, at, length), NAME(fetch_later)(&call->out, at, length)};
    NAME(forward_inputs)(call, p, at, w->bias + slot * BLOCK, w->D + slot * BLOCK, w);
    NAME(advance_all)(n, at.count, w->dt, w->drive, rates, w->B, w->C, w->h + slot * n * BLOCK, w->y, at.width, later);
    NAME(forward_outputs)(call, which, at, w);
}

/* One direction of a piece: the blocks from .. to of sample b. */
static void NAME(forward_direction)(const NAME(scan) *call, int which, int64_t b, int64_t from, int64_t to, NAME(buffers) *w) {
    const NAME(direction) *p = &call->dir[which];
    const int64_t n = call->states, tiles = NAME(tiles)(call->length), padded = NAME(blocks)(call->width) * BLOCK;
    for (int64_t block = from; block < to; block++) {
        const NAME(span) at = NAME(span_of)(call, p, b, 0, block);
        NAME(read_vector)(p->bias, at.d, at.width, w->bias + (block - from) * BLOCK);
        NAME(read_vector)(p->D, at.d, at.width, w->D + (block - from) * BLOCK);
    }
    memset(w->h, 0, (size_t)((to - from) * n * BLOCK) * sizeof(REAL));
    for (int64_t tile = 0; tile < tiles; tile++) {
        NAME(span) at = NAME(span_of)(call, p, b, tile, from);
        NAME(read_tile)(&p->B, b, at.first, at.step, at.count, 0, (int)n, (int)n, w->B);
        NAME(read_tile)(&p->C, b, at.first, at.step, at.count, 0, (int)n, (int)n, w->C);
        for (int64_t block = from; block < to; block++) {
            const int last = block + 1 == to;
            const NAME(span) next = NAME(span_of)(call, p, b, tile + last, last ? from : block + 1);
            if (p->checkpoints)
                for (int64_t k = 0; k < n; k++)
                    memcpy(p->checkpoints + ((b * tiles + tile) * n + k) * padded + at.d,
                           w->h + ((block - from) * n + k) * BLOCK, BLOCK * sizeof(REAL));
            NAME(forward_tile)(call, which, at, next, call->rates[which] + block * n * BLOCK, block - from, w);
            at = next;
        }
    }
    if (p->last_state)
        for (int64_t d = from * BLOCK; d < to * BLOCK && d < call->width; d++)
            for (int64_t k = 0; k < n; k++)
                p->last_state[(b * call->width + d) * n + k] = w->h[((d / BLOCK - from) * n + k) * BLOCK + d % BLOCK];
}

static void NAME(forward)(NAME(scan) *call, int threads) {
    const int64_t blocks = NAME(blocks)(call->width), groups = (blocks + GROUP - 1) / GROUP, pieces = call->batch * groups;
    const size_t n = (size_t)call->states, tile = TILE * BLOCK, span = GROUP * BLOCK;
    /* out itself holds the first direction's outputs unless they would be rounded there */
    const size_t sum = call->directions == 2 && call->out.type != REAL_TYPE ? (size_t)call->length * span : 0;
    (void)threads;
    NAME(lay_out_rates)(call);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        REAL *memory = scratch((3 * tile + 2 * TILE * n + 2 * BLOCK + (n + 2) * span + sum) * sizeof(REAL));
        NAME(buffers) w;
        w.dt = memory, w.drive = w.dt + tile, w.y = w.drive + tile, w.rows = w.y + tile, w.h = w.rows + 2 * BLOCK;
        w.bias = w.h + n * span, w.D = w.bias + span, w.B = w.D + span, w.C = w.B + TILE * n, w.sum = call->out;
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t from = piece % groups * GROUP, to = from + GROUP < blocks ? from + GROUP : blocks;
            if (sum) w.sum = (tensor){(char *)(w.C + TILE * n) - from * BLOCK * (int64_t)sizeof(REAL), 0, span, REAL_TYPE};
            for (int which = 0; which < call->directions; which++)
                NAME(forward_direction)(call, which, piece / groups, from, to, &w);
        }
        free(memory);
        restore_denormals(saved);
    }
    NAME(free_rates)(call);
}
