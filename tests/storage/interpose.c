/* Stands between a process and the disk: holds or fails syncs and writes when the test asks for it (see faults.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int held, waiting, syncs, sync_error;
static long writes_left = -1; /* writes that still work; negative: all of them */
static int write_error;

void interpose_hold(int on) {
  pthread_mutex_lock(&mutex);
  held = on;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

/* Returns when a sync has begun and is being held. */
void interpose_await_held(void) {
  pthread_mutex_lock(&mutex);
  while (!waiting) pthread_cond_wait(&changed, &mutex);
  pthread_mutex_unlock(&mutex);
}

void interpose_fail_syncs(int error) { sync_error = error; }

void interpose_fail_writes(long after, int error) {
  pthread_mutex_lock(&mutex);
  writes_left = after;
  write_error = error;
  pthread_mutex_unlock(&mutex);
}

int interpose_syncs(void) { return syncs; }

static int sync_fails(void) {
  pthread_mutex_lock(&mutex);
  syncs++;
  while (held) {
    waiting = 1;
    pthread_cond_broadcast(&changed);
    pthread_cond_wait(&changed, &mutex);
  }
  waiting = 0;
  pthread_mutex_unlock(&mutex);
  if (!sync_error) return 0;
  errno = sync_error;
  return 1;
}

static int write_fails(void) {
  int fails = 0;
  pthread_mutex_lock(&mutex);
  if (writes_left == 0) fails = 1;
  if (writes_left > 0) writes_left--;
  pthread_mutex_unlock(&mutex);
  return fails;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fdatasync(int fd) { return sync_fails() ? -1 : NEXT(fdatasync)(fd); }
int fsync(int fd) { return sync_fails() ? -1 : NEXT(fsync)(fd); }
int msync(void *at, size_t n, int flags) { return sync_fails() ? -1 : NEXT(msync)(at, n, flags); }

/* A failed write of whole pages leaves half of them behind, as a full disk does. */
static ssize_t torn(int fd, const void *data, size_t n, off64_t at) {
  if (n >= 4096) (void)!NEXT(pwrite64)(fd, data, n / 2, at);
  errno = write_error;
  return -1;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
  return write_fails() ? torn(fd, data, n, at) : NEXT(pwrite64)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  return write_fails() ? torn(fd, data, n, at) : NEXT(pwrite64)(fd, data, n, at);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  if (!write_fails()) return NEXT(writev)(fd, parts, n);
  return torn(fd, parts[0].iov_base, parts[0].iov_len, lseek(fd, 0, SEEK_CUR));
}
int ftruncate(int fd, off_t n) {
  if (!write_fails()) return NEXT(ftruncate64)(fd, n);
  errno = write_error;
  return -1;
}
int ftruncate64(int fd, off64_t n) { return ftruncate(fd, n); }
