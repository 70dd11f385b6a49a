"""Write what commands print into the pages that show it, below `<!-- output of: mlscale … -->`.

    python -m scripts.docs_outputs                 # minutes: every page
    python -m scripts.docs_outputs csv.md          # the pages that are run from top to bottom, or `commands`

The commands are run here. Long lines and long outputs are cut, and a folder of this machine becomes `~`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from scripts.docs_commands import ROOT
from scripts.run_page import Typed, run_page, type_commands

PAGES = ("csv.md", "photos.md", "lightning-module.md")
_WIDTH, _FIRST, _LAST = 118, 7, 16  # characters; lines
_MARKED = re.compile(
    r"<!-- output of: (?P<command>.+?) -->\n```text\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL
)
_DIGITS = """python -c "
from pathlib import Path; from PIL import Image; from sklearn.datasets import load_digits
Path('photos').mkdir()
for n, x in enumerate(load_digits().images[:40]): Image.fromarray((x * 15.9).astype('uint8')).save(f'photos/{n:02}.png')
" """
# One folder, in this order: later commands speak of what earlier ones have made.
COMMANDS = (
    "mlscale env",
    "mlscale recipes ls",
    "mlscale config check +recipe=resnet optimizer.lr=0.1 trainer.max_epoch=3 || true",
    "mlscale config show +recipe=resnet optimizer",
    "mlscale init my-net",
    "mlscale data show data=digits",
    "mlscale prepare data=digits",
    "mlscale estimate +recipe=resnet",
    "mlscale +recipe=resnet trainer.max_epochs=3",
    "mlscale +recipe=resnet model=mlp trainer.max_epochs=3",
    "mlscale runs ls",
    "mlscale evaluate last",
    _DIGITS,
    "mlscale predict last input=photos to=preds",
    "mlscale compress last compress=int8",
    "mlscale export last",
    "mlscale versions add last servable=true alias=champion",
    "mlscale versions ls",
    "mlscale serve resnet@champion &",
    "mlscale loadtest http://127.0.0.1:8000 slo.p99_ms=50 || true",
    "mlscale monitor resnet@champion || true",
    "mlscale completion bash",
)


def main(pages: Sequence[str]) -> None:
    """Run what is asked for, and write the outputs into the pages."""
    for page in pages or PAGES:
        if page in PAGES:
            with tempfile.TemporaryDirectory(prefix="page-") as name:
                write_outputs(ROOT / "docs" / page, run_page(ROOT / "docs" / page, Path(name)), Path(name))
    if not pages or "commands" in pages:
        with tempfile.TemporaryDirectory(prefix="page-") as name:
            typed = type_commands(COMMANDS, Path(name))
            for path in sorted((ROOT / "docs").glob("*.md")):
                if path.name not in PAGES:
                    write_outputs(path, typed, Path(name))


def write_outputs(page: Path, typed: Sequence[Typed], folder: Path) -> None:
    """Put what was printed into the marked blocks of a page; a block of a command that was not run stays."""
    printed = {each.command.removesuffix(" || true").removesuffix(" &"): each.output for each in typed}

    def fill(match: re.Match[str]) -> str:
        if match["command"] not in printed:
            return match[0]
        text = shorten(hide_paths(f"$ {match['command']}\n{printed[match['command']]}", folder))
        return f"<!-- output of: {match['command']} -->\n```text\n{text}\n```"

    before = page.read_text(encoding="utf-8")
    after = _MARKED.sub(fill, before)
    if after != before:
        page.write_text(after, encoding="utf-8")
        print(f"docs/{page.name}", flush=True)


def hide_paths(text: str, folder: Path) -> str:
    """Return a text without the paths of this machine: a reader's project and environment are in their home."""
    for path, shown in ((sys.prefix, "~/.venv"), (str(folder), "~"), (str(Path.home()), "~")):
        text = text.replace(path, shown)
    return text


def shorten(text: str) -> str:
    """Return the first and last lines of a text, each of a width that a page shows; a line of JSON is wrapped."""
    lines: list[str] = []
    for line in text.splitlines():
        is_json = line.startswith("{")
        lines += wrap(line, _WIDTH, subsequent_indent=" ") if is_json else [_cut(line)]
    return "\n".join(lines if len(lines) <= _FIRST + _LAST else [*lines[:_FIRST], "…", *lines[-_LAST:]]).rstrip()


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def list_outputs(page: Path) -> list[tuple[str, str]]:
    """Return the commands whose output a page shows, with the output."""
    return [(match["command"], match["text"]) for match in _MARKED.finditer(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    main(sys.argv[1:])
