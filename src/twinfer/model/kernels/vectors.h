/* Sixteen numbers at once in the compiler's own vectors: one source for every instruction set.
 *
 * All of it is inlined, so it is compiled for the function that uses it.
 */
#pragma once

#include "kernels.h"

typedef float lanes __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));

INLINE lanes lanes_of(float value) { return (lanes){0} + value; }

INLINE lanes load16(const bf16 *from)
{
    halves found;
    memcpy(&found, from, sizeof found);
    return (lanes)(__builtin_convertvector(found, words) << 16);
}

/* Rounds to the nearest, ties to even; what is not a number stays so. */
INLINE void store16(bf16 *to, lanes value)
{
    const words bits = (words)value;
    const words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const words broken = (words)(value != value);
    const halves found = __builtin_convertvector((rounded & ~broken) | (broken & 0x7fc0), halves);
    memcpy(to, &found, sizeof found);
}

INLINE lanes larger(lanes a, lanes b)
{
    const words first = (words)(a > b);
    return (lanes)(((words)a & first) | ((words)b & ~first));
}

INLINE float sum16(lanes v)
{
    float result = 0;
    for (int i = 0; i < 16; i++)
        result += v[i];
    return result;
}

/* The sums of sixteen vectors, in their order. */
INLINE lanes sums16(lanes v[16])
{
    for (int i = 0; i < 8; i++)
        v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               __builtin_shufflevector(v[2 * i], v[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
               __builtin_shufflevector(v[2 * i], v[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
               __builtin_shufflevector(v[2 * i], v[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
    return __builtin_shufflevector(v[0], v[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(v[0], v[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

/* e to the power of x, to 2e-7 of itself; x is cut off at +-87. */
INLINE lanes exp16(lanes x)
{
    const lanes cut = larger(-larger(-x, lanes_of(-87)), lanes_of(-87));
    const lanes scaled = cut * 1.44269504f;
    const ints whole = __builtin_convertvector(scaled + 12582912.0f - 12582912.0f, ints);
    const lanes n = __builtin_convertvector(whole, lanes);
    const lanes f = cut - n * 0.693359375f + n * 2.12194440e-4f;
    lanes p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    return (p * f * f + f + 1) * (lanes)((whole + 127) << 23);
}
