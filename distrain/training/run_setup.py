"""What a run consists of, for all that follows its first step.

Decides: nothing; `setup.py` builds it. Never: trains.

    setup.epoch_plan(position=64)                 # the steps of an epoch that has read 64 examples
    setup.metrics_of([loss, count, *sums])        # {"loss": 0.5, "accuracy": 0.875}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distrain.batch import Batch
from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.data.plan import EpochPlan
from distrain.keras_backend.private_names import state_variables
from distrain.runs import directory as run_directory
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.progress import Progress
from distrain.training.jobs.job import TrainingJob
from distrain.training.run_length import epoch_plan

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution
    from distrain.models.state import ModelState
    from distrain.training.steps.task import TrainableModel


@dataclass(frozen=True)
class RunSetup:
    """A run that is ready to train.

    Attributes:
        config: the settings.
        distribution: the replicas of all ranks.
        job: model, data and callbacks.
        restored: the checkpoint to resume from; None at the start of training.
        progress: the progress of `restored`.
        trainable: model, optimizer, loss and metrics, with the variables of `restored`.
        model_state: the variables of model and optimizer.
        sample: a batch of one or two training examples.
        description: what the model consists of and how it is compiled.
        architecture: configuration from which Keras makes a model of the user's own again; None for a shipped model.
    """

    config: TrainConfig
    distribution: Distribution
    job: TrainingJob
    restored: Checkpoint | None
    progress: Progress
    trainable: TrainableModel
    model_state: ModelState
    sample: Batch
    description: dict[str, Any]
    architecture: dict[str, Any] | None = None

    @cached_property
    def validation_sample(self) -> Batch:
        """A batch of one or two validation examples, which may lack the weights of training examples."""
        return self.sample if self.job.validation is None else sample_batch(self.job.validation)

    @property
    def was_complete(self) -> bool:
        """Whether training was complete before this process started."""
        return self.restored is not None and run_directory.is_finished(self.config, self.restored)

    @property
    def batch_size(self) -> int:
        """Examples per microbatch, B."""
        return self.config.replica_batch_size(self.distribution.num_replicas)

    @property
    def local_microbatches(self) -> range:
        """Numbers of the microbatches of a step that this process feeds."""
        local, per_replica = self.distribution.local_replicas, self.config.accumulation_steps
        return range(local.start * per_replica, local.stop * per_replica)

    def epoch_plan(self, position: int = 0) -> EpochPlan:
        """Return the plan of a training epoch from `position`, in examples."""
        return epoch_plan(self.config, self.distribution.num_replicas, self.job.train.num_examples, position)

    def metrics_of(self, sums: Any) -> dict[str, Any]:
        """Return loss and metrics of the sums of a step."""
        if not sums:  # each step of the epoch so far was skipped
            return dict.fromkeys(self.trainable.metrics.initial_results(), math.nan)
        return self.trainable.metrics.results(sums)

    def restore_variables(self) -> None:
        """Set the variables of model and optimizer from the checkpoint to resume from, if there is one."""
        if self.restored is not None:
            self.model_state.restore(self.restored)

    def learning_rate(self) -> float:
        """Return the learning rate of the next step; of a `MultiOptimizer`, the rate of its first optimizer."""
        import keras

        optimizer = next(iter(getattr(self.trainable.optimizer, "optimizers", [self.trainable.optimizer])))
        return float(keras.ops.convert_to_numpy(optimizer.learning_rate))

    def finalize_weights(self) -> None:
        """Give the model the averages of its weights if the optimizer keeps averages, as Keras does after training."""
        with self.distribution.scope():
            self.trainable.optimizer.finalize_variable_values(self.trainable.model.trainable_variables)

    def synchronize(self) -> None:
        """Average over all ranks the variables that each rank updates by itself, such as moving averages."""
        self.distribution.synchronize(state_variables(self.trainable.model))
