"""One row for every public function: how its arguments are drawn, and what is right.

A row's call is written once over an array namespace, so that the same line runs in minigrad, NumPy, PyTorch and JAX.
`ROWS` are the differentiable functions, `CONSTANT` those without a derivative, `TOOLS` those that are no functions of
arrays. Every public name stands in one of them, and every rule of every primitive is reached by a row: `test_table`.
"""

from tests.oracle.row import Row, named
from tests.oracle.rows import constants, elementwise, linear, reductions, sequences, shapes


def _rows(*chapters: dict[str, dict]) -> dict[str, Row]:
    return {name: Row(**{"call": named(name), **fields}) for chapter in chapters for name, fields in chapter.items()}


ROWS = _rows(elementwise.ROWS, sequences.ROWS, reductions.ROWS, linear.ROWS, shapes.ROWS)
CONSTANT = _rows(constants.ROWS)
TOOLS = """
Tensor broadcast_shapes can_cast check_grads checkpoint finfo from_dlpack fused get_num_threads grad gradients hvp iinfo
isdtype jvp keep_freed_memory namespace primitive result_type set_num_threads value_and_grad vjp
""".split()
