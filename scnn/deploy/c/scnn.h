/* A spoken-word recogniser in integer arithmetic: no malloc, no floating point, no library.

   Written by `scnn export`; gives the same bits as scnn.deploy.reference in Python. */
#ifndef SCNN_H
#define SCNN_H

#include <stdint.h>

/* Returns the class (0, 1, ...) of a recording of `count` samples at scnn_sample_rate, or -1 if there are no samples
   or all are 0. Not reentrant: the image and the activities are static. */
int scnn_recognise(const int16_t *samples, int32_t count);

/* The score of each class for the last recording, scnn_class_count numbers. The answer is the class with the highest
   score, the first one if several are equal. */
extern int32_t scnn_scores[];

extern const char *const scnn_class_names[];
extern const int32_t scnn_class_count;
extern const int32_t scnn_sample_rate;

/* A word in a stream: its start and length in samples, its class, the confidence in units of 2^-15, and whether that
   is enough; if not, the answer is "not sure". */
struct scnn_word {
    uint32_t start, length;
    int32_t answer, confidence, sure;
};

/* For a stream (needs scnn_stream.c): processes samples until a word ends or all `count` are used. Fills in `word`;
   without a word, word->answer is -1. Returns the number of samples used: call it again with the rest. */
int32_t scnn_hear(const int16_t *samples, int32_t count, struct scnn_word *word);

/* Ends the stream, and fills in `word` as above if one was still in progress. The next samples start a new stream. */
void scnn_finish(struct scnn_word *word);

/* The two halves of scnn_recognise: samples to image (returns 0, or -1 as above), and image to class. */
int scnn_listen(const int16_t *samples, int32_t count);
int scnn_classify(void);

#endif
