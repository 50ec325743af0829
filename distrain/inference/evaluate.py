"""`distrain evaluate`: metrics of a finished run.

Decides: which examples are evaluated, and by which checkpoint. Never: trains.

    metrics = evaluate_run(Path("runs/1"), Path("data"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.labels.label_range import with_label_ranges
from distrain.data.prefetch import prefetched
from distrain.inference.finished_run import open_on_device
from distrain.inference.run_data import TO_EVALUATE, open_part
from distrain.training.feed import evaluation_plan
from distrain.training.figures.class_counts import choose_counting, make_count_step
from distrain.training.figures.evaluation import evaluate_all


def evaluate_run(
    run: Path, data: Path, *, checkpoint: str | None = None, trust: bool = False, devices: str | None = None
) -> dict[str, Any]:
    """Evaluate a run's best checkpoint on the test part of some data, else on its validation part.

    Args:
        run: the run directory.
        data: the prepared text that the run was trained on, or a folder of arrays, or a function as module:function.
        checkpoint: name or path of another checkpoint to use.
        trust: whether code that the run names may run.
        devices: "cpu", or "gpu:N" for one GPU; default: the first GPU, and the CPU if there is no GPU.

    Returns:
        `loss` and the metrics; `examples`, the number of test examples; `step`, the checkpoint's global step. If the
        model predicts classes of prepared text or sets of labels, also the figures of `class_figures` or
        `label_figures`.

    Raises:
        CheckpointError: the run cannot be used.
        ConfigurationError: the model needs code and the run is not trusted, a GPU is not usable, or the data has no
            part to evaluate.
        DataError: the data is missing or damaged, or is not the text that the run was trained on.
    """
    finished = open_on_device(run, checkpoint=checkpoint, trust=trust, devices=devices)
    from distrain.distribution.single import SingleDevice
    from distrain.training.model_checks.label_classes import label_ranges
    from distrain.training.steps import step as steps
    from distrain.training.steps.task import batch_specs

    part = open_part(finished, data, TO_EVALUATE, compares=True)
    trainable = finished.load_model(part.examples)
    device, sample = SingleDevice(), sample_batch(part.examples)
    examples = with_label_ranges(part.examples, label_ranges(trainable, sample))
    step = steps.make_evaluate_step(trainable, device, batch_specs(sample))
    plan, order = evaluation_plan(examples, 1, finished.config.replica_batch_size(1))
    metrics = evaluate_all(
        prefetched(epoch_batches(examples, plan, order, replicas=range(1))),
        lambda batches: step(batches).sums,
        trainable.metrics.results,
    )
    assert metrics is not None
    counting = choose_counting(trainable, sample, len(part.classes))
    if counting is not None:
        count = make_count_step(trainable, device, batch_specs(sample), counting)
        figures = evaluate_all(
            prefetched(epoch_batches(examples, plan, order, replicas=range(1))),
            lambda batches: count(batches).sums,
            lambda sums: counting.figures(sums[0], part.classes),
        )
        metrics |= figures or {}
    return {**metrics, "examples": examples.num_examples, "step": finished.checkpoint.state["global_step"]}
