/* Masks over logits: what may not be drawn becomes impossible. */
#include "kernels.h"

#include <math.h>

static const uint32_t MINUS_INFINITY = 0xff800000u;

/* Eight logits and their bits, the lowest first, without a branch: what is permitted is hard to foresee. */
INLINE void forbid_some(uint32_t *logits, unsigned bits, long count)
{
    for (long i = 0; i < count; i++) {
        const uint32_t keep = -(bits >> i & 1u);
        logits[i] = (logits[i] & keep) | (MINUS_INFINITY & ~keep);
    }
}

/* The first 16 * count logits of a row. */
#if X86
VECTOR static void forbid_sixteens(float *row, const uint8_t *bits, long count)
{
    const __m512 impossible = _mm512_set1_ps(-INFINITY);
    for (long i = 0; i < count; i++) {
        uint16_t keep;
        memcpy(&keep, bits + 2 * i, sizeof keep);
        _mm512_mask_storeu_ps(row + 16 * i, (__mmask16)~keep, impossible);
    }
}
#endif

/* logits[.][vocab] of fp32, masks[num_rows][ceil(vocab / 8)], and which row of the logits each mask is for: null where
   the first is for the first, and so on. */
API void twinfer_forbid(float *logits, int64_t vocab, const uint8_t *masks, const int64_t *rows, int64_t num_rows)
{
    const long bytes = (vocab + 7) / 8;
    for (long r = 0; r < num_rows; r++) {
        const uint8_t *bits = masks + r * bytes;
        uint32_t *row = (uint32_t *)(logits + (rows ? rows[r] : r) * vocab);
        long i = 0;
#if X86
        if (__builtin_cpu_supports("avx512f")) {
            forbid_sixteens((float *)row, bits, vocab / 16);
            i = vocab / 16 * 2;
        }
#endif
        for (; i < vocab / 8; i++)
            if (bits[i] != 0xff)
                forbid_some(row + 8 * i, bits[i], 8);
        if (vocab % 8)
            forbid_some(row + vocab / 8 * 8, bits[vocab / 8], vocab % 8);
    }
}
