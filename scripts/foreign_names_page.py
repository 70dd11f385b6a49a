"""Writes docs/names.md from the table of names of other programs.

python -m scripts.foreign_names_page
"""

from __future__ import annotations

from pathlib import Path

import yaml

PAGE = Path(__file__).resolve().parents[1] / "docs/names.md"
TABLE = Path(__file__).resolve().parents[1] / "mlscale/config/names/foreign_names.yaml"
HEAD = """# Names from other programs

What Lightning, Hugging Face's `TrainingArguments`, timm, Ultralytics, lightning-hydra-template, Keras and MMEngine
call a setting, and what it is called here. Case, `_` and `-` do not count; flags are typed as settings, `key=value`.
A key takes the value as it was typed, a group the option that it names (`--lr_scheduler_type cosine` is
`scheduler=cosine`); an override is for who switches the name on. These are the usual names, not all: `mlscale config
show` prints every key that a run has, [Configuration](configuration.md) describes the groups, a class of your own is
`_target_`.

| here | elsewhere |
|---|---|
"""


def write_page() -> str:
    """Return the page as Markdown."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    rows = [f"| {_show(meaning)} | {', '.join(map(_show, names))} |" for meaning, names in table.items()]
    return HEAD + "\n".join(rows) + "\n"


def _show(name: str) -> str:
    """Return a key or overrides as code; a sentence and a command as they are."""
    return f"`{name}`" if all("=" in word for word in name.split(" ")) or " " not in name else name


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
