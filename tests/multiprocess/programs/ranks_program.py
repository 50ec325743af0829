"""Many runs on one set of ranks, started by a launcher, because TensorFlow loads slowly and ranks connect slowly.

    mpirun -n 2 python ranks_program.py FOLDER            # FOLDER/plan.json says what to run

First comes the contract of `Distribution`, see `ranks_contract.py`; then the runs. The plan is an object:

    strategy    strategy of all runs
    devices     "cpu:2" for two replicas in one process; null
    witness     whether to train by plain Keras as well, see `ranks_witness.py`
    runs        objects of settings of a run, with `name`; with `data` (prepared text) or `case` (arrays); and
                stop_at     global step after which the last rank sends itself SIGTERM
                from        name of an earlier run, to resume in its run directory
                apart       ranks share no memory, as if each rank had its own machine

Each rank writes FOLDER/NAME.RANK.json and .npz: what it fed and sent, its metrics, and its weights after each epoch.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ranks_cases import arguments
from ranks_contract import write_contract
from ranks_notes import Notes
from ranks_witness import write_witness

import distrain
from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.distribution import choose as choice
from distrain.errors import StopRequested
from distrain.training.jobs.job import TrainingJob, open_job
from distrain.training.run import run_job

WORLD = find_world(os.environ)


class Watcher(keras.callbacks.Callback):
    """Keeps the weights after each epoch, and sends this process SIGTERM after the step `stop_at`."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.weights: list[list[np.ndarray]] = []
        self.metrics: list[dict[str, float]] = []
        self._stop_at = stop_at

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations.numpy()) == self._stop_at and WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append([np.array(weight) for weight in self.model.get_weights()])
        self.metrics.append(dict(logs))


def train(settings: dict[str, Any], folder: Path, strategy: str, devices: str | None, collectives: Any) -> None:
    """Train one run, and write this rank's notes."""
    name = settings.pop("name")
    stop_at = settings.pop("stop_at", None)
    memory = ranks_apart() if settings.pop("apart", False) else contextlib.nullcontext()
    run = folder / "runs" / settings.pop("from", name)
    if WORLD.rank:  # no rank but the chief needs the run directory
        run = folder / "not the chief's" / name
    settings = {"run": run, "strategy": strategy, "devices": devices, "patience": 0, **settings}
    notes, watcher = Notes(), Watcher(stop_at)
    code, message = 0, io.StringIO()
    with memory, notes.of_sending(collectives), contextlib.redirect_stderr(message):
        try:
            train_noted(settings, notes, watcher)
        except StopRequested as stopped:
            code = stopped.exit_code
    facts = {
        "code": code,
        "fed": notes.fed,
        "sent": list(notes.sent.items()),
        "metrics": watcher.metrics,
        "said": message.getvalue(),
    }
    weights = {f"{e}/{n}": w for e, epoch in enumerate(watcher.weights) for n, w in enumerate(epoch)}
    np.savez(folder / f"{name}.{WORLD.rank}.npz", **weights)
    (folder / f"{name}.{WORLD.rank}.json").write_text(json.dumps(facts), encoding="utf-8")


@contextlib.contextmanager
def ranks_apart() -> Iterator[None]:
    """Let ranks find no memory to share in this context."""
    opener, choice.open_shared_memory = choice.open_shared_memory, lambda group: None
    try:
        yield
    finally:
        choice.open_shared_memory = opener


def train_noted(settings: dict[str, Any], notes: Notes, watcher: Watcher) -> None:
    """Train on prepared text like `distrain train`, or on the arrays of a case like a user's script."""
    callbacks = [watcher, notes.beginning()]
    if "case" in settings:
        of_case = arguments(settings.pop("case"))
        build_model = of_case.pop("build_model")
        distrain.fit(lambda: notes.of_feeding(build_model()), **of_case, callbacks=callbacks, **settings)
        return
    config = TrainConfig(**settings)

    def noted_job() -> TrainingJob:
        job = open_job(config)

        def build(**choices: Any) -> Any:
            return notes.of_feeding(job.build(**choices))

        return replace(job, build=build, callbacks=callbacks)

    run_job(noted_job, config)


def main(folder: Path) -> None:
    """Run the plan."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    strategy, devices = plan["strategy"], plan["devices"]
    collectives = None
    if strategy in ("horovod", "mpi"):
        collectives = importlib.import_module(f"distrain.distribution.collectives.{strategy}")

    def chosen(compression: str) -> Any:
        config = TrainConfig(Path(), Path(), strategy=strategy, devices=devices, compression=compression)
        return choice.choose(config, os.environ)

    write_contract(chosen, folder, apart=ranks_apart, collectives=collectives)
    for settings in plan["runs"]:
        train(settings, folder, strategy, devices, collectives)
    if plan["witness"]:
        write_witness(folder / "witness.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
