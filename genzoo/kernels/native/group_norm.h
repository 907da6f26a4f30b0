/* A group norm of maps with their channels side by side, and its SiLU: y = n s(n), n = (x - mean) r weight + bias.
 *
 * Sums are taken by channel and about the mean of a channel's first pixels: the mean of squares less the square of the
 * mean would lose the digits of channels far from zero. Pieces are summed in REAL, their sums in double.
 */
#define GROUP_PIECE 32 /* pixels */

typedef struct {
    int64_t samples, pixels, channels, groups, silu; /* channels: a multiple of LANES */
    double eps;
    tensor x, out; /* (samples, pixels, channels) */
    const REAL *weight, *bias;
    REAL *about, *factor, *shift; /* of a channel: n = x factor + shift */
    double *sums, *squares;       /* of x - about and its square */
} NAME(group_norm);

/* Pixels first .. end of LANES channels. */
static inline void NAME(group_piece)(const NAME(group_norm) *call, int64_t b, int64_t c, int64_t first, int64_t end) {
    const int64_t type = call->x.type;
    V sum = SPLAT(0), square = SPLAT(0), about = SPLAT(0);
    if (first) {
        about = LOAD(call->about + c);
    } else {
        for (int64_t p = 0; p < end; p++) about += NAME(take)(NAME(row)(&call->x, b, p, 0), type, c);
        about = about / (REAL)end;
        STORE(call->about + c, about);
    }
    for (int64_t p = first; p < end; p++) {
        V centred = NAME(take)(NAME(row)(&call->x, b, p, 0), type, c) - about;
        sum += centred, square += centred * centred;
    }
    for (int i = 0; i < LANES; i++) call->sums[c + i] += sum[i], call->squares[c + i] += square[i];
}

static void NAME(group_sums)(const NAME(group_norm) *call, int64_t b, int64_t low, int64_t high) {
    for (int64_t c = low; c < high; c++) call->sums[c] = call->squares[c] = 0;
    for (int64_t first = 0; first < call->pixels; first += GROUP_PIECE) {
        const int64_t end = first + GROUP_PIECE < call->pixels ? first + GROUP_PIECE : call->pixels;
        for (int64_t c = low; c < high; c += LANES) NAME(group_piece)(call, b, c, first, end);
    }
}

static void NAME(group_factors)(const NAME(group_norm) *call, int64_t group) {
    const int64_t width = call->channels / call->groups, low = group * width, high = low + width;
    const double pixels = (double)call->pixels;
    double mean = 0, squares = 0;
    for (int64_t c = low; c < high; c++) mean += ((double)call->about[c] + call->sums[c] / pixels) / (double)width;
    for (int64_t c = low; c < high; c++) {
        const double own = (double)call->about[c] + call->sums[c] / pixels - mean;
        squares += call->squares[c] - call->sums[c] * call->sums[c] / pixels + pixels * own * own;
    }
    const double r = 1 / sqrt(squares / (pixels * (double)width) + call->eps);
    for (int64_t c = low; c < high; c++) {
        call->factor[c] = (REAL)(r * (double)call->weight[c]);
        call->shift[c] = (REAL)((double)call->bias[c] - mean * r * (double)call->weight[c]);
    }
}

static void NAME(group_pixel)(const NAME(group_norm) *call, int64_t b, int64_t p) {
    const char *x = NAME(row)(&call->x, b, p, 0);
    char *out = NAME(row)(&call->out, b, p, 0);
    for (int64_t c = 0; c < call->channels; c += LANES) {
        V n = NAME(take)(x, call->x.type, c) * LOAD(call->factor + c) + LOAD(call->shift + c);
        NAME(put)(out, call->out.type, c, call->silu ? n * NAME(sigmoid)(n) : n);
    }
}

/* Threads share the channels of the sums and the pixels of the rest, so that their number changes no bit. */
static void NAME(group_norm_run)(NAME(group_norm) *call, int threads) {
    const int64_t vectors = call->channels / LANES;
    char *room = scratch((size_t)call->channels * (3 * sizeof(REAL) + 2 * sizeof(double)));
    call->sums = (double *)room, call->squares = call->sums + call->channels;
    call->about = (REAL *)(call->squares + call->channels);
    call->factor = call->about + call->channels, call->shift = call->factor + call->channels;
    for (int64_t b = 0; b < call->samples; b++) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int part = 0; part < threads; part++)
            NAME(group_sums)(call, b, vectors * part / threads * LANES, vectors * (part + 1) / threads * LANES);
        for (int64_t group = 0; group < call->groups; group++) NAME(group_factors)(call, group);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int64_t p = 0; p < call->pixels; p++) NAME(group_pixel)(call, b, p);
    }
    free(room);
}
