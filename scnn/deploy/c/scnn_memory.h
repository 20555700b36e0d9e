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
    uint8_t activity[SCNN_ODD_BYTES];
};

extern union scnn_even scnn_even;
extern union scnn_odd scnn_odd;
extern int32_t scnn_left, scnn_right; /* columns of the image with data: from left, up to right */

/* A test may see what every layer did: -DSCNN_TRACE, and a function scnn_trace. */
#ifdef SCNN_TRACE
void scnn_trace(const void *data, int32_t bytes);
#else
#define scnn_trace(data, bytes) ((void)0)
#endif

/* What belongs into its caller, and what stays a function, so that its instructions are counted by themselves. */
#if defined(__GNUC__)
#define SCNN_INLINE static inline __attribute__((always_inline))
#define SCNN_APART static __attribute__((noinline))
#else
#define SCNN_INLINE static inline
#define SCNN_APART static
#endif

#endif
