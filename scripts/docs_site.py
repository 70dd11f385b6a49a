"""What mkdocs adds to the pages of docs/: each command's keys, the options, the reference, and the navigation.

A hook of mkdocs (`mkdocs.yml`). Nothing here is written by hand twice: the keys of a command are its help, options
their own files, the API its docstrings; the navigation follows the stages of `mlscale --help`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.commands import COMMANDS
from mlscale.commands.command import STAGES
from mlscale.config.schema.roots import BASE_GROUPS, COMMAND_BASES, find_roots
from mlscale.help import format_action_command_help, format_config_command_help
from scripts.docs_navigation import navigation
from scripts.error_messages import write_messages_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]

# The public API: page to what it documents.
REFERENCE = {
    "mlscale": (
        "mlscale.api.compose", "mlscale.api.run", "mlscale.model_loading.load",
        "mlscale.predict.loaded_model.LoadedModel", "mlscale.predict.loaded_model.Predictions",
    ),
    "results": ("mlscale.report.Result", "mlscale.errors.MLScaleError", "mlscale.errors.Exit"),
    "data": ("mlscale.data",),
    "tasks": ("mlscale.tasks",),
    "callbacks": ("mlscale.train.callbacks",),
    "loggers": ("mlscale.train.loggers",),
    "servable": (
        "mlscale.export.servable.load", "mlscale.export.servable.Servable", "mlscale.export.servable.Prediction",
    ),
    "registry": ("mlscale.versions.LocalRegistry", "mlscale.versions.Version"),
}  # fmt: skip
_TOP = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
# What the API's functions are called by whoever imports mlscale.
_CALLED = {
    "mlscale.api.compose": "mlscale.compose", "mlscale.api.run": "mlscale.run",
    "mlscale.model_loading.load": "mlscale.load",
}  # fmt: skip
_BASH = re.compile(r"^```bash\n.*?^```$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\[[^\]]*\])\((?!https?:|mailto:|#)([^)\s]+)\)")


def generated() -> dict[str, str]:
    """The pages that are made, by their place in the site."""
    pages = {"commands.md": commands_page(), "messages.md": write_messages_page()}
    pages["options.md"] = options_page()
    for name, targets in REFERENCE.items():
        pages[f"reference/{name}.md"] = "\n\n".join([f"# {name}", *map(_documented, targets), ""])
    rows = [
        f"| [{name}]({name}.md) | {', '.join(f'`{_CALLED.get(target, target)}`' for target in targets)} |"
        for name, targets in REFERENCE.items()
    ]
    pages["reference/index.md"] = "\n".join(["# Reference", "", "| page | of |", "|---|---|", *rows, ""])
    for source, target in _TOP.items():
        pages[target] = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
    for card in sorted((ROOT / "recipes/cards").glob("*.md")):
        pages[f"recipes/{card.name}"] = card.read_text(encoding="utf-8")
    pages["notebook.md"] = notebook_page(ROOT / "docs/notebook.ipynb")
    return pages


def commands_page() -> str:
    """Return a table of the commands for each stage."""
    parts = ["# Commands"]
    for stage, purpose in STAGES.items():
        members = [(name, command) for name, command in COMMANDS.items() if command.stage == stage]
        rows = [f"| [`mlscale {name}`]({name}.md) | {command.summary} |" for name, command in members]
        parts.append("\n".join([f"## {stage.capitalize()}\n\n{purpose}\n\n| command | |\n|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def keys_of(name: str) -> str:
    """Return what a command takes, as its help has it, for the end of its page."""
    if name in COMMAND_BASES:
        return _fenced(format_config_command_help(name, find_roots()))
    return "\n\n".join(_fenced(format_action_command_help(name, [action])) for action in COMMANDS[name].actions)


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def options_page() -> str:
    """Every option of every group: its own file, which says what it is and when to choose it."""
    files = find_roots().files
    order = [*BASE_GROUPS, *(name for name in files if name not in ("base", *BASE_GROUPS))]
    parts = ["# Options\n\n`group=option` swaps, `group.key=value` sets. What stands here is the files themselves."]
    for group in order:
        if group in files:
            parts.append(f"## {group}")
            parts += [
                f"### {group}={option}\n\n```yaml\n{path.read_text(encoding='utf-8').rstrip()}\n```"
                for option, path in sorted(files[group].items())
            ]
    return "\n\n".join(parts) + "\n"


def notebook_page(path: Path) -> str:
    """A notebook's texts and code."""
    parts = [
        "".join(cell["source"])
        if cell["cell_type"] == "markdown"
        else "```python\n" + "".join(cell["source"]) + "\n```"
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]
    return "\n\n".join([*parts, f"[The notebook]({path.name}) itself; the tests run it."]) + "\n"


def _documented(target: str) -> str:
    """A class or function; of a package, what it offers."""
    if name := _CALLED.get(target):
        return f"::: {target}\n    options: {{heading: {name}, toc_label: {name}}}"
    if target.split(".")[-1][0].isupper() or (
        target.count(".") > 1 and target not in ("mlscale.train.callbacks", "mlscale.train.loggers")
    ):
        return f"::: {target}"
    return f"::: {target}\n    options: {{show_root_heading: false, members: true, filters: ['!^_']}}"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """mkdocs: the navigation."""
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    config.nav = navigation(written | set(generated()))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """mkdocs: the pages that are made."""
    from mkdocs.structure.files import File

    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """mkdocs: links to what is no page: a folder of pages is its index, a file of the repository is named as one.

    Why the tests leave a command out is their business: a reader is told what it needs.
    """
    here = Path(page.file.src_uri).parent

    def follow(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        place, mark, anchor = target.partition("#")
        inside = _normal(here / place)
        if files.get_file_from_path(inside):
            return match[0]
        for index in ("README.md", "index.md"):
            if files.get_file_from_path(f"{inside}/{index}"):
                return f"{text}({place.rstrip('/')}/{index}{mark}{anchor})"
        name = Path(place).name
        if name in _TOP:
            up = "../" * len(here.parts)
            return f"{text}({up}{_TOP[name]}{mark}{anchor})"
        return text[1:-1]

    if page.file.src_uri.removesuffix(".md") in COMMANDS:
        markdown += f"\n\n## Keys\n\n{keys_of(page.file.src_uri.removesuffix('.md'))}\n"
    told = _BASH.sub(lambda block: block[0].replace("# not run: ", "# "), markdown)
    return _outside_code(told, lambda part: _LINK.sub(follow, part))


def _outside_code(markdown: str, change: Any) -> str:
    """Apply `change` to what is no fenced block."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1] if parts else [".."]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
