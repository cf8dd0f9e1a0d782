/* What the load generators share: the clock, chance from a seed, and latencies that are kept as they were measured. */
#ifndef MEASURE_H
#define MEASURE_H
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline void *must(void *memory)
{
    if (!memory)
        die("memory");
    return memory;
}

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* -- chance: splitmix64, so that a seed gives the same requests everywhere ---------------------------------------- */

static uint64_t chance_state = 1;

static inline uint64_t chance(void)
{
    uint64_t z = chance_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static inline long any_below(long bound)
{
    return (long)(((unsigned __int128)chance() * (uint64_t)bound) >> 64);
}

/* -- latencies ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t *in_100ns;
    size_t count, room;
} latencies_t;

static inline void keep_latency(latencies_t *all, int64_t ns)
{
    if (all->count == all->room) {
        all->room = all->room ? 2 * all->room : 1 << 14;
        all->in_100ns = must(realloc(all->in_100ns, all->room * sizeof(uint32_t)));
    }
    all->in_100ns[all->count++] = (uint32_t)(ns / 100);
}

static inline int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static inline void sort_latencies(latencies_t *all)
{
    if (all->count)
        qsort(all->in_100ns, all->count, sizeof(uint32_t), by_size);
}

/* The smallest latency that a share of the samples, which are sorted, does not exceed, in microseconds. */
static inline double latency_us(const latencies_t *all, double share)
{
    if (!all->count)
        return 0;
    size_t rank = (size_t)ceil(share * (double)all->count);
    return all->in_100ns[rank ? rank - 1 : 0] / 10.0;
}

#endif
