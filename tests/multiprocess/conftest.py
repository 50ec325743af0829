"""Launches of `programs/ranks_program.py`: one launch per launcher, strategy and size writes what all tests read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from concurrent_launches import MAX_LAUNCHES, selected_parameters
from launching import environment, run_ranks
from preloaded import preloaded_python
from rank_runs import Ranks
from rendezvous_ranks import starting
from rich.console import Console

from distrain.config import PrepareConfig
from distrain.prepare.pipeline import prepare
from distrain.text.synthetic.corpus import write_synthetic

PROGRAMS = Path(__file__).parent / "programs"
sys.path.append(str(PROGRAMS))
from ranks_data import ARRAYS, EPOCHS, MAX_LENGTH, NGRAM, SEED, SEQUENCE  # noqa: E402 - loads no TensorFlow

SECONDS = 600  # bound on one launch, on a machine with other work
Key = tuple[str, str, int]  # launcher, strategy, number of ranks
ALONE: Key = ("", "single", 1)
TWO: Key = ("mpirun", "mpi", 2)


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Yield `start(program, environ)`, which starts a process; the end of the test kills all processes."""
    with starting() as start:
        yield start


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of prepared text: "ngram" and "sequence", 331 rows of 4 classes; "other", n-grams of other rows."""
    folder = tmp_path_factory.mktemp("text")
    return {
        name: _prepared(folder / name, vectorizer, seed=seed)
        for name, vectorizer, seed in (("ngram", "ngram", 3), ("sequence", "sequence", 3), ("other", "ngram", 4))
    }


@pytest.fixture(scope="session")
def long_evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared text whose 331 test rows are its training rows, so that an evaluation takes several steps."""
    return _prepared(tmp_path_factory.mktemp("text") / "data", "ngram", seed=3, test="train.csv")


@pytest.fixture(scope="session")
def launched(
    request: pytest.FixtureRequest, text: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str, int], Ranks]]:
    """`launched(launcher, strategy, size)`: what the ranks of one launch wrote.

    Launchers are the keys of `launching.LAUNCHERS`; "" starts one process without a launcher. The launches of all
    selected tests are under way, `MAX_LAUNCHES` at a time, while the tests run.
    """
    launches: dict[Key, Future[Ranks]] = {}
    with ThreadPoolExecutor(MAX_LAUNCHES) as pool:

        def start(key: Key) -> Future[Ranks]:
            if key not in launches:
                folder = tmp_path_factory.mktemp("-".join(map(str, key)).replace(" ", "-"))
                before = start(TWO) if _resumes(key) else None
                launches[key] = pool.submit(_launch, key, folder, text, before)
            return launches[key]

        def result(launcher: str, strategy: str, size: int) -> Ranks:
            ranks = start((launcher, strategy, size)).result()
            assert not ranks.failure, ranks.failure
            return ranks

        for key in _selected(request.session.items):
            start(key)
        yield result
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def alone(launched: Callable[[str, str, int], Ranks]) -> Ranks:
    """One process of the strategy "single", the reference of all other launches."""
    return launched(*ALONE)


@pytest.fixture(scope="session")
def witness(alone: Ranks) -> list[np.ndarray]:
    """Weights of the case "weighted" after training by plain Keras, which the process of `alone` did as well."""
    arrays = np.load(alone.folder / "witness.npz")
    return [array for name, array in arrays.items() if name.startswith(f"{EPOCHS - 1}/")]


def _prepared(out: Path, vectorizer: str, *, seed: int, test: str = "test.csv") -> Path:
    csv = out.with_name(f"{out.name}-csv")
    write_synthetic(csv, rows=331, seed=seed)
    config = PrepareConfig(
        train=csv / "train.csv", test=csv / test, out=out, vectorizer=vectorizer, top_k=500, max_length=MAX_LENGTH
    )
    prepare(config, console=Console(quiet=True))
    return out


def _selected(items: list[pytest.Item]) -> list[Key]:
    """Return the launches of the selected tests: first `TWO`, last the launches that resume runs of `TWO`."""
    sizes = ("size", "num_replicas")
    found = [key for size in sizes for key in selected_parameters(items, "launcher", "strategy", size)]
    keys = [("", strategy, 1) if not launcher else (launcher, strategy, size) for launcher, strategy, size in found]
    return sorted(dict.fromkeys(keys), key=lambda key: (key != TWO, _resumes(key)))


def _resumes(key: Key) -> bool:
    """Whether a launch resumes runs of the launch `TWO`."""
    launcher, _, size = key
    return key == ALONE or (launcher == "mpirun" and size == 3)


def _launch(key: Key, folder: Path, text: dict[str, Path], before: Future[Ranks] | None) -> Ranks:
    launcher, strategy, size = key
    runs = _runs(launcher, strategy, size, text)
    for left in {run.get("from") for run in runs} & {"left", "left-8"}:
        assert before is not None
        assert not before.result().failure
        shutil.copytree(before.result().folder / "runs" / left, folder / "runs" / left)
    plan = {
        "strategy": strategy,
        "devices": "cpu:2" if strategy == "mirrored" else "cpu:1",
        "runs": runs,
        "witness": key == ALONE,
    }
    (folder / "plan.json").write_text(json.dumps(plan, default=str))
    command = [*preloaded_python(), str(PROGRAMS / "ranks_program.py"), str(folder)]
    env = {"HOROVOD_CYCLE_TIME": "1"}  # Horovod's default for several machines, because some runs keep ranks apart
    done = run_ranks(launcher, size, command, env=env, timeout=SECONDS) if launcher else _run(command)
    return Ranks(folder, size, failure=done.stdout[-2000:] + done.stderr[-6000:] if done.returncode else "")


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
    """Return the runs of one launch; in some of them the ranks share memory, in others they do not."""
    everyone = {"epochs": EPOCHS, "seed": SEED}
    compiled = launcher != "mpirun"  # XLA would compile each of the many runs there, and compiles "linear"

    def ngram(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "data": text["ngram"], **everyone, **NGRAM, "jit_compile": compiled, **more}

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
        # Four steps in a call, whose gradients lie in the same memory.
        runs += [case("linear", "linear", jit_compile=True, steps_per_execution=4 if launcher else 1, apart=False)]
    if launcher == "mpirun":
        runs += [
            case("accumulated", "weighted", accumulation_steps=2, apart=False),
            case("fp16", "weighted", compression="fp16"),
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
