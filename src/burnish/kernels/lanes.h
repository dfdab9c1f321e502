/* Sixteen floats at a time, and bf16 numbers in and out of them. */

#ifndef BURNISH_LANES_H
#define BURNISH_LANES_H

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;
typedef int64_t size;

#define LANES 16
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS size least(size a, size b) { return a < b ? a : b; }
ALWAYS size most(size a, size b) { return a > b ? a : b; }
ALWAYS size even_below(size a) { return a & ~(size)1; }
ALWAYS size round_up(size a, size to) { return (a + to - 1) / to * to; }

/* The lanes of a vector that starts at column `at` which lie within [low, high). */
ALWAYS __mmask16 within(size at, size low, size high) {
    size from = most(low - at, 0), to = least(high - at, LANES);
    return from >= to ? 0 : (__mmask16)((0xFFFFu << from) & (0xFFFFu >> (LANES - to)));
}

ALWAYS __m512 widened(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

ALWAYS __m512 load_bf16(const bf16 *from) { return widened(_mm256_loadu_si256((const __m256i *)from)); }

ALWAYS __m256i rounded(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

ALWAYS void store_bf16(bf16 *to, __m512 x) { _mm256_storeu_si256((__m256i *)to, rounded(x)); }

ALWAYS float float_of(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Two rows of bf16, number by number side by side, as _mm512_dpbf16_ps takes them. */
ALWAYS __m512i interleaved(__m256i even, __m256i odd) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

/* 2^x, off by at most 2 in the last place; 0 far below and infinity far above what a float holds. */
ALWAYS __m512 power_of_two(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole); /* in [-1/2, 1/2]: the Taylor series of 2^rest */
    __m512 y = _mm512_set1_ps(1.54035304e-4f);
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.33335581e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.61812911e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

#define LOG2_E 1.44269504088896341f
#define LN_2 0.693147180559945309f

#endif
