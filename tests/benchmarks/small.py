"""Every workload at sizes that take no time."""

SMALL = {"length": 192, "channels": 8, "states": 4, "heads": 2, "width": 16, "batch": 2, "layers": 2, "vocab": 16}


def sizes(workload):
    """Return the workload's own sizes, with the large ones reduced."""
    return {name: SMALL.get(name, size) if type(size) is int else size for name, size in workload.sizes.items()}
