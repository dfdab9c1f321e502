"""The colours of the page: every text has the contrast that WCAG AA asks for, in both colour schemes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("burnish.chat").joinpath("strip.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
PAIRS = [
    ("ink", "page"),
    ("faint", "page"),
    ("faint", "card"),
    ("faint", "wash"),
    ("context", "card"),
    ("shared", "card"),
    ("context", "wash"),
    ("cut", "card"),
    ("reply-ink", "reply"),
    ("reasoning-ink", "reasoning"),
    ("call-ink", "call"),
    ("own-ink", "own"),
    ("stop-ink", "stop"),
]


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(text: str, ground: str, scheme: dict[str, str]) -> None:
    high, low = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5
