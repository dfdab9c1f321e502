"""Figures as people read them: 3,803,904 -> "3.8 million", 95 s -> "1 min 35 s", 0.9933 -> "99.3%"."""

from __future__ import annotations

UNKNOWN = "–"


def count(value: float | None, noun: str = "", plural: str = "") -> str:
    """A count with its noun: "1 row", "1,000 rows"."""
    if value is None:
        return UNKNOWN
    named = f" {noun if round(value) == 1 else plural or noun + 's'}" if noun else ""
    return f"{round(value):,}{named}"


def large(value: float | None) -> str:
    """A large count in words: "3.8 million"."""
    if value is None:
        return UNKNOWN
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{round(value):,}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A measured number to a few significant digits: 0.0136, 2.11, 1,520."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    shown = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in shown else shown


def percent(value: float | None, *, digits: int = 1) -> str:
    """A share as a percentage."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f}%"


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign: "+12.4"."""
    return UNKNOWN if value is None else f"{100 * value:+.1f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    if value is None:
        return UNKNOWN
    return f"{'−' if value < 0 else '+'}{decimal(abs(value), digits)}"


def duration(seconds: float | None) -> str:
    """A stretch of time in its two largest units."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for (large_size, large_name), (size, name) in (
        ((86_400, "d"), (3_600, "h")),
        ((3_600, "h"), (60, "min")),
        ((60, "min"), (1, "s")),
    ):
        if whole >= large_size:
            rest = whole % large_size // size
            return f"{whole // large_size} {large_name}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def memory(size: float | None) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    if size is None:
        return UNKNOWN
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.0f} MiB"


def listed(words: list[str]) -> str:
    """Words as a list in prose: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
