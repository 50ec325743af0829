"""What a command may be asked for: one frozen dataclass a command, in which each setting stands once.

Decides: names, defaults and allowed values of settings. Never: reads data, looks at devices, imports TensorFlow.

    >>> from distrain.config import PrepareConfig
    >>> PrepareConfig(train="train.csv", out="data").top_k
    20000
"""

from distrain.config.optimizer import DEFAULT_LEARNING_RATE
from distrain.config.plan import PlanConfig
from distrain.config.run import DEFAULT_GLOBAL_BATCH_SIZE
from distrain.config.setting import Setting, settings_of
from distrain.config.text import DATASETS, MAX_DEFAULT_WORKERS, MIN_BYTES_PER_WORKER, TOKENS, PrepareConfig, SynthConfig
from distrain.config.train import DROPOUT_RATES, TrainConfig, train_config

__all__ = [
    "DATASETS",
    "DEFAULT_GLOBAL_BATCH_SIZE",
    "DEFAULT_LEARNING_RATE",
    "DROPOUT_RATES",
    "MAX_DEFAULT_WORKERS",
    "MIN_BYTES_PER_WORKER",
    "TOKENS",
    "PlanConfig",
    "PrepareConfig",
    "Setting",
    "SynthConfig",
    "TrainConfig",
    "settings_of",
    "train_config",
]
