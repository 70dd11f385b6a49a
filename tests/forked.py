"""`python -m mlscale …` in a process of its own that need not import torch again: it is forked from a server.

A fresh interpreter spends 3 s of CPU on imports before it does what a test is about, `serve` 0.7 s. The server, one per
pytest process, set of libraries and their environment, has imported them and computed nothing; a command forked from it
has its own id, streams, folder, environment and signals, and ends like an interpreter until all that was registered
with `atexit` has been called: to take its modules apart then would cost half a second of CPU. So is the server that it
forks its ranks from. What imports cost, what is not imported and what a terminal sees is tested with new interpreters.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, util
from pathlib import Path
from typing import IO, Any, NoReturn

PRELOAD = ("mlscale.assembly.preload", "mlscale.commands.train.entry")
# `serve` does without torch, and so does the server that it is forked from.
PRELOAD_OF_SERVE = (
    "mlscale.command",
    "mlscale.commands.serve.entry",
    "mlscale.config.checks.check",
    "mlscale.serve.server",
    "onnxruntime",
    "pyarrow.compute",
)
_READ_AT_IMPORT = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH", "PYTHONHASHSEED", "PYTHONUTF8", "CUDA_")
_LARGEST = 1 << 20  # bytes of a request, most of which is the environment
_STATUS = struct.Struct("i")  # a process id, and at its end what `waitpid` said


class Command(subprocess.Popen[str]):
    """A command that runs; what `subprocess.Popen` is to a program."""

    _status: int

    def __init__(
        self,
        *words: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        start_new_session: bool = False,
    ) -> None:
        super().__init__(
            ["mlscale", *words],
            cwd=cwd,
            env=dict(os.environ if env is None else env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=start_new_session,
        )

    def _execute_child(self, args: list[str], *given: Any) -> None:
        cwd, env, new_session = given[4], given[5], given[-2]
        pipes = given[9:15]  # both ends for each stream, where it has a pipe
        theirs_of = (pipes[0], pipes[3], pipes[5])  # -1: the stream of this process
        request = {"words": args[1:], "cwd": str(cwd), "env": env, "new_session": new_session}
        self._status, theirs = os.pipe()
        streams = [inherited if fd == -1 else fd for inherited, fd in enumerate(theirs_of)]
        try:
            preload = PRELOAD_OF_SERVE if args[1:2] == ["serve"] else PRELOAD
            socket.send_fds(_server(env, preload), [json.dumps(request).encode()], [*streams, theirs])
        finally:
            os.close(theirs)
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # no public name
        (self.pid,) = _STATUS.unpack(os.read(self._status, _STATUS.size))
        self._child_created = True

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            ended = os.read(self._status, _STATUS.size)
            os.close(self._status)
            self.returncode = os.waitstatus_to_exitcode(_STATUS.unpack(ended)[0])
        return self.returncode

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode


def run(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with standard input closed."""
    with Command(*words, cwd=cwd, env=env) as command:
        try:
            out, err = command.communicate(timeout=seconds)
        except BaseException:
            command.kill()
            raise
    return subprocess.CompletedProcess(command.args, command.returncode, out, err)


_servers: dict[tuple[tuple[str, ...], frozenset[tuple[str, str]]], socket.socket] = {}


def _server(env: Mapping[str, str], preload: tuple[str, ...]) -> socket.socket:
    """Return the connection to the server that imported `preload` with the settings of `env`, started on first use."""
    settings = frozenset(item for item in env.items() if item[0].startswith(_READ_AT_IMPORT))
    if (preload, settings) not in _servers:
        others = {name: value for name, value in os.environ.items() if not name.startswith(_READ_AT_IMPORT)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *preload],
                env=others | dict(settings),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(process.wait)
        atexit.register(ours.close)  # before it is waited for: a server whose client is gone ends
        _servers[preload, settings] = ours
    return _servers[preload, settings]


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request until nobody can send one; what is returned, in a child alone, is the request."""
    running: dict[int, int] = {}  # the pipes of commands, by process id
    died, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    while True:
        ready = select.select([requests.fileno(), died], [], [])[0]
        if died in ready:
            os.read(died, 1024)
            _report_ends(running)
        if requests.fileno() not in ready:
            continue
        text, fds, _, _ = socket.recv_fds(requests, _LARGEST, 4)
        if not text:
            sys.exit()
        *streams, status = fds
        if pid := os.fork():
            running[pid] = status
            os.write(status, _STATUS.pack(pid))
            for fd in streams:
                os.close(fd)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        requests.close()
        for fd in (died, tell, status, *running.values()):
            os.close(fd)
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        request: dict[str, Any] = json.loads(text)
        return request


def _report_ends(running: dict[int, int]) -> None:
    """Tell those who started a command how it ended."""
    while running:
        pid, ended = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(BrokenPipeError), open(running.pop(pid), "wb") as status:
            status.write(_STATUS.pack(ended))


_spawn_process = util.spawnv_passfds


def _fork_server_of_ranks(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """Start what `multiprocessing` asks for; its fork server is forked, before the command has computed anything."""
    program = str(args[-1])
    if not program.startswith("from multiprocessing.forkserver import main"):
        return _spawn_process(path, args, passfds)
    if pid := os.fork():
        return pid
    try:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 2 and fd not in passfds:
                with contextlib.suppress(OSError):
                    os.close(fd)
        forkserver._forkserver.__init__()  # type: ignore[misc]  # its lock is held, for this very start
        exec(program, {})
    finally:
        os._exit(0)


def _main() -> NoReturn:
    """Import, fork, and in the child be what `python -m mlscale` would be."""
    ended: list[int] = []

    def end_at_once() -> None:
        if ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended[0])

    atexit.register(end_at_once)  # before any other: it is called last
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    found = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    base = sys.path[1 + len(found) :]
    for name in sys.argv[2:]:
        importlib.import_module(name)
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    util.spawnv_passfds = _fork_server_of_ranks
    found = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [os.getcwd(), *found, *base]
    importlib.invalidate_caches()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
    sys.orig_argv = [sys.executable, "-m", "mlscale", *request["words"]]
    sys.argv = ["mlscale", *request["words"]]
    try:
        runpy.run_module("mlscale", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise  # it is printed
        ended.append(end.code or 0)
    sys.exit(*ended)


if __name__ == "__main__":
    _main()
