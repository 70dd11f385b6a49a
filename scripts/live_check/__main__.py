"""Try mlscale against what this machine has, and write what was proven, by what, and when.

    python -m scripts.live_check [--only targets providers precision gpu wandb] [--write docs/proven.md] [--samples 256]

- `targets`: an image, a table and a text model are exported to Triton and TensorFlow Serving. Each is read
  back by the target's runtime and compared with torch; and the target's own server, where it is installed as a binary
  or as a container image that was pulled, answers raw samples as the servable does (`mlscale export … check=server`).
- `providers`: `mlscale serve provider=cuda|tensorrt` computes what the CPU does.
- `precision`: short runs in bf16 and fp16 next to fp32 on the CPU, three recipes, compared on the same samples by
  `mlscale evaluate … against=…`: the interval of the difference, and the test of it.
- `gpu`: the tests marked `gpu`, whole runs in these precisions on the GPU, with memory and step time, and the share of
  the time that the GPU is busy.
- `wandb`: a run and a version are sent to W&B, with the key of the environment.

What is not here is listed as such: nothing is assumed. Exit code 1 where something that is here does not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from scripts.live_check.finding import Finding, format_findings, merge_findings
from scripts.live_check.gpu_checks import check_gpu
from scripts.live_check.precision_checks import check_cpu_precision
from scripts.live_check.server_checks import check_providers, check_targets
from scripts.live_check.tracker_checks import check_wandb

PARTS: dict[str, Callable[[Path, int], Iterable[Finding]]] = {
    "targets": check_targets,
    "providers": check_providers,
    "precision": check_cpu_precision,
    "gpu": check_gpu,
    "wandb": check_wandb,
}


def main() -> int:
    """Run the parts, print and write their findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--write", type=Path, help="the page whose table is brought up to date")
    parser.add_argument("--samples", type=int, default=256, help="raw samples of each type")
    args = parser.parse_args()
    findings = []
    for part in args.only:
        with tempfile.TemporaryDirectory(prefix="mlscale-live-") as folder:
            for finding in PARTS[part](Path(folder), args.samples):
                print(finding.format_line(), flush=True)
                findings.append(finding)
    if args.write:
        before = args.write.read_text(encoding="utf-8") if args.write.exists() else ""
        args.write.write_text(merge_findings(before, format_findings(findings)), encoding="utf-8")
    return int(any(finding.status == "failed" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
