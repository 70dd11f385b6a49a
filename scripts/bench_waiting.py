"""How much of its time a ResNet-18 waits for photographs on two cores, with plain PyTorch and `mlscale.data.Loader`.

    python -m scripts.bench_waiting

The work: the photographs of `bench_data` in tar shards, cropped at random (224 pixels), mirrored and normalised by one
thread; torchvision's ResNet-18 forward, backward and SGD. Measured: the time in which the loop waits for its next
batch, as a share of all, after steps that warm up. Other load on the machine slows both down.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

from scripts.bench_data import CLASSES, SIDE, write_set

WARM_UP = 3


def measure_waits(folder: str, batch_size: int, steps: int) -> list[tuple[float, float]]:
    """Return the seconds of waiting and of the rest of each step."""
    import torch
    from torchvision.models import resnet18

    from mlscale.data import Loader, RandomCrop, TarBackend

    model = resnet18(num_classes=CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    data = TarBackend(folder, folder, batch_size=batch_size, image_size=SIDE, workers=1, augment=RandomCrop())
    times, batches, end = [], iter(Loader(data)), time.perf_counter()
    for batch in islice(batches, steps + WARM_UP):
        begin = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append((begin - end, time.perf_counter() - begin))
        end = time.perf_counter()
    return times[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSCALE_CACHE"] = f"{folder}/cache"
        write_set(Path(folder), (options.steps + WARM_UP + 1) * options.batch_size)
        times = measure_waits(folder, options.batch_size, options.steps)
    waits, rest = (statistics.median(column) for column in zip(*times, strict=True))
    share = sum(wait for wait, _ in times) / sum(map(sum, times))
    print(f"{len(times)} steps of {options.batch_size}: {1000 * waits:.2f} ms waiting and {rest:.2f} s computing each")
    print(
        f"waiting is {100 * share:.2f} % of the time, in the worst step {1000 * max(wait for wait, _ in times):.1f} ms"
    )


if __name__ == "__main__":
    main()
