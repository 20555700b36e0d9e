/* The memory that front end and layers share: what one of them has read, the next one writes over. */
#ifndef SCNN_MEMORY_H
#define SCNN_MEMORY_H

#include "scnn_model.h"

/* The image, and the activity of every other layer. */
union scnn_even {
    int16_t image[SCNN_HEIGHT * SCNN_WIDTH];
    uint8_t activity[SCNN_EVEN_BYTES];
    uint32_t aligned;
};

/* A frame and its spectrum, and the activity of the layers between. */
union scnn_odd {
    int32_t spectrum[SCNN_FRAME + 2]; /* real and imaginary parts */
    uint64_t power[SCNN_FRAME / 2 + 1];
    uint32_t short_power[SCNN_FRAME / 2 + 1];
    struct {
        int32_t mean, most;
    } bands[SCNN_BANDS]; /* of each band's levels, then its correction in `mean` */
    uint8_t activity[SCNN_ODD_BYTES];
};

extern union scnn_even scnn_even;
extern union scnn_odd scnn_odd;
extern int32_t scnn_left, scnn_right; /* columns of the image with data: from left, up to right */

extern int32_t scnn_membranes[]; /* of the outputs, [steps][classes]; or a ReLU network's sums */

/* A test may see what every layer did: -DSCNN_TRACE, and a function scnn_trace. */
#ifdef SCNN_TRACE
void scnn_trace(const void *data, int32_t bytes);
#else
#define scnn_trace(data, bytes) ((void)0)
#endif

/* A page may try other time steps and thresholds than the model's, while it runs: -DSCNN_TUNABLE, with the most steps
   that it may try in SCNN_MOST_STEPS. scnn.deploy.quantize.tuned says what a network so tuned does. */
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

/* What belongs into its caller, and what stays a function, so that its instructions are counted by themselves. */
#if defined(__GNUC__)
#define SCNN_INLINE static inline __attribute__((always_inline))
#define SCNN_APART static __attribute__((noinline))
/* An address that a compiler is to keep in a register, and not to compute again at each use. */
#define SCNN_KEEP(address) __asm__("" : "+r"(address))
#else
#define SCNN_INLINE static inline
#define SCNN_APART static
#define SCNN_KEEP(address) ((void)(address))
#endif

#endif
