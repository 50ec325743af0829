"""Sources and functions that tests send to data workers, which import this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

FEATURES = 24


class Numbered:
    """Examples by number, of float32 features and the number as label."""

    def __init__(self, count, *, fails_at=None, seconds=0.0, log=None):
        self.count, self.fails_at, self.seconds, self.log = count, fails_at, seconds, log

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number == self.fails_at:
            raise OSError("the disk is gone")
        time.sleep(self.seconds)
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()} {number}\n")
        return np.arange(number, number + FEATURES, dtype=np.float32), number


class Ranged(Numbered):
    """The same by ranges alone."""

    span_size = 20

    def read(self, start, stop):
        return [self[number] for number in range(start, stop)]


class Deadly(Numbered):
    """Examples of which `deadly` ends any process that reads it, except the process that made the source."""

    def __init__(self, count, deadly, ends_by=signal.SIGKILL):
        super().__init__(count)
        self.deadly, self.ends_by, self.maker = deadly, ends_by, os.getpid()

    def __getitem__(self, number):
        if number == self.deadly and os.getpid() != self.maker:
            if self.ends_by is None:
                os._exit(9)
            os.kill(os.getpid(), self.ends_by)
        return super().__getitem__(number)


def noisy(example, rng):
    return example[0] + rng.normal(size=FEATURES).astype(np.float32), example[1]


def doubled(example):
    return 2 * example[0], example[1]


def same(example):
    return example


def unlucky(example):
    if example[1] == 77:
        raise ValueError("77 is no lucky number")
    return example
