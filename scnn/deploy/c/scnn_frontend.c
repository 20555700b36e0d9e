/* Samples to log-mel image, as defined by scnn.deploy.frontend. Requires that `>>` of a negative number rounds down. */
#define SCNN_FRONTEND_TABLES
#include "scnn.h"
#include "scnn_memory.h"

union scnn_even scnn_even;
union scnn_odd scnn_odd;
int32_t scnn_left, scnn_right;

#define HALF (SCNN_FRAME / 2)
#define TOP ((SCNN_HEIGHT - SCNN_BANDS) / 2)
#define TRIM_HOP (SCNN_TRIM_FRAME / 4)

/* The upper 32 bits of a product. */
SCNN_INLINE int32_t high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b) >> 32); }

/* Bit length of a number, 0 for 0. */
SCNN_INLINE int32_t bits(uint32_t value) {
#if defined(__GNUC__)
    return value ? 32 - __builtin_clz(value) : 0;
#else
    int32_t length = 0;
    for (; value; value >>= 1) length++;
    return length;
#endif
}

SCNN_INLINE int32_t bits64(uint64_t value) {
    return value >> 32 ? 32 + bits((uint32_t)(value >> 32)) : bits((uint32_t)value);
}

/* ---- Samples of a recording; after trimming, only those in [first, end) are used ---- */

struct sound {
    const int16_t *samples;
    int32_t first, end;
};

SCNN_INLINE int32_t emphasised(const int16_t *samples, int32_t at) {
    return samples[at] * 8192 - SCNN_EMPHASIS * (at > 0 ? samples[at - 1] : 0);
}

#if SCNN_TRIM || SCNN_LOUDEST
/* Energy of `length` samples from `start`; samples outside the sound count as 0. */
SCNN_APART uint64_t energy(const struct sound *sound, int32_t start, int32_t length) {
    int32_t end = start + length < sound->end ? start + length : sound->end;
    uint64_t sum = 0;
    for (int32_t at = start > sound->first ? start : sound->first; at < end; at++) {
        int32_t quieter = emphasised(sound->samples, at) >> SCNN_QUIETER;
        sum += (uint64_t)((int64_t)quieter * quieter);
    }
    return sum;
}
#endif

#if SCNN_TRIM
/* Energy of the four hops centred on the start of hop `index`, but at least the floor. */
static uint64_t around(const struct sound *sound, int32_t index) {
    uint64_t sum = energy(sound, (index - 2) * TRIM_HOP, 4 * TRIM_HOP);
    return sum > SCNN_TRIM_FLOOR ? sum : SCNN_TRIM_FLOOR;
}

/* Trim the quiet ends. */
static void trim(struct sound *sound) {
    int32_t last = sound->end / TRIM_HOP, first = 0;
    uint64_t loudest = SCNN_TRIM_FLOOR, hops[4] = {0, 0, 0, energy(sound, 0, TRIM_HOP)};
    for (int32_t i = 0; i <= last; i++) {
        hops[0] = hops[1], hops[1] = hops[2], hops[2] = hops[3];
        hops[3] = energy(sound, (i + 1) * TRIM_HOP, TRIM_HOP);
        uint64_t now = hops[0] + hops[1] + hops[2] + hops[3];
        if (now > loudest) loudest = now;
    }
    uint64_t least = (loudest >> 21) * SCNN_TRIM + ((loudest & 0x1FFFFF) * SCNN_TRIM >> 21);
    while (around(sound, first) <= least) first++;
    while (around(sound, last) <= least) last--;
    if (last < sound->end / TRIM_HOP) sound->end = (last + 1) * TRIM_HOP;
    sound->first = first * TRIM_HOP;
}
#endif

/* Index of the first of `frames` frames to appear in the image. */
SCNN_INLINE int32_t first_shown(const struct sound *sound, int32_t frames) {
#if SCNN_LOUDEST
    int32_t best = 0, start = sound->first - SCNN_HOP / 2;
    uint64_t sum = 0, most = 0;
    for (int32_t i = 0; i < frames && frames > SCNN_WIDTH; i++, start += SCNN_HOP) {
        sum += energy(sound, start, SCNN_HOP);
        if (i >= SCNN_WIDTH) sum -= energy(sound, start - SCNN_WIDTH * SCNN_HOP, SCNN_HOP);
        if (i >= SCNN_WIDTH - 1 && sum > most) most = sum, best = i - SCNN_WIDTH + 1;
    }
    return best;
#else
    (void)sound;
    return frames > SCNN_WIDTH ? (frames - SCNN_WIDTH) / 2 : 0;
#endif
}

/* ---- One frame: window, spectrum, power, bands ---- */

SCNN_INLINE int32_t windowed(int32_t sample, int16_t weight) {
    return high(sample, weight * 65536); /* (sample * weight) >> 16, in a single instruction */
}

/* Window half of a frame, and store it in the order that the FFT needs. `step` is 1 or -1: the window's second half is
   the first one backwards. */
SCNN_INLINE void half_frame(const int16_t *samples, const uint16_t *order, const int16_t *window, int32_t step) {
    int32_t before = samples[-1];
    for (int32_t i = 0; i < HALF / 2; i++, samples += 2, window += 2 * step) {
        int32_t *pair = scnn_odd.spectrum + 2 * order[i];
        int32_t even = samples[0], odd = samples[1];
        pair[0] = windowed(even * 8192 - SCNN_EMPHASIS * before, window[0]);
        pair[1] = windowed(odd * 8192 - SCNN_EMPHASIS * even, window[step]);
        before = odd;
    }
}

/* Window the frame that begins at `start`; samples outside the sound are 0. */
SCNN_APART void frame(const struct sound *sound, int32_t start) {
    if (start > 0 && start >= sound->first && start + SCNN_FRAME <= sound->end) {
        half_frame(sound->samples + start, scnn_order, scnn_window, 1);
        half_frame(sound->samples + start + HALF, scnn_order + HALF / 2, scnn_window + HALF, -1);
        return;
    }
    for (int32_t i = 0; i < SCNN_FRAME; i++) {
        int32_t at = start + i, inside = at >= sound->first && at < sound->end;
        scnn_odd.spectrum[2 * scnn_order[i / 2] + i % 2] =
            inside ? windowed(emphasised(sound->samples, at), scnn_window[i <= HALF ? i : SCNN_FRAME - i]) : 0;
    }
}

/* In-place FFT of HALF complex numbers in bit-reversed order, halved at every stage. */
SCNN_APART void transform(void) {
    int32_t *z = scnn_odd.spectrum;
    for (int32_t *p = z; p < z + 2 * HALF; p += 8) {
        int32_t r0 = p[0] + p[2], r1 = p[0] - p[2], r2 = p[4] + p[6], r3 = p[4] - p[6];
        int32_t i0 = p[1] + p[3], i1 = p[1] - p[3], i2 = p[5] + p[7], i3 = p[5] - p[7];
        p[0] = (r0 + r2) >> 2, p[1] = (i0 + i2) >> 2;
        p[2] = (r1 + i3) >> 2, p[3] = (i1 - r3) >> 2;
        p[4] = (r0 - r2) >> 2, p[5] = (i0 - i2) >> 2;
        p[6] = (r1 - i3) >> 2, p[7] = (i1 + r3) >> 2;
    }
    for (int32_t length = 8; length <= HALF; length *= 2) {
        for (int32_t *start = z; start < z + 2 * HALF; start += 2 * length) {
            const int32_t *twiddle = scnn_twiddles;
            for (int32_t *a = start, *b = a + length; a < start + length; a += 2, b += 2) {
                int32_t cosine = twiddle[0], sine = twiddle[1], ar = a[0], ai = a[1], br = b[0], bi = b[1];
                int32_t r = high(br, cosine) + high(bi, sine), i = high(bi, cosine) - high(br, sine);
                a[0] = (ar >> 1) + r, a[1] = (ai >> 1) + i;
                b[0] = (ar >> 1) - r, b[1] = (ai >> 1) - i;
                twiddle += 2 * (SCNN_FRAME / length);
            }
        }
    }
}

SCNN_INLINE uint64_t square(int32_t real, int32_t imaginary) {
    return (uint64_t)((int64_t)real * real) + (uint64_t)((int64_t)imaginary * imaginary);
}

/* Replace the FFT by the power of every bin; returns the bitwise OR of all powers. */
SCNN_APART uint64_t powers(void) {
    const int32_t *z = scnn_odd.spectrum;
    uint64_t *power = scnn_odd.power, every;
    int32_t real = z[0], imaginary = z[1];
    power[0] = square(real + imaginary, 0);
    power[HALF] = square(real - imaginary, 0);
    power[HALF / 2] = square(z[HALF], z[HALF + 1]);
    every = power[0] | power[HALF] | power[HALF / 2];
    for (int32_t k = 1; k < HALF / 2; k++) {
        const int32_t *a = z + 2 * k, *b = z + 2 * (HALF - k);
        int32_t cosine = scnn_twiddles[2 * k], sine = scnn_twiddles[2 * k + 1];
        int32_t even_r = (a[0] + b[0]) >> 1, even_i = (a[1] - b[1]) >> 1;
        int32_t odd_r = a[1] + b[1], odd_i = b[0] - a[0];
        int32_t r = high(odd_r, cosine) + high(odd_i, sine), i = high(odd_i, cosine) - high(odd_r, sine);
        uint64_t low = square(even_r + r, even_i + i), mirrored = square(even_r - r, even_i - i);
        power[k] = low;
        power[HALF - k] = mirrored;
        every |= low | mirrored;
    }
    return every;
}

/* 1024 log2 of a positive number. */
SCNN_INLINE int32_t logarithm(uint64_t value) {
    int32_t exponent = bits64(value) - 1;
    uint32_t mantissa = (uint32_t)((value << (63 - exponent)) >> 32);
    const uint16_t *piece = scnn_logarithm + ((mantissa >> 26) - 32);
    uint32_t rest = (mantissa >> 10) & 0xFFFF;
    return exponent * 1024 + (int32_t)((piece[0] + ((uint32_t)(piece[1] - piece[0]) * rest >> 16)) >> 4);
}

/* Compute the band levels of the frame in scnn_odd, and store them in `column` unless it is null. Returns the highest
   level so far, given the previous `highest`. */
SCNN_APART int32_t levels(int16_t *column, int32_t highest) {
    const uint16_t *weight = scnn_band_weights;
    transform();
    int32_t exponent = bits64(powers()) - 32;
    if (exponent < 0) exponent = 0;
    for (int32_t k = 0; k <= HALF; k++) scnn_odd.short_power[k] = (uint32_t)(scnn_odd.power[k] >> exponent);
    for (int32_t band = 0; band < SCNN_BANDS; band++) {
        const uint32_t *power = scnn_odd.short_power + scnn_band_first[band];
        uint64_t sum = 0;
        for (int32_t i = scnn_band_count[band]; i > 0; i--)
            sum += (uint64_t)*power++ * *weight++;
        int32_t level = sum ? logarithm(sum) + exponent * 1024 - SCNN_OFFSET : 0;
        if (level < 0) level = 0;
        if (level > highest) highest = level;
        if (column) column[band * SCNN_WIDTH] = (int16_t)(uint16_t)level;
    }
    return highest;
}

/* ---- The image: limit to 80 dB of range, and normalise ---- */

#if SCNN_NORMALIZATION != SCNN_FIXED
/* A level relative to the lower end of the range. */
SCNN_INLINE int32_t above(int16_t level, int32_t highest) {
    int32_t value = (uint16_t)level - highest + SCNN_RANGE;
    return value > 0 ? value : 0;
}
#endif

#if SCNN_NORMALIZATION == SCNN_PEAK
SCNN_INLINE int32_t mean_of(uint32_t sum, int32_t count) {
    return (int32_t)((sum + (uint32_t)count / 2) / (uint32_t)count);
}

/* Equalise the bands, each of `shown` levels, and convert them to pixels relative to the peak. */
SCNN_APART void below_peak(int16_t *image, int32_t shown, int32_t highest) {
    int32_t peak = INT32_MIN;
    uint32_t total = 0;
    for (int32_t band = 0; band < SCNN_BANDS; band++) {
        int16_t *row = image + band * SCNN_WIDTH;
        uint32_t sum = 0;
        int32_t most = 0;
        for (int32_t i = 0; i < shown; i++) {
            int32_t level = above(row[i], highest);
            if (level > most) most = level;
            row[i] = (int16_t)level;
            sum += (uint32_t)level;
        }
        scnn_odd.bands[band].mean = mean_of(sum, shown);
        scnn_odd.bands[band].most = most;
        total += sum;
    }
    int32_t mean = mean_of(total, SCNN_BANDS * shown);
    for (int32_t band = 0; band < SCNN_BANDS; band++) {
        int32_t correction = (SCNN_EQUALIZE * (scnn_odd.bands[band].mean - mean) + 128) >> 8;
        int32_t most = scnn_odd.bands[band].most - correction;
        scnn_odd.bands[band].mean = correction;
        if (most > peak) peak = most;
    }
    for (int32_t band = 0; band < SCNN_BANDS; band++) {
        int16_t *row = image + band * SCNN_WIDTH;
        int32_t zero = scnn_odd.bands[band].mean + peak - SCNN_PEAK_RANGE;
        for (int32_t i = 0; i < shown; i++) {
            int32_t level = row[i] > zero ? row[i] - zero : 0;
            row[i] = (int16_t)((level * SCNN_PEAK_GAIN + (1 << SCNN_PEAK_SHIFT >> 1)) >> SCNN_PEAK_SHIFT);
        }
    }
}

#else
struct scale {
    int32_t mean, gain, shift;
};

#if SCNN_NORMALIZATION != SCNN_FIXED
static uint32_t root(uint64_t value) {
    uint64_t found = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit; bit >>= 2) {
        if (value >= found + bit) {
            value -= found + bit;
            found = (found >> 1) + bit;
        } else {
            found >>= 1;
        }
    }
    return (uint32_t)found;
}

/* The scale that standardises `count` levels with this sum and sum of squares to mean 0 and deviation 1. */
static struct scale standard(uint32_t count, uint32_t sum, uint64_t squares) {
    uint64_t deviation = root(count * squares - (uint64_t)sum * sum); /* count * standard deviation */
    struct scale scale = {(int32_t)((sum + count / 2) / count), 0, 0};
    if (deviation == 0) return scale;
    uint64_t rest = (uint64_t)count * 256;
    for (; rest < deviation << 14; rest <<= 1) scale.shift++;
    for (int32_t bit = 15; bit >= 0; bit--) {
        if (rest >= deviation << bit) {
            rest -= deviation << bit;
            scale.gain += (int32_t)1 << bit;
        }
    }
    if (scale.gain > 32767) scale.gain = 32767;
    return scale;
}
#endif

/* Standardise `count` rows of the image, each of `shown` levels; `highest` is the highest level. */
SCNN_APART void standardise(int16_t *rows, int32_t count, int32_t shown, int32_t highest) {
#if SCNN_NORMALIZATION != SCNN_FIXED
    uint32_t sum = 0;
    uint64_t squares = 0;
    for (int32_t row = 0; row < count; row++) {
        for (int32_t i = 0; i < shown; i++) {
            int32_t level = above(rows[row * SCNN_WIDTH + i], highest);
            rows[row * SCNN_WIDTH + i] = (int16_t)level;
            sum += (uint32_t)level;
            squares += (uint32_t)(level * level);
        }
    }
    struct scale scale = standard((uint32_t)(count * shown), sum, squares);
#else
    struct scale scale = {SCNN_MEAN, SCNN_GAIN, SCNN_SHIFT};
    int32_t least = highest > SCNN_RANGE ? highest - SCNN_RANGE : 0;
#endif
    int32_t half = (int32_t)1 << scale.shift >> 1;
    for (int32_t row = 0; row < count; row++) {
        for (int32_t i = 0; i < shown; i++) {
#if SCNN_NORMALIZATION != SCNN_FIXED
            int32_t level = rows[row * SCNN_WIDTH + i];
#else
            int32_t level = (uint16_t)rows[row * SCNN_WIDTH + i];
            if (level < least) level = least;
#endif
            int32_t pixel = ((level - scale.mean) * scale.gain + half) >> scale.shift;
            rows[row * SCNN_WIDTH + i] = (int16_t)(pixel > 32767 ? 32767 : pixel < -32767 ? -32767 : pixel);
        }
    }
}
#endif

int scnn_listen(const int16_t *samples, int32_t count) {
    int32_t silent = 0;
    while (silent < count && samples[silent] == 0) silent++;
    if (silent >= count) return -1;
    struct sound sound = {samples, 0, count};
#if SCNN_TRIM
    trim(&sound);
#endif
    int32_t frames = 1 + (sound.end - sound.first) / SCNN_HOP, shown = frames < SCNN_WIDTH ? frames : SCNN_WIDTH;
    int32_t skipped = first_shown(&sound, frames), highest = 0;
    scnn_left = (SCNN_WIDTH - shown) / 2;
    scnn_right = scnn_left + shown;
    for (int32_t i = 0; i < SCNN_HEIGHT * SCNN_WIDTH; i++) scnn_even.image[i] = 0;
    int16_t *image = scnn_even.image + TOP * SCNN_WIDTH + scnn_left;
    for (int32_t i = 0; i < frames; i++) {
        int32_t column = i - skipped;
        frame(&sound, sound.first + i * SCNN_HOP - SCNN_FRAME / 2);
        highest = levels(column >= 0 && column < shown ? image + column : 0, highest);
    }
#if SCNN_NORMALIZATION == SCNN_PEAK
    below_peak(image, shown, highest);
#elif SCNN_NORMALIZATION == SCNN_BAND
    for (int32_t band = 0; band < SCNN_BANDS; band++) standardise(image + band * SCNN_WIDTH, 1, shown, highest);
#else
    standardise(image, SCNN_BANDS, shown, highest);
#endif
    scnn_trace(scnn_even.image, sizeof scnn_even.image);
    return 0;
}
