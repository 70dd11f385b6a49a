"""The collector waits while a process of ours starts, and is anybody else's own business."""

import gc
import subprocess
import sys

from mlscale.launch.garbage_collection import defer_garbage_collection

CLAIMED = """
import gc
from mlscale.launch import garbage_collection as garbage

garbage.mark_own_process()
with garbage.defer_garbage_collection():
    print(gc.isenabled())
print(gc.isenabled(), gc.get_freeze_count() > 1000)
gc.disable()
with garbage.defer_garbage_collection():
    pass
print(gc.isenabled())
"""


def test_a_process_of_ours_collects_after_its_start_only() -> None:
    done = subprocess.run([sys.executable, "-c", CLAIMED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "False"]


def test_a_process_of_others_is_left_alone() -> None:
    frozen = gc.get_freeze_count()
    with defer_garbage_collection():
        assert gc.isenabled()
    assert gc.isenabled()
    # Not more: of what is frozen already some is freed at any time.
    assert gc.get_freeze_count() <= frozen
