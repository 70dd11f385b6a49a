"""The wish to end: by signal, and before the wait is over."""

import os
import signal
import threading
import time

import pytest

from mlscale.monitor.event_folder import ShutdownRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ShutdownRequest() as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        start = time.monotonic()
        assert stop.wait_for_request(30)
        assert time.monotonic() - start < 10
        assert stop.wait_for_request(30)  # and it stays
    assert signal.getsignal(number) is before


def test_a_signal_before_the_wait_is_not_lost() -> None:
    with ShutdownRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait_for_request(30)


def test_nobody_wishes() -> None:
    with ShutdownRequest() as stop:
        assert not stop.wait_for_request(0.01)


def test_in_another_thread_it_can_be_wished() -> None:
    ended: list[bool] = []

    def watch() -> None:
        with ShutdownRequest() as stop:
            stop.request_shutdown()
            ended.append(stop.wait_for_request(30))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert ended == [True]
