/* A disk that fails on demand, for processes that preload this library.

   FAULT_BELOW    only operations on paths that begin so count
   FAULT_AT       number of the operation that fails, from 1; absent: none, operations are only counted
   FAULT_KIND     an errno such as 28 (ENOSPC) or 5 (EIO), or "kill": the process dies at this operation
   FAULT_ALL      if set, only operations that take room fail, and all from FAULT_AT on, as on a full disk
   FAULT_PLAIN_RENAME  if set, no names can be exchanged, as on NFS
   FAULT_COUNT    file that receives a byte for each operation
   FAULT_JOURNAL  folder that receives what is synced; tests/harness/power_cut.py reads it

   Operations: opening for writing, write, fsync, rename, mkdir, unlink, rmdir, ftruncate, sendfile, fwrite. A write that
   dies has written its first half. The journal's file `log` has a line `N INODE f` for each new file, `N INODE d` for
   each new folder, and `S NUMBER INODE` for each sync. The file NUMBER then holds the content, or a line `INODE NAME` for each name. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_below(const char *path) {
  const char *below = getenv("FAULT_BELOW");
  return below && path && strncmp(path, below, strlen(below)) == 0;
}

static int is_below_of(int descriptor) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static int is_below_at(int folder, const char *path) {
  return path && path[0] != '/' && folder != AT_FDCWD ? is_below_of(folder) : is_below(path);
}

/* 0: go on; 1: fail with errno; -1: die */
static int fault(int takes_room) {
  const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND"), *file = getenv("FAULT_COUNT");
  long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST), fails_at = at ? atol(at) : 0;
  if (file) {
    int descriptor = REAL(open)(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor >= 0) {
      if (REAL(write)(descriptor, ".", 1) < 0) abort();
      REAL(close)(descriptor);
    }
  }
  if (!fails_at || !kind || number < fails_at) return 0;
  if (getenv("FAULT_ALL") ? !takes_room : number > fails_at) return 0;
  if (strcmp(kind, "kill") == 0) return -1;
  errno = atoi(kind);
  return 1;
}

static int fails(int is_ours, int takes_room) {
  int found = is_ours ? fault(takes_room) : 0;
  if (found < 0) kill(getpid(), SIGKILL);
  return found;
}

static FILE *in_journal(const char *name, const char *mode) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", getenv("FAULT_JOURNAL"), name);
  FILE *file = REAL(fopen)(path, mode);
  if (!file) abort();
  return file;
}

static int is_absent(int folder, const char *path) {
  int before = errno, absent = getenv("FAULT_JOURNAL") && faccessat(folder, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
  errno = before;
  return absent;
}

static void note_new(ino_t inode, char kind) {
  FILE *log = in_journal("log", "a");
  fprintf(log, "N %lu %c\n", (unsigned long)inode, kind);
  fclose(log);
}

static void note_new_file(int descriptor) {
  struct stat status;
  if (descriptor >= 0 && fstat(descriptor, &status) == 0) note_new(status.st_ino, 'f');
}

static void note_names(int descriptor, FILE *file) {
  DIR *folder = fdopendir(REAL(openat)(descriptor, ".", O_RDONLY));
  struct dirent *entry;
  while (folder && (entry = readdir(folder)))
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
      fprintf(file, "%lu %s\n", (unsigned long)entry->d_ino, entry->d_name);
  if (folder) closedir(folder);
}

static void note_content(int descriptor, FILE *file) {
  char link[64], block[65536];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  int readable = REAL(open)(link, O_RDONLY | O_CLOEXEC);
  ssize_t size;
  while (readable >= 0 && (size = read(readable, block, sizeof block)) > 0) REAL(fwrite)(block, 1, size, file);
  if (readable >= 0) REAL(close)(readable);
}

static void note_sync(int descriptor) {
  static long num_synced; /* the count of operations also grows by other threads */
  struct stat status;
  char name[32];
  if (!getenv("FAULT_JOURNAL") || fstat(descriptor, &status) != 0) return;
  snprintf(name, sizeof name, "%ld", __atomic_add_fetch(&num_synced, 1, __ATOMIC_RELAXED));
  FILE *file = in_journal(name, "w");
  (S_ISDIR(status.st_mode) ? note_names : note_content)(descriptor, file);
  fclose(file);
  FILE *log = in_journal("log", "a");
  fprintf(log, "S %s %lu\n", name, (unsigned long)status.st_ino);
  fclose(log);
}

#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY)
#define OPEN(name, is_ours, flags, folder, path, arguments) \
  int ours = is_ours, is_new = ours && ((flags) & O_CREAT) && is_absent(folder, path); \
  int descriptor = fails(ours, (flags) & O_CREAT) ? -1 : REAL(name) arguments; \
  if (is_new) note_new_file(descriptor); \
  return descriptor;

int open(const char *path, int flags, ...) { MODE(flags) OPEN(open, WRITES(flags) && is_below(path), flags, AT_FDCWD, path, (path, flags, mode)) }
int open64(const char *path, int flags, ...) { MODE(flags) OPEN(open64, WRITES(flags) && is_below(path), flags, AT_FDCWD, path, (path, flags, mode)) }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) OPEN(openat, WRITES(flags) && is_below_at(folder, path), flags, folder, path, (folder, path, flags, mode)) }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) OPEN(openat64, WRITES(flags) && is_below_at(folder, path), flags, folder, path, (folder, path, flags, mode)) }
FILE *fopen(const char *path, const char *mode) {
  int ours = strpbrk(mode, "wa+") && is_below(path), is_new = ours && is_absent(AT_FDCWD, path);
  FILE *file = fails(ours, 1) ? NULL : REAL(fopen)(path, mode);
  if (is_new && file) note_new_file(fileno(file));
  return file;
}
FILE *fopen64(const char *path, const char *mode) {
  int ours = strpbrk(mode, "wa+") && is_below(path), is_new = ours && is_absent(AT_FDCWD, path);
  FILE *file = fails(ours, 1) ? NULL : REAL(fopen64)(path, mode);
  if (is_new && file) note_new_file(fileno(file));
  return file;
}

ssize_t write(int descriptor, const void *content, size_t size) {
  int found = is_below_of(descriptor) ? fault(1) : 0;
  if (found < 0) {
    if (REAL(write)(descriptor, content, size / 2) >= -1) kill(getpid(), SIGKILL);
  }
  return found ? -1 : REAL(write)(descriptor, content, size);
}
ssize_t writev(int descriptor, const struct iovec *parts, int number) { return fails(is_below_of(descriptor), 1) ? -1 : REAL(writev)(descriptor, parts, number); }
ssize_t pwrite(int descriptor, const void *content, size_t size, off_t offset) { return fails(is_below_of(descriptor), 1) ? -1 : REAL(pwrite)(descriptor, content, size, offset); }
ssize_t pwrite64(int descriptor, const void *content, size_t size, off64_t offset) { return fails(is_below_of(descriptor), 1) ? -1 : REAL(pwrite64)(descriptor, content, size, offset); }
size_t fwrite(const void *content, size_t size, size_t number, FILE *file) { return fails(is_below_of(fileno(file)), 1) ? 0 : REAL(fwrite)(content, size, number, file); }

ssize_t sendfile(int out, int in, off_t *offset, size_t size);
ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return fails(is_below_of(out), 1) ? -1 : REAL(sendfile)(out, in, offset, size); }
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size);
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) { return fails(is_below_of(out), 1) ? -1 : REAL(sendfile64)(out, in, offset, size); }

int fsync(int descriptor) {
  int ours = is_below_of(descriptor), result = fails(ours, 1) ? -1 : REAL(fsync)(descriptor);
  if (ours && result == 0) note_sync(descriptor);
  return result;
}
int ftruncate(int descriptor, off_t size) { return fails(is_below_of(descriptor), 0) ? -1 : REAL(ftruncate)(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return fails(is_below_of(descriptor), 0) ? -1 : REAL(ftruncate64)(descriptor, size); }
int mkdir(const char *path, mode_t mode);
int mkdir(const char *path, mode_t mode) {
  int ours = is_below(path), result = fails(ours, 1) ? -1 : REAL(mkdir)(path, mode);
  struct stat status;
  if (ours && result == 0 && getenv("FAULT_JOURNAL") && stat(path, &status) == 0) note_new(status.st_ino, 'd');
  return result;
}
int rmdir(const char *path) { return fails(is_below(path), 0) ? -1 : REAL(rmdir)(path); }
int unlink(const char *path) { return fails(is_below(path), 0) ? -1 : REAL(unlink)(path); }
int unlinkat(int folder, const char *path, int flags) { return fails(is_below_at(folder, path), 0) ? -1 : REAL(unlinkat)(folder, path, flags); }
int rename(const char *before, const char *after) { return fails(is_below(after), 0) ? -1 : REAL(rename)(before, after); }
int renameat(int from, const char *before, int to, const char *after) { return fails(is_below_at(to, after), 0) ? -1 : REAL(renameat)(from, before, to, after); }
int renameat2(int from, const char *before, int to, const char *after, unsigned flags) { 
  if (flags && getenv("FAULT_PLAIN_RENAME")) {
    errno = EINVAL;
    return -1;
  }
  return fails(is_below_at(to, after), 0) ? -1 : REAL(renameat2)(from, before, to, after, flags);
}
