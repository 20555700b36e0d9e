/* What a web page calls besides scnn.h: a place for its samples. Build without a system; see scnn.mjs. */
#include "scnn.h"

#define MOST_SAMPLES (8 * 48000)

static int16_t samples[MOST_SAMPLES];

int16_t *scnn_input(void) { return samples; }
int32_t scnn_most_samples(void) { return MOST_SAMPLES; }
int scnn_answer(int32_t count) { return count > MOST_SAMPLES ? -1 : scnn_recognise(samples, count); }
int32_t *scnn_answers(void) { return scnn_scores; }
const char *scnn_name(int32_t index) { return scnn_class_names[index]; }
int32_t scnn_classes(void) { return scnn_class_count; }
int32_t scnn_rate(void) { return scnn_sample_rate; }
