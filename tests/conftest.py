"""What holds for all tests: time is measured by the benchmarks, and a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
