/* Causal attention over the runs of a pack, in bf16, with its gradient.

   A run is one segment: its queries see the spans of their ancestors and, causally, their own. It is cut into blocks of
   QUERIES tokens; a block of one head is compared with KEYS keys at a time, so that scores never leave the cache.
   Scores, shares and sums are fp32; what enters a product is bf16.

   Products take pairs of bf16 (_mm512_dpbf16_ps): `multiply` has A's pairs broadcast and B's in lanes. Hence the copies

       across    [D/2][T]   pairs along D, tokens in lanes        for  Q K^T  and  dO V^T
       pairs     [T/2][D]   pairs of neighbouring tokens          for  P V,  dS K,  P^T dO  and  dS^T Q

   whose tokens are those of the whole pack: a span is a slice. Pairs begin at even tokens, so a block may begin one
   token early; `Row` says of each query which of a block's columns it sees, all else counts as zero.

   The gradients of keys and values are added up block by block in the order of the blocks, whoever computed them:
   the result does not depend on the number of threads. */

#include "lanes.h"

#define QUERIES 48
#define KEYS 256
#define WIDE (KEYS + 2 * LANES)
#define DEPTH 256 /* the most numbers of a head */
#define ROWS 6 /* of a register tile; even, for pairs of queries */

typedef struct {
    size start, end;   /* the segment's tokens */
    size first, stop;  /* those of them whose attention is asked for */
    size spans, count; /* where its ancestors' spans begin, and how many they are */
} Run;

typedef struct {
    size low, high;
} Row;

typedef struct {
    size start, end, position; /* tokens [start, end); `position` of the first in the document */
} Span;

typedef struct {
    const bf16 *at;
    size token, head; /* numbers from one to the next */
} Heads;

typedef struct {
    const bf16 *cos, *sin; /* (T, D), halves alike; NULL: as they come */
} Turn;

typedef struct {
    size tokens, heads, kv_heads, depth, runs, window;
    float scale;
    const Run *run;
    const size *span; /* pairs of start and end */
} Pack;

/* C (m, 16 n) += or = A (m, 2 k) B (2 k, 16 n): A's pair p of row i at A[i * row + p * pair], B's pairs p at B[p * b]. */
ALWAYS void tile(const int m, const int n, size k, const uint32_t *A, size row, size pair, const uint32_t *B, size b,
                 float *C, size c, int add) {
    __m512 sum[ROWS][4];
#pragma GCC unroll 6
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) sum[i][j] = add ? _mm512_loadu_ps(C + i * c + j * LANES) : _mm512_setzero_ps();
    for (size p = 0; p < k; p++) {
        __m512bh right[4];
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) right[j] = (__m512bh)_mm512_loadu_si512(B + p * b + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < m; i++) {
            __m512bh left = (__m512bh)_mm512_set1_epi32((int)A[i * row + p * pair]);
#pragma GCC unroll 4
            for (int j = 0; j < n; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) _mm512_storeu_ps(C + i * c + j * LANES, sum[i][j]);
}

#define TILE(m, n) tile(m, n, k, A, row, pair, B, b, C, c, add)
#define TILES(m)                    \
    switch (n) {                    \
        case 4: TILE(m, 4); break;  \
        case 3: TILE(m, 3); break;  \
        case 2: TILE(m, 2); break;  \
        default: TILE(m, 1);        \
    }

static __attribute__((noinline)) void tiles(int m, int n, size k, const uint32_t *A, size row, size pair,
                                            const uint32_t *B, size b, float *C, size c, int add) {
    switch (m) {
        case 6: TILES(6); break;
        case 5: TILES(5); break;
        case 4: TILES(4); break;
        case 3: TILES(3); break;
        case 2: TILES(2); break;
        default: TILES(1);
    }
}

/* At most ROWS rows of C, of `wide` columns rounded up to whole vectors. */
ALWAYS void multiply(size m, size wide, size k, const uint32_t *A, size row, size pair, const uint32_t *B, size b,
                     float *C, size c, int add) {
    for (size at = 0; at < wide; at += 4 * LANES)
        tiles((int)m, (int)least(4, (wide - at + LANES - 1) / LANES), k, A, row, pair, B + at, b, C + at, c, add);
}

/* ---- copies ---- */

ALWAYS void turn_row(const bf16 *from, bf16 *to, size depth, const bf16 *cos, const bf16 *sin) {
    size half = depth / 2;
    for (size d = 0; d < half; d += LANES) {
        __mmask16 there = within(d, 0, half);
        __m512 a = widened(_mm256_maskz_loadu_epi16(there, from + d));
        __m512 b = widened(_mm256_maskz_loadu_epi16(there, from + half + d));
        __m512 c = widened(_mm256_maskz_loadu_epi16(there, cos + d));
        __m512 s = widened(_mm256_maskz_loadu_epi16(there, sin + d));
        _mm256_mask_storeu_epi16(to + d, there, rounded(_mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c))));
        _mm256_mask_storeu_epi16(to + half + d, there, rounded(_mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c))));
    }
}

/* Token t of a head, turned where it is to be. */
ALWAYS void take_row(const Pack *pack, Heads from, Turn turn, size head, size t, bf16 *to) {
    const bf16 *x = from.at + t * from.token + head * from.head;
    if (turn.cos)
        turn_row(x, to, pack->depth, turn.cos + t * pack->depth, turn.sin + t * pack->depth);
    else
        memcpy(to, x, pack->depth * sizeof(bf16));
}

/* `scale` times a row of fp32, turned back where it was turned, to bf16. */
ALWAYS void give_row(const Pack *pack, const float *from, Turn turn, float scale, size t, bf16 *to) {
    size half = pack->depth / 2;
    __m512 by = _mm512_set1_ps(scale);
    if (!turn.cos) {
        for (size d = 0; d < pack->depth; d += LANES) store_bf16(to + d, _mm512_mul_ps(_mm512_loadu_ps(from + d), by));
        return;
    }
    for (size d = 0; d < half; d += LANES) {
        __mmask16 there = within(d, 0, half);
        __m512 a = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, from + d), by);
        __m512 b = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, from + half + d), by);
        __m512 c = widened(_mm256_maskz_loadu_epi16(there, turn.cos + t * pack->depth + d));
        __m512 s = widened(_mm256_maskz_loadu_epi16(there, turn.sin + t * pack->depth + d));
        _mm256_mask_storeu_epi16(to + d, there, rounded(_mm512_fmadd_ps(b, s, _mm512_mul_ps(a, c))));
        _mm256_mask_storeu_epi16(to + half + d, there, rounded(_mm512_fnmadd_ps(a, s, _mm512_mul_ps(b, c))));
    }
}

/* Sixteen tokens at a time of one head into whichever of the three copies are asked for. */
typedef struct {
    bf16 *rows;       /* [T][D] */
    uint32_t *across; /* [D/2][stride] */
    uint32_t *pairs;  /* [T/2 + 1][D] */
} Copies;

static void copy_tokens(const Pack *pack, Heads from, Turn turn, size head, size t, size stride, Copies to) {
    size depth = pack->depth, count = least(LANES, pack->tokens - t);
    bf16 block[LANES][DEPTH];
    for (size i = 0; i < count; i++) take_row(pack, from, turn, head, t + i, block[i]);
    for (size i = count; i < LANES; i++) memset(block[i], 0, depth * sizeof(bf16));
    if (to.rows)
        for (size i = 0; i < count; i++) memcpy(to.rows + (t + i) * depth, block[i], depth * sizeof(bf16));
    if (to.across)
        for (size p = 0; p < depth / 2; p++)
            for (size i = 0; i < LANES; i++) memcpy(to.across + p * stride + t + i, block[i] + 2 * p, 4);
    if (to.pairs)
        for (size i = 0; i < count; i += 2)
            for (size d = 0; d < depth; d += LANES)
                _mm512_storeu_si512(to.pairs + (t + i) / 2 * depth + d,
                                    interleaved(_mm256_loadu_si256((const __m256i *)(block[i] + d)),
                                                _mm256_loadu_si256((const __m256i *)(block[i + 1] + d))));
}

/* ---- which columns a query sees ---- */

/* The span of this number: an ancestor's, or at last the run's own. */
ALWAYS Span span_of(const Pack *pack, const Run *run, size number) {
    const size *ends = pack->span + 2 * run->spans;
    size position = 0;
    for (size i = 0; i < number; i++) position += ends[2 * i + 1] - ends[2 * i];
    if (number == run->count) return (Span){run->start, run->end, position};
    return (Span){ends[2 * number], ends[2 * number + 1], position};
}

/* The tokens of a span that a query at this position sees. */
ALWAYS Row seen(const Pack *pack, const Span *span, size position) {
    size low = pack->window ? position - pack->window + 1 - span->position : 0;
    size high = position - span->position + 1;
    return (Row){span->start + most(low, 0), span->start + least(high, span->end - span->start)};
}

/* Queries of a run that are computed together: rows [from, stop), of which those before `first` are not asked for. */
typedef struct {
    const Run *run;
    size kv_head, from, first, stop;
    size own; /* the position of the run's own first token */
} Block;

static Block *blocks_of(const Pack *pack, size *found) {
    size count = 0, at = 0;
    for (size r = 0; r < pack->runs; r++)
        count += round_up(pack->run[r].stop - even_below(pack->run[r].first), QUERIES) / QUERIES * pack->kv_heads;
    Block *blocks = malloc((count + 1) * sizeof(Block));
    if (!blocks) return NULL;
    for (size r = 0; r < pack->runs; r++) {
        const Run *run = pack->run + r;
        if (run->first == run->stop) continue;
        size own = span_of(pack, run, run->count).position;
        for (size from = even_below(run->first); from < run->stop; from += QUERIES)
            for (size h = 0; h < pack->kv_heads; h++)
                blocks[at++] = (Block){run, h, from, most(from, run->first), least(from + QUERIES, run->stop), own};
    }
    *found = at;
    return blocks;
}

/* The tokens of the run's span of this number that any query of the block sees, from an even one on. */
ALWAYS Row reach_of(const Pack *pack, const Block *block, size number, Span *span) {
    size from = block->own + block->first - block->run->start, to = block->own + block->stop - 1 - block->run->start;
    *span = span_of(pack, block->run, number);
    return (Row){even_below(seen(pack, span, from).low), seen(pack, span, to).high};
}

/* For each of the block's first `count` queries, the columns it sees of the keys that begin at `keys`. */
ALWAYS void look(const Pack *pack, const Block *block, const Span *span, size count, size keys, size columns,
                 Row *rows) {
    for (size i = 0; i < count; i++) {
        size t = block->from + i;
        Row row = {0, 0};
        if (t >= block->first && t < block->stop) {
            row = seen(pack, span, block->own + t - block->run->start);
            row.low = least(most(row.low - keys, 0), columns), row.high = least(most(row.high - keys, 0), columns);
        }
        rows[i] = row.low < row.high ? row : (Row){0, 0};
    }
}

ALWAYS size widest(const Row *rows, size count) {
    size high = 0;
    for (size i = 0; i < count; i++) high = most(high, rows[i].high);
    return high;
}

/* ---- forward ---- */

typedef struct {
    float scores[QUERIES][WIDE];
    bf16 shares[QUERIES][WIDE];
    float out[QUERIES * DEPTH];
    float top[QUERIES], total[QUERIES];
    Row rows[QUERIES];
} Ahead;

/* One row's shares of a block, 2^(score - top) in bf16; the sums so far are brought to a new top. */
ALWAYS void share_out(Ahead *at, size i, size wide, size depth, float scale) {
    Row row = at->rows[i];
    float *scores = at->scores[i];
    __m512 by = _mm512_set1_ps(scale), top = _mm512_set1_ps(at->top[i]), total = _mm512_setzero_ps();
    for (size c = row.low / LANES * LANES; c < row.high; c += LANES) {
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores + c), by);
        _mm512_storeu_ps(scores + c, x);
        top = _mm512_mask_max_ps(top, within(c, row.low, row.high), top, x);
    }
    float highest = _mm512_reduce_max_ps(top), before = at->top[i];
    top = _mm512_set1_ps(highest);
    for (size c = 0; c < wide; c += LANES) {
        __mmask16 there = within(c, row.low, row.high);
        __m512 p = _mm512_maskz_mov_ps(there, power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + c), top)));
        total = _mm512_add_ps(total, p);
        store_bf16(at->shares[i] + c, p);
    }
    if (highest > before && before > -INFINITY) {
        float less = exp2f(before - highest), *out = at->out + i * depth;
        at->total[i] *= less;
        for (size d = 0; d < depth; d += LANES)
            _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), _mm512_set1_ps(less)));
    }
    at->top[i] = highest;
    at->total[i] += _mm512_reduce_add_ps(total);
}

static void attend_block(const Pack *pack, const Block *block, size head, const bf16 *q, const uint32_t *k_across,
                         const uint32_t *v_pairs, size stride, Ahead *at, bf16 *out, float *sums) {
    size depth = pack->depth, count = block->stop - block->from;
    for (size i = 0; i < count; i++) at->top[i] = -INFINITY, at->total[i] = 0.0f;
    memset(at->out, 0, count * depth * sizeof(float));
    Span span;
    for (size number = 0; number <= block->run->count; number++) {
        Row reach = reach_of(pack, block, number, &span);
        for (size keys = reach.low; keys < reach.high; keys += KEYS) {
            size columns = least(KEYS, reach.high - keys);
            look(pack, block, &span, count, keys, columns, at->rows);
            for (size i = 0; i < count; i += ROWS) {
                size m = least(ROWS, count - i), wide = widest(at->rows + i, m);
                if (!wide) continue;
                const uint32_t *rows = (const uint32_t *)(q + (block->from + i) * depth);
                multiply(m, wide, depth / 2, rows, depth / 2, 1, k_across + keys, stride, at->scores[i], WIDE, 0);
                for (size j = i; j < i + m; j++)
                    share_out(at, j, wide, depth, pack->scale * LOG2_E);
                multiply(m, depth, (wide + 1) / 2, (const uint32_t *)at->shares[i], WIDE / 2, 1,
                         v_pairs + keys / 2 * depth, depth, at->out + i * depth, depth, 1);
            }
        }
    }
    for (size i = block->first - block->from; i < count; i++) {
        size t = block->from + i;
        bf16 *to = out + (t * pack->heads + head) * depth;
        __m512 by = _mm512_set1_ps(1.0f / at->total[i]);
        for (size d = 0; d < depth; d += LANES) store_bf16(to + d, _mm512_mul_ps(_mm512_loadu_ps(at->out + i * depth + d), by));
        sums[head * pack->tokens + t] = at->top[i] + log2f(at->total[i]);
    }
}

/* Where `across` keeps its rows: an odd number of cache lines apart, so that they do not fall on one another. */
ALWAYS size stride_of(size tokens) { return round_up(tokens + WIDE, LANES) | LANES; }

/* (T, H, D) over (T, H_kv, D) to (T, H, D), and the log2 of each row's sum (H, T). 0, or -1 where memory ran out. */
int attention_forward(const bf16 *q, size q_token, size q_head, const bf16 *k, size k_token, size k_head, const bf16 *v,
                      size v_token, size v_head, const bf16 *cos, const bf16 *sin, const size *runs, size run_count,
                      const size *spans, size tokens, size heads, size kv_heads, size depth, float scale, size window,
                      bf16 *out, float *sums, size threads) {
    Pack pack = {tokens, heads, kv_heads, depth, run_count, window, scale, (const Run *)runs, spans};
    Turn turn = {cos, sin}, none = {NULL, NULL};
    size group = heads / kv_heads, stride = stride_of(tokens), half = round_up(tokens + WIDE, 2) / 2, blocks = 0;
    bf16 *rows = malloc(heads * tokens * depth * sizeof(bf16));
    uint32_t *across = malloc(kv_heads * (depth / 2) * stride * 4), *pairs = malloc(kv_heads * half * depth * 4);
    Block *block = blocks_of(&pack, &blocks);
    Ahead *at = malloc(threads * sizeof(Ahead));
    int failed = !rows || !across || !pairs || !block || !at;
    if (!failed) {
        memset(out, 0, tokens * heads * depth * sizeof(bf16));
#pragma omp parallel num_threads((int)threads)
        {
#pragma omp for schedule(static) collapse(2)
            for (size h = 0; h < heads; h++)
                for (size t = 0; t < tokens; t += LANES)
                    copy_tokens(&pack, (Heads){q, q_token, q_head}, turn, h, t, stride,
                                (Copies){rows + h * tokens * depth, NULL, NULL});
#pragma omp for schedule(static) collapse(2)
            for (size h = 0; h < kv_heads; h++)
                for (size t = 0; t < tokens; t += LANES) {
                    copy_tokens(&pack, (Heads){k, k_token, k_head}, turn, h, t, stride,
                                (Copies){NULL, across + h * (depth / 2) * stride, NULL});
                    copy_tokens(&pack, (Heads){v, v_token, v_head}, none, h, t, stride,
                                (Copies){NULL, NULL, pairs + h * half * depth});
                }
#pragma omp for schedule(dynamic, 1)
            for (size b = 0; b < blocks; b++)
                for (size g = 0; g < group; g++) {
                    size kv = block[b].kv_head, head = kv * group + g;
                    attend_block(&pack, block + b, head, rows + head * tokens * depth,
                                 across + kv * (depth / 2) * stride, pairs + kv * half * depth, stride,
                                 at + omp_get_thread_num(), out, sums);
                }
        }
    }
    free(rows), free(across), free(pairs), free(block), free(at);
    return failed ? -1 : 0;
}

/* ---- backward ---- */

typedef struct {
    float scores[QUERIES][WIDE], slopes[QUERIES][WIDE];
    bf16 by_scores[QUERIES][WIDE];
    uint32_t share_pairs[QUERIES / 2][WIDE], slope_pairs[QUERIES / 2][WIDE];
    float by_query[QUERIES * DEPTH];
    Row rows[QUERIES];
    size width[QUERIES / ROWS];
} Back;

typedef struct {
    const bf16 *q, *by;             /* rows of this head */
    size by_token;                  /* numbers from one token's `by` to the next */
    const uint32_t *q_pairs, *by_pairs;
    const uint32_t *k_across, *v_across, *k_pairs;
    const float *sums, *inner;      /* per token: log2 of the sum, and out . by */
} Given;

/* Shares of a row in the place of its scores; the sum of share times slope over the row. */
ALWAYS float shares_of(const Pack *pack, Back *at, float sum_of_row, size i, size wide) {
    const __m512 scale = _mm512_set1_ps(pack->scale * LOG2_E), log_sum = _mm512_set1_ps(sum_of_row);
    __m512 inner = _mm512_setzero_ps();
    for (size c = 0; c < wide; c += LANES) {
        __mmask16 there = within(c, at->rows[i].low, at->rows[i].high);
        __m512 score = _mm512_maskz_loadu_ps(there, at->scores[i] + c);
        __m512 p = _mm512_maskz_mov_ps(there, power_of_two(_mm512_fmsub_ps(score, scale, log_sum)));
        inner = _mm512_fmadd_ps(p, _mm512_maskz_loadu_ps(there, at->slopes[i] + c), inner);
        _mm512_storeu_ps(at->scores[i] + c, p);
    }
    return _mm512_reduce_add_ps(inner);
}

/* Shares and the scores' gradients of two rows, in bf16: side by side in pairs, the gradients in rows as well.

   What softmax's gradient takes away is the row's sum of share times slope. Where a block has `all` of the keys it is
   at hand; else it is taken from the output, whose rounding it then has in it, as in FlashAttention. */
ALWAYS void slope_out(const Pack *pack, Back *at, const Given *given, size from, size i, size wide, int all) {
    float inner[2];
    for (size j = 0; j < 2; j++) {
        size t = least(from + i + j, pack->tokens - 1);
        inner[j] = shares_of(pack, at, given->sums[t], i + j, wide);
        if (!all) inner[j] = given->inner[t];
    }
    for (size c = 0; c < wide + LANES; c += LANES) {
        __m256i share[2], slope[2];
        for (size j = 0; j < 2; j++) {
            __mmask16 there = within(c, at->rows[i + j].low, at->rows[i + j].high);
            __m512 p = _mm512_maskz_loadu_ps(there, at->scores[i + j] + c);
            __m512 by = _mm512_maskz_loadu_ps(there, at->slopes[i + j] + c);
            share[j] = rounded(p), slope[j] = rounded(_mm512_mul_ps(p, _mm512_sub_ps(by, _mm512_set1_ps(inner[j]))));
            _mm256_storeu_si256((__m256i *)(at->by_scores[i + j] + c), slope[j]);
        }
        _mm512_storeu_si512(at->share_pairs[i / 2] + c, interleaved(share[0], share[1]));
        _mm512_storeu_si512(at->slope_pairs[i / 2] + c, interleaved(slope[0], slope[1]));
    }
}

/* One block's gradient of its queries into `by_query`; of the keys and values that it sees added to by_key, by_value. */
static void return_block(const Pack *pack, const Block *block, const Given *given, size stride, int add, Back *at,
                         float *by_key, float *by_value) {
    size depth = pack->depth, count = round_up(block->stop - block->from, 2), place = 0;
    memset(at->by_query, 0, count * depth * sizeof(float));
    Span span;
    for (size number = 0; number <= block->run->count; number++) {
        Row reach = reach_of(pack, block, number, &span);
        for (size keys = reach.low; keys < reach.high; keys += KEYS) {
            size columns = least(KEYS, reach.high - keys);
            int all = block->run->count == 0 && columns == reach.high - reach.low;
            look(pack, block, &span, count, keys, columns, at->rows);
            for (size i = 0; i < count; i += ROWS) {
                size m = least(ROWS, count - i), real = least(m, pack->tokens - block->from - i);
                size high = widest(at->rows + i, m), wide = round_up(high, LANES);
                at->width[i / ROWS] = wide;
                if (!wide) continue;
                multiply(real, wide, depth / 2, (const uint32_t *)(given->q + (block->from + i) * depth), depth / 2, 1,
                         given->k_across + keys, stride, at->scores[i], WIDE, 0);
                multiply(real, wide, depth / 2, (const uint32_t *)(given->by + (block->from + i) * given->by_token),
                         given->by_token / 2, 1, given->v_across + keys, stride, at->slopes[i], WIDE, 0);
                for (size j = i; j < i + m; j += 2) slope_out(pack, at, given, block->from, j, wide, all);
                multiply(m, depth, (high + 1) / 2, (const uint32_t *)at->by_scores[i], WIDE / 2, 1,
                         given->k_pairs + keys / 2 * depth, depth, at->by_query + i * depth, depth, 1);
            }
            for (size c = 0; c < columns; c += ROWS) {
                size m = least(ROWS, columns - c), top = 0;
                size bottom = count;
                /* The rows above and, with a window, those below see none of these. */
                while (top < bottom && at->width[top / ROWS] <= c) top += ROWS;
                while (top < bottom && at->width[(bottom - 1) / ROWS] <= c) bottom = (bottom - 1) / ROWS * ROWS;
                size pair = top / 2, pairs = most(bottom / 2 - pair, 0), token = (block->from / 2 + pair) * depth;
                multiply(m, depth, pairs, at->slope_pairs[pair] + c, 1, WIDE, given->q_pairs + token, depth,
                         by_key + (place + c) * depth, depth, add);
                multiply(m, depth, pairs, at->share_pairs[pair] + c, 1, WIDE, given->by_pairs + token, depth,
                         by_value + (place + c) * depth, depth, add);
            }
            place += columns;
        }
    }
}

/* Add what a block found for its keys to the sums of all. */
static void add_block(const Pack *pack, const Block *block, const float *by_key, const float *by_value, float *keys_total,
                      float *values_total) {
    size depth = pack->depth, place = 0;
    Span span;
    for (size number = 0; number <= block->run->count; number++) {
        Row reach = reach_of(pack, block, number, &span);
        for (size x = 0; x < (reach.high - reach.low) * depth; x += LANES) {
            float *k = keys_total + reach.low * depth + x, *v = values_total + reach.low * depth + x;
            _mm512_storeu_ps(k, _mm512_add_ps(_mm512_loadu_ps(k), _mm512_loadu_ps(by_key + place * depth + x)));
            _mm512_storeu_ps(v, _mm512_add_ps(_mm512_loadu_ps(v), _mm512_loadu_ps(by_value + place * depth + x)));
        }
        place += most(reach.high - reach.low, 0);
    }
}

/* The most keys that one block of any run sees. */
static size longest_reach(const Pack *pack) {
    size longest = 0;
    for (size r = 0; r < pack->runs; r++) {
        const Run *run = pack->run + r;
        size own = span_of(pack, run, run->count).position;
        longest = most(longest, own + run->end - run->start + 2 * (run->count + 1));
    }
    return longest;
}

/* Gradients of q, k and v, contiguous (T, H, D) and (T, H_kv, D); `by` is out's, contiguous. 0, or -1: out of memory. */
int attention_backward(const bf16 *by, const bf16 *out, const float *sums, const bf16 *q, size q_token, size q_head,
                       const bf16 *k, size k_token, size k_head, const bf16 *v, size v_token, size v_head,
                       const bf16 *cos, const bf16 *sin, const size *runs, size run_count, const size *spans,
                       size tokens, size heads, size kv_heads, size depth, float scale, size window, bf16 *by_q,
                       bf16 *by_k, bf16 *by_v, size threads) {
    Pack pack = {tokens, heads, kv_heads, depth, run_count, window, scale, (const Run *)runs, spans};
    Turn turn = {cos, sin}, none = {NULL, NULL};
    size group = heads / kv_heads, stride = stride_of(tokens), half = round_up(tokens + WIDE, 2) / 2, blocks = 0;
    size across = (depth / 2) * stride, pairs = half * depth, reach = longest_reach(&pack);
    bf16 *rows = malloc(heads * tokens * depth * sizeof(bf16));
    uint32_t *q_pairs = malloc(heads * pairs * 4), *by_pairs = malloc(heads * pairs * 4);
    uint32_t *k_across = malloc(kv_heads * across * 4), *v_across = malloc(kv_heads * across * 4);
    uint32_t *k_pairs = malloc(kv_heads * pairs * 4);
    float *inner = malloc(heads * tokens * sizeof(float));
    float *totals = calloc(2 * kv_heads * tokens * depth, sizeof(float));
    float *parts = malloc(threads * 2 * reach * depth * sizeof(float));
    Block *block = blocks_of(&pack, &blocks);
    Back *at = malloc(threads * sizeof(Back));
    int failed = !rows || !q_pairs || !by_pairs || !k_across || !v_across || !k_pairs || !inner || !totals ||
                 !parts || !block || !at;
    if (!failed) {
        Heads by_heads = {by, heads * depth, depth};
        float *values_total = totals + kv_heads * tokens * depth;
        memset(by_q, 0, tokens * heads * depth * sizeof(bf16));
#pragma omp parallel num_threads((int)threads)
        {
#pragma omp for schedule(static) collapse(2)
            for (size h = 0; h < heads; h++)
                for (size t = 0; t < tokens; t += LANES) {
                    copy_tokens(&pack, (Heads){q, q_token, q_head}, turn, h, t, stride,
                                (Copies){rows + h * tokens * depth, NULL, q_pairs + h * pairs});
                    copy_tokens(&pack, by_heads, none, h, t, stride, (Copies){NULL, NULL, by_pairs + h * pairs});
                    for (size i = t; i < least(t + LANES, tokens); i++) {
                        const bf16 *one = by + (i * heads + h) * depth, *other = out + (i * heads + h) * depth;
                        __m512 sum = _mm512_setzero_ps();
                        for (size d = 0; d < depth; d += LANES)
                            sum = _mm512_fmadd_ps(load_bf16(one + d), load_bf16(other + d), sum);
                        inner[h * tokens + i] = _mm512_reduce_add_ps(sum);
                    }
                }
#pragma omp for schedule(static) collapse(2)
            for (size h = 0; h < kv_heads; h++)
                for (size t = 0; t < tokens; t += LANES) {
                    copy_tokens(&pack, (Heads){k, k_token, k_head}, turn, h, t, stride,
                                (Copies){NULL, k_across + h * across, k_pairs + h * pairs});
                    copy_tokens(&pack, (Heads){v, v_token, v_head}, none, h, t, stride,
                                (Copies){NULL, v_across + h * across, NULL});
                }
            size me = omp_get_thread_num();
            Back *mine = at + me;
            float *by_key = parts + me * 2 * reach * depth, *by_value = by_key + reach * depth;
#pragma omp for schedule(dynamic, 1) ordered
            for (size b = 0; b < blocks; b++) {
                size kv = block[b].kv_head;
                for (size g = 0; g < group; g++) {
                    size head = kv * group + g;
                    Given given = {rows + head * tokens * depth, by + head * depth, heads * depth,
                                   q_pairs + head * pairs, by_pairs + head * pairs, k_across + kv * across,
                                   v_across + kv * across, k_pairs + kv * pairs, sums + head * tokens,
                                   inner + head * tokens};
                    return_block(&pack, block + b, &given, stride, g > 0, mine, by_key, by_value);
                    for (size t = block[b].first; t < block[b].stop; t++)
                        give_row(&pack, mine->by_query + (t - block[b].from) * depth, turn, scale, t,
                                 by_q + (t * heads + head) * depth);
                }
#pragma omp ordered
                add_block(&pack, block + b, by_key, by_value, totals + kv * tokens * depth,
                          values_total + kv * tokens * depth);
            }
#pragma omp for schedule(static)
            for (size t = 0; t < tokens; t++)
                for (size h = 0; h < kv_heads; h++) {
                    give_row(&pack, totals + (h * tokens + t) * depth, turn, scale, t, by_k + (t * kv_heads + h) * depth);
                    give_row(&pack, values_total + (h * tokens + t) * depth, none, 1.0f, t,
                             by_v + (t * kv_heads + h) * depth);
                }
        }
    }
    free(rows), free(q_pairs), free(by_pairs), free(k_across), free(v_across), free(k_pairs), free(inner);
    free(totals), free(parts), free(block), free(at);
    return failed ? -1 : 0;
}
