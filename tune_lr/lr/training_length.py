"""How the figures of an LR range test depend on the length of the training that they are for.

The bounds and the suggestion are multiples of landmarks of a ramp of a few hundred steps, and the multiples were
measured on trainings of 120 to 500 steps (docs/range_test.md). On most models longer trainings want lower LRs. Up to
REFERENCE_STEPS the figures stay as they are; beyond that each falls by a power of the length. The powers were chosen on
six workloads of `benchmarks/longrun/`, trained for up to 10,240 steps.
"""

REFERENCE_STEPS = 600
# The lower bound falls fastest and the upper one slowest, so that longer trainings have a wider interval: how much the
# best LR falls differs from model to model, and schedules with a high peak feel it less.
LOW_POWER, SUGGESTION_POWER, HIGH_POWER = 0.6, 0.4, 0.2


def relative_length(max_steps: int | None) -> float:
    """Return the length of a training of `max_steps` in units of REFERENCE_STEPS; 1 where it is shorter or unknown."""
    return max(1.0, (max_steps or 0) / REFERENCE_STEPS)
