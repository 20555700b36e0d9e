/* Words in a continuous stream: the gate of scnn.listen, and the confidence of scnn.deploy.stream. */
#define SCNN_STREAM_TABLES
#include "scnn.h"
#include "scnn_memory.h"

#ifndef SCNN_LONGEST
#define SCNN_LONGEST SCNN_USUALLY_LONGEST
#endif
#define LENGTH SCNN_FRAME_SAMPLES
#define FRAMES (SCNN_BEFORE + 1 + SCNN_LONGEST) /* in the longest segment, including the frames before it */

/* Coefficients of the high-pass filter. Volatile, because compilers turn products with known factors into slow 64-bit
   code. */
static const volatile int32_t highpass[] = {SCNN_HIGHPASS_G, SCNN_HIGHPASS_E, SCNN_HIGHPASS_H};

/* The part of the stream that is kept, from its frame `first` on; other frame numbers are relative to `first`. All
   zeros initially. */
static int16_t kept[FRAMES * LENGTH];
static struct {
    uint32_t first;
    int32_t frame, filled;                   /* the current frame, and how many of its samples have arrived */
    int32_t x1, x2, next, second;            /* filter state: the last two samples, parts of the next two outputs */
    uint64_t energy, energies[SCNN_LONG];    /* of the current frame, and of the last ones */
    uint64_t floors[SCNN_MEMORY], floor;     /* lowest energies of SCNN_LONG frames in a row, and the noise floor */
    int32_t open, opened, last, above, free; /* is a segment open; its first, last loud and loud frames; next free one */
    uint64_t peak;                           /* highest level in the segment */
} now;

SCNN_INLINE int32_t times(int32_t factor, int32_t value) {
    return (int32_t)(((int64_t)factor * value) >> SCNN_HIGHPASS_SHIFT);
}

/* Take in samples of the current frame: keep them, and add up their energy above 150 Hz. */
SCNN_APART void take(const int16_t *samples, int32_t count) {
    int16_t *to = kept + now.frame * LENGTH + now.filled;
    int32_t g = highpass[0], e = highpass[1], h = highpass[2];
    int32_t x1 = now.x1, x2 = now.x2, next = now.next, second = now.second;
    uint64_t energy = now.energy;
    for (int32_t i = 0; i < count; i++) {
        int32_t x = samples[i], d = (x - 2 * x1 + x2) * (1 << SCNN_FRACTION);
        int32_t y = d - times(g, d) + next, whole = y >> SCNN_FRACTION;
        next = 2 * y - times(e, y) + second;
        second = times(h, y) - y;
        energy += (uint64_t)((int64_t)whole * whole);
        x2 = x1, x1 = x;
        to[i] = samples[i];
    }
    now.x1 = x1, now.x2 = x2, now.next = next, now.second = second;
    now.energy = energy;
    now.filled += count;
}

/* Keep only `frames` frames before the current one. */
static void forget(int32_t frames) {
    int32_t forgotten = now.frame - frames;
    if (forgotten <= 0) return;
    for (int32_t i = 0; i < frames * LENGTH + now.filled; i++) kept[i] = kept[i + forgotten * LENGTH];
    now.first += (uint32_t)forgotten;
    now.frame = frames;
    now.free = now.free > forgotten ? now.free - forgotten : 0;
}

/* 2^-x in units of 2^-15, for x >= 0 in units of 2^-10. */
static uint32_t power(int64_t x) {
    if (x >= 31 * 1024) return 0;
    const uint16_t *piece = scnn_powers + (x >> 5) % 32;
    return (uint32_t)(piece[0] - ((uint32_t)(piece[0] - piece[1]) * (uint32_t)(x % 32) >> 5)) >> (x >> 10);
}

/* The share of a class in the softmax of the output membranes, averaged over time, in units of 2^-15. */
static int32_t confidence(int answer) {
    uint32_t shares = 0;
    for (int32_t t = 0; t < SCNN_STEPS; t++) {
        int64_t exponents[SCNN_CLASSES], most = INT64_MIN;
        uint32_t sum = 0;
        for (int32_t c = 0; c < SCNN_CLASSES; c++) {
            exponents[c] = (int64_t)scnn_membranes[t * SCNN_CLASSES + c] * scnn_gains[c] >> SCNN_GAINS_SHIFT;
            if (exponents[c] > most) most = exponents[c];
        }
        for (int32_t c = 0; c < SCNN_CLASSES; c++) sum += power(most - exponents[c]);
        shares += (power(most - exponents[answer]) << 15) / sum;
    }
    return (int32_t)(shares / (uint32_t)SCNN_STEPS);
}

/* Close the open segment after `heard` frames. Returns 1 if it is a word, which is then answered, else 0. */
static int end(int32_t heard, struct scnn_word *word) {
    int32_t first = now.opened - SCNN_BEFORE > now.free ? now.opened - SCNN_BEFORE : now.free;
    int32_t behind = now.last + 1 + SCNN_AFTER < heard ? now.last + 1 + SCNN_AFTER : heard;
    now.open = 0;
    if (now.above < SCNN_SHORTEST || 4 * now.peak <= SCNN_OPEN * now.floor) return 0;
    now.free = behind;
    word->start = (now.first + (uint32_t)first) * LENGTH;
    word->length = (uint32_t)(behind - first) * LENGTH;
    word->answer = scnn_recognise(kept + first * LENGTH, (behind - first) * LENGTH);
    word->confidence = confidence(word->answer);
    word->sure = word->confidence >= SCNN_REFUSE;
    return 1;
}

/* Returns the level of the last frames, including the one just completed, and updates the noise floor. */
static uint64_t level(void) {
    uint32_t number = now.first + (uint32_t)now.frame;
    uint64_t three = 0, ten = 0, *floor = now.floors + number / SCNN_LONG % SCNN_MEMORY;
    for (int32_t i = SCNN_LONG - 1; i > 0; i--) now.energies[i] = number ? now.energies[i - 1] : now.energy;
    now.energies[0] = now.energy;
    for (int32_t i = 0; i < SCNN_SHORT; i++) three += now.energies[i];
    for (int32_t i = 0; i < SCNN_LONG; i++) ten += now.energies[i];
    for (int32_t i = 0; i < SCNN_MEMORY && !number; i++) now.floors[i] = ten;
    if (number % SCNN_LONG == 0 || ten < *floor) *floor = ten;
    now.floor = ten;
    for (int32_t i = 0; i < SCNN_MEMORY; i++)
        if (now.floors[i] < now.floor) now.floor = now.floors[i];
    if (now.floor < SCNN_LOWEST) now.floor = SCNN_LOWEST;
    if (now.floor > SCNN_QUIET && number < SCNN_KNOWN) now.floor = SCNN_QUIET;
    return three;
}

/* Process a completed frame. Returns 1 if a word ends with it, which is then answered, else 0. */
static int look(struct scnn_word *word) {
    uint64_t loud = level();
    int over = 0;
    if (!now.open && 4 * loud > SCNN_OPEN * now.floor) {
        forget(SCNN_BEFORE);
        now.open = 1, now.opened = now.frame, now.above = 0, now.peak = 0;
    }
    if (now.open) {
        if (4 * loud > SCNN_CLOSE * now.floor) now.last = now.frame;
        if (4 * loud > SCNN_OPEN * now.floor) now.above++;
        if (loud > now.peak) now.peak = loud;
        over = now.frame - now.last >= SCNN_HANGOVER || now.frame - now.opened >= SCNN_LONGEST;
    }
    over = over && end(now.frame + 1, word);
    now.frame++, now.filled = 0, now.energy = 0;
    if (now.frame == FRAMES) forget(SCNN_BEFORE);
    return over;
}

int32_t scnn_hear(const int16_t *samples, int32_t count, struct scnn_word *word) {
    int32_t taken = 0;
    word->answer = -1;
    while (taken < count) {
        int32_t missing = LENGTH - now.filled, part = count - taken < missing ? count - taken : missing;
        if (now.first == 0 && now.frame == 0 && now.filled == 0) now.x1 = now.x2 = samples[0];
        take(samples + taken, part);
        taken += part;
        if (part == missing && look(word)) break;
    }
    return taken;
}

void scnn_finish(struct scnn_word *word) {
    word->answer = -1;
    if (now.open) (void)end(now.frame, word);
    now.first = 0, now.frame = 0, now.filled = 0, now.free = 0;
    now.next = 0, now.second = 0, now.energy = 0, now.open = 0;
}
