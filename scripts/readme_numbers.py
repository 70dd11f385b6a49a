"""Write the table of README.md's section 'Measured' from the dated entries of docs/benchmarks.md.

    python -m scripts.readme_numbers [--check]

An entry is a comment below what was measured, with its date and values; a range has both of its ends:

    <!-- readme 2026-11-29 photos_in_process=2.01 photos_in_process=2.17 checkpoint_stall_ms=8.4..66 -->

Of each name the entries of its last date count, all of them: the table has the least and the most. `--check` writes
nothing, and ends with 1 where README.md has another table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, BENCHMARKS = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: python -m scripts.readme_numbers -->\n", "<!-- end -->"
_ENTRY = re.compile(r"^<!-- readme (\d{4}-\d{2}-\d{2})((?: \w+=\S+)+) -->$", re.MULTILINE)
_ANY_ENTRY = re.compile(r"<!-- *readme\b.*")
_ROWS = (
    (
        "Time to the first step, compared with Lightning",
        "start",
        "{first_step_1_rank} × on one rank, {first_step_8_ranks} × on eight",
    ),
    (
        "A training step, compared with a loop by hand",
        "overhead-of-a-training-step",
        "ResNet-18: {step_resnet18} ×; a tiny MLP: {step_tiny} ×, Lightning barebones {step_tiny_lightning} ×",
    ),
    (
        "Loading photographs, compared with webdataset",
        "data",
        "{photos_1_worker} × less CPU time than with one worker, {photos_in_process} × in process",
    ),
    (
        "A checkpoint of 100 MB every 5 s",
        "checkpoints-during-a-training",
        "{checkpoint_speed} × the speed without; a save waits {checkpoint_stall_ms} ms, {checkpoint_stall} × as long "
        "as Lightning's",
    ),
    ("Runs killed at random, resumed and compared", "resume", "{resume_identical} of 100 identical, five layouts"),
    ("Estimated peak memory", "estimates", "off by {estimate_percent} % over {estimate_runs} runs, on a CPU"),
    (
        "Serving JSON, CPU time of a request, compared with FastAPI",
        "serving",
        "{serve_json_1_client} × with one client; {serve_json_8_clients} × with 8 and {serve_json_32_clients} × with 32"
        ", before checks of each request that cost {serve_checks_percent} % more",
    ),
)


def read_entries(text: str) -> dict[str, str]:
    """Return the value of each name in text: of its last date the least to the most.

    Raises:
        ValueError: an entry has another form.
    """
    if len(_ANY_ENTRY.findall(text)) != len(_ENTRY.findall(text)):
        form = "<!-- readme 2026-11-29 name=1.5 other=2..3 -->"
        raise ValueError(f"an entry is {form}, and not one of {_ANY_ENTRY.findall(text)}")
    dated: dict[str, dict[str, list[str]]] = {}
    for date, values in _ENTRY.findall(text):
        for name, value in (pair.split("=") for pair in values.split()):
            dated.setdefault(name, {}).setdefault(date, []).extend(value.split(".."))
    return {name: _format_range(by_date[max(by_date)]) for name, by_date in dated.items()}


def _format_range(values: list[str]) -> str:
    least, most = (end(values, key=float).replace("-", "−") for end in (min, max))
    return least if least == most else f"{least} to {most}"


def render_readme(readme: str, benchmarks: str) -> str:
    """Return README.md with the table of these benchmarks."""
    values = read_entries(benchmarks)
    rows = [
        f"| {name} | [{template.format(**values)}](docs/benchmarks.md#{anchor}) |" for name, anchor, template in _ROWS
    ]
    before, rest = readme.split(BEGIN)
    return "\n".join([before + BEGIN + "| | result |", "|---|---|", *rows, END]) + rest.split(END, 1)[1]


def main() -> int:
    readme = README.read_text()
    rendered = render_readme(readme, BENCHMARKS.read_text())
    if "--check" in sys.argv[1:]:
        if rendered != readme:
            print(
                "README.md has other numbers than docs/benchmarks.md: python -m scripts.readme_numbers", file=sys.stderr
            )
        return int(rendered != readme)
    README.write_text(rendered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
