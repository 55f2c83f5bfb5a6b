"""How an LR schedule looks in every picture: its colour, dash and symbol."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tune_lr.records.row import RAMP

SCHEDULES = (
    "constant", "step", "exponential", "cosine", "onecycle", "cyclic", "multistep", "cosine_restarts",
    "polynomial", "linear", "inverse_sqrt", "wsd", "flat_cosine", "plateau",
)  # fmt: skip

GREY = "#8a9099"
_PALETTE = (
    "#5f656d", "#d55e00", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#96180f", "#56b4e9",
    "#d2004b", "#00c868", "#872d87", "#9678ff", "#5a00f0", "#b4b4a5",
)  # fmt: skip
_SOLID = 8  # schedules with an unbroken line
_LENGTHS = ("#e0a526", "#dd6a50", "#b0418a", "#5a4fcf")  # of a ladder, from the shortest to the full one
_SHADES = (0.42, 0.12)  # relative luminances between which a line shows on a white and on a dark page
DASHES: Mapping[str, tuple[float, ...]] = {  # lengths of dash and gap, in widths of the line
    "solid": (), "dash": (4, 2), "dot": (1, 1.5), "dashdot": (5, 1.5, 1, 1.5)
}  # fmt: skip
SYMBOLS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "pentagon": "p",
    "star": "*", "hexagon": "h",
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """The look of a curve: colour, dash and symbol, each by its name here."""

    color: str
    dash: str = "solid"
    symbol: str = "circle"


def schedule_style(name: str) -> Style:
    """Return the look of an LR schedule. A name that is not known gets a dotted one, which depends on the name."""
    if name == RAMP:
        return Style(GREY)
    known = name in SCHEDULES
    index = SCHEDULES.index(name) if known else zlib.crc32(name.encode())
    return Style(
        color=_PALETTE[index % len(_PALETTE)],
        dash="dot" if not known else "solid" if index < _SOLID else "dash",
        symbol=list(SYMBOLS)[(index + 3 * (index // len(SYMBOLS))) % len(SYMBOLS)],
    )


def told_apart(schedules: Sequence[str]) -> list[Style]:
    """Return a look for each of several curves: those of one LR schedule get shades of its colour, and dashes."""
    styles = []
    for place, name in enumerate(schedules):
        style, alike = schedule_style(name), schedules.count(name)
        if alike > 1:
            nth = schedules[:place].count(name)
            style = Style(
                color=_shade(style.color, float(np.geomspace(*_SHADES, alike)[nth])),
                dash=list(DASHES)[nth % len(DASHES)],
                symbol=list(SYMBOLS)[nth % len(SYMBOLS)],
            )
        styles.append(style)
    return styles


def _shade(color: str, luminance: float) -> str:
    """A colour mixed with as much white or black as gives it that relative luminance."""
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    light = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    now = float(light @ (0.2126, 0.7152, 0.0722))
    light = light * luminance / now if luminance < now else light + (1 - light) * (luminance - now) / (1 - now)
    shaded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in shaded)


def length_styles(count: int) -> list[Style]:
    """Return a look for each length of a ladder, the shortest first: a sequence of colours from light to dark."""
    anchors = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in _LENGTHS], dtype=float)
    places = np.linspace(0, len(anchors) - 1, count) if count > 1 else np.array([len(anchors) - 1.0])
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    symbols = list(SYMBOLS)
    return [
        Style("#" + "".join(f"{round(value):02x}" for value in color), symbol=symbols[place % len(symbols)])
        for place, color in enumerate(zip(*channels, strict=True))
    ]


def schedule_color(name: str) -> str:
    """Return the colour of an LR schedule, as #rrggbb."""
    return schedule_style(name).color
