"""Tries everything that needs a GPU, within ten minutes, and writes one Markdown file for benchmarks/RESULTS.md.

    launch/test.sh --gpu [--minutes 10] [--out gpu-report.md]

Every check runs in processes of its own and has a time limit. A check that fails stops no other check. The exit code is
1 if one failed, 2 if there is no GPU. Without GPUs, `--stand-in` tries the checks themselves: two logical CPU devices
and two CPU ranks stand for GPUs. The file says so at its top.
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
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tried_machine import BIN, Machine

from distrain.cluster import nvidia
from distrain.doctor import tensorflow_facts

REPOSITORY = Path(__file__).resolve().parents[2]
CLOSE = 2e-3  # relative difference of losses and weights that the order of sums explains, after some dozens of steps
STEPS = 60
SPEED_STEPS = {"gpu": 300, "cpu": 10}
BATCHES = (128, 1024)
HALF = ("bfloat16", "float16")


def doctor(machine: Machine) -> str:
    """Run `distrain doctor`."""
    found = json.loads(machine.command(sys.executable, "-m", "distrain", "doctor", "--json").splitlines()[-1])
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


def against_cpu(machine: Machine, model: str) -> str:
    """Train a shipped model on a GPU and on the CPU, and compare the weights."""
    words = ("--max-steps", STEPS, "--deterministic", "--strategy", "single", "--dropout", "0")
    return apart(machine.train(model, machine.one, *words), machine.train(model, "cpu:1", *words))


def by_ranks(machine: Machine) -> str:
    """Train on as many ranks as GPUs over NCCL, and compare with one GPU at the same global batch."""
    words = ("--max-steps", STEPS, "--deterministic", "--dropout", "0", "--global-batch-size", 128)
    alone = machine.train("ngram", machine.one, *words, "--strategy", "single")
    ranks = machine.count if machine.kind == "gpu" else 2
    mpirun = (BIN / "mpirun", "--oversubscribe", "--bind-to", "none", "-x", "NCCL_DEBUG=INFO", "-n", ranks)
    launcher = (*mpirun, sys.executable, "-m", "distrain", "train")
    together = machine.train(
        "ngram", "" if machine.kind == "gpu" else "cpu:1", *words, "--strategy", "horovod", launcher=launcher
    )
    figures = apart(alone, together)
    log = max(machine.folder.glob("*.log")).read_text(errors="replace")
    if machine.kind == "gpu":
        assert "NCCL INFO" in log, "NCCL did not say that it was used"
    return f"{ranks} rank(s); {figures}"


def sum_by_nccl(machine: Machine) -> str:
    """Sum a tensor over one rank: driver, runtime and NCCL, without training."""
    mpirun = (BIN / "mpirun", "--mca", "plm", "isolated", "-n", 1)
    needs = ("gpu",) if machine.kind == "gpu" else ()
    return machine.command(*mpirun, sys.executable, "-m", "distrain.install.trial", 1, *needs).strip().splitlines()[-1]


def losses(machine: Machine, name: str, devices: str) -> list[float]:
    """Run one of the programs, and return its losses."""
    output = machine.command(sys.executable, REPOSITORY / "tests" / "gpu" / "programs.py", name, devices)
    found = json.loads(next(line for line in output.splitlines() if line.startswith("{")))["losses"]
    assert all(np.isfinite(found)), found
    assert found[-1] < found[0], f"the loss does not fall: {found}"
    return found


def program(machine: Machine, name: str, *, like: str = "", within: float = CLOSE, like_on: str = "cpu:1") -> str:
    """Run a program on a GPU and another one beside it, and compare the losses."""
    own, other = losses(machine, name, machine.one), losses(machine, like or name, like_on)
    assert name not in HALF or own != other, "half precision gave the bits of float32, so it was not used"
    difference = max(abs(a - b) / abs(b) for a, b in zip(own, other, strict=True))
    assert difference < within, f"losses {own} against {other}"
    return f"losses differ by {difference:.1e}"


def speed(machine: Machine, name: str, model: str, devices: str, *words: object, ranks: int = 0) -> str:
    """Measure samples per second of a run."""
    launcher: tuple[object, ...] = ()
    if ranks:
        launcher = (REPOSITORY / "launch" / "single_node.sh", "-n", ranks)
    run = machine.train(
        model,
        devices,
        "--max-steps",
        SPEED_STEPS[machine.kind],
        "--epochs",
        1000,
        "--patience",
        0,
        *words,
        launcher=launcher,
    )
    rate = json.loads((run / "summary.json").read_text())["samples_per_second"]
    machine.speeds.append((name, rate))
    return f"{rate:,.0f} samples/s"


def prepare(machine: Machine) -> str:
    """Write and prepare text for both shipped models."""
    distrain = (sys.executable, "-m", "distrain")
    text = machine.folder / "text"
    machine.command(*distrain, "synth", "--out", text, "--rows", 20_000)
    for model in ("ngram", "sequence"):
        files = ("--train", text / "train.csv", "--test", text / "test.csv", "--out", machine.folder / model)
        machine.command(*distrain, "prepare", *files, "--vectorizer", model)
    return "20,000 rows"


def run_all(machine: Machine) -> None:
    """Run all checks, the most important first."""
    machine.check("doctor", partial(doctor, machine))
    machine.check("data", partial(prepare, machine))
    machine.check("NCCL sums on one GPU", partial(sum_by_nccl, machine))
    machine.check("n-gram model, one GPU against the CPU", partial(against_cpu, machine, "ngram"))
    machine.check(f"NCCL, {machine.count} rank(s) against one GPU", partial(by_ranks, machine))
    machine.check(
        "two logical GPUs, mirrored, against one",
        partial(program, machine, "logical", like="conv", like_on=machine.one),
    )
    machine.check("sequence model, one GPU against the CPU", partial(against_cpu, machine, "sequence"))
    for name, title in {"conv": "convolutional model", "embedding": "embedding model"}.items():
        machine.check(f"{title}, one GPU against the CPU", partial(program, machine, name))
    for name, like in {"loop": "embedding", "xla": "conv"}.items():
        title = f"{name}, against single steps without XLA of the model"
        machine.check(title, partial(program, machine, name, like=like, like_on=machine.one))
    for name in HALF:
        machine.check(
            f"{name}, against float32", partial(program, machine, name, like="conv", within=0.1, like_on=machine.one)
        )
    for model in ("ngram", "sequence"):
        for batch in BATCHES:
            size = ("--batch-size", batch)
            name = f"{model}, batch {batch} per GPU"
            ways: dict[str, Callable[[], str]] = {
                f"{name}, 1 GPU": partial(speed, machine, f"{name}, 1 GPU", model, machine.one, *size)
            }
            if machine.count > 1:
                many = f"{name}, {machine.count} GPUs"
                mirrored, ranks = f"{many}, mirrored", f"{many}, NCCL"
                one_each = "" if machine.kind == "gpu" else "cpu:1"
                ways[mirrored] = partial(speed, machine, mirrored, model, machine.all, *size)
                ways[ranks] = partial(speed, machine, ranks, model, one_each, *size, ranks=machine.count)
            for title, run in ways.items():
                machine.check(f"speed: {title}", run)


def report(machine: Machine) -> str:
    """Return the Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    facts = tensorflow_facts.ask(dict(os.environ))
    gpus = ", ".join(facts.get("gpus", [])) or "none"
    note = ["**CPU devices stood for GPUs: nothing here ran on a GPU.**", ""] if machine.kind == "cpu" else []
    lines = [
        f"## GPU checks of {time.strftime('%Y-%m-%d %H:%M')}\n",
        *note,
        f"GPUs: {gpus}; driver {nvidia.driver_version() or 'none'}; TensorFlow {facts.get('tensorflow', 'unknown')}; "
        f"Keras {facts.get('keras', 'unknown')}; Python {platform.python_version()}; {os.cpu_count()} cores; "
        f"commit {commit.stdout.strip() or 'unknown'}; command `launch/test.sh --gpu{' --stand-in' if note else ''}`.",
        "",
        "| check | result | seconds | figures |",
        "|---|---|---|---|",
        *(
            f"| {name} | {result} | {seconds:.0f} | {_cell(figures)} |"
            for name, result, seconds, figures in machine.rows
        ),
        "",
        "| speed | samples/s |",
        "|---|---|",
        *(f"| {name} | {rate:,.0f} |" for name, rate in machine.speeds),
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
    machine = Machine(folder, kind, count, time.monotonic() + 60 * options.minutes)
    run_all(machine)
    options.out.write_text(report(machine), encoding="utf-8")
    failed = [name for name, result, _, _ in machine.rows if result != "ok"]
    print(f"\nThe report is {options.out.resolve()}, for benchmarks/RESULTS.md; logs and runs are in {folder}.")
    if failed:
        print(f"error: {len(failed)} of {len(machine.rows)} checks did not pass: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
