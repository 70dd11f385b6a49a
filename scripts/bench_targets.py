"""Exports to all targets: agreement with PyTorch on raw samples, CPU time, and untuned models.

    python -m scripts.bench_targets agreement [--targets onnx triton tfserving] [--samples 1000] [--check]
    python -m scripts.bench_targets time [--targets …]
    python -m scripts.bench_targets models [--targets …] [--only resnet50 swin_tiny_patch4_window7_224]

`agreement` trains an image, a table and a text model on data by `--seed` (scripts/target_data.py), exports each to each
target, and compares what is read back with PyTorch on raw validation samples; with `--check` the target's own server is
started and sent the same samples. `time` is the CPU time of a whole `mlscale export` of a ResNet-18 of 224 pixels, all
its threads and processes, in turns: to ONNX, then to all targets at once. `models` takes twelve models of timm and
torchvision through a few steps of training, and exports each to each target: it agrees or is refused with the reason.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.target_data import TYPES, write_data

TIMM = (
    "resnet50", "convnext_atto", "mobilenetv3_small_100", "efficientnet_b0", "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224", "regnety_002", "densenet121",
)  # fmt: skip
TORCHVISION = ("shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "googlenet")
SIZED = {"swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"}
"""Models whose size is fixed when they are made."""


def main() -> int:
    """Run a part, print its table; exit code 1 where something does not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["agreement", "time", "models"])
    parser.add_argument("--targets", nargs="+", default=["onnx", "triton", "tfserving"])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--check", action="store_true", help="start each target's own server, and send it the samples")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="of the models")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        part = {"agreement": compare_types, "time": time_exports, "models": export_models}[args.part]
        return part(args, Path(scratch))


def compare_types(args: argparse.Namespace, folder: Path) -> int:
    """Print the agreement of each type and target."""
    print(f"{'type':6} {'target':10} {'samples':>7} {'decisions':>9} {'difference':>10}  its own server")
    failed = 0
    for kind in TYPES:
        words = write_data(kind, folder / kind, args.seed, val=args.samples)
        run = train_model(folder / f"{kind}-runs", *words, "trainer.max_epochs=3")
        for target in args.targets:
            check = ["check=server", f"check_samples={args.samples}"] if args.check else []
            code, out = run_command(folder, "export", run, f"target={target}", f"to={folder}/{kind}-{target}", *check)
            if code:
                print(f"{kind:6} {target:10} exit code {code}: {out}", flush=True)
                failed += 1
                continue
            metrics, name = json.loads(out)["metrics"], f"target_{target}"
            served = read_approval(folder / f"{kind}-{target}", target) if args.check else "not asked"
            print(
                f"{kind:6} {target:10} {metrics['samples']:7} {metrics[f'{name}_agreement']:9.2%} "
                f"{metrics[f'{name}_relative_error']:10.1e}  {served}",
                flush=True,
            )
    return int(failed > 0)


def read_approval(folder: Path, target: str) -> str:
    """Return in words who has approved a target."""
    from mlscale.contracts.servable_yaml import read_document

    entry = read_document(folder)["export_targets"][target]
    return f"{entry['approved_by']}, {entry['approved_samples']} samples"


def time_exports(args: argparse.Namespace, folder: Path) -> int:
    """Print the CPU time of exports of a ResNet-18."""
    words = write_data("image", folder / "image", args.seed, train=16, val=32)
    sized = ["data.image_size=224", "data.batch_size=4", "model=resnet18", "trainer.max_epochs=1"]
    run = train_model(folder / "runs", *words, *sized)
    seconds: dict[str, list[float]] = {"onnx": [], ",".join(args.targets): []}
    for number in range(args.rounds):
        for targets, taken in seconds.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            code, out = run_command(folder, "export", run, f"target=[{targets}]", f"to={folder}/{number}-{targets}")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if code:
                print(f"{targets}: exit code {code}: {out}")
                return 1
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for targets, taken in seconds.items():
        print(f"{targets:40} {statistics.median(taken):6.1f} CPU-s ({min(taken):.1f} to {max(taken):.1f})")
    return 0


def export_models(args: argparse.Namespace, folder: Path) -> int:
    """Print what became of each model at each target."""
    words = write_data("image", folder / "image", args.seed, train=16, val=32)
    failed = 0
    for name in (*TIMM, *TORCHVISION):
        if args.only and name not in args.only:
            continue
        size = 224 if name in SIZED else 96
        model = (
            ["model=timm", f"model.model_name={name}"]
            if name in TIMM
            else [
                "model=none",
                f"model._target_=torchvision.models.{name}",
                "+model.num_classes=${derived.num_classes}",
            ]
        )
        model += ["model.aux_logits=false"] if name == "googlenet" else []
        sized = [f"data.image_size={size}", "data.batch_size=8", "trainer.max_steps=2"]
        run = train_model(folder / name, *words, *model, *sized)
        for target in args.targets:
            code, out = run_command(folder, "export", run, f"target={target}", f"to={folder}/{name}-{target}")
            if code == 0:
                error = json.loads(out)["metrics"][f"target_{target}_relative_error"]
                print(f"{name:30} {target:10} relative error {error:.1e}", flush=True)
            else:
                failed += 1
                print(f"{name:30} {target:10} exit code {code}: {out}", flush=True)
    return int(failed > 0)


def train_model(runs: Path, *words: str) -> str:
    """Train, and return the run's folder.

    Raises:
        RuntimeError: the training failed.
    """
    code, out = run_command(runs.parent, *words, f"runs_dir={runs}", "snapshot=false", "logger=none")
    if code:
        raise RuntimeError(out)
    run: str = json.loads(out)["artifacts"]["run"]
    return run


def run_command(folder: Path, *words: str) -> tuple[int, str]:
    """Run `mlscale …`; return the exit code, and the result as JSON or the end of what it printed."""
    command = [sys.executable, "-m", "mlscale", *words, "output=json"]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return 0, done.stdout
    printed: Any = done.stdout and json.loads(done.stdout).get("sentence")
    return done.returncode, printed or " | ".join(done.stderr.splitlines()[-4:])


if __name__ == "__main__":
    sys.exit(main())
