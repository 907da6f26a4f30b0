/* Vectors of the widest registers of the machine that builds this, and the few functions the kernels need on them.
 *
 * Included once per precision with REAL (float or double) and SUFFIX defined. GCC's and Clang's vector extensions
 * carry the arithmetic; intrinsics appear only where AVX-512 has an instruction that the extensions cannot express.
 */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))
#define VECTORS 4                  /* per channel block: a row of a block is a few cache lines */
#define BLOCK (LANES * VECTORS)    /* channels of one block */

typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef NAME(vec) NAME(vec_unaligned) __attribute__((aligned(4), may_alias));
#define V NAME(vec)
#define INT NAME(lane_int)
#if IS_DOUBLE
typedef int64_t NAME(lane_int);
#define MAGIC 6755399441055744.0   /* 1.5 * 2^52: adding it rounds to an integer, kept in the low bits */
#define MANTISSA 52
#define EXPONENT_MIN -1022
#else
typedef int32_t NAME(lane_int);
#define MAGIC 12582912.0f          /* 1.5 * 2^23 */
#define MANTISSA 23
#define EXPONENT_MIN -126
#endif
typedef NAME(lane_int) NAME(ivec) __attribute__((vector_size(VECTOR_BYTES)));
#define IV NAME(ivec)

static inline V NAME(load)(const REAL *p) { return *(const NAME(vec_unaligned) *)p; }
static inline void NAME(store)(REAL *p, V x) { *(NAME(vec_unaligned) *)p = x; }
static inline V NAME(splat)(REAL x) { return x - (V){0}; }
static inline V NAME(select)(IV mask, V yes, V no) { return (V)((mask & (IV)yes) | (~mask & (IV)no)); }
#define LOAD NAME(load)
#define STORE NAME(store)
#define SPLAT NAME(splat)
#define SELECT NAME(select)

/* Written so that NaN passes through; the instructions return their second operand then. */
static inline V NAME(at_least)(V x, REAL low) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    return (V)_mm512_max_ps((__m512)SPLAT(low), (__m512)x);
#else
    return SELECT(x < SPLAT(low), SPLAT(low), x);
#endif
}

static inline V NAME(at_most)(V x, REAL high) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    return (V)_mm512_min_ps((__m512)SPLAT(high), (__m512)x);
#else
    return SELECT(x > SPLAT(high), SPLAT(high), x);
#endif
}

static inline V NAME(reciprocal)(V x) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    V r = (V)_mm512_rcp14_ps((__m512)x);
    return r * (2.0f - x * r);     /* one Newton step: 2^-28 */
#else
    return (REAL)1 / x;
#endif
}

/* 2^f for |f| <= 1/2. float: degree 5, relative error 9e-8, exact near 0 where slow states live; double: Taylor. */
static inline V NAME(exp2_fraction)(V f) {
#if IS_DOUBLE
    static const double c[] = {1.3691488853904129e-12, 2.5678435993488206e-11, 4.4455382718708115e-10,
        7.0549116208011234e-09, 1.0178086009239699e-07, 1.3215486790144309e-06, 1.5252733804059841e-05,
        1.5403530393381609e-04, 1.3333558146428443e-03, 9.6181291076284772e-03, 5.5504108664821580e-02,
        2.4022650695910072e-01, 6.9314718055994531e-01, 1.0};
    V p = SPLAT(c[0]);
    for (int i = 1; i < 14; i++) p = p * f + c[i];
    return p;
#else
    V p = SPLAT(1.326472731307149e-3f);
    p = p * f + 9.671512991189957e-3f;
    p = p * f + 5.550733581185341e-2f;
    p = p * f + 2.4022242426872253e-1f;
    p = p * f + 6.931470036506653e-1f;
    return p * f + 1.0f;
#endif
}

/* p * 2^n for integral n; results below the normal range are as good as zero. */
static inline V NAME(scale_by_power)(V p, V n) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    return (V)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    IV bits = (IV)(n + (REAL)MAGIC);
    return (V)((IV)p + (bits << MANTISSA));
#endif
}

static inline V NAME(nearest_integer)(V x) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    return (V)_mm512_roundscale_ps((__m512)x, 8);
#else
    return (x + (REAL)MAGIC) - (REAL)MAGIC;
#endif
}

static inline V NAME(exp2)(V x) {
#if IS_DOUBLE || VECTOR_BYTES != 64
    x = NAME(at_most)(NAME(at_least)(x, EXPONENT_MIN), -EXPONENT_MIN);
#endif
    V n = NAME(nearest_integer)(x);
    return NAME(scale_by_power)(NAME(exp2_fraction)(x - n), n);
}

#define AT_ONCE 4                  /* exponentials worked on side by side: each alone is a chain of nine operations */
#define EACH(i, count) _Pragma("GCC unroll 4") for (int i = 0; i < (count); i++)

/* a[i] = 2^(x y[i]) for `count` <= AT_ONCE rows of y. In float on AVX-512: 2^(j/16) from a register and a cubic for the
 * rest, which asks less of the multipliers than exp2_fraction; relative error 1.2e-7, exact near 0. scalef takes the
 * whole part of n by itself. */
static inline __attribute__((always_inline)) void NAME(exp2_products)(const int count, V x, const REAL *y, V *a) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    const __m512i sixteenths = _mm512_setr_epi32(
        0x3f800000, 0x3f85aac3, 0x3f8b95c2, 0x3f91c3d3,
        0x3f9837f0, 0x3f9ef532, 0x3fa5fed7, 0x3fad583f,
        0x3fb504f3, 0x3fbd08a4, 0x3fc5672a, 0x3fce248c,
        0x3fd744fd, 0x3fe0ccdf, 0x3feac0c7, 0x3ff5257d);
    V f[AT_ONCE], n[AT_ONCE], power[AT_ONCE];
    EACH(i, count) {
        f[i] = x * LOAD(y + i * BLOCK);
        __asm__("" : "+v"(f[i]));  /* else the compiler fuses it into the sums below: a second multiplication */
    }
    EACH(i, count) power[i] = f[i] + (REAL)(MAGIC / 16);
    EACH(i, count) n[i] = power[i] - (REAL)(MAGIC / 16);
    EACH(i, count) f[i] -= n[i];
    EACH(i, count) power[i] = (V)_mm512_permutexvar_epi32((__m512i)power[i], sixteenths);
    EACH(i, count) power[i] = (V)_mm512_scalef_ps((__m512)power[i], (__m512)n[i]);
    EACH(i, count) a[i] = SPLAT(5.550410866e-2f) * f[i] + 2.402265070e-1f;
    EACH(i, count) a[i] = a[i] * f[i] + 6.931471806e-1f;
    EACH(i, count) a[i] *= f[i];
    EACH(i, count) {
        a[i] = power[i] * a[i] + power[i];
        __asm__("" : "+v"(a[i]));  /* and else it would turn the order back into one chain after the other */
    }
#else
    EACH(i, count) a[i] = NAME(exp2)(x * LOAD(y + i * BLOCK));
#endif
}

/* e^x for x <= 88 (710), the product by log2(e) in two parts because its rounding would show in small dt. */
static inline V NAME(exp)(V x) {
    const REAL high = (REAL)1.4426950408889634074, low = (REAL)(1.4426950408889634074L - (long double)high);
    x = NAME(at_least)(x, (REAL)(EXPONENT_MIN * 0.693));
    V n = NAME(nearest_integer)(x * high);
    V f = (x * high - n) + x * low;
    return NAME(scale_by_power)(NAME(exp2_fraction)(f), n);
}

static inline V NAME(sigmoid)(V x) {
    return NAME(reciprocal)(1 + NAME(exp)(NAME(at_most)(-x, (REAL)(-EXPONENT_MIN * 0.693))));
}

/* log(1 + w) for 0 <= w <= 1, as 2 atanh(w / (2 + w)); relative accuracy also where w is tiny. */
static inline V NAME(log1p)(V w) {
    V s = w * NAME(reciprocal)(2 + w), q = s * s;
#if IS_DOUBLE
    V p = SPLAT((REAL)1 / 37);
    for (int k = 35; k >= 1; k -= 2) p = p * q + (REAL)1 / k;
    return 2 * s * p;
#else
    V p = SPLAT(0.2801198661327362f);
    p = p * q + 0.28001806139945984f;
    p = p * q + 0.4002152681350708f;
    p = p * q + 0.666664183139801f;
    return s * (p * q + 2.0f);
#endif
}

/* The identity above 20, like torch's; *slope becomes its derivative. */
static inline V NAME(softplus)(V x, V *slope) {
    V positive = NAME(at_least)(x, 0), tail = NAME(exp)(x - 2 * positive);      /* e^-|x| */
    V y = positive + NAME(log1p)(tail);
    V sigma = NAME(reciprocal)(1 + tail);
    *slope = SELECT(x > SPLAT(20), SPLAT(1), SELECT(x > SPLAT(0), sigma, tail * sigma));
    return SELECT(x > SPLAT(20), x, y);
}

static inline REAL NAME(sum_lanes)(V x) {
#if !IS_DOUBLE && VECTOR_BYTES == 64
    return _mm512_reduce_add_ps((__m512)x);
#endif
    REAL lanes[LANES];
    STORE(lanes, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}
