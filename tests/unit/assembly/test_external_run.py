"""What a rank of another launcher prints when it fails because of another one."""

from pathlib import Path

import pytest

from mlscale.assembly import external_run
from mlscale.errors import MLScaleError
from mlscale.launch import rank_failures
from mlscale.launch.external.external_launcher import find_external_rank

TORCHRUN = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
NAMED = "failed    ValueError: planted; another rank has printed where and why\n"


@pytest.mark.parametrize(
    ("rank", "local", "is_reported", "printed"),
    [
        (0, 1, True, NAMED),  # on a machine of its own, where the other rank's output is not seen
        (0, 2, True, ""),
        (1, 1, True, ""),
        (0, 1, False, ""),  # this rank prints the error itself
    ],
)
def test_the_first_machine_names_a_failure_that_another_one_has_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: int,
    local: int,
    is_reported: bool,
    printed: str,
) -> None:
    monkeypatch.setattr(external_run, "_ignore_termination", lambda: None)
    monkeypatch.setattr(rank_failures, "_GRACE_SECONDS", 0.0)
    external = find_external_rank({**TORCHRUN, "RANK": str(rank), "LOCAL_WORLD_SIZE": str(local)})
    assert external is not None
    rank_failures.write_rank_failure(tmp_path, 1 - rank, MLScaleError("ValueError: planted"))
    if is_reported:
        rank_failures.claim_failure_report(tmp_path)
    cause = external_run._report_remote_failure(tmp_path, external, "peer lost", RuntimeError("gone"))
    assert (cause.what, cause.is_reported) == ("ValueError: planted", is_reported)
    assert capsys.readouterr().err == printed
