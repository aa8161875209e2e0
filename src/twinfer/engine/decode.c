/* Decode steps of an emulated engine on virtual KV: what engine/kv_content.py does in numpy, sequence by sequence.
 *
 * A sequence's fold is read back from its blocks; then each step hashes the last token into the state of its position,
 * writes that state's fingerprint, adds its term to the fold, and draws the next token from it.
 */
#include <stddef.h>
#include <stdint.h>

enum { START, BEFORE, SALT, TOKEN };

static uint64_t splitmix64(uint64_t value)
{
    value += 0x9E3779B97F4A7C15u;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
    value = (value ^ value >> 27) * 0x94D049BB133111EBu;
    return value ^ value >> 31;
}

static inline uint32_t product(const uint32_t *words, const uint32_t *weights, size_t count)
{
    uint32_t sum = 0;
    for (size_t at = 0; at < count; at++)
        sum += words[at] * weights[at];
    return sum;
}

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default"))) /* 32-bit products are slow before it */
#else
#define WIDE
#endif

/* The first `end` positions of a sequence. A block holds the keys of its positions, then their values. */
WIDE static uint32_t fold(const uint32_t *words, const uint32_t *weights, const intptr_t *table, size_t size, size_t end)
{
    size_t whole = end / size, rest = end % size, width = 2 * size;
    uint32_t sum = 0;
    for (size_t block = 0; block < whole; block++)
        sum += product(words + table[block] * width, weights + block * width, width);
    if (rest) {
        const uint32_t *last = words + table[whole] * width, *its_weights = weights + whole * width;
        sum += product(last, its_weights, rest) + product(last + size, its_weights + size, rest);
    }
    return sum;
}

/* `sequences` is [4, count]: where each starts, the state before that, its salt, and the token at its start. `given` is
 * [steps, count] or NULL: tokens that are not to be drawn. `states` and `tokens` are [steps, count]. */
void twinfer_decode(
    uint32_t *words, const uint32_t *weights, size_t size, const intptr_t *tables, size_t table_step,
    const uint64_t *sequences, const uint64_t *given, size_t count, size_t steps, uint64_t draw_below,
    uint64_t *states, uint64_t *tokens)
{
    for (size_t one = 0; one < count; one++) {
        const intptr_t *table = tables + one * table_step;
        uint64_t position = sequences[START * count + one], state = sequences[BEFORE * count + one];
        uint64_t salt = sequences[SALT * count + one], token = sequences[TOKEN * count + one];
        uint32_t sum = given ? 0 : fold(words, weights, table, size, position);
        for (size_t step = 0; step < steps; step++, position++) {
            size_t block = position / size, key = position % size, value = key + size;
            state += splitmix64((token * 0x100000001B3u + salt) ^ splitmix64(position));
            uint64_t fingerprint = splitmix64(state);
            uint32_t *row = words + table[block] * 2 * size;
            const uint32_t *its_weights = weights + block * 2 * size;
            row[key] = (uint32_t)fingerprint;
            row[value] = (uint32_t)(fingerprint >> 32);
            sum += row[key] * its_weights[key] + row[value] * its_weights[value];
            token = given ? given[step * count + one] : splitmix64(sum) % draw_below;
            states[step * count + one] = state;
            tokens[step * count + one] = token;
        }
    }
}
