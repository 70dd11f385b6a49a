"""Ask a server by the V2 inference protocol over HTTP, with its binary extension: Triton, KServe, `mlscale serve`.

Protocol: https://github.com/kserve/open-inference-protocol, and Triton's extension of binary tensor data.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.serve.protocol.v2_codec import decode_response, encode_request


class V2Client:
    """A client of one model of one server, with a connection for each request.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        model: the name of the model.
        timeout_s: seconds that an answer may take.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float = 60.0) -> None:
        self.url, self.model, self._timeout_s = url, model, timeout_s

    def read_product(self) -> str:
        """Return the name and version that the server states of itself."""
        document = json.loads(self._request("/v2", None, {})[1])
        return f"{document['name']} {document['version']}"

    def is_ready(self) -> bool:
        """Return whether the model can be asked."""
        try:
            self._request(f"/v2/models/{quote(self.model, safe='')}/ready", None, {})
        except MLScaleError:
            return False
        return True

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, (n, …) each, for the inputs by name; bytes and texts are arrays of objects.

        Raises:
            MLScaleError: the server refuses them, or does not answer.
        """
        headers, body = encode_request(tensors)
        return decode_response(*self._request(f"/v2/models/{quote(self.model, safe='')}/infer", body, headers))[1]

    def _request(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        request = urllib.request.Request(self.url + path, body, dict(headers))  # noqa: S310 of a server that was started here
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310
                return dict(response.headers.items()), response.read()
        except urllib.error.HTTPError as error:
            raise self._build_error(f"it answers {error.code}: {error.read(2000).decode(errors='replace')}") from error
        except OSError as error:
            raise self._build_error(f"it does not answer: {error}") from error

    def _build_error(self, why: str) -> MLScaleError:
        return MLScaleError(
            f"the server does not compute {self.model}",
            where=self.url,
            why=" ".join(why.split())[:500],
            fix="check=none",
            exit=Exit.GATE,
        )
