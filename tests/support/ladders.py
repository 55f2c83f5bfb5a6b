"""Simulated studies whose trials have several lengths."""

from typing import Any

from simulated import FIXED_LR, config_of
from tune_lr.config.model import Config

FULL = 640  # steps of a full training
LADDER = [1 / 16, 1 / 4, 1]


def ladder_config(**changes: Any) -> Config:
    """Return the configuration of a study of 3 full trainings in all, whose trials have three lengths."""
    fields = {"max_steps": FULL, "report_every": 40, "num_trials": 200, "budget": "3x", "lengths": LADDER}
    ladder = {"sampler": {"name": "gp"}, "pruner": {"name": "none"}, "confirm": {"top": 0}, "parameters": FIXED_LR}
    return config_of(**{**fields, **ladder, **changes})
