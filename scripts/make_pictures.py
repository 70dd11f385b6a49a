"""Make the pictures of the README and of docs/gallery.md again, from real commands and real reports.

    pip install pyte                                   # a terminal's screen, as an object; chromium makes the pictures
    python -m scripts.make_pictures                    # minutes: all of them, into docs/assets/
    python -m scripts.make_pictures cast               # the terminal alone; or reports

The terminal is recorded through a pseudo terminal, and played by an SVG without a script: CSS shows its frames one
after the other, and the last one alone where animations are turned off. A report is the page that a command wrote, in
chromium.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageChops

from scripts.terminal_svg import Frame, draw_cast, read_frames

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs/assets"
LIMIT = 200_000  # bytes of a picture
TYPED = (
    "mlscale +recipe=resnet trainer.max_epoch=5",
    "mlscale +recipe=resnet trainer.max_epochs=5",
    "mlscale export last",
)
# The reports of the gallery: the picture's name, the commands that make the page, the page. All of them in one folder.
REPORTS = (
    ("train", ("mlscale +recipe=resnet trainer.max_epochs=6",), "runs/*/resnet-*/results/train.html"),
    ("evaluate", ("mlscale evaluate last",), "runs/*/resnet-*/results/evaluate.html"),
    ("export", ("mlscale export last",), "runs/*/resnet-*/results/export.html"),
    ("data", ("mlscale data sample +recipe=resnet augment=shift page=sample.html",), "sample.html"),
    ("profile", ("mlscale profile last profile.seconds=2",), "runs/*/resnet-*/results/profile.html"),
)


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["cast", "reports"], help="cast, reports")
    options = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        folder = Path(name)
        if "cast" in options.what:
            save(ASSETS / "terminal.svg", draw_cast(record(TYPED, folder / "cast")).encode())
        if "reports" in options.what:
            make_reports(folder / "reports")


def save(path: Path, content: bytes) -> None:
    """Write a picture, and print its size; one that is too large is an error."""
    assert len(content) <= LIMIT, f"{path.name} has {len(content):,} bytes, more than {LIMIT:,}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    print(f"{path.relative_to(ROOT)}: {len(content):,} bytes", flush=True)


def record(commands: Sequence[str], folder: Path) -> list[Frame]:
    """Type the commands in a terminal of 100 columns; return what it showed, and for how long."""
    folder.mkdir()
    chunks: list[tuple[float, bytes]] = []
    at = 0.0
    for command in commands:
        at += 0.8
        chunks.append((at, b"\x1b[32m$\x1b[0m "))
        for letter in command:
            at += 0.04
            chunks.append((at, letter.encode()))
        at += 0.4
        chunks.append((at, b"\r\n"))
        for moment, data in run_in_terminal(command, folder):
            chunks.append((at + moment, data.replace(os.fsencode(folder), b"~")))
        at = chunks[-1][0] + 2.0
    return read_frames(chunks, columns=100, rows=30)


def run_in_terminal(command: str, folder: Path) -> Iterable[tuple[float, bytes]]:
    """Yield what a command prints on a terminal, with the seconds since its start; pauses are at most half a second."""
    main_end, other_end = pty.openpty()
    env = {**os.environ, **_environment(folder), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        ["bash", "-c", f"stty cols 100 rows 30; exec {command}"], cwd=folder, env=env, start_new_session=True,
        stdin=other_end, stdout=other_end, stderr=other_end,
    )  # fmt: skip
    os.close(other_end)
    elapsed, last = 0.0, time.monotonic()
    while True:
        try:
            data = os.read(main_end, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not data:
            break
        now = time.monotonic()
        elapsed, last = elapsed + min(now - last, 0.5), now
        yield elapsed, data
    os.close(main_end)
    process.wait()


def make_reports(folder: Path) -> None:
    """Run the commands, and take a picture of each page."""
    folder.mkdir()
    for name, commands, page in REPORTS:
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env={**os.environ, **_environment(folder)}, text=True,
                stdin=subprocess.DEVNULL, capture_output=True,
            )  # fmt: skip
            assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        (written,) = folder.glob(page)
        for scheme in ("light", "dark") if name == "train" else ("light",):
            save(ASSETS / f"{name}-{scheme}.png", take_picture(written, scheme, folder))


def take_picture(page: Path, scheme: str, folder: Path) -> bytes:
    """Return the top of a page as a PNG of few colours, without paths of this machine and empty space below."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "chromium is not installed: apt-get install chromium"
    shown, shot = folder / "shown.html", folder / "shot.png"
    shown.write_text(page.read_text(encoding="utf-8").replace(str(folder), "~"), encoding="utf-8")
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--hide-scrollbars", *dark, f"--screenshot={shot}",
         f"--user-data-dir={folder / 'chromium'}", "--window-size=1040,1300", shown.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with Image.open(shot) as opened:
        image = opened.convert("RGB")
    background = Image.new("RGB", image.size, image.getpixel((0, 0)))
    written = ImageChops.difference(image, background).getbbox() or (0, 0, *image.size)
    image = image.crop((0, 0, image.width, min(image.height, written[3] + 24)))
    image.quantize(128, dither=Image.Dither.NONE).save(shot, optimize=True)
    return shot.read_bytes()


def _environment(folder: Path) -> dict[str, str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": programs, "PYTHONPATH": "", "MLSCALE_CACHE": str(folder.parent / "cache")}


if __name__ == "__main__":
    main()
