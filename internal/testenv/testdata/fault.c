// The fault injector of the tests: preloaded, it fails one chosen write(), and
// notes which files were flushed.
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char wanted[128];
static atomic_int left; // the write that fails, of those to wanted; 0: none
static atomic_int lasting;
static FILE *flushed;

// The nth write to a path that holds part fails; with forever, those after it too.
void fault_arm(const char *part, int nth, int forever) {
	strncpy(wanted, part, sizeof wanted - 1);
	atomic_store(&lasting, forever);
	atomic_store(&left, nth);
}

int fault_left(void) { return atomic_load(&left); }

void fault_note_flushes(const char *file) { flushed = fopen(file, "w"); }

static int named(int fd, char *path, size_t size) {
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, size - 1);
	path[n < 0 ? 0 : n] = 0;
	return n >= 0;
}

ssize_t write(int fd, const void *b, size_t n) {
	char path[512];
	int k = atomic_load(&left);
	if (k > 0 && named(fd, path, sizeof path) && strstr(path, wanted)) {
		if (k == 1 && atomic_load(&lasting) || atomic_fetch_sub(&left, 1) == 1) {
			errno = ENOSPC;
			return -1;
		}
	}
	return syscall(SYS_write, fd, b, n);
}

static int flush(long call, int fd) {
	char path[512];
	if (flushed && named(fd, path, sizeof path)) {
		fprintf(flushed, "%s\n", path);
		fflush(flushed);
	}
	return syscall(call, fd);
}

int fsync(int fd) { return flush(SYS_fsync, fd); }
int fdatasync(int fd) { return flush(SYS_fdatasync, fd); }
