"""Pure functions of learning rates: LR schedules, the ramp of a range test, divergence, and the bounds read off it."""
