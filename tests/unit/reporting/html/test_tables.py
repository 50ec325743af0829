"""Tables hold the rows, the best values and the texts that the page shows."""

from __future__ import annotations

import pytest

from distrain.reporting.history import History
from distrain.reporting.html.tables import (
    MISSING,
    Cell,
    as_text,
    class_table,
    comparison,
    differing_settings,
    duration,
    epoch_table,
    key_values,
    result_values,
)
from distrain.reporting.run_history import Run


def make_run(tmp_path, summary=None, settings=None, epochs=()):
    return Run(tmp_path, settings or {}, summary or {}, History([], list(epochs), [], [], [], [], 0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.26, "8.3 s"), (59.9, "59.9 s"), (245, "4 min 05 s"), (7620, "2 h 07 min")]
)
def test_a_duration_reads_by_its_size(seconds, text):
    assert duration(seconds) == text


def test_the_best_value_of_a_column_is_marked_where_runs_differ(tmp_path):
    runs = [
        make_run(tmp_path, {"validation_accuracy": accuracy, "validation_loss": loss, "train_seconds": 5})
        for accuracy, loss in [(0.5, 0.2), (0.75, 0.3), (None, 0.2)]
    ]
    table = comparison(runs)
    columns = dict(zip(table.heads, zip(*table.rows, strict=True), strict=True))
    assert columns["validation accuracy"] == (Cell("0.5000"), Cell("0.7500", is_best=True), Cell(MISSING))
    assert [cell.is_best for cell in columns["validation loss"]] == [True, False, True]
    assert not any(cell.is_best for cell in columns["training time"])


def test_settings_that_differ_are_found_whichever_run_has_them(tmp_path):
    runs = [
        make_run(tmp_path, settings={"run": "a", "seed": 1, "units": 64}),
        make_run(tmp_path, settings={"run": "b", "seed": 1, "dropout": None}),
    ]
    assert differing_settings(runs) == {"units": ["64", MISSING]}


def test_epochs_show_their_metrics_and_the_best_one(tmp_path):
    epochs = [
        {"event": "epoch", "step": 10, "epoch": 1, "loss": 0.5, "val_loss": 0.25, "samples_per_second": 1234.5},
        {"event": "epoch", "step": 20, "epoch": 2, "loss": True, "val_loss": 0.5, "seconds": 1.0},
    ]
    table = epoch_table(make_run(tmp_path, epochs=epochs))
    assert table.heads == ["epoch", "loss", "val_loss", "samples/s", "seconds"]
    assert [cell.text for cell in table.rows[0]] == ["1", "0.5000", "0.2500", "1,234", MISSING]
    assert [cell.text for cell in table.rows[1]] == ["2", MISSING, "0.5000", MISSING, "1.00"]
    assert [row[0].is_best for row in table.rows] == [True, False]
    assert epoch_table(make_run(tmp_path)).rows == []


def test_an_unfinished_run_shows_its_values_so_far(tmp_path):
    epochs = [{"event": "epoch", "step": 1200, "epoch": 1, "val_loss": 0.25, "val_accuracy": 0.5}]
    values = {entry.label: (entry.value, entry.hint) for entry in key_values(make_run(tmp_path, epochs=epochs))}
    assert values == {
        "validation accuracy": ("0.5000", "best epoch 1"),
        "validation loss": ("0.2500", "best epoch 1"),
        "epochs": ("1", "1,200 steps"),
    }


def test_a_long_text_is_cut():
    assert as_text(None) == MISSING
    assert as_text("x" * 300) == "x" * 300
    assert as_text("x" * 301) == "x" * 300 + " …"


def figures(f1):
    return {"precision": 0.5, "recall": 0.25, "f1": f1, "support": 1234}


def test_classes_show_their_figures(tmp_path):
    run = make_run(tmp_path, {"classes": {"no": figures(0.9), "yes": figures(0.125), "odd": "text"}, "epochs": 3})
    table = class_table(run)
    assert table.heads == ["class", "precision", "recall", "F1", "examples"]
    assert [cell.text for cell in table.rows[0]] == ["no", "0.5000", "0.2500", "0.9000", "1,234"]
    assert [row[0].text for row in table.rows] == ["no", "yes", "odd"]
    assert [cell.text for cell in table.rows[2][1:]] == [MISSING] * 4
    assert result_values(run) == {"epochs": 3}
    assert class_table(make_run(tmp_path)).rows == []


def test_of_many_classes_the_worst_are_shown(tmp_path):
    run = make_run(tmp_path, {"classes": {str(number): figures(1 - number / 1000) for number in range(1000)}})
    shown = [row[0].text for row in class_table(run).rows]
    assert shown == [str(number) for number in range(999, 799, -1)]
