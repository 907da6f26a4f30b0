/* GELU by its tanh form, which is a logistic: y = x s(2 u), u = k (x + c x^3), k = sqrt(2 / pi). */
#define GELU_BLOCK 256

typedef struct { int64_t count; tensor x, out, grad; } NAME(gelu); /* dense; grad: of the result, absent forwards */

static inline V NAME(gelu_value)(V x) {
    const REAL k = (REAL)0.79788456080286535588, c = (REAL)0.044715;
    return x * NAME(sigmoid)(2 * k * x * (1 + c * x * x));
}

static inline V NAME(gelu_slope)(V x) {
    const REAL k = (REAL)0.79788456080286535588, c = (REAL)0.044715;
    x = NAME(at_most)(NAME(at_least)(x, -30), 30); /* beyond, the slope is 0 or 1, and its parts would be 0 and infinite */
    V square = x * x, s = NAME(sigmoid)(2 * k * x * (1 + c * square));
    return s + 2 * k * x * s * (1 - s) * (1 + 3 * c * square);
}

static void NAME(gelu_block)(const NAME(gelu) *call, int64_t first) {
    const int count = (int)(call->count - first < GELU_BLOCK ? call->count - first : GELU_BLOCK);
    REAL x[GELU_BLOCK] __attribute__((aligned(64))), g[GELU_BLOCK] __attribute__((aligned(64)));
    NAME(read_row)(NAME(row)(&call->x, 0, 0, first), call->x.type, count, GELU_BLOCK, x);
    if (call->grad.data) {
        NAME(read_row)(NAME(row)(&call->grad, 0, 0, first), call->grad.type, count, GELU_BLOCK, g);
        for (int v = 0; v < GELU_BLOCK; v += LANES) STORE(x + v, LOAD(g + v) * NAME(gelu_slope)(LOAD(x + v)));
    } else {
        for (int v = 0; v < GELU_BLOCK; v += LANES) STORE(x + v, NAME(gelu_value)(LOAD(x + v)));
    }
    NAME(write_row)(NAME(row)(&call->out, 0, 0, first), call->out.type, count, x);
}

static void NAME(gelu_run)(const NAME(gelu) *call, int threads) {
    (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
#pragma omp for schedule(static)
        for (int64_t first = 0; first < call->count; first += GELU_BLOCK) NAME(gelu_block)(call, first);
        restore_denormals(saved);
    }
}
