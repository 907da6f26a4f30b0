/* Gradients of softmax(scale q k^T + bias) v, one head at a time, from what the forward kept: its result and, for each
 * row, the logarithm of its sum of exponentials.
 *
 * Scores are computed again for a few rows at a time and all keys, so that they stay in the cache; every product is
 * computed and summed in REAL, whatever type the tensors have. Keys are kept twice, as rows and as panels of PANEL
 * columns, values as panels: then each of the five products reads one operand along its rows and broadcasts the other.
 */
#define ATT_ROWS 32                /* rows of a piece: a multiple of ATT_TILE */
#define ATT_TILE 8                 /* rows of what lies in registers, beside two vectors */
#define PANEL (2 * LANES)

typedef struct { tensor x; int64_t head_stride; } NAME(heads); /* (b, h, l, d) */

typedef struct {
    int64_t batch, heads, rows, keys, width;
    REAL scale;
    NAME(heads) q, k, v, out, grad, bias, dq, dk, dv; /* bias: (b, h, rows, keys), or absent */
    const REAL *sums;              /* (b, h, rows) */
} NAME(attention);

/* What one head needs; widths, keys and rows are padded with zeros. */
typedef struct {
    int64_t b, h, width, keys, stride; /* stride: of a row of scores */
    REAL *keys_as_rows, *key_panels, *value_panels, *dk, *dv;
    REAL *q, *grad, *p, *ds, *dq, *row;
    REAL sums[ATT_ROWS], deltas[ATT_ROWS];
} NAME(head);

/* A matrix read element by element: rows and steps of the sum, each with its own stride. */
typedef struct { const REAL *at; int64_t row, step; } NAME(factor);

static inline int64_t NAME(up_to)(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* c (ATT_TILE, vectors) += a b.   b: `depth` rows of `step` values. */
static inline __attribute__((always_inline)) void NAME(product_tile)(const int vectors, int64_t depth, NAME(factor) a,
                                                                     const REAL *b, int64_t step, REAL *c, int64_t c_row) {
    V sum[ATT_TILE][2];
    for (int r = 0; r < ATT_TILE; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = LOAD(c + r * c_row + v * LANES);
    for (int64_t k = 0; k < depth; k++) {
        V row[2];
        for (int v = 0; v < vectors; v++) row[v] = LOAD(b + k * step + v * LANES);
        _Pragma("GCC unroll 8") for (int r = 0; r < ATT_TILE; r++) {
            const REAL x = a.at[r * a.row + k * a.step];
            for (int v = 0; v < vectors; v++) sum[r][v] += x * row[v];
        }
    }
    for (int r = 0; r < ATT_TILE; r++)
        for (int v = 0; v < vectors; v++) STORE(c + r * c_row + v * LANES, sum[r][v]);
}

/* c (rows, columns) += a b.   rows: a multiple of ATT_TILE.   columns: of LANES.   b: (depth, columns). */
static void NAME(add_product)(int64_t rows, int64_t columns, int64_t depth, NAME(factor) a, const REAL *b, REAL *c) {
    for (int64_t r = 0; r < rows; r += ATT_TILE) {
        NAME(factor) part = {a.at + r * a.row, a.row, a.step};
        int64_t j = 0;
        for (; j + PANEL <= columns; j += PANEL)
            NAME(product_tile)(2, depth, part, b + j, columns, c + r * columns + j, columns);
        if (j < columns) NAME(product_tile)(1, depth, part, b + j, columns, c + r * columns + j, columns);
    }
}

/* c (ATT_ROWS, keys) = a (ATT_ROWS, depth) times the panels, whose columns are keys. */
static void NAME(panel_product)(const NAME(head) *w, int64_t depth, const REAL *a, const REAL *panels, REAL *c) {
    memset(c, 0, sizeof(REAL) * (size_t)(ATT_ROWS * w->stride));
    for (int64_t j = 0; j < w->keys; j += PANEL)
        for (int r = 0; r < ATT_ROWS; r += ATT_TILE) {
            NAME(factor) part = {a + r * depth, depth, 1};
            NAME(product_tile)(2, depth, part, panels + j * depth, PANEL, c + r * w->stride + j, w->stride);
        }
}

static inline char *NAME(head_row)(const NAME(heads) *x, const NAME(head) *w, int64_t row) {
    return NAME(row)(&x->x, w->b, row, w->h * x->head_stride);
}

static void NAME(read_head_row)(const NAME(heads) *x, const NAME(head) *w, int64_t row, int64_t width, int64_t room, REAL *out) {
    NAME(read_row)(NAME(head_row)(x, w, row), x->x.type, (int)width, (int)room, out);
}

/* Row `key` as the columns of its panel. */
static void NAME(into_panel)(const REAL *row, int64_t key, int64_t width, REAL *panels) {
    REAL *column = panels + key / PANEL * PANEL * width + key % PANEL;
    for (int64_t d = 0; d < width; d++) column[d * PANEL] = row[d];
}

static void NAME(read_keys)(const NAME(attention) *call, NAME(head) *w) {
    memset(w->keys_as_rows, 0, sizeof(REAL) * (size_t)(5 * w->keys * w->width));
    for (int64_t j = 0; j < call->keys; j++) {
        REAL *row = w->keys_as_rows + j * w->width;
        NAME(read_head_row)(&call->k, w, j, call->width, w->width, row);
        NAME(into_panel)(row, j, w->width, w->key_panels);
        NAME(read_head_row)(&call->v, w, j, call->width, w->width, w->row);
        NAME(into_panel)(w->row, j, w->width, w->value_panels);
    }
}

/* Queries, gradients and sums of the rows from `first` on; what lies beyond the last has no gradient. */
static void NAME(read_queries)(const NAME(attention) *call, NAME(head) *w, int64_t first, int count) {
    const REAL *sums = call->sums + (w->b * call->heads + w->h) * call->rows + first;
    memset(w->q, 0, sizeof(REAL) * (size_t)(3 * ATT_ROWS * w->width));
    for (int r = 0; r < count; r++) {
        REAL *grad = w->grad + r * w->width;
        NAME(read_head_row)(&call->q, w, first + r, call->width, w->width, w->q + r * w->width);
        NAME(read_head_row)(&call->grad, w, first + r, call->width, w->width, grad);
        NAME(read_head_row)(&call->out, w, first + r, call->width, w->width, w->row);
        V delta = SPLAT(0);
        for (int64_t d = 0; d < w->width; d += LANES) delta += LOAD(grad + d) * LOAD(w->row + d);
        w->sums[r] = sums[r], w->deltas[r] = NAME(sum_lanes)(delta);
    }
}

/* Probabilities from scores, and the gradient of what a score is scaled from, from that of a probability. */
static void NAME(softmax_row)(const NAME(attention) *call, NAME(head) *w, int64_t first, int r) {
    REAL *p = w->p + r * w->stride, *ds = w->ds + r * w->stride;
    if (call->bias.x.data) NAME(read_head_row)(&call->bias, w, first + r, call->keys, w->keys, w->row);
    for (int64_t j = 0; j < w->keys; j += LANES) {
        V score = LOAD(p + j) * call->scale;
        if (call->bias.x.data) score += LOAD(w->row + j);
        /* forbidden keys have no part at all, in rows that forbid every key too */
        V share = SELECT(score < SPLAT((REAL)-1e30), SPLAT(0), NAME(exp)(score - w->sums[r]));
        STORE(p + j, share);
        STORE(ds + j, share * (LOAD(ds + j) - w->deltas[r]) * call->scale);
    }
    for (int64_t j = call->keys; j < w->keys; j++) p[j] = ds[j] = 0;
}

static void NAME(attention_rows)(const NAME(attention) *call, NAME(head) *w, int64_t first) {
    const int count = (int)(call->rows - first < ATT_ROWS ? call->rows - first : ATT_ROWS);
    NAME(read_queries)(call, w, first, count);
    NAME(panel_product)(w, w->width, w->q, w->key_panels, w->p);
    NAME(panel_product)(w, w->width, w->grad, w->value_panels, w->ds);
    for (int r = 0; r < count; r++) NAME(softmax_row)(call, w, first, r);
    /* rows beyond the last one multiply zeros: they only must be numbers, which products of zeros are */
    NAME(factor) ds = {w->ds, w->stride, 1}, dst = {w->ds, 1, w->stride}, pt = {w->p, 1, w->stride};
    NAME(add_product)(ATT_ROWS, w->width, w->keys, ds, w->keys_as_rows, w->dq);
    NAME(add_product)(w->keys, w->width, ATT_ROWS, dst, w->q, w->dk);
    NAME(add_product)(w->keys, w->width, ATT_ROWS, pt, w->grad, w->dv);
    for (int r = 0; r < count; r++)
        NAME(write_row)(NAME(head_row)(&call->dq, w, first + r), call->dq.x.type, (int)call->width, w->dq + r * w->width);
}

static void NAME(attention_head)(const NAME(attention) *call, NAME(head) *w) {
    NAME(read_keys)(call, w);
    for (int64_t first = 0; first < call->rows; first += ATT_ROWS) NAME(attention_rows)(call, w, first);
    for (int64_t j = 0; j < call->keys; j++) {
        NAME(write_row)(NAME(head_row)(&call->dk, w, j), call->dk.x.type, (int)call->width, w->dk + j * w->width);
        NAME(write_row)(NAME(head_row)(&call->dv, w, j), call->dv.x.type, (int)call->width, w->dv + j * w->width);
    }
}

/* The buffers of one thread, in one block of memory. */
static REAL *NAME(head_buffers)(const NAME(attention) *call, NAME(head) *w) {
    w->width = NAME(up_to)(call->width, LANES), w->keys = NAME(up_to)(call->keys, PANEL), w->stride = w->keys + LANES; /* rows a power of two apart would collide in the cache */
    const int64_t keys = w->keys * w->width, rows = ATT_ROWS * w->width, scores = ATT_ROWS * w->stride;
    const int64_t sizes[] = {keys, keys, keys, keys, keys, rows, rows, rows, scores, scores, w->keys > w->width ? w->keys : w->width};
    REAL **places[] = {&w->keys_as_rows, &w->key_panels, &w->dk, &w->dv, &w->value_panels, &w->q, &w->dq, &w->grad,
                       &w->p, &w->ds, &w->row};
    int64_t total = 0;
    for (int i = 0; i < 11; i++) total += sizes[i];
    REAL *memory = scratch(sizeof(REAL) * (size_t)total), *next = memory;
    for (int i = 0; i < 11; i++) *places[i] = next, next += sizes[i];
    return memory;
}

static void NAME(attention_run)(const NAME(attention) *call, int threads) {
    (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        NAME(head) w;
        REAL *memory = NAME(head_buffers)(call, &w);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < call->batch * call->heads; i++) {
            w.b = i / call->heads, w.h = i % call->heads;
            NAME(attention_head)(call, &w);
        }
        free(memory);
        restore_denormals(saved);
    }
}
