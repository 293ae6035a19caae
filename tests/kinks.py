"""The table of docs/CONVENTIONS.md, read."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TABLE = Path(__file__).parents[1] / "docs" / "CONVENTIONS.md"


class Kink(NamedTuple):
    """A row: an expression of x and perhaps y, where it is evaluated, what comes out, and who has it so."""

    expression: str
    arguments: dict[str, np.ndarray]
    value: np.ndarray
    gradients: dict[str, np.ndarray]
    prefers: str

    def at(self, names: dict[str, Any], *arguments: Any) -> Any:
        """Evaluate the expression with these names and arguments."""
        return eval(self.expression, {**names, **dict(zip("xy", arguments, strict=False))})


def _number(cell: str) -> np.ndarray:
    return np.array(eval(cell, {"inf": np.inf, "nan": np.nan, "pi": np.pi}), dtype=float)


def _kink(line: str) -> Kink:
    expression, x, y, value, dx, dy, prefers = (cell.strip() for cell in line.strip().strip("|").split("|"))
    inputs = {name: cell for name, cell in (("x", x), ("y", y)) if cell}
    slopes = {name: cell for name, cell in (("x", dx), ("y", dy)) if cell}
    assert inputs.keys() == slopes.keys(), f"{line}: as many arguments as gradients"
    arguments, gradients = ({n: _number(cell) for n, cell in cells.items()} for cells in (inputs, slopes))
    return Kink(expression.strip("`"), arguments, _number(value), gradients, prefers)


KINKS = {
    f"{kink.expression} at {' and '.join(map(str, kink.arguments.values()))}": kink
    for kink in (_kink(line) for line in TABLE.read_text().splitlines() if line.startswith("| `"))
}
