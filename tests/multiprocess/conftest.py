"""Launches of `programs/ranks_program.py`: one per launcher, strategy and size does all that tests ask about."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import environment, run_ranks
from rich.console import Console

from distrain.config import PrepareConfig
from distrain.prepare.pipeline import prepare
from distrain.text.synthetic.corpus import write_synthetic

PROGRAMS = Path(__file__).parent / "programs"
sys.path.append(str(PROGRAMS))
from ranks_data import ARRAYS, EPOCHS, MAX_LENGTH, NGRAM, SEED, SEQUENCE  # noqa: E402 - loads no TensorFlow

SECONDS = 400  # of one launch, on a machine that has other work


@dataclass(frozen=True)
class Ranks:
    """What all ranks of one launch wrote.

    Attributes:
        folder: where to.
        size: how many they are.
        failure: what was said when they failed; else empty.
    """

    folder: Path
    size: int
    failure: str

    def facts(self, run: str) -> list[dict[str, Any]]:
        """Each rank's facts of a run."""
        return [json.loads((self.folder / f"{run}.{rank}.json").read_text()) for rank in range(self.size)]

    def arrays(self, run: str) -> list[dict[str, np.ndarray]]:
        """Each rank's arrays of a run, by name."""
        return [dict(np.load(self.folder / f"{run}.{rank}.npz")) for rank in range(self.size)]

    def weights(self, run: str, *, rank: int = 0) -> list[np.ndarray]:
        """A rank's weights after the last epoch."""
        arrays = self.arrays(run)[rank]
        last = max(name.partition("/")[0] for name in arrays)
        return [array for name, array in arrays.items() if name.startswith(f"{last}/")]

    def fed(self, run: str, purpose: str, *, epoch: int = 0) -> Counter[tuple[str, float]]:
        """How often each example, with its weight, was fed to any rank."""
        calls = [call for facts in self.facts(run) for call in facts["fed"]]
        return Counter(
            example
            for call in calls
            if (call["purpose"], call["epoch"]) == (purpose, epoch)
            for example in zip(call["examples"], call["weights"], strict=True)
        )


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prepared text: "ngram" and "sequence", 331 training rows of 4 classes; "other", n-grams of other rows."""
    folder = tmp_path_factory.mktemp("text")
    prepared = {}
    for name, vectorizer, seed in (("ngram", "ngram", 3), ("sequence", "sequence", 3), ("other", "ngram", 4)):
        write_synthetic(folder / str(seed), rows=331, seed=seed)
        prepared[name] = folder / name
        config = PrepareConfig(
            train=folder / str(seed) / "train.csv",
            test=folder / str(seed) / "test.csv",
            out=prepared[name],
            vectorizer=vectorizer,
            top_k=500,
            max_length=MAX_LENGTH,
        )
        prepare(config, console=Console(quiet=True))
    return prepared


@pytest.fixture(scope="session")
def launched(text: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, int], Ranks]:
    """`launched(launcher, strategy, size)`: what the ranks wrote; each is launched once.

    Launchers are those of `launching.py`, and "" for one process that is started by hand.
    """
    launches: dict[tuple[str, str, int], Ranks] = {}

    def launch(launcher: str, strategy: str, size: int) -> Ranks:
        key = (launcher, strategy, size)
        if key not in launches:
            folder = tmp_path_factory.mktemp("-".join([*launcher.split(), strategy, str(size)]))
            runs = _runs(launcher, strategy, size, text)
            for left in {run.get("from") for run in runs} & {"left", "left-8"}:
                begun = launch("mpirun", "mpi", 2).folder / "runs" / left
                shutil.copytree(begun, folder / "runs" / left)
            plan = {"strategy": strategy, "devices": "cpu:2" if strategy == "mirrored" else "cpu:1", "runs": runs}
            (folder / "plan.json").write_text(json.dumps(plan, default=str))
            command = [sys.executable, str(PROGRAMS / "ranks_program.py"), str(folder)]
            launches[key] = Ranks(folder, size, failure="it did not end in time")
            env = {"HOROVOD_CYCLE_TIME": "1"}  # its own default, as on several machines: some runs are of ranks apart
            done = run_ranks(launcher, size, command, env=env, timeout=SECONDS) if launcher else _run(command)
            failure = done.stdout[-2000:] + done.stderr[-6000:] if done.returncode else ""
            launches[key] = Ranks(folder, size, failure)
        assert not launches[key].failure, launches[key].failure
        return launches[key]

    return launch


@pytest.fixture(scope="session")
def alone(launched: Callable[[str, str, int], Ranks]) -> Ranks:
    """One process of the strategy "single": what all others are compared with."""
    return launched("", "single", 1)


@pytest.fixture(scope="session")
def witness(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Weights of the case "weighted" after training by plain Keras."""
    out = tmp_path_factory.mktemp("witness") / "weights.npz"
    numbers = (ARRAYS["global_batch_size"], EPOCHS, SEED)
    done = _run([sys.executable, str(PROGRAMS / "ranks_witness.py"), str(out), *map(str, numbers)])
    assert done.returncode == 0, done.stderr
    return [array for name, array in np.load(out).items() if name.startswith(f"{EPOCHS - 1}/")]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _runs(launcher: str, strategy: str, size: int, text: dict[str, Path]) -> list[dict[str, Any]]:
    """The runs of one launch: some of ranks that share memory, others of ranks that are kept apart."""
    everyone = {"epochs": EPOCHS, "seed": SEED}

    def ngram(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "data": text["ngram"], **everyone, **NGRAM, **more}

    def case(name: str, of: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "case": of, "apart": True, **everyone, **ARRAYS, **more}

    if strategy == "mirrored" or (launcher and size == 1):  # the contract alone
        return []
    apart = launcher.startswith("horovodrun")
    runs = [
        ngram("ngram", apart=apart),
        {"name": "sequence", "data": text["sequence"], "apart": apart, **everyone, **SEQUENCE},
    ]
    if launcher in ("", "mpirun"):
        runs += [case(name, name) for name in ("weighted", "words", "letters", "normalized")]
        # Four steps in a call, whose gradients lie in one memory.
        runs += [case("linear", "linear", jit_compile=True, steps_per_execution=4 if launcher else 1, apart=False)]
    if launcher == "mpirun":
        runs += [
            case("accumulated", "weighted", accumulation_steps=2, apart=False),
            case("halved", "weighted", compression="fp16"),
            ngram("in fours", steps_per_execution=4),
            ngram("stopped", stop_at=8),  # the second step of the second epoch
            ngram("again", **{"from": "stopped"}),
        ]
    if (launcher, strategy, size) == ("mpirun", "mpi", 2):
        left_8 = {"global_batch_size": 8, "stop_at": 15}  # the second step of the second epoch
        runs += [ngram("left", stop_at=8), case("left-8", "weighted", **left_8)]
    elif launcher == "" or (launcher == "mpirun" and size == 3):
        runs += [ngram("moved", **{"from": "left"})]
    if launcher == "mpirun" and size == 3:
        runs += [case("moved-8", "weighted", global_batch_size=8, **{"from": "left-8"})]
    return runs
