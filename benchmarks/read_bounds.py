"""How long `find_lr_bounds` takes to read a curve of 10,000 steps.

    python benchmarks/read_bounds.py

Prints the median of 50 readings: of one curve that diverges, and of one that abstains, which takes all tests there are.
"""

import time
from statistics import median

import numpy as np

from tune_lr.lr.bounds import find_lr_bounds

STEPS, READINGS = 10_000, 50


def main() -> None:
    rng = np.random.default_rng(0)
    lrs = np.geomspace(1e-5, 10, STEPS)
    distance = np.log10(lrs / 0.05)
    falls_and_explodes = 0.3 + 2 / (1 + np.exp(6 * (distance + 1))) + np.expm1(20 * np.clip(distance - 0.5, 0, None))
    for name, losses in (("falls and explodes", falls_and_explodes), ("noise", np.full(STEPS, 2.3))):
        curve = [(lrs, losses + 0.03 * rng.standard_normal(STEPS))]
        seconds = []
        for _ in range(READINGS):
            started = time.perf_counter()
            bounds = find_lr_bounds(curve)
            seconds.append(time.perf_counter() - started)
        print(f"{name} ({bounds.status}): {1000 * median(seconds):.1f} ms, median of {READINGS}")


if __name__ == "__main__":
    main()
