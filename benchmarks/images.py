"""Pictures per second of one core: distrain, Keras' loader and PyTorch's loader, from JPEG files to batches.

    python benchmarks/images.py [--pictures 256] [--rounds 5] [--sizes 500x375] [--torch-python PATH]

Each round runs each loader in a new process, one behind the other. The first epoch warms up, and the second counts.
All loaders give batches of 32 pictures of 224 x 224 pixels, resized between the nearest pixels. PyTorch's loader has a
data set as torchvision's `ImageFolder` reads it: Pillow opens, converts and resizes, which weighs all pixels.

The processor time of the process does not depend much on what else the machine does. `--torch-python` is a Python with
PyTorch and Pillow. Without it, PyTorch is left out.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = ("500x375", "1024x768", "2048x1536")
SIDE, BATCH = 224, 32

OURS = """
import numpy as np
from distrain import formats
from distrain.data.positional import positional_examples
examples = positional_examples(formats.images(folder, size=(side, side), shrink_jpeg=%s))
def epoch():
    for start in range(0, examples.num_examples, batch):
        stop = min(start + batch, examples.num_examples)
        yield examples.load(np.array([[start, stop]]), np.arange(stop - start))(0, stop - start)[0]
"""
KERAS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
data = keras.utils.image_dataset_from_directory(
    folder, image_size=(side, side), batch_size=batch, shuffle=False, verbose=False)
def epoch():
    for pixels, labels in data:
        yield pixels
"""
TORCH = """
import os
import numpy as np, torch
from PIL import Image
torch.set_num_threads(1)
files = sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
class Folder(torch.utils.data.Dataset):
    def __len__(self):
        return len(files)
    def __getitem__(self, number):
        with open(files[number], "rb") as file:
            picture = Image.open(file).convert("RGB").resize((side, side), Image.BILINEAR)
        return torch.from_numpy(np.asarray(picture).copy()), 0
def epoch():
    for pixels, labels in torch.utils.data.DataLoader(Folder(), batch_size=batch):
        yield pixels
"""
MEASURE = """
import json, time
def measured():
    began, clock = time.process_time(), time.perf_counter()
    count = sum(len(pixels) for pixels in epoch())
    return count, time.process_time() - began, time.perf_counter() - clock
measured()
print(json.dumps(measured()))
"""
LOADERS = {"distrain": OURS % False, "distrain, shrink_jpeg": OURS % True, "Keras": KERAS, "PyTorch": TORCH}


def write_pictures(folder: Path, width: int, height: int, count: int) -> None:
    """Write JPEG files of smooth shapes with noise, which have the bytes per pixel of photos."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
        noisy = np.clip(smooth + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)
        path = folder / str(number % 4) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=85)
        path.write_bytes(file.getvalue())


def measured(python: str, loader: str, folder: Path) -> tuple[float, float]:
    """Return pictures per second of processor time, and per second of the clock."""
    program = f"folder, side, batch = {str(folder)!r}, {SIDE}, {BATCH}\n{LOADERS[loader]}\n{MEASURE}"
    result = subprocess.run([python, "-c", program], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{loader} failed:\n{result.stderr[-3000:]}")
    count, processor, clock = json.loads(result.stdout.strip().splitlines()[-1])
    return count / processor, count / clock


def main() -> None:
    """Print a line for each size of pictures and each loader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256, help="pictures of each size")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each loader; medians are printed")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="width x height of the pictures")
    parser.add_argument("--torch-python", help="a Python with PyTorch and Pillow")
    arguments = parser.parse_args()
    pythons = {name: sys.executable for name in LOADERS if name != "PyTorch"}
    if arguments.torch_python:
        pythons["PyTorch"] = arguments.torch_python
    for title in arguments.sizes:
        width, height = map(int, title.split("x"))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pictures(folder, width, height, arguments.pictures)
            size = statistics.mean(path.stat().st_size for path in folder.rglob("*.jpg")) / 1000
            rounds: dict[str, list[tuple[float, float]]] = {loader: [] for loader in pythons}
            for _ in range(arguments.rounds):
                for loader, python in pythons.items():
                    rounds[loader].append(measured(python, loader, folder))
            cores = {loader: statistics.median(core for core, _ in found) for loader, found in rounds.items()}
            best = max(speed for loader, speed in cores.items() if not loader.startswith("distrain"))
            for loader, found in rounds.items():
                clock = statistics.median(clock for _, clock in found)
                print(
                    f"{title}, {size:.0f} kB: {loader:22} {cores[loader]:7.1f} pictures/s of a core, "
                    f"{clock:7.1f} of the clock, {cores[loader] / best:.2f} of the better rival",
                    flush=True,
                )
    print(time.strftime("%Y-%m-%d"))


if __name__ == "__main__":
    main()
