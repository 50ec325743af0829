"""Tries everything that needs a GPU, within ten minutes, and writes one Markdown file for benchmarks/RESULTS.md.

    launch/test.sh --gpu [--minutes 10] [--out gpu-report.md]

Every check runs in processes of its own and has a time limit. A check that fails stops no other check. The exit code is
1 if one failed, 2 if there is no GPU. Without GPUs, `--stand-in` tries the checks
themselves: two logical CPU devices and two CPU ranks stand for GPUs. The file says so at its top.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from distrain.cluster import nvidia
from distrain.doctor import tensorflow_facts
from distrain.install.progress import run_step

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CLOSE = 2e-3  # relative difference of losses and weights that the order of sums explains, after some dozens of steps
STEPS = 60
SPEED_STEPS = {"gpu": 300, "cpu": 10}
BATCHES = (128, 1024)
HALF = ("bfloat16", "float16")


@dataclass
class Lease:
    """The machine while it is tried.

    Attributes:
        folder: for data, runs and logs.
        kind: "gpu", or "cpu" where CPU devices stand for GPUs.
        count: number of GPUs.
        end: time at which everything must be over, by `time.monotonic`.
        rows: rows of the table of checks: name, result, seconds, figures.
        speeds: rows of the table of speeds.
        limit: seconds for each command of the check that runs.
    """

    folder: Path
    kind: str
    count: int
    end: float
    rows: list[tuple[str, str, float, str]] = field(default_factory=list)
    speeds: list[tuple[str, float]] = field(default_factory=list)
    limit: float = 0.0

    @property
    def one(self) -> str:
        """The value of --devices for one GPU."""
        return "gpu:0" if self.kind == "gpu" else "cpu:1"

    @property
    def all(self) -> str:
        """The value of --devices for all GPUs in one process."""
        return f"gpu:{','.join(map(str, range(self.count)))}" if self.kind == "gpu" else f"cpu:{self.count}"

    def check(self, name: str, run: Callable[[], str], *, seconds: float = 120.0) -> None:
        """Run a check, and note its result.

        Args:
            name: title of the check.
            run: returns figures for people, or raises.
            seconds: limit of each command of the check.
        """
        began = time.monotonic()
        self.limit = min(seconds, self.end - began)
        if self.limit <= 0:
            self.rows.append((name, "NOT RUN", 0.0, "no time was left"))
            return
        try:
            result, figures = "ok", run()
        except Exception as error:  # the other checks must still run
            result, figures = "FAILED", f"{type(error).__name__}: {error}"
        self.rows.append((name, result, time.monotonic() - began, figures))
        print(f"{result:<8}{name}: {figures}", flush=True)

    def command(self, *words: object, environ: dict[str, str] | None = None) -> str:
        """Run a command within the limit of its check, and return its output.

        Raises:
            AssertionError: the command failed or took too long; the message is its last line.
        """
        log = self.folder / f"{len(list(self.folder.glob('*.log'))):03}.log"
        command = ["timeout", "--kill-after", "5", f"{self.limit:.0f}", *map(str, words)]
        settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        variables = {**os.environ, **settings, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **(environ or {})}
        code = run_step(" ".join(map(str, words))[:150], command, log=log, environ=variables)
        output = log.read_text(encoding="utf-8", errors="replace")
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        assert code not in (124, 137, -9), f"took more than {self.limit:.0f} s ({log})"
        assert code == 0, f"exit code {code}: {last[:300]} ({log})"
        return output

    def train(self, model: str, devices: str, *words: object, launcher: tuple[object, ...] = ()) -> Path:
        """Train a shipped model on prepared text, and return the run directory."""
        run = self.folder / f"run-{len(list(self.folder.glob('run-*'))):03}"
        start = launcher or (sys.executable, "-m", "distrain", "train")
        where = ("--devices", devices) if devices else ()
        self.command(*start, "--data", self.folder / model, "--run", run, *where, *words)
        return run


def doctor(lease: Lease) -> str:
    """Run `distrain doctor`."""
    found = json.loads(lease.command(sys.executable, "-m", "distrain", "doctor", "--json").splitlines()[-1])
    return "; ".join(f"{each['name']}: {each['message']}" for each in found["checks"] if each["name"] != "host name")


def weights_of(run: Path) -> dict[str, np.ndarray]:
    """Return the weights of the newest checkpoint."""
    (*_, newest) = sorted((run / "checkpoints").glob("step-*"))
    return {name: array for name, array in load_file(newest / "arrays.safetensors").items() if name.startswith("model")}


def apart(one: Path, other: Path) -> str:
    """Compare the weights of two runs.

    Raises:
        AssertionError: they differ by more than `CLOSE`.
    """
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys()
    assert left, "the checkpoint has no weights of a model"
    differences = [np.abs(left[name] - right[name]).max() / max(np.abs(left[name]).max(), 1e-6) for name in left]
    assert max(differences) < CLOSE, f"weights differ by {max(differences):.1e}"
    return f"weights differ by {max(differences):.1e} at most, relative to the largest weight of each variable"


def against_cpu(lease: Lease, model: str) -> str:
    """Train a shipped model on a GPU and on the CPU, and compare the weights."""
    words = ("--max-steps", STEPS, "--deterministic", "--strategy", "single", "--dropout", "0")
    return apart(lease.train(model, lease.one, *words), lease.train(model, "cpu:1", *words))


def by_ranks(lease: Lease) -> str:
    """Train on as many ranks as GPUs over NCCL, and compare with one GPU at the same global batch."""
    words = ("--max-steps", STEPS, "--deterministic", "--dropout", "0", "--global-batch-size", 128)
    alone = lease.train("ngram", lease.one, *words, "--strategy", "single")
    ranks = lease.count if lease.kind == "gpu" else 2
    mpirun = (BIN / "mpirun", "--oversubscribe", "--bind-to", "none", "-x", "NCCL_DEBUG=INFO", "-n", ranks)
    launcher = (*mpirun, sys.executable, "-m", "distrain", "train")
    together = lease.train("ngram", "" if lease.kind == "gpu" else "cpu:1", *words, "--strategy", "horovod",
                           launcher=launcher)  # fmt: skip
    figures = apart(alone, together)
    log = max(lease.folder.glob("*.log")).read_text(errors="replace")
    if lease.kind == "gpu":
        assert "NCCL INFO" in log, "NCCL did not say that it was used"
    return f"{ranks} rank(s); {figures}"


def sum_by_nccl(lease: Lease) -> str:
    """Sum a tensor over one rank: driver, runtime and NCCL, without training."""
    mpirun = (BIN / "mpirun", "--mca", "plm", "isolated", "-n", 1)
    needs = ("gpu",) if lease.kind == "gpu" else ()
    return lease.command(*mpirun, sys.executable, "-m", "distrain.install.trial", 1, *needs).strip().splitlines()[-1]


def losses(lease: Lease, name: str, devices: str) -> list[float]:
    """Run one of the programs, and return its losses."""
    output = lease.command(sys.executable, REPOSITORY / "tests" / "gpu" / "programs.py", name, devices)
    found = json.loads(next(line for line in output.splitlines() if line.startswith("{")))["losses"]
    assert all(np.isfinite(found)), found
    assert found[-1] < found[0], f"the loss does not fall: {found}"
    return found


def program(lease: Lease, name: str, *, like: str = "", within: float = CLOSE, like_on: str = "cpu:1") -> str:
    """Run a program on a GPU and another one beside it, and compare the losses."""
    own, other = losses(lease, name, lease.one), losses(lease, like or name, like_on)
    assert name not in HALF or own != other, "half precision gave the bits of float32, so it was not used"
    difference = max(abs(a - b) / abs(b) for a, b in zip(own, other, strict=True))
    assert difference < within, f"losses {own} against {other}"
    return f"losses differ by {difference:.1e}"


def speed(lease: Lease, name: str, model: str, devices: str, *words: object, ranks: int = 0) -> str:
    """Measure samples per second of a run."""
    launcher: tuple[object, ...] = ()
    if ranks:
        launcher = (REPOSITORY / "launch" / "single_node.sh", "-n", ranks)
    run = lease.train(model, devices, "--max-steps", SPEED_STEPS[lease.kind], "--epochs", 1000, "--patience", 0, *words,
                      launcher=launcher)  # fmt: skip
    rate = json.loads((run / "summary.json").read_text())["samples_per_second"]
    lease.speeds.append((name, rate))
    return f"{rate:,.0f} samples/s"


def prepare(lease: Lease) -> str:
    """Write and prepare text for both shipped models."""
    distrain = (sys.executable, "-m", "distrain")
    text = lease.folder / "text"
    lease.command(*distrain, "synth", "--out", text, "--rows", 20_000)
    for model, vectorizer in {"ngram": "ngram", "sequence": "sequence"}.items():
        files = ("--train", text / "train.csv", "--test", text / "test.csv", "--out", lease.folder / model)
        lease.command(*distrain, "prepare", *files, "--vectorizer", vectorizer)
    return "20,000 rows"


def run_all(lease: Lease) -> None:
    """Run all checks, the most important first."""
    lease.check("doctor", partial(doctor, lease))
    lease.check("data", partial(prepare, lease))
    lease.check("NCCL sums on one GPU", partial(sum_by_nccl, lease))
    lease.check("n-gram model, one GPU against the CPU", partial(against_cpu, lease, "ngram"))
    lease.check(f"NCCL, {lease.count} rank(s) against one GPU", partial(by_ranks, lease))
    lease.check("two logical GPUs, mirrored, against one",
                partial(program, lease, "logical", like="conv", like_on=lease.one))  # fmt: skip
    lease.check("sequence model, one GPU against the CPU", partial(against_cpu, lease, "sequence"))
    for name, title in {"conv": "convolutional model", "embedding": "embedding model"}.items():
        lease.check(f"{title}, one GPU against the CPU", partial(program, lease, name))
    for name in HALF:
        lease.check(f"{name}, against float32", partial(program, lease, name, like="conv", within=0.1,
                                                        like_on=lease.one))  # fmt: skip
    for model in ("ngram", "sequence"):
        for batch in BATCHES:
            size = ("--batch-size", batch)
            name = f"{model}, batch {batch} per GPU"
            ways: dict[str, Callable[[], str]] = {
                f"{name}, 1 GPU": partial(speed, lease, f"{name}, 1 GPU", model, lease.one, *size)
            }
            if lease.count > 1:
                many = f"{name}, {lease.count} GPUs"
                mirrored, ranks = f"{many}, mirrored", f"{many}, NCCL"
                one_each = "" if lease.kind == "gpu" else "cpu:1"
                ways[mirrored] = partial(speed, lease, mirrored, model, lease.all, *size)
                ways[ranks] = partial(speed, lease, ranks, model, one_each, *size, ranks=lease.count)
            for title, run in ways.items():
                lease.check(f"speed: {title}", run)


def report(lease: Lease) -> str:
    """Return the Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    facts = tensorflow_facts.ask(dict(os.environ))
    gpus = ", ".join(facts.get("gpus", [])) or "none"
    note = ["**CPU devices stood for GPUs: nothing here ran on a GPU.**", ""] if lease.kind == "cpu" else []
    lines = [
        f"## GPU checks of {time.strftime('%Y-%m-%d %H:%M')}\n",
        *note,
        f"GPUs: {gpus}; driver {nvidia.driver_version() or 'none'}; TensorFlow {facts.get('tensorflow', 'unknown')}; "
        f"Keras {facts.get('keras', 'unknown')}; Python {platform.python_version()}; {os.cpu_count()} cores; "
        f"commit {commit.stdout.strip() or 'unknown'}; command `launch/test.sh --gpu{' --stand-in' if note else ''}`.",
        "",
        "| check | result | seconds | figures |",
        "|---|---|---|---|",
        *(f"| {name} | {result} | {seconds:.0f} | {_cell(figures)} |" for name, result, seconds, figures in lease.rows),
        "",
        "| speed | samples/s |",
        "|---|---|",
        *(f"| {name} | {rate:,.0f} |" for name, rate in lease.speeds),
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("<", "&lt;").split())


def main() -> int:
    """Try the machine, write the file, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"))
    parser.add_argument("--stand-in", action="store_true", help="let CPU devices stand for GPUs")
    options = parser.parse_args()
    present = nvidia.gpus_present()
    if not present and not options.stand_in:
        print("error: this machine shows no NVIDIA GPU; to try the checks themselves: --stand-in", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="distrain-gpu-"))
    kind, count = ("cpu", 2) if options.stand_in else ("gpu", len(present))
    lease = Lease(folder, kind, count, time.monotonic() + 60 * options.minutes)
    run_all(lease)
    options.out.write_text(report(lease), encoding="utf-8")
    failed = [name for name, result, _, _ in lease.rows if result != "ok"]
    print(f"\nThe report is {options.out.resolve()}, for benchmarks/RESULTS.md; logs and runs are in {folder}.")
    if failed:
        print(f"error: {len(failed)} of {len(lease.rows)} checks did not pass: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
