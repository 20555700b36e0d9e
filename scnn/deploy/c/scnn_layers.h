/* The layers of scnn.deploy.reference, inlined with the model's constants, so that the compiler knows every size.

   The activity of a neuron is one byte: its spikes, with time step t in bit t, or the output of its ReLU. Maps are
   [height][width][channels]. A spiking layer groups its active inputs by their spike pattern, sums the rows of weights
   once per pattern, and adds this sum at every time step in the pattern. */
#ifndef SCNN_LAYERS_H
#define SCNN_LAYERS_H

#include "scnn_memory.h"

#if defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define SCNN_SIMD 1 /* two 16-bit halves of a register at once */
#else
#define SCNN_SIMD 0
#endif

#define PATTERNS (1 << SCNN_MOST_STEPS)

/* Sums of weights: for spikes, of one position at every time step; for ReLU, of two positions. If 16 bits hold every
   sum of a layer and the processor has SIMD, they are in `halves`, in units of 1 / (1 << unused(l)). */
#define MOST_SUMS (SCNN_SPIKING ? SCNN_MOST_STEPS : 2)
union sums {
    int32_t whole[MOST_SUMS][SCNN_MOST_OUTPUTS];
    int16_t halves[MOST_SUMS][SCNN_MOST_OUTPUTS];
    uint32_t pairs[MOST_SUMS][SCNN_MOST_OUTPUTS / 2];
};

static union sums sums;

SCNN_INLINE int halved(const struct scnn_layer *l) { return SCNN_SIMD && SCNN_SPIKING && l->lanes; }

/* The number of bits of a byte that a weight leaves unused. */
SCNN_INLINE int32_t unused(const struct scnn_layer *l) { return 8 - l->bits; }

SCNN_INLINE int32_t sum_of(const struct scnn_layer *l, int32_t t, int32_t output) {
    return halved(l) ? sums.halves[t][output] >> unused(l) : sums.whole[t][output];
}

/* Four bytes, or two int16, at any alignment. */
SCNN_INLINE uint32_t word(const void *from) {
#if defined(__GNUC__)
    uint32_t value;
    __builtin_memcpy(&value, from, 4);
    return value;
#else
    const uint8_t *bytes = from;
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
#endif
}

/* A row's weights are packed into words: the first four in the lowest bits of the bytes, the next four above them. Each
   four are in the order 0, 2, 1, 3, so that the two bytes that SIMD unpacks at once are neighbouring outputs. */
SCNN_INLINE int32_t weight(const struct scnn_layer *l, int32_t row, int32_t index) {
    int32_t each = 32 / l->bits, byte_of = index % 2 * 2 + index / 2 % 2;
    int32_t at = row * l->row_bytes + index / each * 4 + byte_of;
    uint32_t byte = l->weights[at] << (unused(l) - index % each / 4 * l->bits) & 0xFF; /* weight in the top bits */
    return (int32_t)(int8_t)byte >> unused(l);
}

#if SCNN_SIMD
/* Weights `first` to `first` + 3 of the row at `row`, each in the top bits of a byte. */
SCNN_INLINE uint32_t four_weights(const struct scnn_layer *l, const uint8_t *row, int32_t first) {
    int32_t each = 32 / l->bits;
    uint32_t value = word(row + first / each * 4) << (unused(l) - first % each / 4 * l->bits);
    return value & (0xFF >> unused(l) << unused(l)) * 0x01010101u;
}
#endif

/* ---- Neurons ---- */

/* Run one neuron over all steps; returns its spikes as bits. Its input is in `sums`, or is `*constant` at every step
   unless that is null. Its membrane is stored in `membranes` unless that is null, with a stride of SCNN_CLASSES. */
SCNN_INLINE uint32_t spikes(const struct scnn_layer *l, const int32_t *constant, int32_t output, int32_t *membranes) {
    int32_t membrane = 0, fired = 0, bias = l->bias[output], threshold = SCNN_TUNED(l->threshold[output]);
    uint32_t mask = 0;
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        if (l->reset == SCNN_ZERO && fired) membrane = 0;
        membrane = l->shift >= 0 ? membrane >> l->shift : (int32_t)(((int64_t)membrane * l->factor) >> 16) * 2;
        membrane += (constant ? *constant : sum_of(l, t, output)) * (1 << l->fraction) + bias;
        if (l->reset == SCNN_SUBTRACT && fired) membrane -= threshold;
        fired = membrane > threshold;
        mask |= (uint32_t)fired << t;
        if (membranes) membranes[t * SCNN_CLASSES] = membrane;
    }
    return mask;
}

/* The activity of a neuron that receives the same sum at every step, or of a ReLU. */
SCNN_INLINE uint8_t activity_of(const struct scnn_layer *l, int32_t sum, int32_t output) {
#if SCNN_SPIKING
#ifndef SCNN_TUNABLE
    if (sum <= l->quiet[output]) return 0; /* too small for a spike */
#endif
    return (uint8_t)spikes(l, &sum, output, 0);
#else
    int32_t value = (int32_t)(((int64_t)(sum + l->bias[output]) * l->multiplier[output] + ((int64_t)1 << 31)) >> 32);
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
#endif
}

#if SCNN_SIMD && SCNN_SPIKING
/* Two outputs at once, skipping most neurons: `quiet` is the largest constant sum that causes no spike. If no step's
   sum exceeds it, there is no spike, because a membrane that never fires grows monotonically with its input. */
SCNN_INLINE void activate_pairs(const struct scnn_layer *l, uint8_t *activity) {
    for (int32_t o = 0; o < l->outputs; o += 2) {
        uint32_t quiet = word(l->quiet_halves + o), loud = 0; /* the sign bit of each half: is its neuron loud? */
        for (int32_t t = 0; t < SCNN_STEPS; t++)
            loud |= (uint32_t)__qsub16((int16x2_t)quiet, (int16x2_t)sums.pairs[t][o / 2]);
        activity[o] = loud & 0x8000 ? (uint8_t)spikes(l, 0, o, 0) : 0;
        if (l->outputs % 2 && o + 1 == l->outputs) break;
        activity[o + 1] = loud >> 31 ? (uint8_t)spikes(l, 0, o + 1, 0) : 0;
    }
}
#endif

/* All outputs at one position: from `sums` to activity. `constant` says whether the sums are the same at every step. */
SCNN_INLINE void activate(const struct scnn_layer *l, int constant, uint8_t *activity) {
#if SCNN_SPIKING
#if SCNN_SIMD && !defined(SCNN_TUNABLE)
    if (!constant && l->lanes) {
        activate_pairs(l, activity);
        return;
    }
#endif
    for (int32_t o = 0; o < l->outputs && !constant; o++) activity[o] = (uint8_t)spikes(l, 0, o, 0);
#else
    constant = 1;
#endif
    for (int32_t o = 0; o < l->outputs && constant; o++) activity[o] = activity_of(l, sums.whole[0][o], o);
}

/* All outputs at a position without any input. */
SCNN_INLINE void rest(const struct scnn_layer *l, uint8_t *activity) {
#ifdef SCNN_TUNABLE
    for (int32_t o = 0; o < l->outputs; o++) activity[o] = activity_of(l, 0, o);
#else
    for (int32_t o = 0; o < l->outputs; o++) activity[o] = l->background[o];
#endif
}

/* The last layer: from `sums` to scores. */
SCNN_INLINE void read_out(const struct scnn_layer *l, int constant) {
    for (int32_t o = 0; o < l->outputs; o++) {
#if SCNN_SPIKING
        uint32_t mask = spikes(l, constant ? &sums.whole[0][o] : 0, o, scnn_membranes + o);
        scnn_scores[o] = 0;
        for (int32_t t = 0; t < SCNN_STEPS; t++)
            scnn_scores[o] += SCNN_MEMBRANE ? scnn_membranes[t * SCNN_CLASSES + o] : (int32_t)(mask >> t & 1);
#else
        (void)constant;
        scnn_scores[o] = scnn_membranes[o] = sums.whole[0][o] + l->bias[o];
#endif
        if (l->multiplier)
            scnn_scores[o] = (int32_t)(((int64_t)scnn_scores[o] * l->multiplier[o] + (1 << 30)) >> 31);
    }
}

/* ---- The first layer: products with the image ---- */

/* `sum` plus the dot product of two pairs of int16. */
SCNN_INLINE int32_t product(uint32_t a, uint32_t b, int32_t sum) {
#if SCNN_SIMD
    return __smlad((int16x2_t)a, (int16x2_t)b, sum);
#else
    return sum + (int16_t)a * (int16_t)b + ((int32_t)a >> 16) * ((int32_t)b >> 16);
#endif
}

/* Multiply `size` values by the weights, [outputs][size]. */
SCNN_INLINE void multiply(const struct scnn_layer *l, const int16_t *values, int32_t size) {
    const int16_t *row = l->weights16;
    for (int32_t o = 0; o < l->outputs; o++, row += size) {
        int32_t sum = 0, i = 0;
        for (; i + 1 < size; i += 2) sum = product(word(row + i), word(values + i), sum);
        if (i < size) sum += row[i] * values[i];
        sums.whole[0][o] = sum;
    }
}

/* The inputs of the kernel at row y and column x of the convolution, in pairs; the image is padded with zeros. */
SCNN_INLINE void look(const struct scnn_layer *l, int32_t y, int32_t x, uint32_t *seen) {
    int32_t top = y * l->stride - l->padding, left = x * l->stride - l->padding;
    int32_t within = top >= 0 && left >= 0 && top + l->kernel <= l->height && left + l->kernel <= l->width;
    for (int32_t k = 0; k < l->kernel * l->kernel; k++) {
        int32_t row = top + k / l->kernel, column = left + k % l->kernel;
        int32_t inside = within || ((uint32_t)row < (uint32_t)l->height && (uint32_t)column < (uint32_t)l->width);
        uint32_t pixel = inside ? (uint16_t)scnn_even.image[row * l->width + column] : 0;
        seen[k / 2] = k % 2 ? seen[k / 2] | pixel << 16 : pixel;
    }
}

SCNN_INLINE void first_convolution(const struct scnn_layer *l, uint8_t *out) {
    int32_t pool = l->pool ? l->pool : 1, pairs = (l->kernel * l->kernel + 1) / 2;
    for (int32_t y = 0; y < l->out_height; y++) {
        for (int32_t x = 0; x < l->out_width; x++, out += l->outputs) {
            int32_t begin = x * l->pool_stride * l->stride - l->padding;
            if (begin >= scnn_right || begin + (pool - 1) * l->stride + l->kernel <= scnn_left) {
                rest(l, out);
                continue;
            }
            for (int32_t i = 0; i < pool * pool; i++) {
                uint32_t seen[SCNN_MOST_PAIRS];
                const int16_t *row = l->weights16;
                look(l, y * l->pool_stride + i / pool, x * l->pool_stride + i % pool, seen);
                for (int32_t o = 0; o < l->outputs; o++, row += 2 * pairs) {
                    int32_t sum = 0;
                    for (int32_t k = 0; k < pairs; k++) sum = product(word(row + 2 * k), seen[k], sum);
                    if (pool > 1) { /* the largest so far */
                        if (i > 0 && sums.whole[0][o] > sum) sum = sums.whole[0][o];
                        sums.whole[0][o] = sum;
                    }
                    if (i == pool * pool - 1) out[o] = activity_of(l, sum, o);
                }
            }
        }
    }
}

#if SCNN_SPIKING
/* ---- Layers that receive spikes ---- */

/* Linked lists of the rows of weights for each spike pattern. Rows are counted from 1; 0 ends a list. */
static uint16_t head[PATTERNS];                /* the last row found of each pattern */
static uint16_t next[SCNN_MOST_ROWS + 1];      /* the row found before each row */
static uint8_t used[PATTERNS];                 /* the patterns found */

/* Add a neuron, whose weights are in `row`, to the list of its pattern. Takes and returns the number of patterns. */
SCNN_INLINE int32_t sort(uint32_t mask, int32_t row, int32_t found) {
    uint16_t before = head[mask];
    if (!before) used[found++] = (uint8_t)mask;
    next[row + 1] = before;
    head[mask] = (uint16_t)(row + 1);
    return found;
}

/* Sort `count` neurons, whose weights begin at `row`, skipping silent ones four at a time. */
SCNN_INLINE int32_t collect(const uint8_t *masks, int32_t count, int32_t row, int32_t found) {
    for (int32_t i = 0; i + 4 <= count; i += 4) {
        if (!word(masks + i)) continue;
        for (int32_t k = i; k < i + 4; k++)
            if (masks[k]) found = sort(masks[k], row + k, found);
    }
    for (int32_t i = count - count % 4; i < count; i++)
        if (masks[i]) found = sort(masks[i], row + i, found);
    return found;
}

#if SCNN_SIMD
/* Add the sums of `count` outputs, in pairs, to those of time step t from output `o` on. */
SCNN_INLINE void add_pairs(const struct scnn_layer *l, const uint32_t *pairs, int32_t t, int32_t o, int32_t count) {
    for (int32_t i = 0; i < count / 2; i += 2) {
        if (l->lanes) { /* read both before writing either, so that the compiler moves two words at once */
            uint32_t *to = &sums.pairs[t][o / 2 + i], first = to[0], second = to[1];
            to[0] = (uint32_t)__sadd16((int16x2_t)first, (int16x2_t)pairs[i]);
            to[1] = (uint32_t)__sadd16((int16x2_t)second, (int16x2_t)pairs[i + 1]);
        } else {
            for (int32_t k = i; k < i + 2; k++) {
                sums.whole[t][o + 2 * k] += (int16_t)pairs[k] >> unused(l);
                sums.whole[t][o + 2 * k + 1] += (int32_t)pairs[k] >> (16 + unused(l));
            }
        }
    }
}

/* Add the rows of weights of the `found` patterns, for `count` outputs from `output` on, pattern by pattern. If a sum
   may need more than 16 bits, add 256 rows at a time. */
SCNN_INLINE void add_halves(const struct scnn_layer *l, int32_t found, int32_t output, int32_t count) {
    const uint8_t *base = l->weights + output * l->bits / 8;
    const uint16_t *following = next;
    SCNN_KEEP(base);
    SCNN_KEEP(following);
    for (int32_t i = 0; i < found; i++) {
        uint32_t pattern = used[i], row = head[pattern];
        do {
            uint32_t pairs[8];
            for (int32_t k = 0; k < count / 2; k++) pairs[k] = 0;
            for (int32_t left = 256; row && (left || l->lanes); row = following[row], left--) {
                const uint8_t *weights = base + (row - 1) * (uint32_t)l->row_bytes;
                for (int32_t k = 0; k < count / 4; k++) {
                    uint32_t four = four_weights(l, weights, 4 * k), turned = four >> 8 | four << 24;
                    pairs[2 * k] = (uint32_t)__sxtab16((int16x2_t)pairs[2 * k], (int8x4_t)four);
                    pairs[2 * k + 1] = (uint32_t)__sxtab16((int16x2_t)pairs[2 * k + 1], (int8x4_t)turned);
                }
            }
            for (int32_t t = 0; t < SCNN_STEPS; t++)
                if (pattern >> t & 1) add_pairs(l, pairs, t, output, count);
        } while (!l->lanes && row);
    }
}

/* The same for all outputs, up to 16 at a time: the processor has eight registers to spare for sums. */
SCNN_INLINE void add_all_halves(const struct scnn_layer *l, int32_t found) {
    int32_t o = 0;
    for (; o + (l->bits == 8 ? 12 : l->bits == 4 ? 8 : 0) < l->outputs; o += 16) add_halves(l, found, o, 16);
    for (; o + (l->bits == 8 ? 4 : 0) < l->outputs; o += 8) add_halves(l, found, o, 8);
    if (o < l->outputs) add_halves(l, found, o, 4);
}
#endif

/* Set `sums` to the sums of the `found` patterns, and clear the lists. */
SCNN_INLINE void add(const struct scnn_layer *l, int32_t found) {
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        if (halved(l))
            for (int32_t i = 0; i < (l->outputs + 3) / 4 * 2; i++) sums.pairs[t][i] = 0;
        else
            for (int32_t o = 0; o < (l->outputs + 3) / 4 * 4; o++) sums.whole[t][o] = 0;
    }
#if SCNN_SIMD
    add_all_halves(l, found);
#else
    for (int32_t i = 0; i < found; i++) {
        uint32_t pattern = used[i];
        int32_t sum[SCNN_MOST_OUTPUTS];
        for (int32_t o = 0; o < l->outputs; o++) sum[o] = 0;
        for (uint32_t row = head[pattern]; row; row = next[row])
            for (int32_t o = 0; o < l->outputs; o++) sum[o] += weight(l, (int32_t)row - 1, o);
        for (int32_t t = 0; t < SCNN_STEPS; t++)
            if (pattern >> t & 1)
                for (int32_t o = 0; o < l->outputs; o++) sums.whole[t][o] += sum[o];
    }
#endif
    for (int32_t i = 0; i < found; i++) head[used[i]] = 0;
}

/* Sort the kernel's inputs at row y and column x; rows of weights are [kernel][kernel][channels]. */
SCNN_INLINE int32_t collect_around(const struct scnn_layer *l, const uint8_t *in, int32_t y, int32_t x) {
    int32_t top = y * l->stride - l->padding, left = x * l->stride - l->padding, found = 0;
    int32_t low = left < 0 ? -left : 0;
    int32_t high = left + l->kernel > l->width ? l->width - left : l->kernel;
    for (int32_t i = 0; i < l->kernel; i++) {
        if ((uint32_t)(top + i) < (uint32_t)l->height && low < high)
            found = collect(in + ((top + i) * l->width + left + low) * l->channels, (high - low) * l->channels,
                            (i * l->kernel + low) * l->channels, found);
    }
    return found;
}

/* Max pooling: update `most` with `sums`. */
SCNN_INLINE void keep_largest(const struct scnn_layer *l, union sums *most, int first) {
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        for (int32_t o = 0; o < l->outputs; o++) {
            if (halved(l)) {
                if (first || sums.halves[t][o] > most->halves[t][o]) most->halves[t][o] = sums.halves[t][o];
            } else {
                if (first || sums.whole[t][o] > most->whole[t][o]) most->whole[t][o] = sums.whole[t][o];
            }
        }
    }
}

SCNN_INLINE void take_largest(const struct scnn_layer *l, const union sums *most) {
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        for (int32_t o = 0; o < l->outputs; o++) {
            if (halved(l))
                sums.halves[t][o] = most->halves[t][o];
            else
                sums.whole[t][o] = most->whole[t][o];
        }
    }
}

SCNN_INLINE void convolution(const struct scnn_layer *l, const uint8_t *in, uint8_t *out) {
    int32_t pool = l->pool ? l->pool : 1;
    for (int32_t y = 0; y < l->out_height; y++) {
        for (int32_t x = 0; x < l->out_width; x++, out += l->outputs) {
            if (pool == 1) {
                int32_t found = collect_around(l, in, y, x);
                if (!found) {
                    rest(l, out);
                    continue;
                }
                add(l, found);
            } else {
                union sums most;
                for (int32_t i = 0; i < pool * pool; i++) {
                    add(l, collect_around(l, in, y * l->pool_stride + i / pool, x * l->pool_stride + i % pool));
                    keep_largest(l, &most, i == 0);
                }
                take_largest(l, &most);
            }
            activate(l, 0, out);
        }
    }
}

SCNN_INLINE void connect(const struct scnn_layer *l, const uint8_t *in) {
    add(l, collect(in, l->channels * l->height * l->width, 0, 0));
}

#else
/* ---- Layers that receive values: all products ---- */

#define CHUNK (2 * SCNN_MOST_ROWS)
/* The inputs of two positions of a convolution, or a part of the inputs of a dense layer. Always read pairs as
   `values.pairs[i]`: through separate pointers, a compiler may assume that pairs and numbers do not alias. */
static union {
    int16_t each[CHUNK];
    uint32_t pairs[CHUNK / 2];
} values;

/* Multiply `size` numbers in `values`, of one or two positions, by the weights from index `first` on of the `count`
   outputs from `o` on. The results are stored in `sums` if `first` is 0, else added. Each weight is unpacked once for
   both positions, and each number is read once for all these outputs. Rows of weights are padded with zeros, so it does
   not matter what follows the numbers. */
SCNN_INLINE void add_products(const struct scnn_layer *l, int32_t first, int32_t size, int32_t places, int32_t o,
                              int32_t count) {
    int32_t total[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
#if SCNN_SIMD
    int32_t each = 32 / l->bits;
    const uint8_t *row = l->weights + o * l->row_bytes + first * l->bits / 8;
    for (int32_t i = 0; i < size; i += each, row += 4) {
        for (int32_t k = 0; k < each; k += 4) {
            for (int32_t n = 0; n < count; n++) {
                uint32_t four = four_weights(l, row + n * l->row_bytes, k);
                int16x2_t low = __sxtb16((int8x4_t)four), high = __sxtb16((int8x4_t)(four >> 8 | four << 24));
                for (int32_t p = 0; p < places; p++) {
                    int32_t pair = (p * SCNN_MOST_ROWS + i + k) / 2;
                    total[p][n] = __smlad(low, (int16x2_t)values.pairs[pair], total[p][n]);
                    total[p][n] = __smlad(high, (int16x2_t)values.pairs[pair + 1], total[p][n]);
                }
            }
        }
    }
#else
    for (int32_t i = 0; i < size; i++)
        for (int32_t n = 0; n < count; n++)
            for (int32_t p = 0; p < places; p++)
                total[p][n] += weight(l, o + n, first + i) * values.each[p * SCNN_MOST_ROWS + i];
#endif
    for (int32_t p = 0; p < places; p++)
        for (int32_t n = 0; n < count; n++)
            sums.whole[p][o + n] = (first ? sums.whole[p][o + n] : 0) + (total[p][n] >> (SCNN_SIMD ? unused(l) : 0));
}

/* The same for all outputs, with four sums at a time: the processor has four registers to spare for them. */
SCNN_INLINE void add_all_products(const struct scnn_layer *l, int32_t first, int32_t size, int32_t places) {
    int32_t o = 0, count = 4 / places;
    for (; o + count <= l->outputs; o += count) add_products(l, first, size, places, o, count);
    for (; o < l->outputs; o++) add_products(l, first, size, places, o, 1);
}

SCNN_INLINE void connect(const struct scnn_layer *l, const uint8_t *in) {
    int32_t size = l->channels * l->height * l->width;
    for (int32_t first = 0; first < size; first += CHUNK) {
        int32_t count = size - first < CHUNK ? size - first : CHUNK;
        for (int32_t i = 0; i < count; i++) values.each[i] = in[first + i];
        add_all_products(l, first, count, 1);
    }
}

/* Copy the kernel's inputs at row y and column x of the convolution; the map is padded with zeros. */
SCNN_INLINE void look_at(const struct scnn_layer *l, const uint8_t *in, int32_t y, int32_t x, int16_t *to) {
    int32_t top = y * l->stride - l->padding, left = x * l->stride - l->padding;
    int32_t low = left < 0 ? -left : 0;
    int32_t high = left + l->kernel > l->width ? l->width - left : l->kernel;
    for (int32_t i = 0; i < l->kernel; i++, to += l->kernel * l->channels) {
        int32_t inside = (uint32_t)(top + i) < (uint32_t)l->height && low < high;
        int32_t begin = inside ? low * l->channels : 0, end = inside ? high * l->channels : 0;
        const uint8_t *from = in + ((top + i) * l->width + left) * l->channels;
        for (int32_t j = 0; j < begin; j++) to[j] = 0;
        for (int32_t j = begin; j < end; j++) to[j] = from[j];
        for (int32_t j = end; j < l->kernel * l->channels; j++) to[j] = 0;
    }
}

/* Two positions at a time. With pooling, positions of the same pool are consecutive, and the largest sum is kept. */
SCNN_INLINE void convolution(const struct scnn_layer *l, const uint8_t *in, uint8_t *out) {
    int32_t pool = l->pool ? l->pool : 1, each = pool * pool, all = l->out_height * l->out_width * each;
    int32_t most[SCNN_MOST_OUTPUTS];
    for (int32_t begin = 0; begin < all; begin += 2) {
        int32_t places = all - begin < 2 ? all - begin : 2;
        for (int32_t p = 0; p < places; p++) {
            int32_t pooled = (begin + p) / each, i = (begin + p) % each;
            look_at(l, in, pooled / l->out_width * l->pool_stride + i / pool,
                    pooled % l->out_width * l->pool_stride + i % pool, values.each + p * SCNN_MOST_ROWS);
        }
        add_all_products(l, 0, l->kernel * l->kernel * l->channels, 2);
        for (int32_t p = 0; p < places; p++) {
            int32_t pooled = (begin + p) / each, i = (begin + p) % each;
            for (int32_t o = 0; o < l->outputs; o++) {
                if (i == 0 || sums.whole[p][o] > most[o]) most[o] = sums.whole[p][o];
                if (i == each - 1) out[pooled * l->outputs + o] = activity_of(l, most[o], o);
            }
        }
    }
}
#endif

#endif
