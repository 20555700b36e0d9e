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

/* The two halves of scnn_recognise: samples to image (0, or -1 as above), and image to class. */
int scnn_listen(const int16_t *samples, int32_t count);
int scnn_classify(void);

#endif
