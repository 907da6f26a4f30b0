/* The inner loops of the scan's backward: all states of one channel block over a tile.
 *
 * With lam_t = C_t gy_t + a_{t+1} lam_{t+1}:    S = sum_n lam B;    decay = sum_n lam a h_{t-1} A log2(e)
 * dA = sum_t lam dt a h_{t-1};   dB = sum_d lam dt u;   dC = sum_d gy h;   y += sum_n h C
 */
/* Buffers of one tile of a block are panels of two vectors by TILE rows, those of the sums over channels panels of
 * STATES_BACKWARD states by TILE rows: what one call of `adjoint` walks through is dense. */
#define PANEL (2 * LANES)
#define PANEL_ROW(s, v) ((v) / PANEL * TILE * PANEL + (s) * PANEL + (v) % PANEL)
#define SUM_ROW (STATES_BACKWARD * LANES)
#define SUM_AT(s, k) ((k) / STATES_BACKWARD * TILE * SUM_ROW + (s) * SUM_ROW + (k) % STATES_BACKWARD * LANES)

typedef struct {
    REAL *dt, *slope, *drive, *y, *dz, *gy, *S, *decay, *B, *C, *rows;      /* of one tile of a block */
    REAL *h, *bias, *D, *lam, *dA, *dD, *dbias;                             /* of all blocks of a group; h of one */
    const REAL *A;
    REAL *sum_B, *sum_C;
} NAME(adjoint_buffers);

/* A panel of each; S and decay hold nothing yet when `fresh`. */
typedef struct { const REAL *dt, *drive, *gy; REAL *y, *S, *decay; int fresh; } NAME(column);

/* A few states of one or two vectors of channels over a tile: forward from the checkpoint, then the adjoint back.
 * Two vectors at once halve the traffic of the sums over channels. */
static inline __attribute__((always_inline)) void NAME(adjoint)(
    const int states, const int vectors, int count, int64_t n, NAME(column) at, const REAL *B, const REAL *C,
    REAL *sum_B, REAL *sum_C, const REAL *A, const REAL *h0, REAL *lam, REAL *dA, const NAME(ahead) *later, int fetched) {
    V decays[TILE][STATES_BACKWARD][2], decayed[TILE][STATES_BACKWARD][2];
    V h[STATES_BACKWARD][2], carry[STATES_BACKWARD][2], grad[STATES_BACKWARD][2];
#pragma GCC unroll 4
    for (int k = 0; k < states; k++)
        for (int j = 0; j < vectors; j++) h[k][j] = LOAD(h0 + k * BLOCK + j * LANES);
    for (int s = 0; s < count; s++) {
        for (int i = 0; i < fetched; i++)
            for (int j = 0; j < vectors; j++) __builtin_prefetch(later[i].first + s * later[i].step + j * later[i].bytes);
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
        at.dt += PANEL, at.drive += PANEL, at.gy += PANEL, at.y += PANEL, B += n, C += n, sum_C += SUM_ROW;
    }
#pragma GCC unroll 4
    for (int k = 0; k < states; k++)
        for (int j = 0; j < vectors; j++) {
            carry[k][j] = LOAD(lam + k * BLOCK + j * LANES);
            grad[k][j] = LOAD(dA + k * BLOCK + j * LANES);
        }
    at.S += (count - 1) * PANEL, at.decay += (count - 1) * PANEL, sum_B += (count - 1) * SUM_ROW;
    for (int s = count - 1; s >= 0; s--) {
        at.dt -= PANEL, at.drive -= PANEL, at.gy -= PANEL, B -= n, C -= n;
        V step[2], input[2], gy[2], S[2], decay[2];
        for (int j = 0; j < vectors; j++) {
            step[j] = LOAD(at.dt + j * LANES), input[j] = LOAD(at.drive + j * LANES), gy[j] = LOAD(at.gy + j * LANES);
            S[j] = at.fresh ? SPLAT(0) : LOAD(at.S + j * LANES), decay[j] = at.fresh ? SPLAT(0) : LOAD(at.decay + j * LANES);
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
        at.S -= PANEL, at.decay -= PANEL, sum_B -= SUM_ROW;
    }
#pragma GCC unroll 4
    for (int k = 0; k < states; k++)
        for (int j = 0; j < vectors; j++) {
            STORE(lam + k * BLOCK + j * LANES, carry[k][j]);
            STORE(dA + k * BLOCK + j * LANES, grad[k][j]);
        }
}

/* Rows that the next spans read and this one writes. Fetching them is spread evenly over the calls of `adjoint`: in one
 * burst they would wait for memory, which idles while we compute. */
typedef struct { NAME(ahead) rows[7]; int count; } NAME(fetches);

static inline void NAME(add_fetch)(NAME(fetches) *later, const tensor *x, NAME(span) at, int64_t length) {
    const NAME(ahead) rows = NAME(fetch_later)(x, at, length);
    if (rows.first) later->rows[later->count++] = rows;
}

/* All states of one block over a tile. */
static void NAME(adjoint_block)(NAME(span) at, NAME(fetches) later, int64_t n, const REAL *A, const REAL *h, REAL *lam,
                                REAL *dA, NAME(adjoint_buffers) *w) {
    const int64_t calls = (n + STATES_BACKWARD - 1) / STATES_BACKWARD;
    for (int v = 0; v < at.width; v += PANEL) {
        const int64_t from = PANEL_ROW(0, v);
        NAME(column) column = {w->dt + from, w->drive + from, w->gy + from, w->y + from, w->S + from, w->decay + from, 1};
        int64_t k = 0;
#define FROM(k) ((int)((k) / STATES_BACKWARD * later.count / calls))
#define ARGUMENTS at.count, n, column, w->B + k, w->C + k, w->sum_B + SUM_AT(0, k), w->sum_C + SUM_AT(0, k), \
                  A + k * BLOCK + v, h + k * BLOCK + v, lam + k * BLOCK + v, dA + k * BLOCK + v, \
                  later.rows + FROM(k), FROM(k + STATES_BACKWARD) - FROM(k)
        for (; k + STATES_BACKWARD <= n; k += STATES_BACKWARD, column.fresh = 0)
            NAME(adjoint)(STATES_BACKWARD, 2, ARGUMENTS);
        for (; k < n; k++, column.fresh = 0) NAME(adjoint)(1, 2, ARGUMENTS);
#undef ARGUMENTS
#undef FROM
        for (int i = 0; i < later.count; i++) later.rows[i].first += 2 * later.rows[i].bytes;
    }
}
