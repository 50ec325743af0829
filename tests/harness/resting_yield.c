/* `sched_yield` that rests for 1 ms, for ranks that outnumber the processors.
 *
 * Open MPI waits in a loop of `sched_yield`. The kernel still gives each waiting rank its share of a processor, which
 * took a sixth of the processor time of the tests of several ranks. */
#include <stddef.h>
#include <time.h>

int sched_yield(void) {
  const struct timespec rest = {0, 1000000};
  nanosleep(&rest, NULL);
  return 0;
}
