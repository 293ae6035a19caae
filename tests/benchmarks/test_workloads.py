"""Our side of every workload runs, makes all that it is timed for, and has a floor that follows from the sizes."""

import numpy as np
import pytest

from benchmarks.workload import workloads
from benchmarks.workloads import mechanisms, s4d
from benchmarks.workloads.selective_scan import scan
from tests.benchmarks.small import sizes

WORKLOADS = workloads()


@pytest.mark.parametrize("name", WORKLOADS)
def test_ours_makes_every_result(name):
    workload = WORKLOADS[name]
    results = workload.implementations[0].setup(**sizes(workload)).results()
    assert all(np.isfinite(x).all() and np.any(np.asarray(x) != 0) for x in results.values())
    forward = name.endswith("_forward")
    assert (set(results) == {"y"}) == forward
    assert len(results) > 1 or forward


@pytest.mark.parametrize("name", [name for name in WORKLOADS if not name.startswith("primitives")])
def test_every_workload_has_a_floor(name):
    floor = WORKLOADS[name].floor
    assert set(floor) <= {"exponentials", "operations", "bytes"}
    assert floor["operations"] > 0 and floor["bytes"] > 0
    if name.endswith("_forward") and (whole := name.removesuffix("_forward")) in WORKLOADS:
        both = WORKLOADS[whole].floor
        assert all(both[kind] >= count for kind, count in floor.items())


def test_floors_by_hand():
    """A token, channel and state; a memory of 2 × 2 read by one token; a kernel of one number."""
    one = {"batch": 1, "length": 1, "channels": 1, "states": 1}
    assert scan(backward=False, **one) == {"exponentials": 1, "operations": 5, "bytes": 4 * (3 + 2)}
    memory = mechanisms.corrected(backward=False, heads=1, length=1, width=2)
    assert memory == {"exponentials": 0, "operations": 6 * 4, "bytes": 4 * (3 * 2 + 1 + 2)}
    floor = mechanisms.attention(backward=False, heads=1, length=4, width=8)
    assert floor == {"exponentials": 10, "operations": 10 * 2 * 2 * 8, "bytes": 4 * 4 * 4 * 8}
    assert s4d.kernel(backward=True, length=3, channels=1, states=1) == {"operations": 3 * 4 * 3, "bytes": 2 * 4 * 3}
