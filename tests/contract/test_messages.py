"""Every error has one form (lower case, no full stop) and a fix: checked in the source, where each is made."""

from __future__ import annotations

import re

import pytest

from scripts.error_messages import Error, read_errors, write_messages_page

NAMES = {
    "Fashion-MNIST",
    "KServe",
    "Kubernetes",
    "Lightning",
    "TensorFlow",
}  # besides what is written in capitals throughout
# Errors without a fix, by module and function, each with the reason why there is nothing to type.
WITHOUT_FIX = {
    "mlscale.commands.verify_resume.entry._make_reference_error": (
        "quotes the message of the run that failed, its fix included"
    ),
    "mlscale.launch.external.other_rank._raise_if_failed": "the message of rank 0, its fix included",
    "mlscale.launch.debugger.enable_debugging": "the user left the debugger's prompt by `q`",
    "mlscale.launch.rank_failures.write_remote_failure": "never shown: the parent names the rank that failed first",
    "mlscale.runs.remote_checkpoints.store_access.open_store": "of a run's address: the reason has the form of one",
    "mlscale.runs.recover.read_run_manifest": (
        "never shown: caught below, where the report says what seals the run again"
    ),
    # What was typed means nothing here: the reason names what is near, and the page.
    **dict.fromkeys(
        (
            "mlscale.config.checks.check._check_plain_key",
            "mlscale.config.checks.group_nodes.check_chosen_option",
            "mlscale.config.checks.metric_names.check_metric_names",
            "mlscale.config.checks.refused_keys.check_unknown_key",
            "mlscale.config.composition.argv._check_flags",
            "mlscale.config.composition.argv._check_words",
            "mlscale.config.composition.argv._quote_if_needed",
            "mlscale.config.composition.argv._check_readable",
            "mlscale.config.composition.compose._report_refusals",
            "mlscale.config.composition.hydra_errors._create_unknown_option_error",
            "mlscale.config.composition.hydra_errors.explain_refusal",
            "mlscale.config.composition.hydra_keys.check_effect",
            "mlscale.config.schema.values.check_value_type",
            "mlscale.tasks.schedules._make_schedule_error",
        ),
        "no fix would mean what was typed; the page is named in its place",
    ),
    "mlscale.serve.server.run_load": "for clients, who learn nothing of the server's inside; its log has the exception",
}


@pytest.fixture(scope="module")
def errors() -> list[Error]:
    """Every error that is made somewhere."""
    return read_errors()


def test_every_error_has_a_fix(errors: list[Error]) -> None:
    assert len(errors) > 500
    missing = [error for error in errors if not error.texts("fix") or "" in error.texts("fix")]
    without = {f"{error.module}.{error.function}" for error in missing}
    assert [error.place for error in missing if f"{error.module}.{error.function}" not in WITHOUT_FIX] == []
    assert set(WITHOUT_FIX) - without == set(), "these have a fix by now"


def test_messages_begin_in_lower_case_and_end_without_a_full_stop(errors: list[Error]) -> None:
    wrong = []
    for error in errors:
        for argument in ("what", "why", "fix"):
            for text in error.texts(argument):
                first = re.match(r"[A-Z][\w&-]*", text)
                ordinary = first and first[0] not in NAMES and (len(first[0]) == 1 or not first[0].isupper())
                if text.endswith(".") or ordinary:
                    wrong.append(f"{error.place} {argument}: {text}")
    assert wrong == []


def test_the_site_has_a_page_of_the_messages() -> None:
    page = write_messages_page()
    assert page.count("\n### ") > 500
    assert "\n### unknown key '…'" in page
    assert "\n### … has no forward\n" in page  # of an f-string
    assert "\n- fix: pip install 'mlscale" in page
