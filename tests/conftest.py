"""What holds for all tests."""

import signal

from hypothesis import settings

# Processes that tests start inherit ignored signals: SIGHUP from nohup, SIGINT from a shell's background job.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Time is measured by the benchmarks, and a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
