"""Data that a function of a user's own returns: `--data package.module:function`.

Decides: which values such a function may return, and which `map` belongs to which part. Never: reads more than a first
example, or decides whether the function may run.

    data = load_named_data("shop:data")          # def data(): return {"train": source, "validation": other, "map": f}
    train, validation = data.training_examples(seed=0)

The function takes no arguments. It returns training data alone, or a dict with the keys of `KEYS`, of which "train" is
needed to train. Each part has one of the forms that `distrain.fit` takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.config.named_function import FUNCTION_NAME, FUNCTION_RULE, call_function
from distrain.data.examples import Examples
from distrain.data.workers.pool import WorkerPool
from distrain.errors import ConfigurationError
from distrain.training.jobs.fit_arguments import transforms_of
from distrain.training.jobs.given_data import FORMS, class_names_of, given_examples

PARTS = ("train", "validation", "test")
MAPS = ("map", "validation_map")
KEYS = (*PARTS, *MAPS)
MAX_SHOWN = 5  # keys that a message names


@dataclass(frozen=True)
class NamedData:
    """What a function returned.

    Attributes:
        name: the function, as package.module:function.
        parts: data by name of the part, in the forms that `distrain.fit` takes.
        map: changes each training example; None changes nothing.
        validation_map: changes each other example; default: `map`, if `map` draws no random numbers.
    """

    name: str
    parts: Mapping[str, Any]
    map: Callable[..., Any] | None = None
    validation_map: Callable[..., Any] | None = None

    def examples(self, part: str, *, seed: int, augments: bool = False, workers: WorkerPool | None = None) -> Examples:
        """Return a part as examples.

        Args:
            part: "train", "validation" or "test".
            seed: seed of the run, which determines the random numbers of `map`.
            augments: True changes the examples by `map`, as in training, False by `validation_map`.
            workers: processes that read and transform the examples of a source; None reads in this process.

        Raises:
            ConfigurationError: the function returned no such part, or the part is no data.
            DataError: the first example cannot be read.
        """
        if part not in self.parts:
            have = f"it has {', '.join(self.parts)}" if self.parts else "it has no part at all"
            raise ConfigurationError(f"--data {self.name} returned no {part!r} part: {have}.")
        transforms = transforms_of(self.map, self.validation_map, seed=seed, validates=not augments)
        transform = transforms["transform" if augments else "validation_transform"]
        return given_examples(self.parts[part], f"{part} of {self.name}", transform, workers)

    def training_examples(self, *, seed: int, workers: WorkerPool | None = None) -> tuple[Examples, Examples | None]:
        """Return the examples to train on, and the examples that evaluate each epoch, or None; see `examples`."""
        train = self.examples("train", seed=seed, augments=True, workers=workers)
        if "validation" not in self.parts:
            return train, None
        return train, self.examples("validation", seed=seed, workers=workers)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes by number; empty if no source names them.

        Raises:
            ConfigurationError: two parts number their classes differently.
        """
        return class_names_of({f"{part} of {self.name}": data for part, data in self.parts.items()})


def names_function(data: Path) -> bool:
    """Whether `--data` names a function, and no folder.

    Raises:
        ConfigurationError: the value is meant as a function, but is not of the form package.module:function.
    """
    name = str(data)
    if ":" not in name or "/" in name or data.exists():
        return False
    if not re.fullmatch(FUNCTION_NAME, name):
        raise ConfigurationError(f"--data is {name!r}, but it must be a folder that is there, or {FUNCTION_RULE}.")
    return True


def load_named_data(name: str, option: str = "--data") -> NamedData:
    """Import and call a function that returns data.

    Args:
        name: the function, as package.module:function.
        option: option that names the function, for messages.

    Raises:
        ConfigurationError: the function cannot be found or fails, or returns something else.
    """
    found = call_function(name, option)
    if found is None:
        raise ConfigurationError(
            f"{option} {name} returned None: return training data, or {_keys()}. As data, {FORMS}."
        )
    if not isinstance(found, Mapping):
        return NamedData(name, {"train": found})
    unknown = [str(key) for key in found if key not in KEYS]
    if unknown:
        shown = ", ".join(map(repr, unknown[:MAX_SHOWN])) + (", ..." if len(unknown) > MAX_SHOWN else "")
        raise ConfigurationError(f"{option} {name} returned a dict with {shown}; return {_keys()}.")
    parts = {part: found[part] for part in PARTS if found.get(part) is not None}
    return NamedData(name, parts, *(found.get(key) for key in MAPS))


def _keys() -> str:
    return f"a dict with the keys {', '.join(KEYS[:-1])} and {KEYS[-1]}, all but train optional"
