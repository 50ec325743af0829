"""The cases of all families of Keras by name, for `oracle_runs.py`.

Decides: which rows share a training. Never: what a row is.

    FAMILY_CASES["losses"]()               # one `Case` with all exact losses
"""

from __future__ import annotations

from collections.abc import Callable

from keras_families import EXACT, LOSSES, METRICS, REFUSED_LOSSES, REFUSED_METRICS, Row, loss_case, metric_case
from keras_optimizer_families import OPTIMIZERS, SCHEDULES, optimizer_case, schedule_case
from keras_oracle import Case


def _exact(rows: dict[str, Row]) -> dict[str, Row]:
    return {name: row for name, row in rows.items() if row.verdict == EXACT}


def _both(rows: dict[str, Row]) -> Case:
    return metric_case(rows, weighted=rows)


FAMILY_CASES: dict[str, Callable[[], Case]] = {
    "losses": lambda: loss_case({name: row for name, row in _exact(LOSSES).items() if name != "CTC"}),
    "loss CTC": lambda: loss_case({"CTC": LOSSES["CTC"]}),  # which TensorFlow computes in float32
    "metrics": lambda: _both({name: row for name, row in _exact(METRICS).items() if name != "Metric"}),
    "metric Metric": lambda: _both({"Metric": METRICS["Metric"]}),  # distrain traces all of a model's metrics once more
    **{f"loss {name}": lambda name=name, row=row: loss_case({name: row}) for name, row in REFUSED_LOSSES.items()},
    **{f"metric {name}": lambda name=name, row=row: metric_case({name: row}) for name, row in REFUSED_METRICS.items()},
    **{
        f"optimizer {name}": lambda name=name, make=make: optimizer_case(name, make)
        for name, make in OPTIMIZERS.items()
    },
    "schedules": lambda: schedule_case(SCHEDULES),
}
