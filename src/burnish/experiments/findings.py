"""What a curve says: its points with intervals, the law through them, and advice in words.

"equal epochs: the next 1,000 rows would buy +0.4 +- 0.5 points: stop collecting"
"equal epochs: exact reaches 95% of its plateau (98.9, 98.1 to 99.5) at 640 rows (410 to 1,200)"
"not yet flat: collect more of chemistry (+6.1 +- 2.0 points there), less of capitals (+0.1 +- 0.3)"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from burnish.evaluation.intervals import mean_interval, paired_interval, with_seeds
from burnish.experiments.asking import METRICS, Metric
from burnish.experiments.cells import EPOCHS, STEPS, Cell, Settings
from burnish.experiments.saturation import Laws, describe, fit, interval

Array = NDArray[np.float64]
Found = tuple[Cell, Mapping[str, Any]]

WORTH = {"points": 0.01, "nats": 0.01}
"""What the next rows must buy to be worth collecting, unless the user says: one point, or a hundredth of a nat."""
PLATEAU = 0.95


class Question(Protocol):
    """What findings ask of `curve.Asked`."""

    @property
    def rules(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def next_rows(self) -> int: ...  # noqa: D102
    @property
    def worth(self) -> float | None: ...  # noqa: D102


def conclude(
    settings: Settings,
    asked: Question,
    base: Sequence[float],
    found: Sequence[Found],
    *,
    titles: Sequence[str],
) -> dict[str, Any]:
    """Everything that curve.json holds."""
    metric = METRICS[settings.metric]
    names = [each["name"] for each in settings.held_out]
    of = _source_of_rows(settings, len(base))
    start = np.array(base)
    groups = {rule: _by_size(found, rule) for rule in asked.rules}
    laws = {rule: _law(metric, sizes, start) for rule, sizes in groups.items() if len(sizes) > 2}
    points = [
        _point(cell, rule, one, metric, of, names)
        for rule in asked.rules
        for cell, one in found
        if cell.halved is None and _belongs(cell, one, rule, found)
    ]
    advice = []
    for rule, sizes in groups.items():
        if rule in laws:
            advice += _advice(rule, laws[rule], sizes, metric, asked)
        advice += _last_step(rule, sizes, metric)
    advice += _rules_differ(groups, metric)
    advice += _by_source(groups, start, of, names, metric, asked)
    advice += _halved(found, groups, titles, metric)
    advice += _warnings(groups, start)
    return {
        "version": 1,
        "recipe": settings.recipe,
        "metric": metric.name,
        "rule": asked.rules[0] if len(asked.rules) == 1 else "both",
        "held_out": len(base),
        "base": _spread(start[None, :], metric),
        "points": points,
        "sizes": {
            rule: [{"rows": size, **_spread(own, metric), "seeds": len(own)} for size, own in sizes.items()]
            for rule, sizes in groups.items()
        },
        "fit": {rule: {**describe(law), **_reached(law, metric)} for rule, law in laws.items()},
        "lines": {rule: _line(law, groups[rule]) for rule, law in laws.items()},
        "advice": advice,
    }


def _belongs(cell: Cell, one: Mapping[str, Any], rule: str, found: Sequence[Found]) -> bool:
    """Whether a cell is of a rule: equal steps take an epochs' cell of as many updates where they have none there."""
    if cell.rule == rule:
        return True
    steps = [c for c, _ in found if c.rule == STEPS and c.halved is None]
    own = any(c.rows == cell.rows and c.seed == cell.seed for c in steps)
    same = not steps or one["updates"] in {c.length for c in steps}
    return rule == STEPS and cell.rule == EPOCHS and same and not own


def _by_size(found: Sequence[Found], rule: str) -> dict[int, Array]:
    """Of each size the outcomes (seeds, rows), smallest size first."""
    sizes: dict[int, list[list[float]]] = {}
    for cell, one in sorted(found, key=lambda pair: (pair[0].rows, pair[0].seed)):
        if cell.halved is None and _belongs(cell, one, rule, found):
            sizes.setdefault(cell.rows, []).append(one["outcomes"])
    return {size: np.array(own) for size, own in sizes.items()}


def _law(metric: Metric, sizes: Mapping[int, Array], base: Array) -> Laws:
    return fit(
        list(sizes), list(sizes.values()), base,
        higher_is_better=metric.higher_is_better, bounds=metric.bounds,
    )  # fmt: skip


def _spread(own: Array, metric: Metric) -> dict[str, float]:
    """The mean and its interval: over held-out rows, seeds averaged first, and over seeds."""
    rows = own.mean(axis=0)
    low, high = mean_interval(rows) if metric.is_share else paired_interval(rows)
    low, high = with_seeds(own, (low, high), bounds=metric.bounds)
    return {"value": float(rows.mean()), "low": low, "high": high}


def _point(
    cell: Cell, rule: str, one: Mapping[str, Any], metric: Metric, of: NDArray[np.int64], names: Sequence[str]
) -> dict[str, Any]:
    own = np.array([one["outcomes"]])
    by_source = {
        name: _spread(own[:, of == number], metric) for number, name in enumerate(names) if len(names) > 1
    }
    return {
        "rows": cell.rows, "seed": cell.seed, "rule": rule, **_spread(own, metric),
        "updates": one["updates"], "by_source": by_source,
    }  # fmt: skip


def _reached(law: Laws, metric: Metric) -> dict[str, Any]:
    low, high = interval(law.rows_at(PLATEAU))
    return {"rows_at_95": float(law.rows_at(PLATEAU)[0]), "rows_at_95_interval": [low, high]}


def _line(law: Laws, sizes: Mapping[int, Array]) -> list[list[float]]:
    """The law and its interval where it is drawn: rows, value, low, high."""
    places = np.geomspace(min(sizes), max(sizes), 40)
    return [[float(n), float(law.at(n)[0]), *interval(law.at(n))] for n in places]


def _advice(rule: str, law: Laws, sizes: Mapping[int, Array], metric: Metric, asked: Question) -> list[str]:
    """What the law says of the next rows, and of the plateau."""
    most = max(sizes)
    plateau, rows = float(law.plateau[0]), float(law.rows_at(PLATEAU)[0])
    low, high = interval(law.plateau)
    few, many = interval(law.rows_at(PLATEAU))
    words = f"{metric.words(plateau)}, 95% interval {metric.words(low)} to {metric.words(high)}"
    if rows <= most:
        reach = f"at about {number(rows)} rows ({number(few)} to {number(many)})"
        told = [f"equal {rule}: {metric.name} reaches 95% of the way to its plateau ({words}) {reach}"]
    else:
        told = [
            f"equal {rule}: the plateau ({words}) is beyond the data: 95% of the way would take about "
            f"{number(rows)} rows ({number(few)} to {number(many)}), and there are {most:,}"
        ]
    gain, wide = _gain(law, most, asked.next_rows, metric)
    verdict = _verdict(gain, wide, _worth(metric, asked))
    buys = f"{metric.words(gain, signed=True)} ± {metric.words(wide)} {metric.unit}"
    told.append(f"equal {rule}: the next {asked.next_rows:,} rows would buy {buys}: {verdict}")
    return told


def _worth(metric: Metric, asked: Question) -> float:
    if asked.worth is None:
        return WORTH[metric.unit]
    return asked.worth / 100 if metric.is_share else asked.worth


def _gain(law: Laws, rows: int, more: int, metric: Metric) -> tuple[float, float]:
    """The improvement that more rows bring, and half its interval."""
    gains = law.gain(rows, more) * (1 if metric.higher_is_better else -1)
    low, high = interval(gains)
    gain = float(gains[0])
    return gain, max(high - gain, gain - low)


def _verdict(gain: float, wide: float, worth: float) -> str:
    if gain + wide < worth:
        return "stop collecting"
    if gain - wide > worth:
        return "not yet flat: collect more"
    return "too close to tell: more seeds or more held-out rows would say"


def _last_step(rule: str, sizes: Mapping[int, Array], metric: Metric) -> list[str]:
    """What the last step between two sizes bought, measured, no law needed."""
    if len(sizes) < 2:
        return []
    before, last = list(sizes)[-2:]
    change = sizes[last].mean(axis=0) - sizes[before].mean(axis=0)
    low, high = paired_interval(change)
    return [
        f"equal {rule}, measured: from {before:,} to {last:,} rows {metric.name} moved by "
        f"{metric.words(float(change.mean()), signed=True)} {metric.unit} "
        f"(95% over prompts: {metric.words(low, signed=True)} to {metric.words(high, signed=True)})"
    ]


def _rules_differ(groups: Mapping[str, Mapping[int, Array]], metric: Metric) -> list[str]:
    """Where the two rules are furthest apart: a lack of updates that looked like one of rows, or overfitting."""
    if not {EPOCHS, STEPS} <= groups.keys():
        return []
    shared = [size for size in groups[EPOCHS] if size in groups[STEPS]]
    sign = 1 if metric.higher_is_better else -1
    lead = {size: sign * float(groups[STEPS][size].mean() - groups[EPOCHS][size].mean()) for size in shared}
    if not lead:
        return []
    size = max(lead, key=lambda each: abs(lead[each]))
    values = [metric.words(float(groups[rule][size].mean())) for rule in (STEPS, EPOCHS)]
    if abs(lead[size]) < WORTH[metric.unit]:
        return ["equal steps and equal epochs agree at every size"]
    cause = (
        "a small set lacks updates before it lacks rows"
        if lead[size] > 0
        else "going through so few rows so often made it worse"
    )
    return [f"at {size:,} rows equal steps give {values[0]}, equal epochs {values[1]}: {cause}"]


def _by_source(
    groups: Mapping[str, Mapping[int, Array]],
    base: Array,
    of: NDArray[np.int64],
    names: Sequence[str],
    metric: Metric,
    asked: Question,
) -> list[str]:
    """On which sources' held-out rows the curve still rises, by a law for each."""
    rule, sizes = next(iter(groups.items()))
    if len(names) < 2 or len(sizes) < 3:
        return []
    worth = _worth(metric, asked)
    open_: list[tuple[float, str]] = []
    flat: list[tuple[float, str]] = []
    for source, name in enumerate(names):
        mine = of == source
        if mine.sum() < 2:
            continue
        law = _law(metric, {size: own[:, mine] for size, own in sizes.items()}, base[mine])
        gain, wide = _gain(law, max(sizes), asked.next_rows, metric)
        words = f"{name} ({metric.words(gain, signed=True)} ± {metric.words(wide)} there)"
        (open_ if gain > worth else flat).append((gain, words))
    told = [words for _, words in sorted(open_, reverse=True)]
    least = [words for _, words in sorted(flat)]
    if not told:
        return [f"equal {rule}, by source: every source is flat, {least[-1]} the least so"] if least else []
    rest = f"; flat: {', '.join(least[:4])}" if least else ""
    return [f"equal {rule}, by source: not yet flat: collect more of {', '.join(told[:4])}{rest}"]


def _halved(
    found: Sequence[Found], groups: Mapping[str, Mapping[int, Array]], titles: Sequence[str], metric: Metric
) -> list[str]:
    """What half the rows of each source are worth to all held-out rows, by training without them."""
    halved: dict[int, list[list[float]]] = {}
    for cell, one in found:
        if cell.halved is not None:
            halved.setdefault(cell.halved, []).append(one["outcomes"])
    if not halved:
        return []
    whole = next(iter(groups.values()))
    largest = whole[max(whole)].mean(axis=0)
    sign = 1 if metric.higher_is_better else -1
    told = []
    for source, own in halved.items():
        change = sign * (largest - np.array(own).mean(axis=0))
        low, high = paired_interval(change)
        told.append(
            (float(change.mean()), f"{titles[source]} {metric.words(float(change.mean()), signed=True)} "
             f"({metric.words(low, signed=True)} to {metric.words(high, signed=True)})")
        )  # fmt: skip
    ranked = ", ".join(words for _, words in sorted(told, reverse=True))
    return [f"half of a source's rows are worth, to all held-out rows ({metric.unit}): {ranked}"]


def _warnings(groups: Mapping[str, Mapping[int, Array]], base: Array) -> list[str]:
    sizes = next(iter(groups.values()))
    told = []
    if sizes and min(len(own) for own in sizes.values()) < 2:
        told.append("one seed: how far seeds stray is not known, and the intervals are too narrow for it")
    if len(sizes) < 4:
        told.append(
            f"{len(sizes)} sizes: a law of three or four numbers needs five or more to be told from others"
        )
    if len(base) < 100:
        told.append(f"{len(base)} held-out rows: a point of difference cannot be seen on so few")
    return told


def _source_of_rows(settings: Settings, number: int) -> NDArray[np.int64]:
    counts = [each["rows"] for each in settings.held_out]
    return np.repeat(np.arange(len(counts)), counts)[:number]


def number(rows: float) -> str:
    """A number of rows as it is told: two digits of it are known at best. 637.2 -> "640"."""
    if rows >= 1e7:
        return "more than 10 million"
    digits = max(0, len(str(int(rows))) - 2)
    return f"{int(round(rows, -digits)):,}"
