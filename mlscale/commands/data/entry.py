"""Look at data: list, show, verify, sample and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlscale.commands.data import COMMAND
from mlscale.commands.options import Options, read_options
from mlscale.errors import Exit
from mlscale.report import Result, print_result


def main(argv: Sequence[str]) -> int:
    """Run `mlscale data …`; return the exit code.

    Raises:
        MLScaleError: the data is missing, or not what it should be.
    """
    options = read_options("data", COMMAND.actions, argv)
    if options.action == "ls":
        from mlscale.commands.data.show_facts import list_sets

        print_result(list_sets(options.config_dir), options.output)
        return int(Exit.DONE)
    from mlscale.launch.threads import wait_passively
    from mlscale.secrets.mask import Masker, mask_output

    # Before torch is imported: OpenMP reads its wait policy once.
    wait_passively()
    # Data may be of a secret's address: whatever is printed is masked.
    with mask_output(Masker.create_for_process()):
        result = _run_action(options)
        if getattr(options, "page", None):
            result = _write_page(result, Path(options.page).expanduser().absolute())
        print_result(result, options.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _run_action(options: Options) -> Result:
    from mlscale.commands.data.opened_data import open_data, open_side

    if options.action == "diff":
        from mlscale.commands.data.compare_data import compare_data

        sides = [open_side(name, options) for name in (options.first, options.second)]
        return compare_data(sides[0], sides[1], options.split, options.count)
    # Bad samples are to be named, and not to end the command; augmentation is not what is verified.
    opened = open_data(options, options.ref, as_stored=options.action == "verify")
    if options.action == "verify":
        from mlscale.commands.data.compare_data import verify_samples

        return verify_samples(opened, Path(options.bad).expanduser() if options.bad else None)
    if options.action == "sample":
        from mlscale.commands.data.show_facts import show_samples

        return show_samples(opened, options.split, options.count)
    from mlscale.commands.data.show_facts import show_facts
    from mlscale.data.images.labelled_images import adopt_common_size

    # Nothing is trained: facts are shown of images that a run would have to resize.
    adopt_common_size(opened.backend)
    return show_facts(opened)


def _write_page(result: Result, page: Path) -> Result:
    from mlscale.atomic_files import write_setting_file
    from mlscale.report.html import render_page
    from mlscale.report.result import select_facts

    artifacts = {**result.artifacts, "page": str(page)}
    about = (result.command, result.sentence, result.ok, result.metrics, artifacts, result.figures)
    text = render_page(*about, facts=select_facts(result.details))
    write_setting_file("page", page, text)
    return replace(result, artifacts=artifacts)
