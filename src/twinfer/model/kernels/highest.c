/* The highest logit of each row, in one pass that also finds rows with what is not a number. */
#include "vectors.h"

/* The lowest id among equals; -1 where a logit is infinite or not a number: that times zero is not zero. */
INLINE int64_t highest_of(const float *row, long count)
{
    enum { LANES = 16 };
    lanes best = lanes_of(-3.4028235e38f), broken = lanes_of(0);
    ints found = {0}, at = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    long i = 0;
    for (; i + LANES <= count; i += LANES, at += LANES) {
        lanes v;
        memcpy(&v, row + i, sizeof v);
        const ints higher = v > best;
        best = (lanes)(((ints)v & higher) | ((ints)best & ~higher));
        found = (at & higher) | (found & ~higher);
        broken += v * 0;
    }
    float top = best[0], spoilt = sum16(broken);
    int64_t id = found[0];
    for (int l = 1; l < LANES; l++)
        if (best[l] > top || (best[l] == top && found[l] < id))
            top = best[l], id = found[l];
    for (; i < count; i++) {
        if (row[i] > top)
            top = row[i], id = i;
        spoilt += row[i] * 0;
    }
    return spoilt == 0 ? id : -1;
}

#ifdef X86
VECTOR static int64_t highest_vector(const float *row, long count) { return highest_of(row, count); }
#endif
static int64_t highest_portable(const float *row, long count) { return highest_of(row, count); }

/* ids[num_rows] of logits[num_rows][vocab]. */
API void twinfer_highest(const float *logits, int64_t vocab, int64_t num_rows, int64_t *ids)
{
    int64_t (*highest)(const float *, long) = highest_portable;
#ifdef X86
    if (twinfer_isa() >= AVX512)
        highest = highest_vector;
#endif
    for (long r = 0; r < num_rows; r++)
        ids[r] = highest(logits + r * vocab, vocab);
}
