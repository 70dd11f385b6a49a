"""Locust in a process of its own: it asks, and it ends."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.loadtest import locust_process as module
from mlscale.loadtest.locust_process import LoadPlan, run_locust
from mlscale.loadtest.server_model import InputTensor, ServerModel
from tests.unit.loadtest.servers import Answer, label, serving

MODEL = ServerModel("sums", (InputTensor("input", "uint8", (1, 4, 4)),), 3)


def plan(url: str, **changes: object) -> LoadPlan:
    return LoadPlan(**{"url": url, "model": MODEL, "users": 2, "seconds": 0.4, "warmup_s": 0.2, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["bytes", "v2"])
def test_every_protocol(protocol: str, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), np.uint8)
    labels = [label(sample) for sample in raw]
    labels[0] = "z"
    np.savez(tmp_path / "s.npz", raw=raw, labels=np.array(labels))
    with serving() as server:
        found = run_locust(plan(server.url, protocol=protocol, batch=7, samples=str(tmp_path / "s.npz")))
        assert found.requests >= 10
        assert server.asked > found.requests  # the warm-up is not counted
    assert not found.failures
    assert dict(found.versions) == {"sums:v1": found.requests}
    assert found.samples == 7 * found.requests
    assert found.seconds == pytest.approx(0.4, abs=0.3)
    if protocol == "bytes":
        assert (found.labelled, found.correct) == (7 * found.requests, 6 * found.requests)


def test_a_rate_is_kept() -> None:
    with serving() as server:
        found = run_locust(plan(server.url, rate=40.0, users=3, seconds=1.5))
    assert 45 <= found.requests <= 66


def test_the_requests_of_a_rate_are_spread_evenly() -> None:
    times: list[float] = []

    def note(answer: Answer, number: int) -> Answer:
        times.append(time.monotonic())
        return answer

    with serving(note) as server:
        run_locust(plan(server.url, rate=10.0, users=10, seconds=2.0))
    # All users at once would be ten in each second's first tenth, and nothing after it.
    tenths = Counter(int(10 * (at - times[-1])) for at in times[-20:])
    assert max(tenths.values()) <= 4


def _break(answer: Answer, number: int) -> Answer | None:
    """Answers as broken servers give them, in turn; every fourth is right."""
    status, headers, body = answer
    return (answer, (503, {}, b"busy"), (status, headers, body.replace(b"0.8", b"0.9")), None)[number % 4]


def test_what_is_not_right_is_counted() -> None:
    with serving(_break) as server:
        found = run_locust(plan(server.url, users=1, seconds=0.8))
    good = found.requests - found.failed_requests
    assert good > 2
    kinds = dict(found.failures)
    assert {"status 503", "the probabilities of a sample sum to 1.1"} < set(kinds)
    assert any(kind.startswith("no answer: ") for kind in kinds)
    assert all(abs(count - good) <= 1 for count in kinds.values())


def test_a_server_that_hangs_is_a_failure() -> None:
    def hang(answer: Answer, number: int) -> Answer | None:
        time.sleep(1.5)
        return answer

    with serving(hang) as server:
        found = run_locust(plan(server.url, timeout_s=0.3, seconds=0.5, warmup_s=0.0))
    assert found.requests == found.failed_requests > 0
    assert set(found.failures) == {"no answer within timeout_s=0.3"}


def _instead(code: str) -> Callable[[LoadPlan], list[str]]:
    return lambda plan: [sys.executable, "-c", code]


def test_a_locust_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_build_command", _instead("import sys; print('out of greenlets'); sys.exit(3)"))
    with pytest.raises(MLScaleError, match="exit code 3") as caught:
        run_locust(plan("http://127.0.0.1:1"))
    assert (caught.value.exit, caught.value.why) == (Exit.ENVIRONMENT, "out of greenlets")


def test_a_locust_without_an_outcome_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_build_command", _instead("pass"))
    with pytest.raises(MLScaleError, match="and no outcome"):
        run_locust(plan("http://127.0.0.1:1"))


def test_a_locust_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    monkeypatch.setattr(module, "_build_command", _instead(hang))
    monkeypatch.setattr(module, "_START_SECONDS", 0.1)
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(MLScaleError, match="has not come to an end in 3 s"):
        run_locust(plan("http://127.0.0.1:1", seconds=0.8, timeout_s=0.5))
    assert time.monotonic() - began < 10


def test_the_first_answer_of_the_measurement_is_shown_by_a_file(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with serving() as server:
        run_locust(plan(server.url, ready_file=str(ready)))
    assert ready.is_file()


def test_without_an_answer_there_is_no_such_file(tmp_path: Path) -> None:
    with serving(lambda answer, number: (503, {}, b"busy")) as server:
        run_locust(plan(server.url, ready_file=str(tmp_path / "ready")))
    assert not (tmp_path / "ready").exists()
