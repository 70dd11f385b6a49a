"""Compare two ONNX models of a known ratio beside busy processes: wall-clock medians against `compare_times`.

    python -m scripts.check_timing --busy 4 --repeats 10

The models are products with a 384 × 384 matrix, 12 of them against 10, so one has 1.2 times the work of the other; the
same pair at batch 1 and 1,024, which takes longer than a time slice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.stats.timing import compare_times, is_interval_at_least

WIDTH = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=4, help="processes that compute meanwhile")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(100000))"]) for _ in range(given.busy)]
    try:
        for batch in (1, 1024):
            report(batch, given.repeats)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def report(batch: int, repeats: int) -> None:
    """Print the range of both measures, and how each decides whether the ratio is at least 1.05."""
    x = np.random.default_rng(0).normal(size=(batch, WIDTH)).astype(np.float32)
    calls: list[Callable[[], object]] = [lambda engine=engine: engine.run(x) for engine in engines(12, 10)]  # type: ignore[misc]
    wall = [wall_ratio(*calls) for _ in range(repeats)]
    start = time.perf_counter()
    found = [compare_times(calls[0], calls[1], bound=1.05) for _ in range(repeats)]
    took = (time.perf_counter() - start) / repeats
    cpu = [each.ratio.value for each in found]
    verdicts = {
        str(word): sum(is_interval_at_least(each.ratio, 1.05) is word for each in found) for word in (True, False, None)
    }
    below = sum(each < 1.05 for each in wall)
    print(f"batch {batch}: wall-clock medians {min(wall):.2f} to {max(wall):.2f}, {below} below 1.05")
    print(f"batch {batch}: CPU time {min(cpu):.2f} to {max(cpu):.2f}, at least 1.05: {verdicts}, {took:.1f} s each")


def wall_ratio(*calls: Callable[[], object]) -> float:
    """Medians by the wall clock of calls that take turns, for a second."""
    times: list[list[float]] = [[], []]
    start = time.perf_counter()
    while len(times[0]) < 30 or (time.perf_counter() - start < 1 and len(times[0]) < 1000):
        for call, taken in zip(calls, times, strict=True):
            before = time.perf_counter()
            call()
            taken.append(time.perf_counter() - before)
    return median(times[0]) / median(times[1])


def engines(*layers: int) -> list[OnnxEngine]:
    """A model of that many equal layers each."""
    from onnx import TensorProto, helper, numpy_helper

    weights = (
        np.eye(WIDTH, dtype=np.float32) + np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32) / 1e3
    )
    found = []
    for count in layers:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x0", f"x{count}")
        ]
        nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(count)]
        held = [numpy_helper.from_array(weights, f"w{i}") for i in range(count)]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
        content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        found.append(OnnxEngine(content.SerializeToString()))
    return found


if __name__ == "__main__":
    main()
