"""A script of a user that calls `distrain.fit`: WHAT [RUN].

The argument WHAT names a signal, which the process sends itself at the third step. "caught" sends SIGTERM too, and the
script catches the stop. "refused" gives a wrong argument; "own error" raises an error of the script.
"""

from __future__ import annotations

import os
import signal
import sys

import keras
import numpy as np

import distrain
from distrain.errors import StopRequested

x = np.random.default_rng(0).normal(size=(64, 4)).astype("f4")
y = x.sum(1, keepdims=True)


def build() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])


class Send(keras.callbacks.Callback):
    """Sends this process a signal in the second step, which stops it after the third."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.number = getattr(signal, name)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if batch == 1:
            os.kill(os.getpid(), self.number)


def train(**more: object) -> None:
    distrain.fit(build, x=x, y=y, loss="mse", global_batch_size=8, epochs=3, jit_compile=False, **more)


what, run = sys.argv[1], (sys.argv[2:] or [None])[0]
if what == "caught":
    try:
        train(callbacks=Send("SIGTERM"))
    except StopRequested as stopped:
        print("caught", stopped)
        print("the model moved:", bool((stopped.result.model.get_weights()[0] != 1).all()))
elif what == "refused":
    train(initial_epoch=3)
elif what == "own error":
    train()
    raise ValueError("of the user")
else:
    train(callbacks=[Send(what)], run=run)
