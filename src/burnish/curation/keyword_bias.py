"""Words of prompts after which answers refuse, or hedge, more than after other prompts of its source and kind."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from burnish.curation import tells
from burnish.curation.findings import LEVEL, Audited, Finding, adjusted_to, places
from burnish.curation.rates import Stratum, excess_p, least_p, matched_share, num_testable

FEWEST_ROWS = 5
MOST_KEYWORDS = 10


def keyword_family(name: str, happens: Callable[[str], bool], rows: Sequence[Audited]) -> Iterator[Finding]:
    """The surest keyword, its p multiplied by the number of keywords that could have been found."""
    happened = [happens(row.answer) for row in rows]
    tables = _keyword_tables(rows, happened)
    if not tables:
        return
    factor = num_testable([least_p(strata) for strata in tables.values()], LEVEL)
    values = {word: excess_p(strata) for word, strata in tables.items()}
    word = min(values, key=lambda word: (values[word], word))
    p = min(1.0, factor * values[word])
    yield _keyword_finding(name, word, rows, happened, tables[word], p)


def further_keywords(
    name: str, happens: Callable[[str], bool], rows: Sequence[Audited], first: Finding, *, tests: int
) -> list[Finding]:
    """After the surest keyword, those that are sure among the rows without it: not its mere companions.

    Each is corrected for all `tests` of the audit.
    """
    found: list[Finding] = []
    left = list(rows)
    word = first.name.split(":")[1]
    while len(found) < MOST_KEYWORDS:
        left = [row for row in left if word not in tells.keywords(row.prompt)]
        following = next(keyword_family(name, happens, left), None)
        if following is None or tests * following.p >= LEVEL:
            break
        found.append(adjusted_to(following, max(first.adjusted, tests * following.p)))
        word = following.name.split(":")[1]
    return found


def _keyword_tables(rows: Sequence[Audited], happened: Sequence[bool]) -> dict[str, list[Stratum]]:
    """For each word of the prompts, hits and rows with and without it, among prompts of one source and kind."""
    with_word: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    hit_word: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    total: Counter[tuple[str, str]] = Counter()
    hits: Counter[tuple[str, str]] = Counter()
    for row, hit in zip(rows, happened, strict=True):
        stratum = row.source, _kind(row)
        total[stratum] += 1
        hits[stratum] += hit
        for word in tells.keywords(row.prompt):
            with_word[word][stratum] += 1
            hit_word[word][stratum] += hit
    tables = {}
    for word, counts in with_word.items():
        found = hit_word[word]
        strata = [Stratum(found[s], n, hits[s] - found[s], total[s] - n) for s, n in counts.items()]
        strata = [stratum for stratum in strata if stratum.others]
        if hits.total() and sum(stratum.rows for stratum in strata) >= FEWEST_ROWS:
            tables[word] = strata
    return tables


def _kind(row: Audited) -> str:
    """Prompts that want one of a few answers are refused less than others, whatever their words."""
    if row.rival is not None:
        return "pair"
    if row.offered:
        return "options"
    if tells.states_view(row.prompt):
        return "view"
    return "closed" if tells.is_closed(row.prompt) else "open"


def _keyword_finding(
    name: str, word: str, rows: Sequence[Audited], happened: Sequence[bool], strata: list[Stratum], p: float
) -> Finding:
    share, effective = matched_share(strata)
    verb = {"refusal": "refuses", "hedge": "hedges"}[name]
    hits = [
        r.origin for r, hit in zip(rows, happened, strict=True) if hit and word in tells.keywords(r.prompt)
    ]
    return Finding(
        f"{name}:{word}", f"the answer {verb} where the prompt says {word!r}",
        len(hits), sum(s.rows for s in strata), 0.0 if math.isnan(share) else share, effective, p, 1.0,
        places(hits),
    )  # fmt: skip


def first_words(rows: Sequence[Audited], baseline: Sequence[Audited]) -> list[Finding]:
    """The first word that stands out most against a baseline set."""
    mine = Counter(tells.first_word(row.answer) for row in rows)
    theirs = Counter(tells.first_word(row.answer) for row in baseline)
    tables = {word: [Stratum(mine[word], len(rows), theirs[word], len(baseline))] for word in mine if word}
    if not tables or not baseline:
        return []
    factor = num_testable([least_p(strata) for strata in tables.values()], LEVEL)
    values = {word: excess_p(strata) for word, strata in tables.items()}
    word = min(values, key=lambda word: (values[word], word))
    share, effective = matched_share(tables[word])
    hits = [row.origin for row in rows if tells.first_word(row.answer) == word]
    return [
        Finding(
            f"first word:{word!r}", f"the answer begins with {word!r}, more than in the baseline set",
            mine[word], len(rows), share, effective, min(1.0, factor * values[word]), 1.0, places(hits),
        )
    ]  # fmt: skip
