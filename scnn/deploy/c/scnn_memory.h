/* Memory shared by the front end and the layers: each stage overwrites what earlier stages no longer need. */
#ifndef SCNN_MEMORY_H
#define SCNN_MEMORY_H

#include "scnn_model.h"

/* The image, and the activity of layers 2, 4, ... */
union scnn_even {
    int16_t image[SCNN_HEIGHT * SCNN_WIDTH];
    uint8_t activity[SCNN_EVEN_BYTES];
    uint32_t aligned;
};

/* A frame and its spectrum, and the activity of layers 1, 3, ... */
union scnn_odd {
    int32_t spectrum[SCNN_FRAME + 2]; /* real and imaginary parts */
    uint64_t power[SCNN_FRAME / 2 + 1];
    uint32_t short_power[SCNN_FRAME / 2 + 1];
    struct {
        int32_t mean, most;
    } bands[SCNN_BANDS]; /* mean and highest level of each band; `mean` is then replaced by the band's correction */
    uint8_t activity[SCNN_ODD_BYTES];
};

extern union scnn_even scnn_even;
extern union scnn_odd scnn_odd;
extern int32_t scnn_left, scnn_right; /* columns of the image with data: [left, right) */

extern int32_t scnn_membranes[]; /* of the outputs, [steps][classes]; for a ReLU network, its sums */

/* With -DSCNN_TRACE, a function scnn_trace receives the activity of every layer. */
#ifdef SCNN_TRACE
void scnn_trace(const void *data, int32_t bytes);
#else
#define scnn_trace(data, bytes) ((void)0)
#endif

/* With -DSCNN_TUNABLE, the number of time steps (up to SCNN_MOST_STEPS) and the thresholds can be changed at run time.
   scnn.deploy.quantize.tuned defines the resulting network. */
#if defined(SCNN_TUNABLE) && SCNN_SPIKING
extern int32_t scnn_steps, scnn_threshold; /* the threshold in 1/256 of the model's own */
enum { SCNN_OWN_STEPS = SCNN_STEPS };
#undef SCNN_STEPS
#define SCNN_STEPS scnn_steps
#define SCNN_TUNED(threshold) ((int32_t)(((int64_t)(threshold) * scnn_threshold + 128) >> 8))
#else
#undef SCNN_TUNABLE
#undef SCNN_MOST_STEPS
#define SCNN_MOST_STEPS SCNN_STEPS
#define SCNN_TUNED(threshold) (threshold)
#endif

/* SCNN_INLINE functions are always inlined; SCNN_APART ones never are, so that their instructions are counted
   separately. */
#if defined(__GNUC__)
#define SCNN_INLINE static inline __attribute__((always_inline))
#define SCNN_APART static __attribute__((noinline))
/* Makes the compiler keep an address in a register instead of recomputing it. */
#define SCNN_KEEP(address) __asm__("" : "+r"(address))
#else
#define SCNN_INLINE static inline
#define SCNN_APART static
#define SCNN_KEEP(address) ((void)(address))
#endif

#endif
