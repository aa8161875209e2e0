/* Copies of many short runs past the caches: KV that arrives is larger than they are, and is not read at once.
 *
 * An ordinary copy of a run first reads the lines that it is going to overwrite; these stores do not.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

enum { LINE = 64 };

static void stream(char *to, const char *from, size_t num_bytes)
{
    size_t head = -(uintptr_t)to % LINE;
    if (head > num_bytes)
        head = num_bytes;
    memcpy(to, from, head);
    to += head, from += head, num_bytes -= head;
    for (; num_bytes >= LINE; to += LINE, from += LINE, num_bytes -= LINE)
        for (int part = 0; part < LINE / 16; part++) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)from + part);
            _mm_stream_si128((__m128i *)to + part, bytes);
        }
    memcpy(to, from, num_bytes);
}

static void settle(void) { _mm_sfence(); }
#else
static void stream(char *to, const char *from, size_t num_bytes) { memcpy(to, from, num_bytes); }
static void settle(void) {}
#endif

void twinfer_copy_runs(char *to, const char *from, size_t num_runs, size_t run_bytes, size_t to_step, size_t from_step)
{
    for (size_t run = 0; run < num_runs; run++)
        stream(to + run * to_step, from + run * from_step, run_bytes);
    settle();
}
