"""The commands end to end, each in a process of its own, as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from distrain.runs.manifest import rewriting

SUMMARY = {
    "validation_accuracy",
    "validation_loss",
    "train_seconds",
    "samples_per_second",
    "num_replicas",
    "strategy",
    "epochs",
    "global_steps",
    "examples_trained",
    "weights_sha256",
    "data_digest",
    "startup_seconds",
}


@pytest.fixture(scope="module")
def trained(distrain, text, tmp_path_factory):
    """A run on n-grams with a configuration file, and how the command ended."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"data": str(text["ngram"]), "epochs": 9, "patience": 0, "global_batch_size": 32, "learning_rate": 0.5}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (folder / "settings.toml").write_text("\n".join(lines), encoding="utf-8")
    assert tomllib.loads("\n".join(lines)) == settings
    run = folder / "run"
    over = ("--epochs", 3, "--learning-rate", 0.01, "--prometheus", folder / "run.prom")
    done = distrain("train", "--config", folder / "settings.toml", "--run", run, *over, "--no-jit")
    assert done.returncode == 0, done.stderr
    return run, done


def test_the_command_line_goes_over_the_file(trained, text):
    run, _ = trained
    settings = json.loads((run / "config.json").read_text())
    named = ("data", "epochs", "learning_rate", "patience", "global_batch_size", "seed")
    assert [settings[name] for name in named] == [str(text["ngram"]), 3, 0.01, 0, 32, 0]


def test_a_run_directory_has_every_file(trained):
    run, done = trained
    names = {"config.json", "metrics.jsonl", "summary.json", "checkpoints", "model.keras", "events", "report.html"}
    assert names | {"status.json"} <= {path.name for path in run.iterdir()}
    assert [path for path in run.rglob(".*") if path.is_file()] == [run / ".lock"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary.keys() >= SUMMARY
    assert (summary["epochs"], summary["global_steps"], summary["examples_trained"]) == (3, 3 * 11, 3 * 331)
    assert f"first step after {summary['startup_seconds']:.1f} s" in done.stdout.splitlines()
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"epoch", "evaluate", "checkpoint", "stop"} <= {event["event"] for event in events}
    evaluated = [event for event in events if event["event"] == "evaluate"]
    assert [(event["step"], event["epoch"]) for event in evaluated] == [(11, 1), (22, 2), (33, 3)]
    assert all(event["seconds"] > 0 for event in evaluated)
    assert evaluated[-1]["val_accuracy"] == [event for event in events if event["event"] == "epoch"][-1]["val_accuracy"]
    assert all({"step", "epoch", "time"} <= event.keys() for event in events)


def test_a_look_from_outside_finds_where_the_run_stands(trained, distrain):
    run, _ = trained
    status, summary = (json.loads((run / name).read_text()) for name in ("status.json", "summary.json"))
    assert (status["state"], status["step"], status["epoch"], status["epochs"]) == ("finished", 33, 3, 3)
    assert status["val_loss"] >= summary["validation_loss"] > 0  # the last and the best
    assert (run / status["last_checkpoint"]).is_dir()
    text = (run.parent / "run.prom").read_text()
    assert f'distrain_state{{run="{run}",state="finished"}} 1\n' in text
    assert f'distrain_step{{run="{run}"}} 33\n' in text
    done = distrain("alive", "--run", run)
    assert done.returncode == 5, "a run that has ended is not alive"
    assert "has finished at step 33, epoch 3" in done.stderr


def test_output_that_is_no_terminal_has_a_line_per_epoch(trained):
    _, done = trained
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("epoch ")] == ["1/3", "2/3", "3/3"]


def test_training_learns_and_evaluation_finds_the_same_metrics(trained, distrain, text):
    run, _ = trained
    done = distrain("evaluate", "--run", run, "--data", text["ngram"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    summary = json.loads((run / "summary.json").read_text())
    assert found["accuracy"] == pytest.approx(summary["validation_accuracy"], abs=1e-6)
    assert found["loss"] == pytest.approx(summary["validation_loss"], abs=1e-6)
    assert summary["validation_accuracy"] > 0.4  # of four classes
    # The report shows the figures that evaluate prints, and predict gives their witness.
    assert (found["classes"], found["macro_f1"]) == (summary["classes"], summary["macro_f1"])
    rows = (text["ngram"].parent / "test.csv").read_text(encoding="utf-8").splitlines()
    labels, texts = zip(*(row.split(",", 1) for row in rows), strict=True)
    done = distrain("predict", "--run", run, stdin="".join(f"{line}\n" for line in texts))
    predicted = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    labels, names = [label.strip('"') for label in labels], list(found["classes"])
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=names).tolist()
    columns = precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0)
    expected = dict(zip(names, np.stack(columns, axis=1).tolist(), strict=True))
    for name, figures in found["classes"].items():
        assert list(figures.values()) == pytest.approx(expected[name], abs=1e-12)
    assert "Classes on the validation data" in (run / "report.html").read_text()


def test_prediction_needs_the_run_directory_alone(trained, distrain, text, tmp_path):
    run, _ = trained
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    settings = json.loads((moved / "config.json").read_text())
    settings |= {"data": "/nowhere", "run": "/nowhere"}
    with rewriting(moved, "config.json"):
        (moved / "config.json").write_text(json.dumps(settings))
    rows = (text["ngram"].parent / "test.csv").read_text(encoding="utf-8").splitlines()
    texts = [row.split(",", 1)[1].strip('"') for row in rows]
    done = distrain("predict", "--run", moved, stdin="".join(f"{line}\n" for line in [*texts, ""]))
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(texts) + 1
    assert all(0 <= answer["probability"] <= 1 for answer in answers)
    labels = [row.split(",", 1)[0].strip('"') for row in rows]
    right = np.mean([answer["label"] == label for answer, label in zip(answers, labels, strict=False)])
    accuracy = json.loads((run / "summary.json").read_text())["validation_accuracy"]
    assert right == pytest.approx(accuracy, abs=1e-6)


def test_plan_proves_that_every_example_is_read_once(distrain, text):
    done = distrain("plan", "--data", text["sequence"], "--replicas", 3, "--audit")
    assert done.returncode == 0, done.stderr
    assert "each of 331 examples is read exactly once" in " ".join(done.stdout.split())


def test_a_report_of_two_runs_is_one_file(trained, distrain, tmp_path):
    run, _ = trained
    shutil.copytree(run, tmp_path / "another")
    done = distrain("report", run, tmp_path / "another", "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert "another" in (tmp_path / "report.html").read_text(encoding="utf-8")


class Refused(NamedTuple):
    """Commands that fail.

    Attributes:
        folder: folder of their runs, by the names of the commands.
        shard: the shard that is cut.
        config: content of the finished run's `config.json` before the commands.
        ended: how each command ended, by name.
    """

    folder: Path
    shard: Path
    config: bytes
    ended: dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def refused(distrain, trained, text, tmp_path_factory):
    """Commands that fail."""
    run, _ = trained
    config = (run / "config.json").read_bytes()
    folder = tmp_path_factory.mktemp("refused")
    cut = folder / "cut"
    shutil.copytree(text["ngram"], cut)
    shard = max(cut.glob("train-*.npy"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-7])
    own = ("--global-batch-size", 32, "--learning-rate", 0.01)
    diverging = ("--data", text["ngram"], "--learning-rate", 1e30, "--no-jit")
    every_step = ("--global-batch-size", 64, "--checkpoint-every", 1)
    one_step = ("--global-batch-size", 331)  # the loss of the only step is finite
    of_the_finished_run = {  # one after the other, because a run has one process at a time
        "seed": ("train", "--run", run, "--data", text["ngram"], *own, "--seed", 1),
        "learning rate": ("train", "--run", run, "--data", text["ngram"], *own[:2], "--learning-rate", 0.02),
        "other data": ("train", "--run", run, "--data", text["sequence"], *own),
        "other data to evaluate": ("evaluate", "--run", run, "--data", text["sequence"]),
    }
    of_new_runs = {
        "cut shard": ("train", "--run", folder / "cut shard", "--data", cut),
        "divergence": ("train", "--run", folder / "divergence", *diverging, *every_step),
        "divergence in validation": ("train", "--run", folder / "divergence in validation", *diverging, *one_step),
    }

    def in_turn(commands):
        return {name: distrain(*command) for name, command in commands.items()}

    with ThreadPoolExecutor(2) as pool:
        ended, others = pool.map(in_turn, (of_the_finished_run, of_new_runs))
    return Refused(folder, shard, config, ended | others)


@pytest.mark.parametrize(
    ("name", "message"), [("seed", "seed = 0, not 1"), ("learning rate", "learning_rate = 0.01, not 0.02")]
)
def test_a_run_goes_on_only_with_its_own_settings(name, message, trained, refused):
    run, _ = trained
    done = refused.ended[name]
    assert (done.returncode, (run / "config.json").read_bytes()) == (4, refused.config)
    assert message in done.stderr.splitlines()[-1]


def test_a_run_goes_on_only_with_its_own_data(refused):
    done = refused.ended["other data"]
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("distrain: error: ")
    assert refused.ended["other data to evaluate"].returncode == 3


def test_a_cut_shard_is_named(refused):
    done = refused.ended["cut shard"]
    assert done.returncode == 3
    assert str(refused.shard) in done.stderr.splitlines()[-1]
    assert not (refused.folder / "cut shard").exists()


def test_a_run_that_diverges_saves_nothing_more(refused):
    done, run = refused.ended["divergence"], refused.folder / "divergence"
    assert done.returncode == 6, done.stderr
    assert "loss is nan at step 2 (epoch 1)" in done.stderr.splitlines()[-1]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
    assert not (run / "summary.json").exists()


def test_a_validation_loss_that_is_not_finite_is_divergence_too(refused):
    done, run = refused.ended["divergence in validation"], refused.folder / "divergence in validation"
    assert done.returncode == 6, done.stderr
    assert "validation loss is nan after step 1 (epoch 1)" in done.stderr.splitlines()[-1]
    assert not list(run.glob("checkpoints/*"))


def arrays(folder: Path, *, scale: float = 1.0) -> Path:
    data = folder / "arrays"
    data.mkdir()
    rng = np.random.default_rng(1)
    for part, count in (("train", 50), ("test", 20)):
        labels = rng.integers(0, 3, count)
        images = rng.normal(size=(count, 8, 8, 1)) + labels[:, None, None, None]
        np.save(data / f"{part}.x.npy", (images * scale).astype(np.float32))
        np.save(data / f"{part}.y.npy", labels)
    return data


def test_a_model_of_ones_own_on_arrays_with_fewer_batches_than_replicas(distrain, tmp_path):
    options = ("--devices", "cpu:3", "--batch-size", 32, "--epochs", 1)
    run = tmp_path / "run"
    model = ("--model", "models_outside:compiled_image_model")
    done = distrain("train", "--data", arrays(tmp_path), "--run", run, *options, *model)
    assert done.returncode == 0, done.stderr
    assert "warning: 50 training examples make 2 batches of 32, fewer than the 3 replicas" in done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["examples_trained"], summary["global_steps"], summary["num_replicas"]) == (50, 1, 3)


def test_a_model_of_ones_own_on_prepared_text(distrain, text, tmp_path):
    options = ("--model", "models_outside:text_model", "--epochs", 1)
    done = distrain("train", "--data", text["ngram"], "--run", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    done = distrain("predict", "--run", tmp_path / "run", stdin="some words\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"label", "probability"}
