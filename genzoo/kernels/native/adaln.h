/* The gated residual and the modulated norm of a row; genzoo/kernels/adaln/__init__.py says the formulas.
 *
 * A row is taken into a buffer that stays in the nearest cache, so that the variance is a second pass over it: the mean
 * of squares less the square of the mean loses the digits of rows far from zero. Rows of one condition lie together;
 * a piece is some of them. Buffers are whole vectors long, and zero behind the width.
 */
#define ADALN_ROWS 32

typedef struct {
    int64_t length, width, rows, conditions; /* rows: of a condition, over consecutive samples */
    double eps;
    tensor x, branch, gate, shift, scale;    /* branch and gate, or shift and scale, may be absent */
    tensor x1, out;                          /* in the backward x is the normed stream, these the incoming gradients */
    REAL *mean, *r;                          /* one of each row */
    tensor dx, dbranch;
    REAL *slots;                             /* (conditions, chunks, gate | shift and scale, d): one for each piece */
} NAME(adaln);

typedef struct { REAL *gate, *shift, *factor, *x, *branch, *out, *sum_gate, *sum_shift, *sum_scale; } NAME(adaln_rows);
enum { ADALN_BUFFERS = sizeof(NAME(adaln_rows)) / sizeof(REAL *) };

static inline int NAME(padded)(const NAME(adaln) *call) { return (int)(call->width + LANES - 1) / LANES * LANES; }

static inline char *NAME(adaln_at)(const NAME(adaln) *call, const tensor *x, int64_t number) {
    return NAME(row)(x, number / call->length, number % call->length, 0);
}

static inline void NAME(adaln_read)(const NAME(adaln) *call, const tensor *x, int64_t number, REAL *out) {
    NAME(read_row)(NAME(adaln_at)(call, x, number), x->type, (int)call->width, NAME(padded)(call), out);
}

static inline void NAME(adaln_write)(const NAME(adaln) *call, const tensor *x, int64_t number, const REAL *in) {
    NAME(write_row)(NAME(adaln_at)(call, x, number), x->type, (int)call->width, in);
}

static void NAME(adaln_condition)(const NAME(adaln) *call, int64_t condition, NAME(adaln_rows) *w) {
    const tensor *from[] = {&call->gate, &call->shift, &call->scale};
    REAL *to[] = {w->gate, w->shift, w->factor};
    const int padded = NAME(padded)(call);
    for (int i = 0; i < 3; i++)
        if (from[i]->data)
            NAME(read_row)(NAME(row)(from[i], condition, 0, 0), from[i]->type, (int)call->width, padded, to[i]);
    if (call->scale.data)
        for (int v = 0; v < padded; v += LANES) STORE(w->factor + v, LOAD(w->factor + v) + 1);
}

/* Two chains at a time: each addition waits for the one before it. */
#define PAIRED(padded, v, i) \
    for (int v##0 = 0; v##0 < (padded); v##0 += 2 * LANES) \
        for (int i = 0, v = v##0; i < 2 && v < (padded); i++, v += LANES)

static void NAME(adaln_forward_row)(const NAME(adaln) *call, int64_t number, NAME(adaln_rows) *w) {
    const int padded = NAME(padded)(call), width = (int)call->width;
    V sums[2] = {SPLAT(0), SPLAT(0)}, squares[2] = {SPLAT(0), SPLAT(0)};
    if (!call->branch.data) {
        NAME(adaln_read)(call, &call->x, number, w->x);
    } else if (width == padded) { /* without a detour through buffers */
        const char *x = NAME(adaln_at)(call, &call->x, number), *branch = NAME(adaln_at)(call, &call->branch, number);
        char *x1 = NAME(adaln_at)(call, &call->x1, number);
        for (int v = 0; v < padded; v += LANES) {
            V sum = NAME(take)(x, call->x.type, v) + LOAD(w->gate + v) * NAME(take)(branch, call->branch.type, v);
            NAME(put)(x1, call->x1.type, v, sum);
            STORE(w->x + v, sum);
        }
    } else {
        NAME(adaln_read)(call, &call->x, number, w->x);
        NAME(adaln_read)(call, &call->branch, number, w->branch);
        for (int v = 0; v < padded; v += LANES)
            STORE(w->x + v, LOAD(w->x + v) + LOAD(w->gate + v) * LOAD(w->branch + v));
        NAME(adaln_write)(call, &call->x1, number, w->x);
    }
    if (!call->out.data) return;
    PAIRED(padded, v, i) sums[i] += LOAD(w->x + v);
    const REAL mean = NAME(sum_lanes)(sums[0] + sums[1]) / (REAL)width;
    PAIRED(padded, v, i) {
        V centred = LOAD(w->x + v) - mean;
        STORE(w->x + v, centred);
    }
    for (int i = width; i < padded; i++) w->x[i] = 0;
    PAIRED(padded, v, i) squares[i] += LOAD(w->x + v) * LOAD(w->x + v);
    const REAL variance = NAME(sum_lanes)(squares[0] + squares[1]) / (REAL)width;
    const REAL r = (REAL)(1 / sqrt((double)variance + call->eps));
    char *out = width == padded ? NAME(adaln_at)(call, &call->out, number) : (char *)w->out;
    const int64_t type = width == padded ? call->out.type : REAL_TYPE;
    for (int v = 0; v < padded; v += LANES)
        NAME(put)(out, type, v, LOAD(w->x + v) * r * LOAD(w->factor + v) + LOAD(w->shift + v));
    if (width != padded) NAME(adaln_write)(call, &call->out, number, w->out);
    call->mean[number] = mean, call->r[number] = r;
}

/* What the norm sends back to its input, into w->out; sums of shift and scale. */
static void NAME(adaln_norm_gradient)(const NAME(adaln) *call, int64_t number, NAME(adaln_rows) *w) {
    const int padded = NAME(padded)(call);
    const REAL mean = call->mean[number], r = call->r[number];
    V sums[2] = {SPLAT(0), SPLAT(0)}, products[2] = {SPLAT(0), SPLAT(0)};
    NAME(adaln_read)(call, &call->out, number, w->out);
    NAME(adaln_read)(call, &call->x, number, w->x);
    PAIRED(padded, v, i) {
        V g = LOAD(w->out + v), h = (LOAD(w->x + v) - mean) * r, dn = g * LOAD(w->factor + v);
        STORE(w->sum_shift + v, LOAD(w->sum_shift + v) + g);
        STORE(w->sum_scale + v, LOAD(w->sum_scale + v) + g * h);
        STORE(w->x + v, h);
        STORE(w->out + v, dn);
        sums[i] += dn, products[i] += dn * h;
    }
    const REAL average = NAME(sum_lanes)(sums[0] + sums[1]) / (REAL)call->width;
    const REAL along = NAME(sum_lanes)(products[0] + products[1]) / (REAL)call->width;
    for (int v = 0; v < padded; v += LANES)
        STORE(w->out + v, r * (LOAD(w->out + v) - average - LOAD(w->x + v) * along));
}

static void NAME(adaln_backward_row)(const NAME(adaln) *call, int64_t number, NAME(adaln_rows) *w) {
    const int padded = NAME(padded)(call);
    if (call->out.data) NAME(adaln_norm_gradient)(call, number, w);
    else memset(w->out, 0, (size_t)padded * sizeof(REAL));
    if (call->x1.data) {
        NAME(adaln_read)(call, &call->x1, number, w->x);
        for (int v = 0; v < padded; v += LANES) STORE(w->out + v, LOAD(w->out + v) + LOAD(w->x + v));
    }
    if (call->dx.data) NAME(adaln_write)(call, &call->dx, number, w->out);
    if (!call->gate.data) return;
    NAME(adaln_read)(call, &call->branch, number, w->branch);
    for (int v = 0; v < padded; v += LANES) {
        V total = LOAD(w->out + v);
        STORE(w->sum_gate + v, LOAD(w->sum_gate + v) + total * LOAD(w->branch + v));
        STORE(w->branch + v, total * LOAD(w->gate + v));
    }
    NAME(adaln_write)(call, &call->dbranch, number, w->branch);
}

static void NAME(adaln_store_sums)(const NAME(adaln) *call, int64_t piece, const NAME(adaln_rows) *w) {
    const int number = (call->gate.data != NULL) + 2 * (call->scale.data != NULL);
    REAL *slot = call->slots + piece * number * call->width;
    const REAL *sums[] = {w->sum_gate, w->sum_shift, w->sum_scale};
    for (int i = call->gate.data ? 0 : 1; i < (call->scale.data ? 3 : 1); i++, slot += call->width)
        memcpy(slot, sums[i], (size_t)call->width * sizeof(REAL));
}

static void NAME(adaln_run)(const NAME(adaln) *call, int backward, int threads) {
    const int64_t chunks = (call->rows + ADALN_ROWS - 1) / ADALN_ROWS, pieces = call->conditions * chunks;
    const size_t padded = (size_t)NAME(padded)(call);
    (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        REAL *memory = scratch(ADALN_BUFFERS * padded * sizeof(REAL));
        memset(memory, 0, ADALN_BUFFERS * padded * sizeof(REAL));
        NAME(adaln_rows) w;
        REAL **buffers[] = {&w.gate, &w.shift, &w.factor, &w.x, &w.branch, &w.out,
                            &w.sum_gate, &w.sum_shift, &w.sum_scale};
        for (int i = 0; i < ADALN_BUFFERS; i++) *buffers[i] = memory + (size_t)i * padded;
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t condition = piece / chunks, first = piece % chunks * ADALN_ROWS;
            const int64_t end = first + ADALN_ROWS < call->rows ? first + ADALN_ROWS : call->rows;
            NAME(adaln_condition)(call, condition, &w);
            if (backward) memset(w.sum_gate, 0, 3 * padded * sizeof(REAL));
            for (int64_t t = condition * call->rows + first; t < condition * call->rows + end; t++) {
                if (backward) NAME(adaln_backward_row)(call, t, &w);
                else NAME(adaln_forward_row)(call, t, &w);
            }
            if (backward) NAME(adaln_store_sums)(call, piece, &w);
        }
        free(memory);
        restore_denormals(saved);
    }
}
