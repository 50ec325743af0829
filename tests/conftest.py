"""What holds for all tests."""

from hypothesis import settings

# Time is measured by the benchmarks, and a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
