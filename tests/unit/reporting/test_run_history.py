"""A run directory is read as a run, finished or not."""

from __future__ import annotations

import pytest
from reported_runs import write_log

from distrain.errors import CheckpointError
from distrain.reporting.run_history import MAX_JSON_BYTES, load_run


@pytest.fixture
def unfinished(tmp_path):
    write_log(
        tmp_path / "metrics.jsonl",
        ("step", 5, 1, ("steps_per_epoch", 20)),
        ("epoch", 20, 1, ("val_loss", 0.5), ("val_accuracy", 0.75)),
        ("epoch", 40, 2, ("val_loss", 0.5), ("val_accuracy", 0.25), ("samples_per_second", 100)),
        ("epoch", 60, 3, ("val_loss", None)),
    )
    return tmp_path


def test_the_first_epoch_with_the_lowest_validation_loss_is_the_best(unfinished):
    assert load_run(unfinished).best_epoch["epoch"] == 1


def test_an_unfinished_run_has_its_results_so_far(unfinished):
    (unfinished / "config.json").write_text('{"num_replicas": 2}')
    run = load_run(unfinished)
    assert run.result("validation_accuracy") == 0.75
    assert run.result("global_steps") == 60
    assert run.result("num_replicas") == 2
    assert run.result("samples_per_second") is None
    assert run.time_span == (1e9 + 5, 1e9 + 60)


def test_a_finished_run_has_the_results_of_its_summary_alone(unfinished):
    (unfinished / "summary.json").write_text('{"epochs": 3, "validation_loss": NaN, "strategy": "single", "ok": true}')
    run = load_run(unfinished)
    assert run.result("epochs") == 3
    assert [run.result(name) for name in ("validation_loss", "strategy", "ok", "global_steps")] == [None] * 4


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("step", 5, 1, ("steps_per_epoch", 20))], 0.25),
        ([("epoch", 10, 1)], 0.5),
        ([], 1.0),  # the event's own epoch, because nothing says how many steps an epoch has
    ],
)
def test_epochs_trained_have_a_fraction(tmp_path, events, expected):
    write_log(tmp_path / "metrics.jsonl", *events)
    assert load_run(tmp_path).epochs_trained({"step": 5, "epoch": 1}) == expected


def test_a_large_file_of_settings_is_refused(unfinished):
    (unfinished / "config.json").write_text('{"a": "' + "x" * MAX_JSON_BYTES + '"}')
    with pytest.raises(CheckpointError, match=r"config\.json is damaged \(it has more than 262,144 bytes\)"):
        load_run(unfinished)


def test_the_last_epoch_that_was_the_best_so_far_is_the_best(tmp_path):
    write_log(
        tmp_path / "metrics.jsonl",
        *(
            ("epoch", 20 * n, n, ("val_loss", loss), ("best", best))
            for n, loss, best in [(1, 0.1, True), (2, 0.9, True)]
        ),
        ("epoch", 60, 3, ("val_loss", 0.5), ("best", False)),
    )
    assert load_run(tmp_path).best_epoch["epoch"] == 2
