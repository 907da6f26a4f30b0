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

typedef struct {
    REAL *dt, *slope, *u, *drive, *y, *z, *g, *gy, *S, *decay, *B, *C, *bias, *D;      /* of one tile of a block */
    REAL *h, *lam, *dA, *dD, *dbias;                                                   /* of all blocks of a group */
    const REAL *A;
    REAL *sum_B, *sum_C;                                                               /* (TILE, n, LANES) */
} NAME(adjoint_buffers);

/* One vector of channels of a tile's rows, BLOCK apart. */
typedef struct { const REAL *dt, *drive, *gy; REAL *y, *S, *decay; } NAME(column);

/* A few states of one or two vectors of channels over a tile: forward from the checkpoint, then the adjoint back.
 * Two vectors at once halve the traffic of the sums over channels. */
static inline __attribute__((always_inline)) void NAME(adjoint)(
    const int states, const int vectors, int count, int64_t n, NAME(column) at, const REAL *B, const REAL *C,
    REAL *sum_B, REAL *sum_C, const REAL *A, const REAL *h0, REAL *lam, REAL *dA) {
    V decays[TILE][STATES_BACKWARD][2], decayed[TILE][STATES_BACKWARD][2];
    V h[STATES_BACKWARD][2], carry[STATES_BACKWARD][2], grad[STATES_BACKWARD][2];
#pragma GCC unroll 4
    for (int k = 0; k < states; k++)
        for (int j = 0; j < vectors; j++) h[k][j] = LOAD(h0 + k * BLOCK + j * LANES);
    for (int s = 0; s < count; s++) {
        V a[2][STATES_BACKWARD], input[2], gy[2], y[2];
        for (int j = 0; j < vectors; j++) {
            NAME(exp2_products)(states, LOAD(at.dt + j * LANES), A + j * LANES, a[j]);
            input[j] = LOAD(at.drive + j * LANES), gy[j] = LOAD(at.gy + j * LANES), y[j] = LOAD(at.y + j * LANES);
        }
#pragma GCC unroll 4
        for (int k = 0; k < states; k++) {
            V total = LOAD(sum_C + k * LANES);
            for (int j = 0; j < vectors; j++) {
                V kept = a[j][k] * h[k][j];
                h[k][j] = kept + input[j] * B[k];
                decays[s][k][j] = a[j][k], decayed[s][k][j] = kept;
                y[j] += h[k][j] * C[k];
                total += gy[j] * h[k][j];
            }
            STORE(sum_C + k * LANES, total);
        }
        for (int j = 0; j < vectors; j++) STORE(at.y + j * LANES, y[j]);
        at.dt += BLOCK, at.drive += BLOCK, at.gy += BLOCK, at.y += BLOCK, B += n, C += n, sum_C += n * LANES;
    }
#pragma GCC unroll 4
    for (int k = 0; k < states; k++)
        for (int j = 0; j < vectors; j++) {
            carry[k][j] = LOAD(lam + k * BLOCK + j * LANES);
            grad[k][j] = LOAD(dA + k * BLOCK + j * LANES);
        }
    at.S += (count - 1) * BLOCK, at.decay += (count - 1) * BLOCK, sum_B += (count - 1) * n * LANES;
    for (int s = count - 1; s >= 0; s--) {
        at.dt -= BLOCK, at.drive -= BLOCK, at.gy -= BLOCK, B -= n, C -= n;
        V step[2], input[2], gy[2], S[2], decay[2];
        for (int j = 0; j < vectors; j++) {
            step[j] = LOAD(at.dt + j * LANES), input[j] = LOAD(at.drive + j * LANES), gy[j] = LOAD(at.gy + j * LANES);
            S[j] = LOAD(at.S + j * LANES), decay[j] = LOAD(at.decay + j * LANES);
        }
#pragma GCC unroll 4
        for (int k = 0; k < states; k++) {
            V total = LOAD(sum_B + k * LANES);
            for (int j = 0; j < vectors; j++) {
                V now = carry[k][j] + gy[j] * C[k], flow = now * decayed[s][k][j];
                decay[j] += flow * LOAD(A + k * BLOCK + j * LANES);
                grad[k][j] += flow * step[j];
                S[j] += now * B[k];
                total += now * input[j];
                carry[k][j] = now * decays[s][k][j];
            }
            STORE(sum_B + k * LANES, total);
        }
        for (int j = 0; j < vectors; j++) {
            STORE(at.S + j * LANES, S[j]);
            STORE(at.decay + j * LANES, decay[j]);
        }
        at.S -= BLOCK, at.decay -= BLOCK, sum_B -= n * LANES;
    }
#pragma GCC unroll 4
    for (int k = 0; k < states; k++)
        for (int j = 0; j < vectors; j++) {
            STORE(lam + k * BLOCK + j * LANES, carry[k][j]);
            STORE(dA + k * BLOCK + j * LANES, grad[k][j]);
        }
}

/* dt, slope, drive, y = D u and gy of one tile of one block. */
static void NAME(adjoint_inputs)(const NAME(scan) *call, const NAME(gradients) *grads, int which, int64_t b, int64_t first,
                                 int count, int64_t d, int width, NAME(adjoint_buffers) *w) {
    const NAME(direction) *p = &call->dir[which];
    const int64_t step = p->reverse ? -1 : 1;
    NAME(read_vector)(p->bias, d, width, w->bias);
    NAME(read_vector)(p->D, d, width, w->D);
    NAME(read_tile)(&p->delta, b, first, step, count, d, width, BLOCK, w->dt);
    NAME(read_tile)(&p->u, b, first, step, count, d, width, BLOCK, w->u);
    NAME(read_tile)(&grads->out, b, first, step, count, d, width, BLOCK, w->g);
    NAME(discretise)(w->dt, w->slope, w->bias, count, (int)call->softplus);
    if (call->z.data) NAME(read_tile)(&call->z, b, first, step, count, d, width, BLOCK, w->z);
    for (int i = 0; i < count * BLOCK; i += LANES) {
        V u = LOAD(w->u + i), g = LOAD(w->g + i);
        STORE(w->drive + i, u * LOAD(w->dt + i));
        STORE(w->y + i, u * LOAD(w->D + i % BLOCK));
        if (call->z.data) {
            V z = LOAD(w->z + i), sigma = NAME(sigmoid)(z);
            STORE(w->gy + i, g * z * sigma);
            STORE(w->z + i, g * sigma * (1 + z * (1 - sigma)));      /* what y is multiplied with in dz */
        } else {
            STORE(w->gy + i, g);
        }
        STORE(w->S + i, SPLAT(0));
        STORE(w->decay + i, SPLAT(0));
    }
}

static void NAME(adjoint_outputs)(const NAME(scan) *call, const NAME(gradients) *grads, int which, int64_t b, int64_t first,
                                  int count, int64_t d, int width, int slot, NAME(adjoint_buffers) *w) {
    const int64_t step = call->dir[which].reverse ? -1 : 1;
    if (grads->z.data) {
        if (which) NAME(read_tile)(&grads->z, b, first, step, count, d, width, BLOCK, w->g);
        for (int i = 0; i < count * BLOCK; i += LANES) {
            V dz = LOAD(w->z + i) * LOAD(w->y + i);
            STORE(w->g + i, which ? dz + LOAD(w->g + i) : dz);
        }
        NAME(write_tile)(&grads->z, b, first, step, count, d, width, BLOCK, w->g);
    }
    for (int v = 0; v < BLOCK; v += LANES) {
        V dD = LOAD(w->dD + slot * BLOCK + v), dbias = LOAD(w->dbias + slot * BLOCK + v), D = LOAD(w->D + v);
        for (int i = v; i < count * BLOCK; i += BLOCK) {
            V u = LOAD(w->u + i), gy = LOAD(w->gy + i), S = LOAD(w->S + i), dt = LOAD(w->dt + i);
            V ddelta = LOAD(w->decay + i) * (1 / LOG2E) + u * S;
            ddelta *= LOAD(w->slope + i);
            STORE(w->u + i, D * gy + dt * S);
            STORE(w->dt + i, ddelta);
            dD += gy * u, dbias += ddelta;
        }
        STORE(w->dD + slot * BLOCK + v, dD);
        STORE(w->dbias + slot * BLOCK + v, dbias);
    }
    NAME(write_tile)(&grads->dir[which].u, b, first, step, count, d, width, BLOCK, w->u);
    NAME(write_tile)(&grads->dir[which].delta, b, first, step, count, d, width, BLOCK, w->dt);
}

static void NAME(adjoint_tile)(const NAME(scan) *call, const NAME(gradients) *grads, int which, int64_t b, int64_t tile,
                               int64_t group, NAME(adjoint_buffers) *w) {
    const NAME(direction) *p = &call->dir[which];
    const NAME(gradient) *out = &grads->dir[which];
    const int64_t n = call->states, length = call->length, blocks = NAME(blocks)(call->width), tiles = NAME(tiles)(length);
    const int64_t start = tile * TILE, step = p->reverse ? -1 : 1, first = p->reverse ? length - 1 - start : start;
    const int count = (int)(length - start < TILE ? length - start : TILE);
    NAME(read_tile)(&p->B, b, first, step, count, 0, (int)n, (int)n, w->B);
    NAME(read_tile)(&p->C, b, first, step, count, 0, (int)n, (int)n, w->C);
    memset(w->sum_B, 0, (size_t)count * n * LANES * sizeof(REAL));
    memset(w->sum_C, 0, (size_t)count * n * LANES * sizeof(REAL));
    for (int slot = 0; slot < GROUP && group * GROUP + slot < blocks; slot++) {
        const int64_t d = (group * GROUP + slot) * BLOCK;
        const int width = (int)(call->width - d < BLOCK ? call->width - d : BLOCK);
        const REAL *h0 = p->checkpoints + (b * tiles + tile) * n * blocks * BLOCK + d;
        NAME(adjoint_inputs)(call, grads, which, b, first, count, d, width, w);
        for (int64_t k = 0; k < n; k++) memcpy(w->h + k * BLOCK, h0 + k * blocks * BLOCK, BLOCK * sizeof(REAL));
        for (int v = 0; v < width;) {
            const int pair = v + LANES < width;
            const int64_t at = slot * n * BLOCK + v;
            int64_t k = 0;
            const NAME(column) column = {w->dt + v, w->drive + v, w->gy + v, w->y + v, w->S + v, w->decay + v};
#define ARGUMENTS count, n, column, w->B + k, w->C + k, w->sum_B + k * LANES, w->sum_C + k * LANES, \
                  w->A + at + k * BLOCK, w->h + k * BLOCK + v, w->lam + at + k * BLOCK, w->dA + at + k * BLOCK
            for (; k + STATES_BACKWARD <= n; k += STATES_BACKWARD) {
                if (pair) NAME(adjoint)(STATES_BACKWARD, 2, ARGUMENTS);
                else NAME(adjoint)(STATES_BACKWARD, 1, ARGUMENTS);
            }
            for (; k < n; k++) {
                if (pair) NAME(adjoint)(1, 2, ARGUMENTS);
                else NAME(adjoint)(1, 1, ARGUMENTS);
            }
#undef ARGUMENTS
            v += pair ? 2 * LANES : LANES;
        }
        NAME(adjoint_outputs)(call, grads, which, b, first, count, d, width, slot, w);
    }
    for (int s = 0; s < count; s++) {
        const int64_t at = ((group * call->batch + b) * length + first + s * step) * n;
        for (int64_t k = 0; k < n; k++) {
            out->B[at + k] = NAME(sum_lanes)(LOAD(w->sum_B + (s * n + k) * LANES));
            out->C[at + k] = NAME(sum_lanes)(LOAD(w->sum_C + (s * n + k) * LANES));
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
    (void)threads;
    NAME(lay_out_rates)(call);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned saved = flush_denormals();
        REAL *memory = scratch((10 * tile + 2 * BLOCK + n * BLOCK + (2 * n + 2) * span + 2 * TILE * n * (LANES + 1)) *
                               sizeof(REAL));
        NAME(adjoint_buffers) w;
        REAL **tiles[] = {&w.dt, &w.slope, &w.u, &w.drive, &w.y, &w.z, &w.g, &w.gy, &w.S, &w.decay};
        for (int i = 0; i < 10; i++) *tiles[i] = memory + i * tile;
        w.bias = memory + 10 * tile, w.D = w.bias + BLOCK, w.h = w.D + BLOCK, w.lam = w.h + n * BLOCK;
        w.dA = w.lam + n * span, w.dD = w.dA + n * span, w.dbias = w.dD + span;
        w.sum_B = w.dbias + span, w.sum_C = w.sum_B + TILE * n * LANES;
        w.B = w.sum_C + TILE * n * LANES, w.C = w.B + TILE * n;
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < pieces; piece++)
            for (int which = 0; which < call->directions; which++)
                NAME(adjoint_direction)(call, grads, which, piece / groups, piece % groups, &w);
        free(memory);
        restore_denormals(saved);
    }
    NAME(free_rates)(call);
}
