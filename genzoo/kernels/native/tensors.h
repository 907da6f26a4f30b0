/* How tensors come in from Python: one array of 64-bit integers, four for each tensor. */
#ifndef GENZOO_TENSORS_H
#define GENZOO_TENSORS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__SSE__)
#include <xmmintrin.h>
#endif

enum { REAL_TYPE = 0, BFLOAT16 = 1 };

/* (b, l, d) with unit stride along d; strides count elements. `type` is REAL_TYPE for the precision computed in. */
typedef struct { char *data; int64_t batch_stride, row_stride, type; } tensor;

static inline float from_bfloat16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

static inline uint16_t to_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0 : rounded);
}

/* Decaying states reach denormals, which cost a hundred cycles each on some machines: flush them while we compute. */
static inline unsigned flush_denormals(void) {
#if defined(__SSE__)
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040);
    return saved;
#else
    return 0;
#endif
}

static inline void restore_denormals(unsigned saved) {
#if defined(__SSE__)
    _mm_setcsr(saved);
#else
    (void)saved;
#endif
}

/* Scratch memory on a cache line; aborts like any failed small allocation, there is no way to go on. */
static inline void *scratch(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 64)) abort();
    return p;
}

#define CONCAT_(a, b) a##_##b
#define CONCAT(a, b) CONCAT_(a, b)
#endif
