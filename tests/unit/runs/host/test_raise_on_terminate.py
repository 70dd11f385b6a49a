"""SIGTERM ends a block, whatever errors the code inside it handles."""

import os
import signal

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host.processes import raise_on_terminate


def _export_while_stopped() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception as error:  # as an export does, for whatever torch raises
        raise MLScaleError("the model can't be exported") from error


def test_code_that_handles_every_error_does_not_swallow_the_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(MLScaleError) as caught, raise_on_terminate():
        _export_while_stopped()
    assert (caught.value.what, caught.value.exit) == ("stopped by SIGTERM", Exit.TERMINATED)
    assert signal.getsignal(signal.SIGTERM) is before
