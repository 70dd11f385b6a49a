"""The base of export targets. A further one is a subclass and a YAML file of the group `target`, also of a package.

    # conf/target/mine.yaml
    # @package target.mine
    _target_: my_package.MyTarget

Everything is made from the servable, which holds the ONNX model, the encoder and answers to raw samples. A target is
built, read back and compared with the trained model before the servable with it is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.engine import Engine
from mlscale.export.servable import Servable

TARGETS = "targets"
"""The folder of a servable that has a folder for each of its targets."""


class TargetServer(Protocol):
    """A running server of a target's own project, asked as its clients ask it."""

    @property
    def product(self) -> str:
        """The server's name and version, as it states them: 'Triton 2.51.0'."""

    def compute_samples(self, raw: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the graph's outputs by name, (n, …) each, for n raw samples that are sent in one request.

        Where the server takes raw samples they are sent as they are; else they are encoded as its client would.

        Raises:
            MLScaleError: the server refuses them or does not answer.
        """


class Target:
    """An export target; its constructor's arguments are the keys of its YAML file.

    Attributes:
        name: of the option and the folder.
        extra: the extra of mlscale that has what building takes.
        packages: what must be importable to build it.
        is_servable: it is the servable itself, which has been compared and timed already.
    """

    name: ClassVar[str]
    extra: ClassVar[str] = "export"
    packages: ClassVar[tuple[str, ...]] = ()
    is_servable: ClassVar[bool] = False

    def build(self, servable: Servable, folder: Path) -> None:
        """Write the target's files.

        Args:
            servable: complete; its `folder` may be temporary, so that no path of it may be written down.
            folder: empty, `targets/<name>` of that servable.

        Raises:
            MLScaleError: the target can't express the model; the message names what it can't, such as an operator.
        """
        raise NotImplementedError

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Read back what `build` has written, and return what computes it, on one thread.

        Raises:
            MLScaleError: it can't be loaded, or its inputs and outputs are not the servable's.
        """
        raise NotImplementedError

    def format_start_command(self, folder: Path) -> str:
        """Return the command that starts the target's server with this folder."""
        raise NotImplementedError

    def check_server_installed(self) -> None:
        """Raise an error, before any work, if `start_server` would find no server on this machine.

        Raises:
            MLScaleError: there is none (exit code 5).
        """
        raise MLScaleError(
            f"the target '{self.name}' has no server that mlscale can start",
            where="check=server",
            fix="check=none",
            exit=Exit.ENVIRONMENT,
        )

    def start_server(self, servable: Servable, folder: Path) -> AbstractContextManager[TargetServer]:
        """Start the target's own server on this machine, and stop it at the end of the block.

        Raises:
            MLScaleError: it is not installed (exit code 5), or does not load the model (exit code 4).
        """
        raise NotImplementedError
