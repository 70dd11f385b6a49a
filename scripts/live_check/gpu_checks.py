"""Live checks of a CUDA device: marked tests, mixed precision next to fp32, and how busy the device is."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from scripts.live_check.finding import Finding
from scripts.live_check.precision_checks import PrecisionDevice, compare_with_fp32, name_rows
from scripts.live_check.run_mlscale import CheckError, run_mlscale

_WARM_UP_S = 15.0  # from the start of a run: imports and the first steps
_ROOT = Path(__file__).resolve().parents[2]


def check_gpu(folder: Path, samples: int) -> list[Finding]:
    """Run everything that takes a CUDA device; what is lacking where there is none."""
    import torch

    if not torch.cuda.is_available():
        why = "no CUDA device, or a build of torch without CUDA"
        names = ("tests marked gpu", *name_rows(), "GPU busy, ResNet-18 at 224")
        return [Finding(name, "not here", why) for name in names]
    device = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return [
        _run_marked_tests(device),
        *compare_with_fp32(folder, PrecisionDevice(device, words=("trainer.accelerator=gpu", "trainer.devices=1"))),
        _measure_busy_share(folder, samples, device),
    ]


def _run_marked_tests(device: str) -> Finding:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]
    # A run that has skipped all of them proves nothing.
    passed = done.returncode == 0 and re.search(r"\d+ passed", last)
    return Finding("tests marked gpu", "proven" if passed else "failed", device, last)


def _measure_busy_share(folder: Path, samples: int, device: str) -> Finding:
    """Train a ResNet-18 on photographs of 224 pixels, and ask the driver how busy the device is meanwhile."""
    from scripts.target_data import write_data

    what = "GPU busy, ResNet-18 at 224"
    words = [*write_data("image", folder / "photos", 1, train=4096, val=64), "data.image_size=224", "model=resnet18"]
    words += ["data.batch_size=256", "precision=bf16", "trainer.max_epochs=20", "snapshot=false", "logger=none"]
    shares: list[int] = []
    ended = threading.Event()

    def ask_driver() -> None:
        begin = time.monotonic()
        while not ended.wait(0.5):
            query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
            done = subprocess.run(query, capture_output=True, text=True)
            if done.returncode == 0 and time.monotonic() - begin > _WARM_UP_S:
                shares.append(int(done.stdout.split()[0]))

    thread = threading.Thread(target=ask_driver)
    thread.start()
    try:
        run_mlscale(folder, *words, "trainer.accelerator=gpu", "trainer.devices=1", f"runs_dir={folder}/busy")
    except CheckError as error:
        return Finding(what, "failed", device, str(error))
    finally:
        ended.set()
        thread.join()
    if not shares:
        return Finding(what, "failed", device, "nvidia-smi gave nothing while it ran")
    busy = sum(shares) / len(shares)
    return Finding(what, "proven" if busy >= 95 else "failed", device, f"{busy:.0f} % in {len(shares)} looks")
