/* Depthwise causal convolution with an optional SiLU, channels-last; `reverse` looks into the future instead.
 *
 * Pieces are (sample, channel block); a piece runs through time in tiles with the taps - 1 rows before them, so each
 * row of x is read from memory once. Time here is the direction's own: row `at(t)` of the tensors is its step t.
 */
#define CONV_TILE 64
#define CONV_STEP 8 /* rows computed between two fetches, so that few of them are under way at once */

typedef struct {
    int64_t batch, length, width, taps, silu, reverse;
    tensor x, out;                 /* in the backward, out is the incoming gradient */
    const REAL *weight, *bias;     /* (d, taps), (d) or NULL */
    tensor dx;
    REAL *dweight, *dbias;         /* (b, d, taps), (b, d): one partial sum for each sample */
} NAME(conv);

static inline int64_t NAME(conv_row)(const NAME(conv) *call, int64_t t) {
    return call->reverse ? call->length - 1 - t : t;
}

/* Steps start .. start + count of a piece; steps outside the sequence are zero. */
static void NAME(conv_read)(const NAME(conv) *call, const tensor *x, int64_t b, int64_t start, int count, int64_t d,
                            int width, REAL *out) {
    for (int s = 0; s < count; s++) {
        const int64_t t = start + s;
        if (t < 0 || t >= call->length) memset(out + s * BLOCK, 0, BLOCK * sizeof(REAL));
        else NAME(read_row)(NAME(row)(x, b, NAME(conv_row)(call, t), d), x->type, width, BLOCK, out + s * BLOCK);
    }
}

/* Ask for the rows of steps start .. start + count, which are read or written soon. */
static inline void NAME(conv_fetch)(const NAME(conv) *call, const tensor *x, int64_t b, int64_t start, int count,
                                    int64_t d, int width) {
    const int bytes = width * (x->type == BFLOAT16 ? 2 : (int)sizeof(REAL));
    for (int s = 0; s < count; s++) {
        const int64_t t = start + s;
        if (t < 0 || t >= call->length) continue;
        const char *row = (const char *)NAME(row)(x, b, NAME(conv_row)(call, t), d);
        for (int i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
    }
}

static void NAME(conv_weights)(const NAME(conv) *call, int64_t d, int width, REAL *weight, REAL *bias) {
    NAME(transpose_block)(call->weight, d, width, call->taps, 1, weight);
    NAME(read_vector)(call->bias, d, width, bias);
}

/* x starts taps - 1 rows before the first output. */
static inline __attribute__((always_inline)) void NAME(conv_rows)(const int taps, int count, int silu, const REAL *x,
                                                                  const REAL *weight, const REAL *bias, REAL *out) {
    for (int v = 0; v < BLOCK; v += LANES) {
        V first = LOAD(bias + v);
        for (int s = 0; s < count; s++) {
            V y = first;
            for (int j = 0; j < taps; j++) y += LOAD(weight + j * BLOCK + v) * LOAD(x + (s + j) * BLOCK + v);
            STORE(out + s * BLOCK + v, silu ? y * NAME(sigmoid)(y) : y);
        }
    }
}

static void NAME(conv_forward_piece)(const NAME(conv) *call, int64_t b, int64_t d, REAL *memory) {
    const int taps = (int)call->taps, width = (int)(call->width - d < BLOCK ? call->width - d : BLOCK);
    REAL *weight = memory, *bias = weight + taps * BLOCK, *x = bias + BLOCK, *out = x + (CONV_TILE + taps) * BLOCK;
    NAME(conv_weights)(call, d, width, weight, bias);
    for (int64_t start = 0; start < call->length; start += CONV_TILE) {
        const int count = (int)(call->length - start < CONV_TILE ? call->length - start : CONV_TILE);
        NAME(conv_read)(call, &call->x, b, start - (taps - 1), count + taps - 1, d, width, x);
        for (int s = 0; s < count; s += CONV_STEP) {
            const int rows = count - s < CONV_STEP ? count - s : CONV_STEP;
            NAME(conv_fetch)(call, &call->x, b, start + CONV_TILE + s, rows, d, width);
            NAME(conv_fetch)(call, &call->out, b, start + s, rows, d, width);
            if (taps == 4) NAME(conv_rows)(4, rows, (int)call->silu, x + s * BLOCK, weight, bias, out + s * BLOCK);
            else NAME(conv_rows)(taps, rows, (int)call->silu, x + s * BLOCK, weight, bias, out + s * BLOCK);
        }
        for (int s = 0; s < count; s++)
            NAME(write_row)(NAME(row)(&call->out, b, NAME(conv_row)(call, start + s), d), call->out.type, width,
                            out + s * BLOCK);
    }
}

/* From the gradient of the outputs to that before the activation, of steps start .. start + count. */
static void NAME(conv_pre_gradient)(const NAME(conv) *call, int count, const REAL *x, const REAL *weight,
                                    const REAL *bias, REAL *g) {
    if (!call->silu) return;
    for (int s = 0; s < count; s++)
        for (int v = 0; v < BLOCK; v += LANES) {
            V y = LOAD(bias + v);
            for (int j = 0; j < (int)call->taps; j++) y += LOAD(weight + j * BLOCK + v) * LOAD(x + (s + j) * BLOCK + v);
            V sigma = NAME(sigmoid)(y);
            STORE(g + s * BLOCK + v, LOAD(g + s * BLOCK + v) * sigma * (1 + y * (1 - sigma)));
        }
}

static void NAME(conv_backward_piece)(const NAME(conv) *call, int64_t b, int64_t d, REAL *memory) {
    const int taps = (int)call->taps, halo = taps - 1;
    const int width = (int)(call->width - d < BLOCK ? call->width - d : BLOCK);
    REAL *weight = memory, *bias = weight + taps * BLOCK, *dweight = bias + BLOCK, *dbias = dweight + taps * BLOCK;
    REAL *x = dbias + BLOCK, *g = x + (CONV_TILE + 2 * taps) * BLOCK, *dx = g + (CONV_TILE + taps) * BLOCK;
    NAME(conv_weights)(call, d, width, weight, bias);
    memset(dweight, 0, (size_t)(taps + 1) * BLOCK * sizeof(REAL));
    for (int64_t start = 0; start < call->length; start += CONV_TILE) {
        const int count = (int)(call->length - start < CONV_TILE ? call->length - start : CONV_TILE);
        /* dx of the last steps of a tile needs the gradients of the first steps after it */
        NAME(conv_read)(call, &call->x, b, start - halo, count + 2 * halo, d, width, x);
        NAME(conv_read)(call, &call->out, b, start, count + halo, d, width, g);
        NAME(conv_pre_gradient)(call, count + halo, x, weight, bias, g);
        for (int v = 0; v < BLOCK; v += LANES) {
            V total = LOAD(dbias + v);
            for (int s = 0; s < count; s++) {
                V here = SPLAT(0);
                for (int j = 0; j < taps; j++) here += LOAD(weight + j * BLOCK + v) * LOAD(g + (s + halo - j) * BLOCK + v);
                STORE(dx + s * BLOCK + v, here);
                total += LOAD(g + s * BLOCK + v);
            }
            STORE(dbias + v, total);
            for (int j = 0; j < taps; j++) {
                V sum = LOAD(dweight + j * BLOCK + v);
                for (int s = 0; s < count; s++) sum += LOAD(g + s * BLOCK + v) * LOAD(x + (s + j) * BLOCK + v);
                STORE(dweight + j * BLOCK + v, sum);
            }
        }
        for (int s = 0; s < count; s++) {
            NAME(conv_fetch)(call, &call->x, b, start + CONV_TILE + halo + s, 1, d, width);
            NAME(conv_fetch)(call, &call->out, b, start + CONV_TILE + halo + s, 1, d, width);
            NAME(write_row)(NAME(row)(&call->dx, b, NAME(conv_row)(call, start + s), d), call->dx.type, width,
                            dx + s * BLOCK);
        }
    }
    for (int i = 0; i < width; i++) {
        const int64_t at = b * call->width + d + i;
        for (int j = 0; j < taps; j++) call->dweight[at * taps + j] = dweight[j * BLOCK + i];
        call->dbias[at] = dbias[i];
    }
}

static void NAME(conv_run)(const NAME(conv) *call, int backward, int threads) {
    const int64_t blocks = NAME(blocks)(call->width), pieces = call->batch * blocks;
    const size_t rows = (size_t)(3 * CONV_TILE + 6 * call->taps + 4);
    (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        REAL *memory = scratch(rows * BLOCK * sizeof(REAL));
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < pieces; piece++) {
            if (backward) NAME(conv_backward_piece)(call, piece / blocks, piece % blocks * BLOCK, memory);
            else NAME(conv_forward_piece)(call, piece / blocks, piece % blocks * BLOCK, memory);
        }
        free(memory);
        restore_denormals(saved);
    }
}
