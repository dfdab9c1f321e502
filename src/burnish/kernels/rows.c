/* What a layer does row by row between its products, in bf16 with fp32 inside: read once, rounded once. */

#include "lanes.h"

#define PARTS 16 /* of a sum over rows, whatever the number of threads */

ALWAYS __m512 load_some(const bf16 *from, __mmask16 there) {
    return widened(_mm256_maskz_loadu_epi16(there, from));
}

ALWAYS void store_some(bf16 *to, __mmask16 there, __m512 x) { _mm256_mask_storeu_epi16(to, there, rounded(x)); }

/* 1 / rms of each row of x. */
int inverse_rms(const bf16 *x, float epsilon, size rows, size width, float *scale, size threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (size r = 0; r < rows; r++) {
        __m512 squares = _mm512_setzero_ps();
        for (size c = 0; c < width; c += LANES) {
            __m512 v = load_some(x + r * width + c, within(c, 0, width));
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        scale[r] = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)width + epsilon);
    }
    return 0;
}

/* out = weight * x * scale, row by row. */
int norm_forward(const bf16 *x, const bf16 *weight, const float *scale, size rows, size width, bf16 *out,
                 size threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (size r = 0; r < rows; r++)
        for (size c = 0; c < width; c += LANES) {
            __mmask16 there = within(c, 0, width);
            __m512 v = _mm512_mul_ps(load_some(x + r * width + c, there), _mm512_set1_ps(scale[r]));
            store_some(out + r * width + c, there, _mm512_mul_ps(v, load_some(weight + c, there)));
        }
    return 0;
}

/* by_x = the norm's gradient plus, unless NULL, that of x's other use; and, unless NULL, by_weight. 0, or -1: no memory. */
int norm_backward(const bf16 *by, const bf16 *other, const bf16 *x, const bf16 *weight, const float *scale, size rows,
                  size width, bf16 *by_x, float *by_weight, size threads) {
    float *parts = by_weight ? calloc(PARTS * width, sizeof(float)) : NULL;
    if (by_weight && !parts) return -1;
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (size part = 0; part < PARTS; part++)
        for (size r = rows * part / PARTS; r < rows * (part + 1) / PARTS; r++) {
            const size at = r * width;
            const __m512 times = _mm512_set1_ps(scale[r]);
            __m512 along = _mm512_setzero_ps();
            for (size c = 0; c < width; c += LANES) {
                __mmask16 there = within(c, 0, width);
                __m512 unit = _mm512_mul_ps(load_some(x + at + c, there), times), g = load_some(by + at + c, there);
                if (parts) {
                    float *sum = parts + part * width + c;
                    _mm512_mask_storeu_ps(sum, there, _mm512_fmadd_ps(g, unit, _mm512_maskz_loadu_ps(there, sum)));
                }
                along = _mm512_fmadd_ps(_mm512_mul_ps(g, load_some(weight + c, there)), unit, along);
            }
            if (!by_x) continue;
            const __m512 less = _mm512_set1_ps(_mm512_reduce_add_ps(along) / (float)width);
            for (size c = 0; c < width; c += LANES) {
                __mmask16 there = within(c, 0, width);
                __m512 unit = _mm512_mul_ps(load_some(x + at + c, there), times);
                __m512 g = _mm512_mul_ps(load_some(by + at + c, there), load_some(weight + c, there));
                __m512 dx = _mm512_mul_ps(_mm512_fnmadd_ps(unit, less, g), times);
                if (other) dx = _mm512_add_ps(dx, load_some(other + at + c, there));
                store_some(by_x + at + c, there, dx);
            }
        }
    if (parts) {
        memset(by_weight, 0, width * sizeof(float));
        for (size part = 0; part < PARTS; part++)
            for (size c = 0; c < width; c++) by_weight[c] += parts[part * width + c];
        free(parts);
    }
    return 0;
}

ALWAYS __m512 sigmoid(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)))));
}

/* out = silu(gate) * up, of `count` numbers. */
int gate_forward(const bf16 *gate, const bf16 *up, size count, bf16 *out, size threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (size c = 0; c < count; c += LANES) {
        __mmask16 there = within(c, 0, count);
        __m512 g = load_some(gate + c, there);
        store_some(out + c, there, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), load_some(up + c, there)));
    }
    return 0;
}

/* The gradients of gate and up, which may take the place of anything but each other. */
int gate_backward(const bf16 *by, const bf16 *gate, const bf16 *up, size count, bf16 *by_gate, bf16 *by_up,
                   size threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (size c = 0; c < count; c += LANES) {
        __mmask16 there = within(c, 0, count);
        __m512 d = load_some(by + c, there), g = load_some(gate + c, there), u = load_some(up + c, there);
        __m512 s = sigmoid(g), opened = _mm512_mul_ps(g, s);
        /* silu' = s + g s (1 - s) */
        __m512 slope = _mm512_fmadd_ps(opened, _mm512_sub_ps(_mm512_set1_ps(1.0f), s), s);
        store_some(by_gate + c, there, _mm512_mul_ps(_mm512_mul_ps(d, u), slope));
        store_some(by_up + c, there, _mm512_mul_ps(d, opened));
    }
    return 0;
}

/* -ln p of each target; with `keep`, d sum(weight * nll) / d logits in the place of the logits (R, V).

   Row r has the targets [starts[r], starts[r + 1]). 0, or -1: out of memory. */
int grade_rows(bf16 *logits, size rows, size vocabulary, const size *starts, const size *targets, const float *weights,
               float *nll, int keep, size threads) {
    size wide = round_up(vocabulary, LANES);
    float *scratch = malloc(threads * wide * sizeof(float));
    if (!scratch) return -1;
#pragma omp parallel for schedule(dynamic, 4) num_threads((int)threads)
    for (size r = 0; r < rows; r++) {
        bf16 *z = logits + r * vocabulary;
        float *e = scratch + omp_get_thread_num() * wide;
        const __m512 low = _mm512_set1_ps(-INFINITY);
        __m512 top[4] = {low, low, low, low}, sum[4];
        size whole = vocabulary / (4 * LANES) * 4 * LANES;
        for (size c = 0; c < whole; c += 4 * LANES)
            for (int j = 0; j < 4; j++) top[j] = _mm512_max_ps(top[j], load_bf16(z + c + j * LANES));
        for (size c = whole; c < vocabulary; c += LANES) {
            __mmask16 there = within(c, 0, vocabulary);
            top[0] = _mm512_mask_max_ps(top[0], there, top[0], load_some(z + c, there));
        }
        float highest = _mm512_reduce_max_ps(
            _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3])));
        const __m512 less = _mm512_set1_ps(highest * LOG2_E), by = _mm512_set1_ps(LOG2_E);
        for (int j = 0; j < 4; j++) sum[j] = _mm512_setzero_ps();
        for (size c = 0; c < whole; c += 4 * LANES)
            for (int j = 0; j < 4; j++) {
                __m512 p = power_of_two(_mm512_fmsub_ps(load_bf16(z + c + j * LANES), by, less));
                sum[j] = _mm512_add_ps(sum[j], p);
                _mm512_storeu_ps(e + c + j * LANES, p);
            }
        for (size c = whole; c < vocabulary; c += LANES) {
            __mmask16 there = within(c, 0, vocabulary);
            __m512 p = power_of_two(_mm512_fmsub_ps(load_some(z + c, there), by, less));
            p = _mm512_maskz_mov_ps(there, p);
            sum[0] = _mm512_add_ps(sum[0], p);
            _mm512_storeu_ps(e + c, p);
        }
        float total = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
        float log_total = logf(total), count = 0.0f;
        for (size t = starts[r]; t < starts[r + 1]; t++) {
            nll[t] = highest - float_of(z[targets[t]]) + log_total;
            count += weights[t];
        }
        if (!keep) continue;
        const __m512 share = _mm512_set1_ps(count / total);
        for (size c = 0; c < vocabulary; c += LANES)
            store_some(z + c, within(c, 0, vocabulary), _mm512_mul_ps(_mm512_loadu_ps(e + c), share));
        for (size t = starts[r]; t < starts[r + 1]; t++) {
            float slope = count / total * e[targets[t]];
            for (size u = starts[r]; u < starts[r + 1]; u++)
                if (targets[u] == targets[t]) slope -= weights[u];
            _mm256_mask_storeu_epi16(z + targets[t], 1, rounded(_mm512_set1_ps(slope)));
        }
    }
    free(scratch);
    return 0;
}
