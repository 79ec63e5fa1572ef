from __future__ import annotations

import os

# Before torch is imported: the models of the tests are so small that its threads only wait for one another, which
# takes minutes on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
