"""What mkdocs adds to the pages of docs/: a page for each verb, the options, the reference, and the navigation.

A hook of mkdocs (`mkdocs.yml`). Nothing here is written by hand twice: verbs tell their own help, options their own
files, the API its docstrings.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from mlscale.commands import COMMANDS
from mlscale.config.composition.roots import BASE_GROUPS, VERB_CONFIGS, find_roots
from mlscale.help import of_verb

ROOT = Path(__file__).resolve().parents[1]

# The page that tells more of a verb than its help does.
MORE = {
    "train": "training.md", "prepare": "data.md", "config": "configuration.md", "recipes": "cookbook.md",
    "runs": "resume.md",
}  # fmt: skip

# Title, page; a page that is not there (yet) is left out, one that nobody lists comes at the end.
NAV: dict[str, tuple[tuple[str, str], ...]] = {
    "Start": (
        ("mlscale", "index.md"),
        ("Tutorial", "tutorial.md"),
        ("Start a project", "init.md"),
        ("Python and notebooks", "python.md"),
        ("A notebook", "notebook.md"),
        ("From lightning-hydra-template", "coming-from-lightning-hydra-template.md"),
        ("From plain Lightning", "coming-from-lightning.md"),
    ),
    "Train": (
        ("Configuration", "configuration.md"),
        ("Cookbook", "cookbook.md"),
        ("Extending mlscale", "extending.md"),
        ("Data", "data.md"),
        ("Tasks", "tasks.md"),
        ("The staples", "training.md"),
        ("Precision", "precision.md"),
        ("Fine-tuning", "finetuning.md"),
        ("Trackers", "trackers.md"),
        ("Debugging", "debugging.md"),
        ("Going on with a run", "resume.md"),
        ("Checkpoints", "checkpoints.md"),
        ("verify-resume", "verify-resume.md"),
        ("Estimates", "estimate.md"),
        ("Profile", "profile.md"),
    ),
    "Use": (
        ("The whole way", "lifecycle.md"),
        ("Evaluate", "evaluate.md"),
        ("Predict", "predict.md"),
        ("Compress", "compress.md"),
        ("Export", "export.md"),
        ("Versions", "versions.md"),
        ("Serving", "serve.md"),
        ("Load tests", "loadtest.md"),
        ("Events", "events.md"),
        ("Monitoring", "monitor.md"),
        ("Retraining", "retrain.md"),
    ),
    "Look up": (("Options", "options.md"), ("Exit codes", "errors.md")),
    "About": (
        ("Architecture", "architecture.md"),
        ("Benchmarks", "benchmarks.md"),
        ("What did not help", "negative-results.md"),
        ("Changes", "changelog.md"),
        ("Contributing", "contributing.md"),
        ("Security", "security.md"),
    ),
}

# The public API: page to what it documents.
REFERENCE = {
    "mlscale": (
        "mlscale.api.compose", "mlscale.api.train", "mlscale.api.run", "mlscale.model_loading.load",
        "mlscale.model_loading.Predictor",
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
    "mlscale.api.compose": "mlscale.compose", "mlscale.api.train": "mlscale.train", "mlscale.api.run": "mlscale.run",
    "mlscale.model_loading.load": "mlscale.load",
}  # fmt: skip
_BASH = re.compile(r"^```bash\n.*?^```$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\[[^\]]*\])\((?!https?:|mailto:|#)([^)\s]+)\)")


def generated() -> dict[str, str]:
    """The pages that are made, by their place in the site."""
    pages = {f"verbs/{name}.md": verb_page(name) for name in COMMANDS}
    rows = [f"| [`{name}`]({name}.md) | {verb.summary} |" for name, verb in COMMANDS.items()]
    pages["verbs/index.md"] = "\n".join(["# Verbs", "", "| verb | what it does |", "|---|---|", *rows, ""])
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


def verb_page(name: str) -> str:
    """A verb's help, its examples as commands."""
    verb = COMMANDS[name]
    examples = "\n".join(f"| `{command}` | {what} |" for command, what in verb.examples)
    more = MORE.get(name, f"{name}.md")
    link = f"[More about it](../{more})\n\n" if (ROOT / "docs" / more).is_file() else ""
    summary = f"{verb.summary[0].upper()}{verb.summary[1:]}."
    text = f"# mlscale {name}\n\n{summary}\n\n{link}| command | |\n|---|---|\n{examples}\n"
    if name in VERB_CONFIGS:
        told = of_verb(name, find_roots())
        rest = told[told.index("examples:") :].partition("\n\n")[2]  # settings, groups, flags
        text += f"\n## Settings\n\n```yaml\n{rest}\n```\n"
    return text


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


def navigation(pages: set[str]) -> list[dict[str, Any]]:
    """The navigation, of pages that are there; those that no section lists come under 'More'."""
    nav: list[dict[str, Any]] = []
    for section, entries in NAV.items():
        there: list[dict[str, Any]] = [{title: page} for title, page in entries if page in pages]
        if section == "Look up":
            there.insert(0, {"Verbs": ["verbs/index.md", *({name: f"verbs/{name}.md"} for name in COMMANDS)]})
            there.append(
                {"Recipes": [{Path(page).stem: page} for page in sorted(pages) if page.startswith("recipes/")]}
            )
            there.append({"Reference": ["reference/index.md", *({name: f"reference/{name}.md"} for name in REFERENCE)]})
        if section == "About":
            decisions = sorted(page for page in pages if page.startswith("decisions/0"))
            there.append({"Decisions": ["decisions/README.md", *decisions]})
        nav.append({section: there})
    listed = set(re.findall(r"'([\w./-]+\.md)'", str(nav)))
    if rest := sorted(pages - listed):
        nav.append({"More": rest})
    return nav


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """mkdocs: the navigation."""
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    config.nav = navigation(written | set(generated()))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """mkdocs: the pages that are made."""
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
