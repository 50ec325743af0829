"""What holds for all tests, whoever starts them."""

import signal

from hypothesis import settings

# Time is measured by the benchmarks, and a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell lets what it starts in the background ignore SIGINT, and all that this starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)
