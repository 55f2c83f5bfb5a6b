"""The phases of a study, the states in which a trial may end, and the goal of a metric. Each list exists here only."""

PHASES = ("range_test", "search", "confirm")

STATES = ("complete", "pruned", "diverged", "failed")


def sign_of(goal: str) -> float:
    """Return the factor that turns a figure into a loss: 1 for "minimize", -1 for "maximize".

    A smaller `sign_of(goal) * figure` is always the better figure.
    """
    return -1.0 if goal == "maximize" else 1.0
