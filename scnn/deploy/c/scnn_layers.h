/* The layers of scnn.deploy.reference. They are inlined with the constants of the model, so a compiler sees every size.

   The activity of a neuron is a byte: its spikes, that of time step t in bit t, or what its ReLU gives. Maps are
   [height][width][channels]. A layer of spikes collects the active neurons it sees by their pattern of spikes, adds
   their rows of weights once per pattern, and adds that sum at every time step of the pattern. */
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

/* What a place receives at every time step. Where 16 bits hold every sum of a layer and the processor adds two at
   once, they are in `halves`, in units of 1 / (1 << unused(l)): outputs 0, 2, 1, 3 of every four, as the bytes of their
   weights are unpacked. */
union sums {
    int32_t whole[SCNN_MOST_STEPS][SCNN_MOST_OUTPUTS];
    int16_t halves[SCNN_MOST_STEPS][SCNN_MOST_OUTPUTS];
    uint32_t pairs[SCNN_MOST_STEPS][SCNN_MOST_OUTPUTS / 2];
};

static union sums sums;

SCNN_INLINE int halved(const struct scnn_layer *l) { return SCNN_SIMD && SCNN_SPIKING && l->lanes; }

/* Bits of a byte that a weight leaves unused. */
SCNN_INLINE int32_t unused(const struct scnn_layer *l) { return 8 - l->bits; }

SCNN_INLINE int32_t sum_of(const struct scnn_layer *l, const union sums *from, int32_t t, int32_t output) {
    return halved(l) ? from->halves[t][(output & ~3) + output % 2 * 2 + output / 2 % 2] >> unused(l)
                     : from->whole[t][output];
}

/* Four bytes, or two int16, wherever they are. */
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

/* A row's weights lie in words, the first four in the lowest bits of its bytes, the next four above them. */
SCNN_INLINE int32_t weight(const struct scnn_layer *l, int32_t row, int32_t output) {
    int32_t each = 32 / l->bits, at = row * l->row_bytes + output / each * 4 + output % 4;
    uint32_t byte = l->weights[at] << (unused(l) - output % each / 4 * l->bits) & 0xFF; /* its bits on top */
    return (int32_t)(int8_t)byte >> unused(l);
}

#if SCNN_SIMD
/* Four weights of those from `row` on, the first being `first`: on top of the bits of four bytes. */
SCNN_INLINE uint32_t four_weights(const struct scnn_layer *l, const uint8_t *row, int32_t first) {
    int32_t each = 32 / l->bits;
    uint32_t value = word(row + first / each * 4) << (unused(l) - first % each / 4 * l->bits);
    return value & (0xFF >> unused(l) << unused(l)) * 0x01010101u;
}
#endif

/* ---- Neurons ---- */

/* One neuron over all steps: its spikes as bits. What it receives is `constant`, or changes from step to step. Its
   membrane is kept in `membranes` unless that is null, of each step behind SCNN_CLASSES others. */
SCNN_INLINE uint32_t spikes(const struct scnn_layer *l, int constant, int32_t output, int32_t *membranes) {
    int32_t membrane = 0, fired = 0, bias = l->bias[output], threshold = SCNN_TUNED(l->threshold[output]);
    uint32_t mask = 0;
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        if (l->reset == SCNN_ZERO && fired) membrane = 0;
        membrane = l->shift >= 0 ? membrane >> l->shift : (int32_t)(((int64_t)membrane * l->factor) >> 16) * 2;
        membrane += sum_of(l, &sums, constant ? 0 : t, output) * (1 << l->fraction) + bias;
        if (l->reset == SCNN_SUBTRACT && fired) membrane -= threshold;
        fired = membrane > threshold;
        mask |= (uint32_t)fired << t;
        if (membranes) membranes[t * SCNN_CLASSES] = membrane;
    }
    return mask;
}

/* Whether a constant sum is known to make no spike. */
SCNN_INLINE int is_quiet(const struct scnn_layer *l, int32_t output) {
#ifdef SCNN_TUNABLE
    (void)l, (void)output;
    return 0;
#else
    return sums.whole[0][output] <= l->quiet[output];
#endif
}

/* All outputs of a place: from `sums` to activity. */
SCNN_INLINE void activate(const struct scnn_layer *l, int constant, uint8_t *activity) {
    for (int32_t o = 0; o < l->outputs; o++) {
#if SCNN_SPIKING
        if (constant && is_quiet(l, o))
            activity[o] = 0;
        else
            activity[o] = (uint8_t)spikes(l, constant, o, 0);
#else
        (void)constant;
        int64_t value = ((int64_t)(sums.whole[0][o] + l->bias[o]) * l->multiplier[o] + ((int64_t)1 << 31)) >> 32;
        activity[o] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
#endif
    }
}

/* All outputs of a place that nothing comes into. */
SCNN_INLINE void rest(const struct scnn_layer *l, uint8_t *activity) {
#ifdef SCNN_TUNABLE
    for (int32_t o = 0; o < l->outputs; o++) sums.whole[0][o] = 0;
    activate(l, 1, activity);
#else
    for (int32_t o = 0; o < l->outputs; o++) activity[o] = l->background[o];
#endif
}

/* The last layer's: from `sums` to scores. */
SCNN_INLINE void read_out(const struct scnn_layer *l, int constant) {
    for (int32_t o = 0; o < l->outputs; o++) {
#if SCNN_SPIKING
        uint32_t mask = spikes(l, constant, o, scnn_membranes + o);
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

/* Keep in `most` what is largest of it and `sums`: max pooling, place by place. */
SCNN_INLINE void keep_largest(const struct scnn_layer *l, int32_t steps, union sums *most, int first) {
    for (int32_t t = 0; t < steps; t++) {
        for (int32_t o = 0; o < SCNN_MOST_OUTPUTS && o < (l->outputs + 3) / 4 * 4; o++) {
            if (halved(l)) {
                if (first || sums.halves[t][o] > most->halves[t][o]) most->halves[t][o] = sums.halves[t][o];
            } else {
                if (first || sums.whole[t][o] > most->whole[t][o]) most->whole[t][o] = sums.whole[t][o];
            }
        }
    }
}

SCNN_INLINE void take_largest(const struct scnn_layer *l, int32_t steps, const union sums *most) {
    for (int32_t t = 0; t < steps; t++) {
        for (int32_t i = 0; halved(l) && i < (l->outputs + 3) / 4 * 2; i++) sums.pairs[t][i] = most->pairs[t][i];
        for (int32_t o = 0; !halved(l) && o < l->outputs; o++) sums.whole[t][o] = most->whole[t][o];
    }
}

/* ---- The first layer: products with the image ---- */

/* Sums of the products of `size` values and the weights, [outputs][size]. */
SCNN_INLINE void multiply(const struct scnn_layer *l, const int16_t *values, int32_t size) {
    const int16_t *row = l->weights16;
    for (int32_t o = 0; o < l->outputs; o++, row += size) {
        int32_t sum = 0, i = 0;
#if SCNN_SIMD
        for (; i + 1 < size; i += 2) sum = __smlad((int16x2_t)word(row + i), (int16x2_t)word(values + i), sum);
#endif
        for (; i < size; i++) sum += row[i] * values[i];
        sums.whole[0][o] = sum;
    }
}

static int16_t patch16[SCNN_MOST_PATCH16];

/* Copy what the kernel sees at row y and column x of the convolution. */
SCNN_INLINE void look(const struct scnn_layer *l, int32_t y, int32_t x) {
    int16_t *to = patch16;
    int32_t top = y * l->stride - l->padding, left = x * l->stride - l->padding;
    for (int32_t i = 0; i < l->kernel; i++) {
        for (int32_t j = 0; j < l->kernel; j++) {
            int32_t inside = (uint32_t)(top + i) < (uint32_t)l->height && (uint32_t)(left + j) < (uint32_t)l->width;
            *to++ = inside ? scnn_even.image[(top + i) * l->width + left + j] : 0;
        }
    }
    if (l->kernel % 2) *to = 0;
}

SCNN_INLINE void first_convolution(const struct scnn_layer *l, uint8_t *out) {
    int32_t pool = l->pool ? l->pool : 1, size = (l->kernel * l->kernel + 1) / 2 * 2;
    for (int32_t y = 0; y < l->out_height; y++) {
        for (int32_t x = 0; x < l->out_width; x++, out += l->outputs) {
            int32_t begin = x * l->pool_stride * l->stride - l->padding;
            if (begin >= scnn_right || begin + (pool - 1) * l->stride + l->kernel <= scnn_left) {
                rest(l, out);
                continue;
            }
            if (pool == 1) {
                look(l, y, x);
                multiply(l, patch16, size);
            } else {
                int32_t most[SCNN_MOST_OUTPUTS];
                for (int32_t i = 0; i < pool * pool; i++) {
                    look(l, y * l->pool_stride + i / pool, x * l->pool_stride + i % pool);
                    multiply(l, patch16, size);
                    for (int32_t o = 0; o < l->outputs; o++)
                        if (i == 0 || sums.whole[0][o] > most[o]) most[o] = sums.whole[0][o];
                }
                for (int32_t o = 0; o < l->outputs; o++) sums.whole[0][o] = most[o];
            }
            activate(l, 1, out);
        }
    }
}

#if SCNN_SPIKING
/* ---- Layers of spikes ---- */

static uint16_t head[PATTERNS];                /* of each pattern the last row found, counted from 1; 0: none */
static uint16_t next[SCNN_MOST_ROWS + 1];      /* of each row the one found before it */
static uint8_t used[PATTERNS];                 /* the patterns found */
static int32_t patterns;

/* Sort `count` neurons, whose weights begin at `row`, by their patterns. */
SCNN_INLINE void collect(const uint8_t *masks, int32_t count, int32_t row) {
    for (int32_t i = 0; i < count; i++) {
        while (i + 4 <= count && !word(masks + i)) i += 4;
        uint32_t mask = i < count ? masks[i] : 0;
        if (mask) {
            if (!head[mask]) used[patterns++] = (uint8_t)mask;
            next[row + i + 1] = head[mask];
            head[mask] = (uint16_t)(row + i + 1);
        }
    }
}

#if SCNN_SIMD
/* Add the rows of weights that begin with `row` for `count` outputs from `output` on, at the steps of `pattern`. Where
   a sum may need more than 16 bits, 256 rows are added at a time. */
SCNN_INLINE void add_halves(const struct scnn_layer *l, uint32_t pattern, uint32_t row, int32_t output, int32_t count) {
    while (row) {
        uint32_t pairs[8];
        for (int32_t i = 0; i < count / 2; i++) pairs[i] = 0;
        for (int32_t left = 256; row && (left || l->lanes); row = next[row], left--) {
            const uint8_t *weights = l->weights + (row - 1) * (uint32_t)l->row_bytes + output * l->bits / 8;
            for (int32_t i = 0; i < count / 4; i++) {
                uint32_t four = four_weights(l, weights, 4 * i), turned = four >> 8 | four << 24;
                pairs[2 * i] = (uint32_t)__sxtab16((int16x2_t)pairs[2 * i], (int8x4_t)four);
                pairs[2 * i + 1] = (uint32_t)__sxtab16((int16x2_t)pairs[2 * i + 1], (int8x4_t)turned);
            }
        }
        for (int32_t t = 0; t < SCNN_STEPS; t++) {
            if (!(pattern >> t & 1)) continue;
            for (int32_t i = 0; i < count / 2; i++) {
                if (l->lanes) {
                    uint32_t *to = &sums.pairs[t][output / 2 + i];
                    *to = (uint32_t)__sadd16((int16x2_t)*to, (int16x2_t)pairs[i]);
                } else {
                    int32_t *to = &sums.whole[t][output + i / 2 * 4 + i % 2];
                    to[0] += (int16_t)pairs[i] >> unused(l);
                    to[2] += (int32_t)pairs[i] >> (16 + unused(l));
                }
            }
        }
    }
}

SCNN_INLINE void add_pattern(const struct scnn_layer *l, uint32_t pattern) {
    int32_t o = 0;
    for (; o + (l->bits == 8 ? 12 : l->bits == 4 ? 8 : 0) < l->outputs; o += 16)
        add_halves(l, pattern, head[pattern], o, 16);
    for (; o + (l->bits == 8 ? 4 : 0) < l->outputs; o += 8) add_halves(l, pattern, head[pattern], o, 8);
    if (o < l->outputs) add_halves(l, pattern, head[pattern], o, 4);
}
#endif

/* Add the rows of weights of all that was collected to `sums`, pattern by pattern, and forget it. */
SCNN_INLINE void add(const struct scnn_layer *l) {
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        if (halved(l))
            for (int32_t i = 0; i < (l->outputs + 3) / 4 * 2; i++) sums.pairs[t][i] = 0;
        else
            for (int32_t o = 0; o < (l->outputs + 3) / 4 * 4; o++) sums.whole[t][o] = 0;
    }
    for (int32_t i = 0; i < patterns; i++) {
        uint32_t pattern = used[i];
#if SCNN_SIMD
        add_pattern(l, pattern);
#else
        int32_t sum[SCNN_MOST_OUTPUTS];
        for (int32_t o = 0; o < l->outputs; o++) sum[o] = 0;
        for (uint32_t row = head[pattern]; row; row = next[row])
            for (int32_t o = 0; o < l->outputs; o++) sum[o] += weight(l, (int32_t)row - 1, o);
        for (int32_t t = 0; t < SCNN_STEPS; t++)
            if (pattern >> t & 1)
                for (int32_t o = 0; o < l->outputs; o++) sums.whole[t][o] += sum[o];
#endif
        head[pattern] = 0;
    }
    patterns = 0;
}

/* The active neurons that the kernel sees at row y and column x: rows of weights are [kernel][kernel][channels]. */
SCNN_INLINE void collect_around(const struct scnn_layer *l, const uint8_t *in, int32_t y, int32_t x) {
    int32_t top = y * l->stride - l->padding, left = x * l->stride - l->padding;
    int32_t low = left < 0 ? -left : 0;
    int32_t high = left + l->kernel > l->width ? l->width - left : l->kernel;
    for (int32_t i = 0; i < l->kernel; i++) {
        if ((uint32_t)(top + i) < (uint32_t)l->height && low < high)
            collect(in + ((top + i) * l->width + left + low) * l->channels, (high - low) * l->channels,
                    (i * l->kernel + low) * l->channels);
    }
}

SCNN_INLINE void convolution(const struct scnn_layer *l, const uint8_t *in, uint8_t *out) {
    int32_t pool = l->pool ? l->pool : 1;
    for (int32_t y = 0; y < l->out_height; y++) {
        for (int32_t x = 0; x < l->out_width; x++, out += l->outputs) {
            if (pool == 1) {
                collect_around(l, in, y, x);
                if (!patterns) {
                    rest(l, out);
                    continue;
                }
                add(l);
            } else {
                union sums most;
                for (int32_t i = 0; i < pool * pool; i++) {
                    collect_around(l, in, y * l->pool_stride + i / pool, x * l->pool_stride + i % pool);
                    add(l);
                    keep_largest(l, SCNN_STEPS, &most, i == 0);
                }
                take_largest(l, SCNN_STEPS, &most);
            }
            activate(l, 0, out);
        }
    }
}

SCNN_INLINE void connect(const struct scnn_layer *l, const uint8_t *in) {
    collect(in, l->channels * l->height * l->width, 0);
    add(l);
}

#else
/* ---- Layers of values: every product ---- */

static uint8_t patch8[SCNN_MOST_ROWS + 3];

/* Sums of the products of `size` values and the weights of `count` outputs, [outputs][size], up to four of them. */
SCNN_INLINE void connect_some(const struct scnn_layer *l, const uint8_t *values, int32_t size, int32_t o, int32_t count) {
    int32_t total[4] = {0, 0, 0, 0}, i = 0;
#if SCNN_SIMD
    int32_t each = 32 / l->bits;
    const uint8_t *row = l->weights + o * l->row_bytes;
    for (; i + each <= size; i += each, row += 4) {
        for (int32_t k = 0; k < each; k += 4, values += 4) {
            uint32_t x = word(values);
            int16x2_t low = __uxtb16((uint8x4_t)x), high = __uxtb16((uint8x4_t)(x >> 8 | x << 24));
            for (int32_t n = 0; n < count; n++) {
                uint32_t four = four_weights(l, row + n * l->row_bytes, k);
                total[n] = __smlad(__sxtb16((int8x4_t)four), low, total[n]);
                total[n] = __smlad(__sxtb16((int8x4_t)(four >> 8 | four << 24)), high, total[n]);
            }
        }
    }
    for (int32_t n = 0; n < count; n++) total[n] >>= unused(l);
#endif
    for (; i < size; i++, values++)
        for (int32_t n = 0; n < count; n++) total[n] += weight(l, o + n, i) * *values;
    for (int32_t n = 0; n < count; n++) sums.whole[0][o + n] = total[n];
}

SCNN_INLINE void connect_values(const struct scnn_layer *l, const uint8_t *values, int32_t size) {
    int32_t o = 0;
    for (; o + 3 < l->outputs; o += 4) connect_some(l, values, size, o, 4);
    for (; o < l->outputs; o++) connect_some(l, values, size, o, 1);
}

SCNN_INLINE void connect(const struct scnn_layer *l, const uint8_t *in) {
    connect_values(l, in, l->channels * l->height * l->width);
}

/* The sums of the place at row y and column x of the convolution. */
SCNN_INLINE void convolve(const struct scnn_layer *l, const uint8_t *in, int32_t y, int32_t x) {
    uint8_t *to = patch8;
    int32_t top = y * l->stride - l->padding, left = x * l->stride - l->padding;
    for (int32_t i = 0; i < l->kernel; i++) {
        for (int32_t j = 0; j < l->kernel; j++) {
            int32_t inside = (uint32_t)(top + i) < (uint32_t)l->height && (uint32_t)(left + j) < (uint32_t)l->width;
            const uint8_t *from = in + ((top + i) * l->width + left + j) * l->channels;
            for (int32_t c = 0; c < l->channels; c++) *to++ = inside ? from[c] : 0;
        }
    }
    connect_values(l, patch8, l->kernel * l->kernel * l->channels);
}

SCNN_INLINE void convolution(const struct scnn_layer *l, const uint8_t *in, uint8_t *out) {
    int32_t pool = l->pool ? l->pool : 1;
    for (int32_t y = 0; y < l->out_height; y++) {
        for (int32_t x = 0; x < l->out_width; x++, out += l->outputs) {
            union sums most;
            for (int32_t i = 0; i < pool * pool; i++) {
                convolve(l, in, y * l->pool_stride + i / pool, x * l->pool_stride + i % pool);
                keep_largest(l, 1, &most, i == 0);
            }
            take_largest(l, 1, &most);
            activate(l, 0, out);
        }
    }
}
#endif

#endif
