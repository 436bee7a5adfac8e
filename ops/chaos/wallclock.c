/* Preloaded into one process: its wall clock is ahead by as many nanoseconds as stand in the file that GONGWEI_CLOCK
   names, from one call to the next. All other clocks, and all waits, are those of the system. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

typedef int (*Read)(clockid_t, struct timespec *);

static const volatile int64_t *ahead;
static Read system_clock;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("GONGWEI_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!system_clock)
        system_clock = (Read)dlsym(RTLD_NEXT, "clock_gettime");
    int failed = system_clock(clock, now);
    if (failed || !ahead || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE && clock != CLOCK_TAI))
        return failed;
    int64_t nanoseconds = now->tv_nsec + *ahead % BILLION;
    int carry = nanoseconds >= BILLION ? 1 : nanoseconds < 0 ? -1 : 0;
    now->tv_sec += *ahead / BILLION + carry;
    now->tv_nsec = nanoseconds - carry * BILLION;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact))
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact))
        return (time_t)-1;
    if (seconds)
        *seconds = exact.tv_sec;
    return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}
