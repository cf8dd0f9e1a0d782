/* Time: the host's clock and nothing else.
 *
 * Queries, mutations and module-level code see one instant, fetched at the first look and kept for the call, so that the host
 * knows whether a result depends on time. Actions look every time, because their clock runs.
 */
static struct {
    bool known;
    uint64_t nanoseconds;
} frozen_clock;

static uint64_t now_nanoseconds(void)
{
    if (!frozen_clock.known) {
        __wasi_timestamp_t now = 0;
        if (__wasi_clock_time_get(__WASI_CLOCKID_REALTIME, 1, &now) != 0)
            now = 0;
        frozen_clock.nanoseconds = now;
        frozen_clock.known = engine.kind != CALL_ACTION && engine.kind != CALL_HTTP_ACTION;
    }
    return frozen_clock.nanoseconds;
}

static int skerry_gettimeofday(struct timeval *now, void *zone)
{
    uint64_t nanoseconds = now_nanoseconds();
    now->tv_sec = nanoseconds / 1000000000;
    now->tv_usec = nanoseconds % 1000000000 / 1000;
    return 0;
}

static int skerry_clock_gettime(clockid_t clock, struct timespec *now)
{
    uint64_t nanoseconds = now_nanoseconds();
    now->tv_sec = nanoseconds / 1000000000;
    now->tv_nsec = nanoseconds % 1000000000;
    return 0;
}
