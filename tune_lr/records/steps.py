"""Optimizer steps of different batch sizes, made comparable by the number of samples that they see.

| symbol       | meaning                                          | unit    |
|--------------|--------------------------------------------------|---------|
| `steps`      | optimizer steps                                  | steps   |
| `batch_size` | global batch size of a trial                     | samples |
| `base`       | global batch size in which a study counts steps  | samples |
"""


def equal_steps(steps: int, batch_size: int, other: int) -> int:
    """Return how many steps with batches of `other` see as many samples as `steps` with batches of `batch_size`.

    The result is rounded to the nearest whole number.
    """
    return (steps * batch_size + other // 2) // other


def steps_covered(step: int, batch_size: int, other: int) -> int:
    """Return the inverse of `equal_steps`: the most steps with batches of `batch_size` that are equal to `step` steps
    with batches of `other`."""
    return ((step + 1) * other - other // 2 - 1) // batch_size


def steps_weight(batch_size: int | None, base: int | None) -> float:
    """Return how many steps with batches of `base` one step with batches of `batch_size` counts.

    It is 1 where the batch size is not searched (`batch_size` is None).
    """
    return batch_size / base if batch_size and base else 1.0
