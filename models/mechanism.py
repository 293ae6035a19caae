"""The declaration of a mechanism: the facts that checks and blocks need, written in its own file beside its forms.

    MECHANISM = Mechanism(
        arguments={"q": Domain.ANY, "k": Domain.KEYS, "v": Domain.ANY, "beta": Domain.NONNEGATIVE},
        state=Domain.ANY,
        rational=True,
        blocks={"delta_rule": "models.blocks.delta_rule.DeltaRuleBlock"},
    )

`proofs` draws the arguments from their domains, `models.blocks` imports the blocks. The growth of a form's work and
memory is declared at the form, `@form(work="T²", memory="T²")`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Domain(Enum):
    """The numbers that an argument may hold; where it is complex, its real and its imaginary part."""

    ANY = "any numbers"
    SMALL = "numbers from −1 to 1, of which long products stay bounded"
    KEYS = "rows of numbers from −1 to 1 along time, some of them equal"
    NONNEGATIVE = "numbers of at least 0"
    POSITIVE = "numbers above 0"
    NEGATIVE = "numbers below 0"
    LOG_GATE = "logarithms of numbers from 0 to 1"
    LEFT_HALF_PLANE = "complex numbers of negative real part"
    STABLE = "square matrices whose eigenvalues have negative real parts"


@dataclass(frozen=True)
class Layout:
    """One shape of an inner model: the axes of W, or of W and b, of each layer, as in `(("K D", "1 D"), ("D V",))`."""

    layers: tuple[tuple[str, ...], ...]
    rational: bool = True  # whether the mechanism stays rational with this model


@dataclass(frozen=True)
class Mechanism:
    """The declaration of a mechanism, the value of `MECHANISM` in its module."""

    arguments: Mapping[str, Domain]  # of all positional arguments of the forms
    state: Domain
    rational: bool  # whether outputs and state are rational functions of the arguments; log gates count as gates
    state_grows: bool = False  # with the length
    large_workspace: bool = False  # whether it outweighs 1000 tokens of output, as copies of inner weights do
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # of the argument that is an inner model, by name
    blocks: Mapping[str, str] = field(default_factory=dict)  # import paths of its blocks, by the name of the mixer
