"""Every workload at sizes that take no time."""

SMALL = {"length": 192, "channels": 8, "states": 4, "heads": 2, "width": 16, "batch": 2, "layers": 2, "vocab": 16}


def sizes(workload):
    """The workload's own sizes, but for the large ones."""
    return {name: SMALL.get(name, size) if type(size) is int else size for name, size in workload.sizes.items()}
