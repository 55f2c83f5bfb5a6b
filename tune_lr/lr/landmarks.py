"""The landmarks of a range-test curve: where most of its fall is made, and where its loss turns up.

A curve must fall below its first plateau by more than the noise explains, and it must turn up again. Both landmarks
then move little from seed to seed, unlike the LR of the minimum, which lies anywhere in a flat and noisy basin. Slopes
are not used: they do not survive noise. A fall that is not far beyond the noise has no such landmarks. If the loss then
diverges, the LR of that step is the only landmark.

Notation

    symbol    meaning                                                               unit   shape
    losses    losses of the curve, thinned                                          loss   (m,)
    smoothed  losses after smoothing                                                loss   (m,)
    error     standard error of a smoothed loss                                     loss   ()
    plateau   loss before the fall                                                  loss   ()
    lowest    minimum of the smoothed losses                                        loss   ()
    fall      plateau - lowest                                                      loss   ()
    fallen    distance at which FALLEN of the fall is made (see `ramp_curve`)       LR     ()
    basin     lowest and highest LR at which most of the fall is kept               LR     (2,)
    edge      LR that diverged, where there is no other landmark                    LR     ()
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tune_lr.lr.divergence import WINDOW
from tune_lr.lr.ramp_curve import RampCurve
from tune_lr.lr.smoothing import noise_sigma, smooth, smoothing_window, thin

Array = NDArray[np.float64]
Status = Literal["ok", "no_descent", "no_divergence", "diverged_at_start"]

# A curve has fallen if its smoothed minimum lies this many standard errors below the plateau. Pure noise stays above
# that, although the minimum over all windows is taken (a test counts how often).
FALL_ERRORS = 6.0
# At the end of a ramp without divergence the loss has turned up if it left the basin by this many standard errors. It
# is fewer, since one place is looked at and not the best of many.
RISE_ERRORS = 3.0
# The basin is made of the LRs whose smoothed loss gave back at most this part of the fall.
BASIN = 0.2
# The basin of a smaller fall ends in the noise. If the loss diverges, that LR is then the better landmark.
READABLE_ERRORS = RISE_ERRORS / BASIN
# The model has fallen when it made this part of the fall.
FALLEN = 0.9
# The standard error of a median in units of that of a mean, for normal noise: sqrt(pi / 2).
MEDIAN_ERROR = 1.2533
# A curve that diverged without having fallen was too high from the start if that happened within so many steps (twice
# what the detector needs to be sure) or within half a decade. If it happened later, there was a plateau to fall from.
START_STEPS = 2 * WINDOW
START_RATIO = 10**0.5
# Fewer points hold no plateau, minimum and rise.
MIN_POINTS = 5


@dataclass(frozen=True)
class Landmarks:
    """What a curve shows: a status and, where that is "ok", either `fallen` and `basin` or, alone, the `edge`."""

    status: Status
    fallen: float = math.nan
    basin: tuple[float, float] = (math.nan, math.nan)
    edge: float | None = None

    @property
    def has_fall(self) -> bool:
        """Whether a clear fall was seen, so that `fallen` and `basin` are known."""
        return self.status == "ok" and self.edge is None


def find_landmarks(curve: RampCurve) -> Landmarks:
    """Return the landmarks of one curve that ends at its divergence, if it has one."""
    if len(curve.lrs) < MIN_POINTS:
        return _without_fall(curve)
    steps, losses = thin(np.arange(len(curve.losses), dtype=np.float64), curve.losses)
    smoothed = smooth(losses)
    window = smoothing_window(len(losses))
    error = MEDIAN_ERROR * noise_sigma(losses) / math.sqrt(window)
    # The lower of two estimates: a loss that only rises has its minimum at the first point, and has not fallen.
    plateau = min(float(np.median(losses[:window])), float(smoothed[0]))
    lowest = float(smoothed.min())
    fall = plateau - lowest
    diverged = curve.divergence_lr is not None
    if fall <= (READABLE_ERRORS if diverged else FALL_ERRORS) * error:
        # A ramp that is too short for the detector, and whose loss only rose, was too high from the start as well.
        rose = not diverged and smoothed[-1] > plateau + FALL_ERRORS * error
        return Landmarks("diverged_at_start") if rose else _without_fall(curve)
    basin_level = lowest + max(BASIN * fall, RISE_ERRORS * error)
    if not diverged and smoothed[-1] <= basin_level:
        return Landmarks("no_divergence")

    places = steps.astype(int)
    basin_lrs = curve.lrs[places][smoothed <= basin_level]
    basin = float(basin_lrs[0]), float(basin_lrs[-1])
    # The lowest of many noisy values lies below what the model has reached, hence the errors.
    fallen_level = lowest + max((1 - FALLEN) * fall, RISE_ERRORS * error)
    fallen = float(curve.distances[places][smoothed <= fallen_level][0])
    # However slow the ramp is, and however far it has travelled: `fallen` is never beyond the end of the basin.
    return Landmarks("ok", min(fallen, basin[1]), basin)


def _without_fall(curve: RampCurve) -> Landmarks:
    """Return what a curve shows that has no clear fall: the LR that diverged, or nothing."""
    if curve.divergence_lr is None:
        return Landmarks("no_descent")
    if len(curve.lrs) < START_STEPS or curve.divergence_lr <= START_RATIO * curve.start_lr:
        return Landmarks("diverged_at_start")
    return Landmarks("ok", edge=curve.divergence_lr)
