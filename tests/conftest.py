"""What holds for all tests."""

import signal

from hypothesis import settings

# A terminal that closes is a request to stop. Whoever starts the tests by nohup has the signal ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Time is measured by the benchmarks, and a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
