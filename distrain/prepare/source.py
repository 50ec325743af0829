"""`distrain prepare --source`: data of a user's own, read once and written as a folder of arrays.

Decides: which parts are written, and how progress looks. Never: how an example becomes a row of a file.

    prepare_source(PrepareSourceConfig(source="shop:data", out="data"), console=Console())
    open_array_folder(Path("data"))
"""

from __future__ import annotations

import logging
import time

from rich.console import Console

from distrain.config.source import PrepareSourceConfig
from distrain.data.array_folders.cache import prepare_arrays
from distrain.prepare.display import Display
from distrain.prepare.staging import terminable
from distrain.training.jobs.named_data import load_named_data

_LOG = logging.getLogger(__name__)


def prepare_source(config: PrepareSourceConfig, *, console: Console) -> None:
    """Write the data that a function returns.

    Args:
        config: all settings.
        console: console for progress and results.

    Raises:
        ConfigurationError: the function cannot be called, returns something else, or the folder cannot be written.
        DataError: an example cannot be read, or differs from the first one.
    """
    started = time.monotonic()
    data = load_named_data(config.source, "--source")
    if data.map is not None or data.validation_map is not None:
        _LOG.warning("map is not part of the folder: it changes examples while a model is trained.")
    with terminable(), Display(console) as display:

        def show(part: str, rows: int, length: int | None) -> None:
            display.show(f"writing {part}", rows / length if length else None, f"{rows:,} examples")

        rows = prepare_arrays(config.out, data.parts, config.max_rows, show)
        sizes = {part: sum(file.stat().st_size for file in config.out.glob(f"{part}.*.npy")) for part in rows}
        display.table(
            f"{config.out}: arrays",
            ["part", "examples", "MB"],
            [[part, f"{count:,}", f"{sizes[part] / 1e6:,.1f}"] for part, count in rows.items()],
        )
        display.say(f"done in {time.monotonic() - started:.1f} s")
