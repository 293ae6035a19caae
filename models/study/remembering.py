"""Online approximation of a signal by HiPPO, reconstructed at the end: LegS all of the past, LegT the last window.

The reconstruction is compared with the signal, ‖f̂ − f‖ / ‖f‖ over the support of the measure, and with the best
approximation by N polynomials there, a least-squares fit.
"""

from typing import Any

import numpy as np

from models.ssm import hippo

POINTS = 300  # of every curve in the figure


def remembering(sizes: list[int], samples: int, cycles: int, window: float, seed: int) -> dict[str, Any]:
    """Return the signal, and for both measures and every N in `sizes` the reconstruction and its error.

    The signal is a sum of 1 … `cycles` waves over the whole time with random phases: band-limited, and never at rest.
    Times run from 0 to 1, which is now; LegT's window is the last `window` of them.
    """
    times = (np.arange(samples) + 0.5) / samples
    waves = np.arange(1, cycles + 1)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=cycles)

    def signal(at: np.ndarray) -> np.ndarray:
        return np.cos(2 * np.pi * waves * at[:, None] + phases).sum(axis=1) / np.sqrt(cycles / 2)

    f = signal(times)
    rows = []
    for measure, span in (("legs", 1.0), ("legt", window)):
        ages = (np.arange(POINTS) + 0.5) / POINTS
        at = 1 - span * ages
        expected = signal(at)
        for N in sizes:
            c = hippo.project(f, N, measure=measure, delta=1 / (samples * span))[-1]
            approximation, g = hippo.reconstruct(c, ages, measure=measure), hippo.basis(N, ages, measure=measure)
            best = g @ np.linalg.lstsq(g, expected)[0]
            size = np.linalg.norm(expected)
            error, least = (float(np.linalg.norm(x - expected) / size) for x in (approximation, best))
            rows.append(
                {
                    "measure": measure,
                    "N": N,
                    "error": error,
                    "least": least,
                    "times": _short(at),
                    "made": _short(approximation),
                }
            )
    return {"times": _short(times), "signal": _short(f), "rows": rows}


def _short(x: np.ndarray) -> list[float]:
    """Return at most `POINTS` of the numbers, to four digits: a figure shows no more."""
    return [float(f"{value:.4g}") for value in x[:: -(-len(x) // POINTS)]]
