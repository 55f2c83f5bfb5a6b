"""Read best.yaml for the report, also where somebody has written it by hand and left keys out."""

import math
from collections.abc import Mapping
from typing import Any

from tune_lr.records.answer import Answer
from tune_lr.show.text import MISSING

UNKNOWN_TRIAL = -1

# What stands for the keys that a finalist lacks. The page shows none of these as a result.
_UNKNOWN_FINALIST: Mapping[str, Any] = {
    "lr_schedule": MISSING,
    "lr": math.nan,
    "parameters": {},
    "trial": UNKNOWN_TRIAL,
    "confirm_trials": (),
    "seeds": (),
    "values": (),
    "mean": math.nan,
    "interval": None,
    "difference": math.nan,
    "difference_interval": None,
}


def read_answer(best: Mapping[str, Any], metric: str, goal: str) -> Answer:
    """Return the answer in best.yaml. `metric` and `goal` are the study's, for a file that does not name them.

    A number that the file lacks is NaN, or 0 where it counts something; a text is empty. Such a file has at least
    one finalist, the winner.
    """
    try:
        answer = Answer.from_dict(best)
    except (AttributeError, KeyError, TypeError, ValueError):
        return Answer.from_dict(_completed(best, metric, goal))
    return answer if answer.finalists else Answer.from_dict(_completed(best, metric, goal))


def _completed(best: Mapping[str, Any], metric: str, goal: str) -> dict[str, Any]:
    named = best.get("metric")
    if isinstance(named, Mapping) and named.get("name"):
        metric = str(named["name"])
    return {
        "finalists": [_completed_finalist(finalist) for finalist in best.get("finalists") or [best]],
        "optimizer": best.get("optimizer") or {},
        "batch_size": best.get("batch_size") or 0,
        "max_steps": best.get("max_steps") or 0,
        "metric": {"name": metric, "goal": goal},
        "families": [],  # the report ranks the search trials itself
        "verdict": str(best.get("verdict") or ""),
        "test": best.get("test") or None,
        "steps": {"full_trainings": math.nan, **(best.get("steps") or {})},
        "code": best.get("code") or "",
    }


def _completed_finalist(finalist: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: finalist[name] for name in _UNKNOWN_FINALIST if finalist.get(name) is not None}
    return {**_UNKNOWN_FINALIST, **given}
