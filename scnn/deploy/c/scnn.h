/* A spoken-digit recogniser in whole numbers: no malloc, no floating point, no library.

   Written by `scnn export`; the same bits as scnn.deploy.reference gives in Python. */
#ifndef SCNN_H
#define SCNN_H

#include <stdint.h>

/* The class of a recording of `count` samples at scnn_sample_rate: 0, 1, ...; or -1 if there are no samples, or
   all of them are 0. Not reentrant: there is one image and one set of activities, all of them static. */
int scnn_recognise(const int16_t *samples, int32_t count);

/* Each class' evidence in the last recording, scnn_class_count numbers: the answer is the first of the highest. */
extern int32_t scnn_scores[];

extern const char *const scnn_class_names[];
extern const int32_t scnn_class_count;
extern const int32_t scnn_sample_rate;

/* A word of a stream: where it starts and how long it is, in samples; its class and the confidence in it, in 2^-15;
   and whether that is enough, or the answer is "not sure". */
struct scnn_word {
    uint32_t start, length;
    int32_t answer, confidence, sure;
};

/* For a stream, with scnn_stream.c: take in samples, all `count` of them, or those up to the end of a word, which is
   then in `word`; without one, word->answer is -1. Returns how many were taken: call it again with the rest. */
int32_t scnn_hear(const int16_t *samples, int32_t count, struct scnn_word *word);

/* The stream ends, and the word that is not over yet with it, as above. What is heard next is another stream. */
void scnn_finish(struct scnn_word *word);

/* The two halves of scnn_recognise: samples to image (0, or -1 as above), and image to class. */
int scnn_listen(const int16_t *samples, int32_t count);
int scnn_classify(void);

#endif
