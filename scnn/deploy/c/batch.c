/* For tests and measurements with other tools: reads the file `recordings` and writes the file `outcomes`. Runs on a
   computer, or bare-metal on an emulated MPS2 board, which accesses the computer's files by semihosting.

   For each recording it reads int32 count, int16 samples[count], and writes int32 answer, uint32 instructions,
   int32 scores[classes], int32 logged, uint8 log[logged]. */
#include "scnn.h"
#include "scnn_model.h"

extern int16_t scnn_samples[HARNESS_SAMPLES];
extern uint8_t scnn_log[];
extern int32_t scnn_logged;
int harness_run(int32_t count);

#ifdef HARNESS_BOARD

static uintptr_t recordings, outcomes;
int main(void);

/* A semihosting call: the debugger, here the emulator, performs the operation. */
static uintptr_t host(uintptr_t operation, const void *arguments) {
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uintptr_t open_file(const char *name, uintptr_t length, uintptr_t mode) {
    uintptr_t arguments[3] = {(uintptr_t)name, mode, length};
    return host(1, arguments);
}

static int take(void *to, uint32_t size) {
    uintptr_t arguments[3] = {recordings, (uintptr_t)to, size};
    return host(6, arguments) == 0; /* SYS_READ returns the number of bytes not read */
}

static void give(const void *from, uint32_t size) {
    uintptr_t arguments[3] = {outcomes, (uintptr_t)from, size};
    host(5, arguments);
}

#ifdef __ARM_ARCH_6M__
void *memcpy(void *to, const void *from, unsigned int size);

/* The compiler calls this if it cannot tell that a word is aligned. */
void *memcpy(void *to, const void *from, unsigned int size) {
    for (unsigned int i = 0; i < size; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}
#endif

/* Counts instructions: the emulator takes 128 ns for each, and the board's timer counts down every 40 ns. */
#define TIMER ((volatile uint32_t *)0x40000000)

static int nothing(int32_t count) { return (int)count; }

__attribute__((noinline)) static uint32_t ticks(int (*run)(int32_t), int32_t count, int32_t *answer) {
    uint32_t start = TIMER[1];
    *answer = run(count);
    return start - TIMER[1];
}

static uint32_t counted(int32_t count, int32_t *answer) {
    uint32_t empty = ticks(nothing, 0, answer), all = ticks(harness_run, count, answer);
    return (uint32_t)(((uint64_t)(all - empty) * 40 + 64) / 128) + 1; /* `nothing` itself takes one instruction */
}

static void start(void) {
    TIMER[2] = 0xFFFFFFFF;
    TIMER[0] = 1;
#ifdef __ARM_ARCH_6M__
    *(volatile uint32_t *)0xE000ED14 |= 8; /* make this Cortex-M3 trap unaligned accesses, as a Cortex-M0+ does */
#endif
    recordings = open_file("recordings", 10, 1);
    outcomes = open_file("outcomes", 8, 5);
    uintptr_t reason[2] = {0x20026, (uintptr_t)main()};
    host(0x20, reason);
}

static void fault(void) {
    uintptr_t reason[2] = {0x20026, 3};
    host(0x20, reason);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))0x20400000, start, fault, fault, fault, fault, fault}; /* first the initial stack pointer */

#else

#include <stdio.h>

static FILE *recordings, *outcomes;

static int take(void *to, uint32_t size) { return fread(to, 1, size, recordings) == size; }
static void give(const void *from, uint32_t size) { fwrite(from, 1, size, outcomes); }

static uint32_t counted(int32_t count, int32_t *answer) {
    *answer = harness_run(count);
    return 0;
}

#endif

int main(void) {
    int32_t count, answer;
#ifndef HARNESS_BOARD
    if (!(recordings = fopen("recordings", "rb")) || !(outcomes = fopen("outcomes", "wb"))) return 1;
#endif
    while (take(&count, sizeof count)) {
        if (count < 0 || count > HARNESS_SAMPLES || (count && !take(scnn_samples, (uint32_t)count * 2))) return 2;
        uint32_t instructions = counted(count, &answer);
        give(&answer, sizeof answer);
        give(&instructions, sizeof instructions);
        give(scnn_scores, sizeof(int32_t) * SCNN_CLASSES);
        give(&scnn_logged, sizeof scnn_logged);
        give(scnn_log, (uint32_t)scnn_logged);
    }
#ifndef HARNESS_BOARD
    return fclose(outcomes) != 0;
#else
    return 0;
#endif
}
