"""Plant faults into exported ONNX models, and see whether `find_first_difference` names the place.

    python -m scripts.bench_layer_bisect --seed 1

Twelve faults of different kinds, in models and places that the seed draws, each strong enough that `export` would
refuse the file; and twelve clean models, in fp32 and int8. Time is CPU time, divided by that of exporting the same
model in the same process, once the packages are loaded.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.export.engines.onnx_engine import import_onnx_runtime
from mlscale.export.layer_bisect import LayerDifference, find_first_difference, measure_error
from scripts.layer_faults.exported_cases import Case, build_case
from scripts.layer_faults.fault_kinds import ALL, DRAWN, REQUIRED
from scripts.layer_faults.planted_fault import Fault, Plant

_VISIBLE = 2e-4
"""Of the largest output: a fault below it is none that `export` finds."""
_VISIBLE_INT8 = 2.0
"""The same for int8, in units of what eight bits change without a fault."""


def run_model(content: bytes, samples: NDArray[Any]) -> NDArray[Any] | None:
    """Return the logits; None where ONNX Runtime refuses the model."""
    runtime = import_onnx_runtime()
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        logits: NDArray[Any] = session.run(None, {"input": samples})[0]
    except Exception:  # onnxruntime's errors share no base
        return None
    return logits


def plant_fault(kinds: tuple[list[str], Plant], draw: random.Random) -> tuple[str, Fault] | None:
    """Return a fault that a comparison of the outputs notices, and its model."""
    for _ in range(20):
        name = draw.choice(kinds[0])
        case = build_case(name)
        fault = kinds[1](case, draw)
        if fault is None:
            continue
        logits = run_model(fault.content, case.samples)
        with torch.no_grad():
            expected = case.model(torch.from_numpy(case.samples)).numpy()
        limit = _VISIBLE
        if fault.clean is not None:
            limit = _VISIBLE_INT8 * measure_error(expected, run_model(fault.clean, case.samples))
        if logits is not None and measure_error(expected, logits) > limit:
            return name, fault
    return None


def search(case: Case, content: bytes) -> tuple[LayerDifference | None, float]:
    """Return what is found, and its CPU time divided by that of the export."""
    start = time.process_time()
    found = find_first_difference(case.model, content, {"input": case.samples})
    return found, (time.process_time() - start) / case.export_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, help="of the faults and their places")
    draw = random.Random(parser.parse_args().seed)
    build_case("table net")
    kinds = {**REQUIRED, **dict(draw.sample(list(DRAWN.items()), len(DRAWN)))}
    right = total = 0
    ratios: list[float] = []
    used: set[str] = set()
    for kind, where in kinds.items():
        if total == 12 or (planted := plant_fault(where, draw)) is None:
            continue
        name, fault = planted
        found, ratio = search(build_case(name), fault.content)
        is_right = found is not None and (fault.nodes & set(found.nodes) or found.module_path in fault.modules)
        total, right = total + 1, right + bool(is_right)
        ratios.append(ratio)
        used.add(name)
        print(f"{'right' if is_right else 'WRONG'}  {kind:26} {name:24} {ratio:4.2f}×  {fault.what}", flush=True)
        print(f"       {found.sentence if found else 'nothing found'}", flush=True)
    clean = [(name, "fp32", build_case(name).fp32) for name in ALL]
    clean += [("resnet", "int8, static", build_case("resnet").quantize("static"))]
    clean += [("unet", "int8, static", build_case("unet").quantize("static"))]
    clean += [("vit", "int8, dynamic", build_case("vit").quantize("dynamic"))]
    named = 0
    for name, precision, content in clean:
        found, ratio = search(build_case(name), content)
        named += found is not None
        ratios.append(ratio)
        print(f"{'NAMED' if found else 'clean'}  {precision:26} {name:24} {ratio:4.2f}×", flush=True)
        if found:
            print(f"       {found.sentence}", flush=True)
    print(
        f"{right} of {total} faults named right, in {len(used)} models; {named} of {len(clean)} clean models named; "
        f"{np.median(ratios):.2f}× the time of an export [{min(ratios):.2f}, {max(ratios):.2f}]"
    )


if __name__ == "__main__":
    main()
