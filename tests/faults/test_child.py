"""The measure of the memory limits: what a forked child takes, whatever its parent did before."""

import numpy as np
import pytest

from resnet_cifar100.runtime import keep_freed_memory

pytest.importorskip("resource", reason="needs a POSIX system")
from tests.faults.child import in_child


def test_a_child_that_takes_memory_its_parent_freed_is_seen_to_take_it():
    keep_freed_memory()
    kept = [np.ones(1 << 20, np.uint8) for _ in range(300)]
    del kept
    assert in_child(lambda: np.ones(150 << 20, np.uint8)).megabytes > 140
