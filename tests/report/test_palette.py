"""The colours of the report: text and lines have the contrast that WCAG AA asks for, in both colour schemes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("burnish.report").joinpath("report.css").read_text(encoding="utf-8")
FOUND = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
LIGHT, DARK = ({name: pair[side] for name, *pair in FOUND} for side in (0, 1))
TEXT = [
    *((ink, ground) for ink in ("ink", "soft", "faint") for ground in ("page", "card")),
    *((ink, ground) for ink in ("good", "bad") for ground in ("page", "card")),
    *((f"{name}-ink", name) for name in ("alert", "proof", "reply", "reasoning", "call", "own", "stop")),
    *((f"c{number}", "card") for number in range(8)),  # names at the ends of lines are text
    ("heat-ink", "cold"),
]


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_stands_out_from_its_ground(text: str, ground: str, scheme: dict[str, str]) -> None:
    assert contrast(scheme[text], scheme[ground]) >= 4.5


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_token_can_be_read_at_every_heat(scheme: dict[str, str]) -> None:
    most = max(int(part) for part in re.findall(r"\.h\d+ \{ --part: (\d+)%", STYLE)) / 100
    mixed = "#" + "".join(
        f"{round(most * int(scheme['heat'][at : at + 2], 16) + (1 - most) * int(scheme['cold'][at : at + 2], 16)):02x}"
        for at in (1, 3, 5)
    )
    assert contrast(scheme["heat-ink"], mixed) >= 4.5
