/* Image to class: runs the layers of scnn_model.h in order. */
#define SCNN_LAYER_TABLES
#include "scnn.h"
#include "scnn_memory.h"

int32_t scnn_scores[SCNN_CLASSES], scnn_membranes[SCNN_MOST_STEPS * SCNN_CLASSES];

#include "scnn_layers.h"

const char *const scnn_class_names[SCNN_CLASSES] = SCNN_CLASS_NAMES;
const int32_t scnn_class_count = SCNN_CLASSES;
const int32_t scnn_sample_rate = SCNN_SAMPLE_RATE;

@LAYERS@

int scnn_classify(void) {
    int best = 0;
    @CALLS@
    for (int32_t i = 1; i < SCNN_CLASSES; i++)
        if (scnn_scores[i] > scnn_scores[best]) best = (int)i;
    return best;
}

int scnn_recognise(const int16_t *samples, int32_t count) {
    return scnn_listen(samples, count) ? -1 : scnn_classify();
}
