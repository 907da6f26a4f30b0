/* The backward of the selective scan: see scan.h for how the work is cut.
 *
 * With lam_t = C_t gy_t + a_{t+1} lam_{t+1}:    du = D gy + dt S,  S = sum_n lam B;    ddt = sum_n lam a h_{t-1} A + u S
 * dA = sum_t lam dt a h_{t-1};   dB = sum_d lam dt u;   dC = sum_d gy h;   dz = g y silu'(z)
 */
typedef struct {
    tensor u, delta;               /* gradients; the caller converts if it wants another type */
    REAL *B, *C;                   /* (groups, b, l, n): one partial sum for each group of blocks */
    REAL *A, *D, *bias;            /* (b, d, n), (b, d), (b, d): one partial sum for each sample */
    const REAL *last_state;        /* incoming gradient (b, d, n) or NULL */
} NAME(gradient);

typedef struct {
    tensor out, z;                 /* incoming gradient; gradient of z, in REAL when there are two directions */
    NAME(gradient) dir[2];
} NAME(gradients);

/* dt, slope, drive, gy, and with a gate y = D u and what y is multiplied with in dz. */
static void NAME(adjoint_inputs)(const NAME(scan) *call, const NAME(direction) *p, const tensor *grad, NAME(span) at,
                                 const REAL *bias, const REAL *D, NAME(adjoint_buffers) *w) {
    for (int s = 0; s < at.count; s++) {
        const REAL *delta = NAME(view_row)(&p->delta, at, s, w->rows), *u = NAME(view_row)(&p->u, at, s, w->rows + BLOCK);
        const REAL *g = NAME(view_row)(grad, at, s, w->rows + 2 * BLOCK);
        const REAL *z = call->z.data ? NAME(view_row)(&call->z, at, s, w->rows + 3 * BLOCK) : NULL;
        for (int v = 0; v < BLOCK; v += LANES) {
            const int64_t to = PANEL_ROW(s, v);
            V x = LOAD(delta + v) + LOAD(bias + v), slope = SPLAT(1), input = LOAD(u + v), gy = LOAD(g + v);
            V dt = call->softplus ? NAME(softplus)(x, &slope) : x;
            STORE(w->dt + to, dt), STORE(w->slope + to, slope), STORE(w->drive + to, dt * input);
            if (z) {
                V gate = LOAD(z + v), sigma = NAME(sigmoid)(gate);
                STORE(w->y + to, LOAD(D + v) * input);
                STORE(w->dz + to, gy * sigma * (1 + gate * (1 - sigma)));
                gy *= gate * sigma;
            }
            STORE(w->gy + to, gy);
        }
    }
}

static inline REAL *NAME(writable_row)(const tensor *x, NAME(span) at, int s, REAL *copy) {
    const int direct = x->type == REAL_TYPE && at.width == BLOCK;
    return direct ? (REAL *)NAME(row)(x, at.b, at.first + s * at.step, at.d) : copy;
}

static inline void NAME(finish_row)(const tensor *x, NAME(span) at, int s, const REAL *values) {
    char *target = NAME(row)(x, at.b, at.first + s * at.step, at.d);
    if (target != (const char *)values) NAME(write_row)(target, x->type, at.width, values);
}

static void NAME(adjoint_outputs)(const NAME(gradients) *grads, int which, const NAME(direction) *p, NAME(span) at,
                                  int64_t slot, NAME(adjoint_buffers) *w) {
    const NAME(gradient) *out = &grads->dir[which];
    REAL *dD = w->dD + slot * BLOCK, *dbias = w->dbias + slot * BLOCK;
    const REAL *D = w->D + slot * BLOCK;
    for (int s = 0; s < at.count; s++) {
        const REAL *u = NAME(view_row)(&p->u, at, s, w->rows);
        REAL *du = NAME(writable_row)(&out->u, at, s, w->rows + BLOCK);
        REAL *ddelta = NAME(writable_row)(&out->delta, at, s, w->rows + 2 * BLOCK);
        for (int v = 0; v < BLOCK; v += LANES) {
            const int64_t from = PANEL_ROW(s, v);
            V input = LOAD(u + v), gy = LOAD(w->gy + from), S = LOAD(w->S + from);
            V change = (LOAD(w->decay + from) * (1 / LOG2E) + input * S) * LOAD(w->slope + from);
            STORE(du + v, LOAD(D + v) * gy + LOAD(w->dt + from) * S);
            STORE(ddelta + v, change);
            STORE(dD + v, LOAD(dD + v) + gy * input);
            STORE(dbias + v, LOAD(dbias + v) + change);
        }
        NAME(finish_row)(&out->u, at, s, du), NAME(finish_row)(&out->delta, at, s, ddelta);
        if (!grads->z.data) continue;
        const REAL *before = which ? NAME(view_row)(&grads->z, at, s, w->rows) : NULL;
        REAL *dz = NAME(writable_row)(&grads->z, at, s, w->rows + BLOCK);
        for (int v = 0; v < BLOCK; v += LANES) {
            V part = LOAD(w->dz + PANEL_ROW(s, v)) * LOAD(w->y + PANEL_ROW(s, v));
            STORE(dz + v, before ? part + LOAD(before + v) : part);
        }
        NAME(finish_row)(&grads->z, at, s, dz);
    }
}

static void NAME(adjoint_tile)(const NAME(scan) *call, const NAME(gradients) *grads, int which, int64_t b, int64_t tile,
                               int64_t group, NAME(adjoint_buffers) *w) {
    const NAME(direction) *p = &call->dir[which];
    const NAME(gradient) *out = &grads->dir[which];
    const int64_t n = call->states, blocks = NAME(blocks)(call->width), tiles = NAME(tiles)(call->length);
    NAME(span) at = NAME(span_of)(call, p, b, tile, group * GROUP);
    const size_t sums = (size_t)SUM_AT(0, n + STATES_BACKWARD - 1) / SUM_ROW * SUM_ROW;
    NAME(read_tile)(&p->B, b, at.first, at.step, at.count, 0, (int)n, (int)n, w->B);
    NAME(read_tile)(&p->C, b, at.first, at.step, at.count, 0, (int)n, (int)n, w->C);
    memset(w->sum_B, 0, sums * sizeof(REAL));
    memset(w->sum_C, 0, sums * sizeof(REAL));
    for (int64_t slot = 0; slot < GROUP && group * GROUP + slot < blocks; slot++) {
        at = NAME(span_of)(call, p, b, tile, group * GROUP + slot);
        const REAL *h0 = p->checkpoints + (b * tiles + tile) * n * blocks * BLOCK + at.d;
        for (int64_t k = 0; k < n; k++) memcpy(w->h + k * BLOCK, h0 + k * blocks * BLOCK, BLOCK * sizeof(REAL));
        NAME(adjoint_inputs)(call, p, &grads->out, at, w->bias + slot * BLOCK, w->D + slot * BLOCK, w);
        const int more = slot + 1 < GROUP && group * GROUP + slot + 1 < blocks;
        const NAME(span) next = NAME(span_of)(call, p, b, more ? tile : tile - 1, group * GROUP + (more ? slot + 1 : 0));
        const tensor *written[] = {&out->u, &out->delta, &grads->z}, *read[] = {&p->u, &p->delta, &grads->out, &call->z};
        NAME(fetches) later = {.count = 0};
        for (int i = 0; i < 3; i++) NAME(add_fetch)(&later, written[i], at, call->length);
        for (int i = 0; i < 4; i++) NAME(add_fetch)(&later, read[i], next, call->length);
        const int64_t from = slot * n * BLOCK;
        NAME(adjoint_block)(at, later, n, w->A + from, w->h, w->lam + from, w->dA + from, w);
        NAME(adjoint_outputs)(grads, which, p, at, slot, w);
    }
    for (int s = 0; s < at.count; s++) {
        const int64_t to = ((group * call->batch + b) * call->length + at.first + s * at.step) * n;
        for (int64_t k = 0; k < n; k++) {
            out->B[to + k] = NAME(sum_lanes)(LOAD(w->sum_B + SUM_AT(s, k)));
            out->C[to + k] = NAME(sum_lanes)(LOAD(w->sum_C + SUM_AT(s, k)));
        }
    }
}

static void NAME(adjoint_direction)(const NAME(scan) *call, const NAME(gradients) *grads, int which, int64_t b,
                                    int64_t group, NAME(adjoint_buffers) *w) {
    const NAME(gradient) *out = &grads->dir[which];
    const int64_t n = call->states, span = GROUP * BLOCK, from = group * span;
    const int64_t width = call->width - from < span ? call->width - from : span;
    memset(w->lam, 0, (size_t)(2 * n + 2) * span * sizeof(REAL));      /* lam, dA, dD, dbias lie side by side */
    for (int64_t i = 0; i < width; i++)
        for (int64_t k = 0; out->last_state && k < n; k++)
            w->lam[(i / BLOCK * n + k) * BLOCK + i % BLOCK] = out->last_state[(b * call->width + from + i) * n + k];
    for (int64_t d = from; d < from + width; d += BLOCK) {
        const int left = (int)(from + width - d < BLOCK ? from + width - d : BLOCK);
        NAME(read_vector)(call->dir[which].bias, d, left, w->bias + d - from);
        NAME(read_vector)(call->dir[which].D, d, left, w->D + d - from);
    }
    w->A = call->rates[which] + from * n;
    for (int64_t tile = NAME(tiles)(call->length) - 1; tile >= 0; tile--)
        NAME(adjoint_tile)(call, grads, which, b, tile, group, w);
    for (int64_t i = 0; i < width; i++) {
        const int64_t at = b * call->width + from + i;
        for (int64_t k = 0; k < n; k++) out->A[at * n + k] = w->dA[(i / BLOCK * n + k) * BLOCK + i % BLOCK];
        out->D[at] = w->dD[i], out->bias[at] = w->dbias[i];
    }
}

static void NAME(backward)(NAME(scan) *call, const NAME(gradients) *grads, int threads) {
    const int64_t groups = (NAME(blocks)(call->width) + GROUP - 1) / GROUP, pieces = call->batch * groups;
    const size_t n = (size_t)call->states, tile = TILE * BLOCK, span = GROUP * BLOCK;
    const size_t sums = (size_t)SUM_AT(0, n + STATES_BACKWARD - 1) / SUM_ROW * SUM_ROW;
    (void)threads;
    NAME(lay_out_rates)(call);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        REAL *memory = scratch((8 * tile + 4 * BLOCK + n * BLOCK + (2 * n + 4) * span + 2 * sums + 2 * TILE * n) * sizeof(REAL));
        NAME(adjoint_buffers) w;
        REAL **tiles[] = {&w.dt, &w.slope, &w.drive, &w.y, &w.dz, &w.gy, &w.S, &w.decay};
        for (int i = 0; i < 8; i++) *tiles[i] = memory + i * tile;
        w.rows = memory + 8 * tile, w.h = w.rows + 4 * BLOCK, w.bias = w.h + n * BLOCK, w.D = w.bias + span;
        w.lam = w.D + span, w.dA = w.lam + n * span, w.dD = w.dA + n * span, w.dbias = w.dD + span;
        w.sum_B = w.dbias + span, w.sum_C = w.sum_B + sums, w.B = w.sum_C + sums, w.C = w.B + TILE * n;
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < pieces; piece++)
            for (int which = 0; which < call->directions; which++)
                NAME(adjoint_direction)(call, grads, which, piece / groups, piece % groups, &w);
        free(memory);
        restore_denormals(saved);
    }
    NAME(free_rates)(call);
}
