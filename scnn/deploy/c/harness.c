/* For tests and measurements on any target: a buffer for samples, and a log of the activity of every layer. */
#include "scnn.h"
#include "scnn_model.h"

int16_t scnn_samples[HARNESS_SAMPLES];
uint8_t scnn_log[HARNESS_LOG];
int32_t scnn_logged;

void scnn_trace(const void *data, int32_t bytes) {
    const uint8_t *from = data;
    for (int32_t i = 0; i < bytes && scnn_logged < HARNESS_LOG; i++) scnn_log[scnn_logged++] = from[i];
}

#ifdef HARNESS_STREAM
struct scnn_word scnn_heard;

/* Pass `count` samples to the stream; -1 ends it. */
int harness_hear(int32_t count) {
    if (count >= 0) return scnn_hear(scnn_samples, count, &scnn_heard);
    scnn_finish(&scnn_heard);
    return 0;
}
#endif

int harness_run(int32_t count) {
    scnn_logged = 0;
    return scnn_recognise(scnn_samples, count);
}
