"""How good is an LR schedule at its best, judged by the curve of its LR alone?

    python benchmarks/curve_quality.py

Fits `sampler.QUALITY` to the 34 shapes of the landscapes: ridge regression of ln(a shape's lowest mean loss /
the lowest of all), cut off at WORST, averaged over IN_VIEW. Prints the coefficients, and how well those that were
fitted without a workload foretell it: the part of the variance between shapes that is explained, the place that the
truly best shape takes in the order foretold, and the regret of the best of the first five.
"""

import numpy as np
from numpy.typing import NDArray

from landscapes.landscape import IN_VIEW, all_shapes, default_shape, load, names, schedule_and_shape
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.study.sampler import WORST, features
from tune_lr.study.search_space import PLACES

Array = NDArray[np.float64]
RIDGE = 0.1  # of standardized features


def curves() -> Array:
    """Of all shapes: LR / peak, shape (shapes, PLACES)."""
    made = []
    for cell in all_shapes():
        name, shape = schedule_and_shape(cell)
        made.append(make_lr_schedule(name, default_shape(name) | shape, 1000).curve(PLACES))
    return np.array(made)


def lowest(workload: str) -> Array:
    """Of all shapes: ln(lowest mean loss / the lowest of all), cut off."""
    landscape = load(workload, shapes=True)
    return np.minimum([np.log(landscape.best(cell) / landscape.lowest) for cell in all_shapes()], WORST)


def fit(without: str = "") -> tuple[float, ...]:
    """The coefficients, of all workloads that the search was made on, but one."""
    found = features(curves())[:, 1:]
    target = np.mean([lowest(name) for name in IN_VIEW if name != without], axis=0)
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    standardized = (found - mean) / deviation
    weights = np.linalg.solve(
        standardized.T @ standardized + RIDGE * np.eye(len(mean)), standardized.T @ (target - target.mean())
    )
    raw = weights / deviation
    return (float(target.mean() - mean @ raw), *map(float, raw))


def main() -> None:
    print("QUALITY = (" + ", ".join(f"{value:.4f}" for value in fit()) + ")\n")
    print("| workload | explained | place of the best | best of the first five |\n|---|---|---|---|")
    for name in names():
        truth, foretold = lowest(name), features(curves()) @ np.array(fit(without=name))
        off = truth - foretold
        explained = 1 - np.var(off) / np.var(truth)
        order = np.argsort(foretold)
        place = int(np.flatnonzero(order == truth.argmin())[0]) + 1
        print(f"| {name} | {explained:.2f} | {place} | {100 * np.expm1(truth[order[:5]].min()):.1f} % |")


if __name__ == "__main__":
    main()
