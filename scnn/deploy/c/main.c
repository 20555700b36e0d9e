/* Answers recordings on a computer: scnn FILE.wav ..., or raw int16 samples of this machine's byte order on `-`. */
#include <stdio.h>
#include <string.h>

#include "scnn.h"

#define MOST_SAMPLES (60 * 48000)

static int16_t samples[MOST_SAMPLES];
static unsigned char block[4096];

static uint32_t little(const unsigned char *bytes, int count) {
    uint32_t value = 0;
    while (count--) value = value << 8 | bytes[count];
    return value;
}

/* Samples up to `most`, of two bytes each; how many there were. */
static int32_t read_samples(FILE *file, uint32_t most) {
    int32_t count = 0;
    unsigned char pair[2];
    while (count < MOST_SAMPLES && (uint32_t)count < most && fread(pair, 1, 2, file) == 2)
        samples[count++] = (int16_t)little(pair, 2);
    return count;
}

/* The samples of a WAV file; how many, or -1 with the reason. */
static int32_t read_wav(FILE *file, const char **problem) {
    int known = 0;
    if (fread(block, 1, 12, file) != 12 || memcmp(block, "RIFF", 4) || memcmp(block + 8, "WAVE", 4)) {
        *problem = "not a WAV file";
        return -1;
    }
    while (fread(block, 1, 8, file) == 8) {
        uint32_t size = little(block + 4, 4);
        if (!memcmp(block, "data", 4)) {
            if (known) return read_samples(file, size / 2);
            break;
        }
        if (!memcmp(block, "fmt ", 4)) {
            if (size < 16 || size > sizeof block || fread(block, 1, size, file) != size) break;
            known = little(block, 2) == 1 && little(block + 2, 2) == 1 && little(block + 14, 2) == 16 &&
                    little(block + 4, 4) == (uint32_t)scnn_sample_rate;
            if (!known) {
                *problem = "must be 16-bit PCM of one channel, at the sample rate of this network";
                return -1;
            }
            size = size % 2;
        } else {
            size += size % 2;
        }
        for (; size; size -= size < sizeof block ? size : (uint32_t)sizeof block)
            if (!fread(block, 1, size < sizeof block ? size : sizeof block, file)) break;
        if (size) break;
    }
    *problem = "a damaged WAV file: it has no samples";
    return -1;
}

int main(int arguments, char **names) {
    int status = 0;
    if (arguments < 2) {
        fprintf(stderr, "usage: %s FILE.wav ... (or -: raw int16 samples at %d Hz)\n", names[0],
                (int)scnn_sample_rate);
        return 2;
    }
    for (int i = 1; i < arguments; i++) {
        const char *problem = "cannot be opened";
        FILE *file = strcmp(names[i], "-") ? fopen(names[i], "rb") : stdin;
        int32_t count = -1;
        if (file) count = file == stdin ? read_samples(file, UINT32_MAX) : read_wav(file, &problem);
        if (file && file != stdin) fclose(file);
        int answer = count < 0 ? -1 : scnn_recognise(samples, count);
        if (answer < 0) {
            fprintf(stderr, "%s: %s\n", names[i], count < 0 ? problem : "silent: all samples are 0");
            status = 1;
            continue;
        }
        printf("%s  %s  scores", names[i], scnn_class_names[answer]);
        for (int32_t c = 0; c < scnn_class_count; c++) printf(" %s:%d", scnn_class_names[c], (int)scnn_scores[c]);
        printf("\n");
    }
    return status;
}
