"""Plant faults in platforms, and count right verdicts of `mlscale drill`: python -m scripts.bench_drill --seed 7

Each platform is drawn by the seed: its name, its grace period (3, 30 or 120 s), how long the run takes to save after a
signal, a run folder that is lost, a secret that is not passed on, and a number of processes that the global batch does
not divide by. A verdict is right if it names exactly the planted faults. The saves are slow by a callback of the run
under test; everything else is real: processes, signals, grace periods in full length, kills, restarts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PLATFORMS = ("kubernetes", "skypilot", "slurm", "torchrun")
# Grace period in seconds: possible times to save, far enough from it for a busy machine.
SAVE_SECONDS = {3: (10.0,), 30: (1.0, 45.0), 120: (1.0, 30.0, 140.0)}
SLOW_SAVE = """
import time
from pytorch_lightning import Callback
from mlscale.train.graceful_stop import get_received_signal


class SlowSave(Callback):
    def __init__(self, seconds):
        self.seconds = seconds

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if get_received_signal():
            time.sleep(self.seconds)
"""
RUN = (
    "+recipe=resnet", "model=mlp", "trainer.max_epochs=2", "callbacks.checkpoint.every_n_steps=3", "stop_step=5",
    "steps_after=3", "++callbacks.slow._target_=slow_save.SlowSave", "notes=${oc.env:PLANTED_VARIABLE}",
)  # fmt: skip


@dataclass(frozen=True)
class PlantedPlatform:
    """A platform and the faults that it has.

    Attributes:
        name: of the platform.
        grace_s: its grace period.
        save_s: seconds that the run takes to save after a signal.
        loses_folder, loses_variable, has_odd_size: the planted faults.
    """

    name: str
    grace_s: int
    save_s: float
    loses_folder: bool
    loses_variable: bool
    has_odd_size: bool

    @classmethod
    def draw(cls, source: random.Random) -> PlantedPlatform:
        """Return a platform drawn at random; each fault is planted in a third of the cases."""
        name, grace = source.choice(PLATFORMS), source.choice(tuple(SAVE_SECONDS))
        save = source.choice(SAVE_SECONDS[grace])
        # These two keep the environment of the submission, so a variable can't be lost.
        can_lose = name in ("kubernetes", "skypilot")
        lost, missing, odd = (source.random() < 0.35 for _ in range(3))
        return cls(name, grace, save, lost, missing and can_lose, odd)

    @property
    def expected(self) -> list[str]:
        """The kinds of findings that a right verdict has."""
        faults = {
            "grace": self.save_s > self.grace_s,
            "secret": self.loses_variable,
            "folder": self.loses_folder,
            "size": self.has_odd_size,
        }
        return sorted(kind for kind, planted in faults.items() if planted)

    def list_overrides(self) -> list[str]:
        """Return the words of the drill."""
        words = [f"launch={self.name}", f"launch.grace_s={self.grace_s}", f"callbacks.slow.seconds={self.save_s}"]
        if self.has_odd_size:
            words.append("restart_devices=3")  # the global batch of the recipe is a power of two
        if self.name == "slurm" or self.name == "torchrun":
            return [*words, f"runs_dir={'/dev/shm' if self.loses_folder else '/srv/shared'}/runs"]
        if not self.loses_variable:
            words.append("launch.variables=[PLANTED_VARIABLE]")
        if self.name == "skypilot":
            words.append("launch.signal=TERM")
        volume = "launch.claim=runs" if self.name == "kubernetes" else "launch.bucket=s3://runs"
        return words if self.loses_folder else [*words, volume]


def run_drill(planted: PlantedPlatform) -> tuple[list[str], str, float]:
    """Return the findings of a drill, its sentence or error, and its seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-drill-") as folder:
        Path(folder, "slow_save.py").write_text(SLOW_SAVE)
        command = [sys.executable, "-m", "mlscale", "drill", *RUN, *planted.list_overrides(), "output=json"]
        environment = {**os.environ, "PLANTED_VARIABLE": "planted-value", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode not in (0, 4):
        return ["error"], done.stderr.strip(), seconds
    result = json.loads(done.stdout)
    return sorted(item["kind"] for item in result["details"]["findings"]), result["sentence"], seconds


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="draws the platforms")
    parser.add_argument("--count", type=int, default=20, help="platforms")
    parser.add_argument("--jobs", type=int, default=2, help="drills at a time; most of their time is a wait")
    options = parser.parse_args(argv)
    source = random.Random(options.seed)
    planted = [PlantedPlatform.draw(source) for _ in range(options.count)]
    right = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for number, (platform, outcome) in enumerate(zip(planted, pool.map(run_drill, planted), strict=True), 1):
            found, sentence, seconds = outcome
            is_right = found == platform.expected
            right += is_right
            planned = f"{platform.name:<10} grace {platform.grace_s:>3} s, save {platform.save_s:>5g} s"
            verdict = ", ".join(found) or "none"
            print(
                f"{number:>2} {'right' if is_right else 'WRONG'} {planned}  {verdict:<32} {seconds:4.0f} s", flush=True
            )
            if not is_right:
                print(f"   expected {', '.join(platform.expected) or 'none'}\n   {sentence}", flush=True)
    print(f"{right} of {options.count} verdicts right (seed {options.seed})")
    return 0 if right == options.count else 1


if __name__ == "__main__":
    sys.exit(main())
