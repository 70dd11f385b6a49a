"""webdataset, with its secure mode on: shards are not trusted, so no pickle, no shell, no files but those we open.

webdataset reads WDS_SECURE once, when it is imported, and its default is off. The environment reaches child processes;
the attribute reaches a webdataset that the user's code imported before us.
"""

from __future__ import annotations

import os

os.environ["WDS_SECURE"] = "1"

import webdataset.utils
from webdataset.autodecode import Decoder
from webdataset.writer import TarWriter

webdataset.utils.enforce_security = True

__all__ = ["Decoder", "TarWriter"]
