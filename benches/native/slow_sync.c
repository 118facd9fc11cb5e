/* Preloaded: adds PAAS_SLOW_SYNC_MICROSECONDS to every fsync and fdatasync, as a disk of the real world would. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
#include <time.h>

static void wait_a_moment(void) {
    const char *text = getenv("PAAS_SLOW_SYNC_MICROSECONDS");
    long microseconds = text ? atol(text) : 0;
    struct timespec time = {microseconds / 1000000, (microseconds % 1000000) * 1000};
    nanosleep(&time, NULL);
}

static int call(const char *name, int file) {
    int (*original)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = original(file);
    wait_a_moment();
    return result;
}

int fsync(int file) { return call("fsync", file); }
int fdatasync(int file) { return call("fdatasync", file); }
