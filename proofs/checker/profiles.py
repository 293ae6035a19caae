"""Profiles: how many examples are drawn in each kind of number system, and which systems are left out."""

from __future__ import annotations

from dataclasses import dataclass

from proofs.checker.systems import System


@dataclass(frozen=True)
class Profile:
    """The numbers of examples by kind of number system."""

    values: int
    gradients: int
    second_gradients: int
    libraries: int
    long: int = 0  # further examples, of 33 to 64 tokens, in the cheapest systems
    shrink_seconds: float = 20.0  # seconds of shrinking; 0: what fails is not shrunk
    without: tuple[str, ...] = ()  # number systems that `check` leaves out

    def examples(self, system: System) -> int:
        if system.library:
            return self.libraries
        return (self.values, self.gradients, self.second_gradients)[system.order]


PROFILES = {
    "quick": Profile(
        values=5,
        gradients=2,
        second_gradients=1,
        libraries=1,
        without=("float32", "exact gradient", "second gradient", "exact second gradient", "torch", "jax"),
    ),
    "short": Profile(values=20, gradients=6, second_gradients=3, libraries=2),
    "default": Profile(values=50, gradients=15, second_gradients=8, libraries=4, long=1),
    "deep": Profile(values=600, gradients=200, second_gradients=80, libraries=20, long=20, shrink_seconds=120),
}
