"""Tones: raw audio, sample by sample: which of eight pitches is it? 32 ms at 16 kHz, in noise.

    s₁ s₂ … s_T        answer at the last sample: 16 + pitch          samples as 4-bit tokens, 0 … 15

A tone has a fundamental and two overtones of random strengths and phases; its pitch, from 200 to 800 Hz in eight equal
steps of the logarithm, is off by up to 2%. White noise has a quarter of its power. All overtones are below 2.5 kHz, so
that half the rate holds them too: `at_half_the_rate` gives the samples of the same sounds at 8 kHz, half as many. Its
filter removes half of the noise's power too: at 8 kHz that is an eighth of a tone's.

It stands for raw speech, which S4 classifies at 16 kHz, and without further training at 8 kHz (Gu et al. 2022, section
4.3). Deviations: sounds are synthesised, a thirtieth as long, and a sample is a token, where theirs is a number.
"""

from dataclasses import dataclass

import numpy as np

from models.errors import UserError
from models.tasks.recall import IGNORE, Batch

RATE = 16_000  # samples a second
LEVELS, PITCHES = 16, 8
LOWEST, HIGHEST, DETUNING = 200.0, 800.0, 0.02
PARTIALS = 3
NOISE = 0.5  # its deviation, beside a tone's of 1
EVALUATED = 256  # sounds
LEAST = 64  # samples


@dataclass(frozen=True)
class Tones:
    """The task at one length: tokens 0 … 15 are samples, 16 … 23 the answers.

    Raises: UserError for a length that is odd or less than `LEAST`.
    """

    length: int = 512
    vocabulary: int = LEVELS + PITCHES
    digest: str = ""  # nothing to read: every sound is drawn

    def __post_init__(self) -> None:
        if self.length < LEAST or self.length % 2:
            raise UserError(f"length: expected an even number of at least {LEAST} samples, got {self.length}")

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, length)`."""
        return with_question(*sounds(rng, batch, self.length))

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 256 fresh sounds."""
        return {str(self.length): self.batch(rng, EVALUATED)}


def sounds(rng: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples `(count, length)`, tones of variance 1 in noise, and pitches `(count,)`, 0 … 7."""
    pitches = rng.integers(0, PITCHES, size=count)
    hertz = LOWEST * (HIGHEST / LOWEST) ** (pitches / (PITCHES - 1)) * rng.uniform(1 - DETUNING, 1 + DETUNING, count)
    overtone = np.arange(1, PARTIALS + 1)[:, None]
    strength, start = (rng.uniform(least, 1, (count, PARTIALS, 1)) for least in (0.3, 0))
    angle = hertz[:, None, None] * overtone * np.arange(length) / RATE + start
    tone = np.sum(strength * np.sin(2 * np.pi * angle), axis=1)
    return tone / np.std(tone, axis=1, keepdims=True) + NOISE * rng.standard_normal((count, length)), pitches


def at_half_the_rate(samples: np.ndarray) -> np.ndarray:
    """Return the sounds without what is above half the new rate, at every second sample."""
    spectrum = np.fft.rfft(samples)
    spectrum[:, samples.shape[-1] // 4 :] = 0
    return np.fft.irfft(spectrum, samples.shape[-1])[:, ::2]


def with_question(samples: np.ndarray, pitches: np.ndarray) -> Batch:
    """Return (tokens, targets); targets are `IGNORE` except at the last sample."""
    tokens = quantised(samples)
    targets = np.full_like(tokens, IGNORE)
    targets[:, -1] = LEVELS + pitches
    return tokens, targets


def quantised(samples: np.ndarray) -> np.ndarray:
    """Return tokens, 0 … 15, of samples from −3 to 3."""
    return np.clip(np.rint((samples / 3 + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1).astype(np.int64)
