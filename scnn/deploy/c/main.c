/* Answers recordings on a computer: scnn FILE.wav ..., or raw little-endian int16 samples on stdin, `-`.
   With --stream, each may contain many words: scnn --stream FILE.wav, or `-` for a microphone's samples on stdin. */
#include <stdio.h>
#include <string.h>

#include "scnn.h"

#define MOST_SAMPLES (60 * 48000)
#define BLOCK 256 /* samples read from a stream at a time */

static int16_t samples[MOST_SAMPLES];
static unsigned char block[4096];

static uint32_t little(const unsigned char *bytes, int count) {
    uint32_t value = 0;
    while (count--) value = value << 8 | bytes[count];
    return value;
}

/* Read at most `most` samples of two bytes each; returns how many were read. */
static int32_t read_samples(FILE *file, uint32_t most) {
    int32_t count = 0;
    unsigned char pair[2];
    while (count < MOST_SAMPLES && (uint32_t)count < most && fread(pair, 1, 2, file) == 2)
        samples[count++] = (int16_t)little(pair, 2);
    return count;
}

/* Read a WAV file up to its samples. Returns 0 and sets `most`, their number; or -1 and sets `problem`. */
static int find_samples(FILE *file, uint32_t *most, const char **problem) {
    int known = 0;
    if (fread(block, 1, 12, file) != 12 || memcmp(block, "RIFF", 4) || memcmp(block + 8, "WAVE", 4)) {
        *problem = "not a WAV file";
        return -1;
    }
    while (fread(block, 1, 8, file) == 8) {
        uint32_t size = little(block + 4, 4);
        if (!memcmp(block, "data", 4)) {
            *most = size / 2;
            if (known) return 0;
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

/* Print a word of a stream, if there is one: when it started, and the answer. */
static void tell(const struct scnn_word *word) {
    if (word->answer < 0) return;
    int sure = word->sure, percent = (int)((word->confidence * 100 + 16384) / 32768);
    printf("%7.2f s  %s%s%s  confidence %d.%02d\n", (double)word->start / scnn_sample_rate, sure ? "" : "not sure (",
           scnn_class_names[word->answer], sure ? "" : "?)", percent / 100, percent % 100);
    fflush(stdout);
}

/* Print every word in a stream of up to `most` samples. */
static void hear(FILE *file, uint32_t most) {
    struct scnn_word word;
    for (int32_t count; (count = read_samples(file, most < BLOCK ? most : BLOCK)) > 0;) {
        most -= (uint32_t)count;
        for (int32_t taken = 0; taken < count;) {
            taken += scnn_hear(samples + taken, count - taken, &word);
            tell(&word);
        }
    }
    scnn_finish(&word);
    tell(&word);
}

/* Print the class of a recording; returns -1 if it is silent. */
static int answer(const char *name, int32_t count) {
    int best = scnn_recognise(samples, count);
    if (best < 0) return -1;
    printf("%s  %s  scores", name, scnn_class_names[best]);
    for (int32_t c = 0; c < scnn_class_count; c++) printf(" %s:%d", scnn_class_names[c], (int)scnn_scores[c]);
    printf("\n");
    return 0;
}

int main(int arguments, char **names) {
    int status = 0, stream = arguments > 1 && !strcmp(names[1], "--stream");
    if (arguments < 2 + stream) {
        fprintf(stderr, "usage: %s [--stream] FILE.wav ... (or -: raw int16 samples at %d Hz)\n", names[0],
                (int)scnn_sample_rate);
        return 2;
    }
    for (int i = 1 + stream; i < arguments; i++) {
        const char *problem = "cannot be opened";
        FILE *file = strcmp(names[i], "-") ? fopen(names[i], "rb") : stdin;
        uint32_t most = UINT32_MAX;
        int failed = !file || (file != stdin && find_samples(file, &most, &problem));
        if (!failed && stream) {
            hear(file, most);
        } else if (!failed && answer(names[i], read_samples(file, most))) {
            problem = "silent: all samples are 0";
            failed = 1;
        }
        if (file && file != stdin) fclose(file);
        if (failed) {
            fprintf(stderr, "%s: %s\n", names[i], problem);
            status = 1;
        }
    }
    return status;
}
