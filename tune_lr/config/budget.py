"""The budget of a study: "12x" is so many full trainings; "90s", "30m" and "2h" are time."""

import re
from dataclasses import dataclass

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
ALLOWED = "12x (full trainings), 90s, 30m or 2h"


@dataclass(frozen=True)
class Budget:
    """A number of full trainings, of `max_steps` optimizer steps each, or of seconds. One of the two is set."""

    trainings: float | None = None
    seconds: float | None = None

    def steps(self, max_steps: int) -> int | None:
        """Return the optimizer steps that the budget buys, None where it is time."""
        return None if self.trainings is None else int(self.trainings * max_steps)


def parse_budget(text: str) -> Budget:
    """Return the budget that a text says. Raises ValueError if the text is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([xsmh])", text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"is no budget; write {ALLOWED}")
    number, unit = float(match[1]), match[2]
    return Budget(trainings=number) if unit == "x" else Budget(seconds=number * SECONDS[unit])


def confirmation_within(trainings: int, finalists: int, seeds: int) -> tuple[int, int]:
    """Return the finalists and the seeds of each of a confirmation that fits into so many full trainings.

    What does not fit has fewer finalists, but at least two, and then fewer seeds. The result is (0, 0) if not even one
    training fits.
    """
    if finalists * seeds <= trainings:
        return finalists, seeds
    finalists = min(finalists, max(2, trainings // seeds), trainings)
    return (finalists, min(seeds, trainings // finalists)) if finalists else (0, 0)
