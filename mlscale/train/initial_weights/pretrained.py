"""The weights that come with a model of torchvision or timm: fetched once before a run, and then a file like any other.

The launching process fetches them, so that a failure comes before anything starts, and ranks read a file. A resumed
run, and every command that reads a run's own weights, needs neither the file nor a network.
"""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from mlscale.atomic_files import compute_sha256
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.initial_source import InitialWeights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

TORCHVISION, TIMM = "torchvision", "timm"
_SWITCHES = {TORCHVISION: "weights", TIMM: "pretrained"}
_SECONDS = 20.0  # a server that is silent for that long counts as unreachable
_HASH = re.compile(r"-([a-f0-9]{8,})\.")  # the beginning of its SHA-256, in the name of a file of torch's
_FILES = ("model.safetensors", "pytorch_model.bin")  # of timm's models on the hub, in timm's order


def get_requested_library(node: Mapping[str, Any] | None) -> str | None:
    """Return the library whose weights a model's node requests, `torchvision` or `timm`; None for random weights."""
    name = str((node or {}).get("_target_", ""))
    for library, start in ((TORCHVISION, "torchvision.models."), (TIMM, "timm.")):
        if node and name.startswith(start) and node.get(_SWITCHES[library]):
            return library
    return None


def remove_weights_request(node: Any) -> Any:
    """Return the model's node without its request for weights: a copy, where it has one."""
    library = get_requested_library(node)
    if library is None:
        return node
    copy = node.copy()
    # The default of each library, for no weights.
    copy[_SWITCHES[library]] = None if library == TORCHVISION else False
    return copy


def fetch_pretrained_weights(node: Mapping[str, Any], target: Callable[..., Any]) -> InitialWeights:
    """Return the file with the weights that `node` requests, from the cache, else from its library's server.

    Args:
        node: the model's, which requests weights.
        target: the object that its `_target_` names.

    Raises:
        MLScaleError: such weights do not exist, or they are neither in the cache nor available (exit code 5).
    """
    return (
        _fetch_torchvision_weights(node, target)
        if get_requested_library(node) == TORCHVISION
        else _fetch_timm_weights(node, target)
    )


def load_timm_weights(initial: InitialWeights, build: Callable[..., Any], classes: int | None) -> dict[str, Tensor]:
    """Return the weights as timm adapts them to the model: to other input channels, sizes of images, and names.

    Args:
        initial: their file.
        build: makes the model as it is configured, with the arguments it is called with.
        classes: of the model; where the weights have another number, those of the head have only their shape.

    Raises:
        MLScaleError: timm can't use them.
    """
    # The model's own weights are drawn already: building another one must not advance the global generator.
    with torch.random.fork_rng(devices=[]):
        try:
            model = build(pretrained=True, pretrained_cfg_overlay={"file": str(initial.checkpoint)})
        except Exception as error:
            raise MLScaleError(
                "timm can't give the model its weights",
                where=str(initial.checkpoint),
                why=_get_first_line(error),
                fix="model.pretrained=false; a file of your own: init_from=<file>",
            ) from error
    about, state = model.pretrained_cfg, model.state_dict()
    num_classes = about.get("num_classes")
    if classes is not None and num_classes != classes:
        heads = about.get("classifier") or ()
        starts = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        for name in [name for name in state if starts and name.startswith(starts)]:
            state[name] = state[name].new_empty(
                (num_classes or 0, *state[name].shape[1:])
            )  # never read: it does not fit
    return dict(state)


def _fetch_torchvision_weights(node: Mapping[str, Any], target: Callable[..., Any]) -> InitialWeights:
    from torchvision.models import get_model_weights

    kinds: Any = get_model_weights(target)
    word = str(node["weights"]).rpartition(".")[2]
    if word not in kinds.__members__:
        raise MLScaleError(
            f"{node['_target_']} has no weights '{node['weights']}'",
            where="model.weights",
            why=f"it has: {', '.join(kinds.__members__)}",
            fix=f"model.weights={(get_close_matches(word, kinds.__members__, 1) or ['DEFAULT'])[0]}",
        )
    weights = kinds[word]
    # The path that torchvision itself uses: files in its cache are not fetched again.
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not path.is_file():
        with _report_unreachable_server(weights.url):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), progress=False)
    digest, named = compute_sha256(path), _HASH.search(path.name)
    # Checked here, since a file that was cut off earlier is in the cache as well.
    if named and not digest.startswith(named[1]):
        raise MLScaleError(
            "the file of weights does not match its name: it is torn, or another one",
            where=str(path),
            why=f"its SHA-256 begins with {digest[: len(named[1])]}",
            fix=f"rm {shlex.quote(str(path))}",
            exit=Exit.ENVIRONMENT,
        )
    return InitialWeights(path, digest, None, TORCHVISION, str(weights), weights.meta.get("license"))


def _fetch_timm_weights(node: Mapping[str, Any], target: Callable[..., Any]) -> InitialWeights:
    from timm.models import get_pretrained_cfg

    name = str(node.get("model_name") or getattr(target, "__name__", ""))
    about: Any = get_pretrained_cfg(name, allow_unregistered=True)
    own: Any = (node.get("pretrained_cfg_overlay") or {}).get("file")
    if about is None or not (own or about.has_weights):
        raise MLScaleError(
            f"timm has no weights for '{name}'",
            where="model.pretrained",
            fix="model.pretrained=false; a file of your own: init_from=<file>",
        )
    if own:
        path = Path(str(own)).expanduser().absolute()
        if not path.is_file():
            raise MLScaleError(
                "file not found",
                where=f"model.pretrained_cfg_overlay.file={own}",
                fix="model.pretrained_cfg_overlay.file=<a file that exists>",
            )
    else:
        path = _fetch_timm_file(about)
    full = ".".join(part for part in (about.architecture or name.partition(".")[0], about.tag) if part)
    return InitialWeights(path, compute_sha256(path), None, TIMM, full, about.license)


def _fetch_timm_file(about: PretrainedCfg) -> Path:
    """Return the file of timm's own weights in the cache, fetched where it is missing."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    if not about.hf_hub_id:
        url = str(about.url)
        path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
        if not path.is_file():
            with _report_unreachable_server(url):
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), progress=False)
        return path
    files = (about.hf_hub_filename,) if about.hf_hub_filename else _FILES
    for file in files:
        if isinstance(cached := try_to_load_from_cache(about.hf_hub_id, file), str):
            return Path(cached)
    with _report_unreachable_server(constants.ENDPOINT):
        for file in files:
            try:
                return Path(str(hf_hub_download(about.hf_hub_id, file)))
            except EntryNotFoundError:
                continue
    raise MLScaleError(
        f"{about.hf_hub_id} holds none of {', '.join(files)}",
        where="model.pretrained",
        fix="model.pretrained=false; a file of your own: init_from=<file>",
    )


@contextmanager
def _report_unreachable_server(url: str) -> Iterator[None]:
    """Report an unreachable server at once, not after minutes of retries, in a block that reads from `url`."""
    before = socket.getdefaulttimeout()
    # The libraries' clients take no timeout: the default of the process is set for the block.
    socket.setdefaulttimeout(_SECONDS)
    try:
        try:
            urlopen(Request(url, method="HEAD"), timeout=_SECONDS).close()  # noqa: S310 - of the library's own tables
        except HTTPError as error:
            # Other codes may concern HEAD alone, which some servers refuse; the download itself decides.
            if error.code in (404, 410):
                raise
        yield
    except MLScaleError:
        raise
    except Exception as error:  # each client has its own
        raise MLScaleError(
            "the model's weights could not be fetched",
            where=url,
            why=_get_first_line(error),
            fix="init_from=<a file of weights>\nmodel.weights=null, for random weights: timm's model.pretrained=false",
            exit=Exit.ENVIRONMENT,
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _get_first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
