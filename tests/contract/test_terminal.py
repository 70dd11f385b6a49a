"""At a terminal: no command waits for an answer, but for `runs rm`, which asks before it removes."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.contract.commands import environment, mlscale, only_run
from tests.forked import Command

SECONDS = 60.0


@dataclass
class Terminal:
    """A command that has a terminal for its three streams, and what it has written there."""

    process: Command
    screen: int
    text: str = field(default="")

    def read_until(self, words: str = "") -> str:
        """Everything up to `words`, or to the end of the command; never longer than SECONDS."""
        end = time.monotonic() + SECONDS
        while not words or words not in self.text:
            assert time.monotonic() < end, f"it waits: {self.text}"
            ready, _, _ = select.select([self.screen], [], [], 0.1)
            try:
                printed = os.read(self.screen, 65536) if ready else None
            except OSError:  # Linux says so when the last process has closed the terminal
                printed = b""
            if printed == b"":
                assert not words, self.text
                break
            self.text += (printed or b"").decode()
        return self.text

    def type(self, line: str) -> None:
        os.write(self.screen, line.encode() + b"\n")

    def ended(self) -> int:
        """The exit code."""
        self.read_until()
        return self.process.wait(SECONDS)


def at_terminal(cwd: Path, *words: str) -> Terminal:
    """Start `mlscale <words>` at a new terminal; nobody types."""
    screen, inside = os.openpty()
    env = environment(cwd, COLUMNS="120")
    process = Command(*words, cwd=cwd, env=env, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    return Terminal(process, screen)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was made at a terminal."""
    folder = tmp_path_factory.mktemp("terminal")
    command = at_terminal(folder, "+recipe=resnet", "model=mlp", "debug=fast", "snapshot=false")
    assert command.ended() == 0, command.text
    return folder


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["+recipe=resnet", "trainer.devcies=8"], 2),
        (["trian"], 2),
        (["data=webdataset"], 2),
        (["evaluate", "last"], 0),
        (["runs", "ls"], 0),
    ],
)
def test_it_never_asks(trained: Path, words: list[str], code: int) -> None:
    command = at_terminal(trained, *words)
    assert command.ended() == code, command.text
    assert "[y/N]" not in command.text


def test_removing_asks_first(trained: Path) -> None:
    run = only_run(trained)
    for answer, code in (("n", 2), ("", 2), ("y", 0)):
        command = at_terminal(trained, "runs", "rm", "last")
        command.read_until("remove this run for good? [y/N] ")
        assert command.process.poll() is None
        command.type(answer)
        assert command.ended() == code, command.text
        assert run.exists() is (code != 0)


@pytest.mark.slow
def test_ctrl_c_while_a_data_set_is_written(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    env = environment(tmp_path)
    process = Command("prepare", "data=digits", cwd=tmp_path, env=env)
    end = time.monotonic() + SECONDS
    while not list(cache.glob(".digits-1-*/train/*.tar")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)  # so that the set is not finished before the signal comes
    assert not (cache / "digits-1").exists()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, printed = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert list(cache.iterdir()) == []
    again = mlscale(tmp_path, "prepare", "data=digits", env=env)
    assert again.returncode == 0, again.stderr
    assert "1,437" in again.stdout
