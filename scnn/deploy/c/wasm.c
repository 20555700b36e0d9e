/* Functions for a web page, in addition to scnn.h: a buffer for samples, the activity of every layer, and tuning of
   time steps and thresholds. Build it freestanding, with SCNN_TRACE and SCNN_TUNABLE; see scnn.mjs. */
#include "scnn.h"
#include "scnn_memory.h"

#define MOST_SAMPLES (8 * 48000)
#define MOST_RECORDS 16

static int16_t samples[MOST_SAMPLES];
static uint8_t traced[SCNN_TRACED];
static int32_t ends[MOST_RECORDS], records; /* ends of the records in `traced`: the image, then each hidden layer */

void scnn_trace(const void *data, int32_t bytes) {
    const uint8_t *from = data;
    int32_t end = records ? ends[records - 1] : 0;
    if (records == MOST_RECORDS || bytes > SCNN_TRACED - end) return;
    for (int32_t i = 0; i < bytes; i++) traced[end + i] = from[i];
    ends[records++] = end + bytes;
}

#ifdef SCNN_TUNABLE
int32_t scnn_steps = SCNN_OWN_STEPS, scnn_threshold = 256;

/* Set the time steps, and scale the model's thresholds by `threshold` / 256. Returns -1 if either is out of range. */
int scnn_tune(int32_t steps, int32_t threshold) {
    if (steps < 1 || steps > SCNN_MOST_STEPS || threshold < 128 || threshold > 512) return -1;
    scnn_steps = steps, scnn_threshold = threshold;
    return 0;
}
#else
int scnn_tune(int32_t steps, int32_t threshold) { return steps == SCNN_STEPS && threshold == 256 ? 0 : -1; }
#endif

int16_t *scnn_input(void) { return samples; }
int32_t scnn_most_samples(void) { return MOST_SAMPLES; }
int scnn_answer(int32_t count) {
    records = 0;
    return count > MOST_SAMPLES ? -1 : scnn_recognise(samples, count);
}
int32_t *scnn_answers(void) { return scnn_scores; }
const char *scnn_name(int32_t index) { return scnn_class_names[index]; }
int32_t scnn_classes(void) { return scnn_class_count; }
int32_t scnn_rate(void) { return scnn_sample_rate; }
int32_t scnn_most_steps(void) { return SCNN_MOST_STEPS; }
uint8_t *scnn_traced(void) { return traced; }
int32_t scnn_records(void) { return records; }
int32_t scnn_end(int32_t record) { return record < 0 || record >= records ? 0 : ends[record]; }
