"""The navigation of the site: by the stages of `mlscale --help`, under the titles that people search for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlscale.commands import COMMANDS

# Title, page; a page that does not exist yet is left out, an unlisted one comes last. The pages of a stage
# come after those of its commands.
NAV: dict[str, tuple[tuple[str, str], ...]] = {
    "Start": (
        ("mlscale", "index.md"),
        ("Tutorial", "tutorial.md"),
        ("Training on a CSV file", "csv.md"),
        ("Image classification on your photos", "photos.md"),
        ("Serving a LightningModule", "lightning-module.md"),
        ("Reports: a gallery", "gallery.md"),
        ("Python and notebooks", "python.md"),
        ("A notebook", "notebook.md"),
        ("Compared with other frameworks", "comparison.md"),
        ("From lightning-hydra-template", "coming-from-lightning-hydra-template.md"),
        ("From plain Lightning", "coming-from-lightning.md"),
    ),
    "Train": (
        ("Configuration", "configuration.md"),
        ("Names from other programs", "names.md"),
        ("Cookbook", "cookbook.md"),
        ("Extending mlscale", "extending.md"),
        ("Custom datasets", "custom-datasets.md"),
        ("Data", "data.md"),
        ("Images by a table", "image-tables.md"),
        ("Text: tokenizers, token files and packing", "text.md"),
        ("S3, GCS, Azure", "remote.md"),
        ("The loader in a loop of your own", "loader.md"),
        ("Tasks", "tasks.md"),
        ("Training options", "training.md"),
        ("GPU", "gpu.md"),
        ("Precision", "precision.md"),
        ("Fine-tuning", "finetuning.md"),
        ("Models of Hugging Face transformers", "transformers.md"),
        ("Experiment trackers", "trackers.md"),
        ("Debugging", "debugging.md"),
        ("Multi-node training", "launch.md"),
        ("FSDP", "fsdp.md"),
        ("Resuming a run", "resume.md"),
        ("Checkpoints", "checkpoints.md"),
        ("SLURM", "slurm.md"),
        ("Kubernetes", "kubernetes.md"),
        ("Docker", "docker.md"),
        ("SkyPilot: cloud and spot instances", "skypilot.md"),
    ),
    "Measure": (),
    "Ship": (
        ("Export targets", "targets.md"),
        ("Triton", "triton.md"),
        ("TensorFlow Serving", "tensorflow-serving.md"),
    ),
    "Operate": (("Deploying a server", "deploy.md"), ("Events", "events.md")),
    "Inspect": (),
    "Look up": (
        ("Commands", "commands.md"),
        ("Options", "options.md"),
        ("Exit codes", "errors.md"),
        ("Machine-readable output", "output.md"),
        ("Error messages", "messages.md"),
    ),
    "About": (
        ("Architecture", "architecture.md"),
        ("Benchmarks", "benchmarks.md"),
        ("What was proven, by what", "proven.md"),
        ("What did not help", "negative-results.md"),
        ("Changes", "changelog.md"),
        ("Contributing", "contributing.md"),
        ("Security", "security.md"),
    ),
}


def navigation(pages: set[str]) -> list[dict[str, Any]]:
    """The navigation, of pages that are there; those that no section lists come under 'More'."""
    nav: list[dict[str, Any]] = []
    for section, entries in NAV.items():
        there: list[Any] = [{title: page} for title, page in entries if page in pages]
        of_stage = [name for name, command in COMMANDS.items() if command.stage == section.lower()]
        there = [f"{name}.md" for name in of_stage if f"{name}.md" in pages] + there  # by their own titles
        if section == "Look up":
            there.append(
                {"Recipes": [{Path(page).stem: page} for page in sorted(pages) if page.startswith("recipes/")]}
            )
            there.append(
                {
                    "Reference": [
                        "reference/index.md",
                        *sorted(page for page in pages if re.fullmatch(r"reference/(?!index)\w+\.md", page)),
                    ]
                }
            )
        if section == "About":
            decisions = sorted(page for page in pages if re.fullmatch(r"decisions/(?!README).*", page))
            there.append({"Decisions": ["decisions/README.md", *decisions]})
        nav.append({section: there})
    listed = set(re.findall(r"'([\w./-]+\.md)'", str(nav)))
    if rest := sorted(pages - listed):
        nav.append({"More": rest})
    return nav
