/* Moving (steps, channels) tiles between strided tensors of either type and dense local buffers of width BLOCK. */

/* The address of row t of sample b, from channel d on. */
static inline char *NAME(row)(const tensor *x, int64_t b, int64_t t, int64_t d) {
    return x->data + (b * x->batch_stride + t * x->row_stride + d) * (x->type == BFLOAT16 ? 2 : (int64_t)sizeof(REAL));
}

/* LANES values from the i-th of a row on, of either type; bfloat16 only where REAL is float. */
static inline V NAME(take)(const char *row, int64_t type, int64_t i) {
#if !IS_DOUBLE
    if (type == BFLOAT16) {
        typedef uint16_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));
        halves bits;
        memcpy(&bits, (const uint16_t *)row + i, sizeof bits);
        return (V)(__builtin_convertvector(bits, IV) << 16);
    }
#endif
    (void)type;
    return LOAD((const REAL *)row + i);
}

static inline void NAME(put)(char *row, int64_t type, int64_t i, V x) {
#if !IS_DOUBLE
    if (type == BFLOAT16) {
        typedef uint16_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));
        typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
        words bits = (words)x, nan = (words)(x != x);
        bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        halves rounded = __builtin_convertvector((nan & 0x7fc0) | (~nan & bits), halves);
        memcpy((uint16_t *)row + i, &rounded, sizeof rounded);
        return;
    }
#endif
    (void)type;
    STORE((REAL *)row + i, x);
}

/* width <= room values; the rest of `room` becomes zero. A full block is moved without a call. */
static inline void NAME(read_row)(const char *p, int64_t type, int width, int room, REAL *out) {
    if (type == REAL_TYPE && width == BLOCK && room == BLOCK) {
        for (int v = 0; v < BLOCK; v += LANES) STORE(out + v, LOAD((const REAL *)p + v));
        return;
    }
    if (type == BFLOAT16) {
        const uint16_t *q = (const uint16_t *)p;
        int i = 0;
        for (; i + LANES <= width; i += LANES) STORE(out + i, NAME(take)(p, type, i));
        for (; i < width; i++) out[i] = (REAL)from_bfloat16(q[i]);
    } else {
        memcpy(out, p, (size_t)width * sizeof(REAL));
    }
    for (int i = width; i < room; i++) out[i] = 0;
}

static inline void NAME(write_row)(char *p, int64_t type, int width, const REAL *x) {
    if (type == REAL_TYPE && width == BLOCK) {
        for (int v = 0; v < BLOCK; v += LANES) STORE((REAL *)p + v, LOAD(x + v));
        return;
    }
    if (type == BFLOAT16) {
        uint16_t *q = (uint16_t *)p;
        int i = 0;
        for (; i + LANES <= width; i += LANES) NAME(put)(p, type, i, LOAD(x + i));
        for (; i < width; i++) q[i] = to_bfloat16((float)x[i]);
    } else {
        memcpy(p, x, (size_t)width * sizeof(REAL));
    }
}

/* Rows first, first + step, ... of channels d .. d + width into a (count, room) buffer. */
static inline void NAME(read_tile)(const tensor *x, int64_t b, int64_t first, int64_t step, int count, int64_t d,
                                   int width, int room, REAL *out) {
    for (int s = 0; s < count; s++)
        NAME(read_row)(NAME(row)(x, b, first + s * step, d), x->type, width, room, out + (int64_t)s * room);
}

static inline void NAME(write_tile)(const tensor *x, int64_t b, int64_t first, int64_t step, int count, int64_t d,
                                    int width, int room, const REAL *in) {
    for (int s = 0; s < count; s++)
        NAME(write_row)(NAME(row)(x, b, first + s * step, d), x->type, width, in + (int64_t)s * room);
}

/* Rows first, first + step, ... of channels d .. d + width <= BLOCK of sample b. */
typedef struct { int64_t b, first, step, d; int count, width; } NAME(span);

/* Row s of a span: where it lies if it can be used there, else a copy. */
static inline const REAL *NAME(view_row)(const tensor *x, NAME(span) at, int s, REAL *copy) {
    const char *p = NAME(row)(x, at.b, at.first + s * at.step, at.d);
    if (x->type == REAL_TYPE && at.width == BLOCK) return (const REAL *)p;
    NAME(read_row)(p, x->type, at.width, BLOCK, copy);
    return copy;
}

/* Rows to fetch into the cache while computing on the ones before them: one line for each vector of a row. */
typedef struct { const char *first; int64_t step; int bytes; } NAME(ahead);

static inline NAME(ahead) NAME(fetch_later)(const tensor *x, NAME(span) at, int64_t length) {
    const int64_t size = x->type == BFLOAT16 ? 2 : (int64_t)sizeof(REAL);
    NAME(ahead) rows = {NULL, 0, (int)(size * LANES)};
    if (x->data && at.first >= 0 && at.first < length)
        rows.first = NAME(row)(x, at.b, at.first, at.d), rows.step = at.step * x->row_stride * size;
    return rows;
}
