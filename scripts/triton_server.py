"""Install a real Triton server, and start it for a repository; the same as `mlscale.targets.triton.local_server`.

python -m scripts.triton_server install triton-server
python -m scripts.triton_server start triton-server servable/targets/triton
"""

from __future__ import annotations

import sys

from mlscale.targets.triton.local_server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
