"""Label-bias audit: where answers follow something that should not decide them.

    agreement     yes to what the user said they think               against yes where the user said nothing of it
    position      option A taken, B taken, ...                       against 1 in k, row by row
    length        the longest option taken, the longer rival chosen  against 1 in k, 1 in 2
    first word    yes, or no, to plain questions                     against one half; with a baseline set: any word
    refusal       refusals where a keyword stands in the prompt      against other prompts of its source and kind
    hedge         hedges where a keyword stands                      the same
    language      answers in another language than the prompt's      against the prompts in other languages

Every test is exact and one-sided, and all tests of an audit share one error rate (Holm; Tarone within the thousands of
keywords): of sets without bias at most one in twenty gets a finding of any kind.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from burnish.curation import tells
from burnish.curation.findings import Audit, Audited, Finding, adjusted_to, against_chance, places
from burnish.curation.keyword_bias import first_words, further_keywords, keyword_family
from burnish.curation.rates import Stratum, chance_p, excess_p, holm, matched_share
from burnish.types import Origin

FEWEST_ROWS = 5
FEWEST_CONTROLS = 20


def audit(rows: Iterable[Audited], *, baseline: Iterable[Audited] | None = None) -> Audit:
    """Look at every row for every tell, then test them together."""
    seen = [row.settled() for row in rows]
    untested: dict[str, str] = {}
    found: list[Finding] = []
    for name, test in _TESTS.items():
        results = list(test(seen))
        found += results
        if not results:
            untested[name] = _WANTED[name]
    if baseline is not None:
        found += first_words(seen, [row.settled() for row in baseline])
    adjusted = holm({finding.name: finding.p for finding in found})
    settled = [adjusted_to(finding, adjusted[finding.name]) for finding in found]
    for name, happens in (("refusal", tells.refuses), ("hedge", tells.hedges)):
        first = next((f for f in settled if f.name.startswith(f"{name}:") and f.is_bias), None)
        if first is not None:
            settled += further_keywords(name, happens, seen, first, tests=len(found))
    return Audit(len(seen), sorted(settled, key=lambda f: (not f.is_bias, f.adjusted, f.p)), untested)


def _agreement(rows: Sequence[Audited]) -> Iterator[Finding]:
    """Yes to a stated view, against yes to closed questions without one; where those are few, against one half."""
    stated: defaultdict[str, list[tuple[bool, Origin]]] = defaultdict(list)
    plain: defaultdict[str, list[bool]] = defaultdict(list)
    for row in rows:
        said = tells.verdict(row.answer) if not row.offered else None
        if said is None:
            continue
        if tells.states_view(row.prompt):
            stated[row.source].append((said, row.origin))
        elif tells.is_closed(row.prompt):
            plain[row.source].append(said)
    all_stated = [pair for pairs in stated.values() for pair in pairs]
    if len(all_stated) < FEWEST_ROWS:
        return
    yes = sum(said for said, _ in all_stated)
    examples = places(origin for said, origin in all_stated if said)
    says = "the answer agrees with what the user says they think"
    strata = [
        Stratum(sum(s for s, _ in pairs), len(pairs), sum(plain[source]), len(plain[source]))
        for source, pairs in stated.items()
    ]
    if min(stratum.others for stratum in strata) >= FEWEST_CONTROLS:
        share, effective = matched_share(strata)
        yield Finding(
            "agreement", says, yes, len(all_stated), share, effective, excess_p(strata), 1.0, examples
        )
        return
    p = chance_p(yes, [(len(all_stated), 0.5)])
    yield Finding(
        "agreement", f"{says} (no questions without a view: held against one half)",
        yes, len(all_stated), 0.5, 0, p, 1.0, examples,
    )  # fmt: skip


def _position(rows: Sequence[Audited]) -> Iterator[Finding]:
    """Each letter, against 1 in k among the rows that offer it."""
    chosen = _chosen(rows)
    for letter in range(max((k for _, k, _ in chosen), default=0)):
        offering = [(row, k, taken) for row, k, taken in chosen if k > letter]
        if len(offering) >= FEWEST_ROWS:
            name = chr(ord("A") + letter)
            hits = [row.origin for row, _, taken in offering if taken == letter]
            sizes = Counter(k for _, k, _ in offering)
            yield against_chance(f"position:{name}", f"option {name} is taken", hits, sizes)


def _length(rows: Sequence[Audited]) -> Iterator[Finding]:
    """The longest and the shortest option; the longer and the shorter rival; long answers among highly scored ones."""
    chosen = _chosen(rows)
    for name, extreme in (("longest", max), ("shortest", min)):
        unique = []
        for row, k, taken in chosen:
            lengths = [len(text) for text in row.offered or ()]
            if lengths.count(extreme(lengths)) == 1:
                unique.append((row, k, lengths[taken] == extreme(lengths)))
        if len(unique) >= FEWEST_ROWS:
            hits = [row.origin for row, _, hit in unique if hit]
            sizes = Counter(k for _, k, _ in unique)
            yield against_chance(f"length:{name} option", f"the {name} option is taken", hits, sizes)
    rivals = [
        (row, len(row.answer) > len(row.rival))
        for row in rows
        if row.rival is not None and len(row.answer) != len(row.rival)
    ]
    for name, wanted in (("longer", True), ("shorter", False)):
        if len(rivals) >= FEWEST_ROWS:
            hits = [row.origin for row, longer in rivals if longer is wanted]
            says = f"the {name} of two answers is the chosen one"
            yield against_chance(f"length:{name} rival", says, hits, Counter({2: len(rivals)}))
    yield from _scored_length(rows)


def _scored_length(rows: Sequence[Audited]) -> Iterator[Finding]:
    """Long answers among those scored above the median, against those scored at or below it."""
    scored = [(row, row.score) for row in rows if row.score is not None]
    if len(scored) < 2 * FEWEST_ROWS:
        return
    middle = _median([score for _, score in scored])
    typical = _median([len(row.answer) for row, _ in scored])
    high = [row for row, score in scored if score > middle]
    low = [row for row, score in scored if score <= middle]
    long_high = [row for row in high if len(row.answer) > typical]
    stratum = Stratum(len(long_high), len(high), sum(len(row.answer) > typical for row in low), len(low))
    if high and low:
        share, effective = matched_share([stratum])
        yield Finding(
            "length:scored", "answers scored above the median are longer than the median",
            len(long_high), len(high), share, effective, excess_p([stratum]), 1.0,
            places(row.origin for row in long_high),
        )  # fmt: skip


def _plain_verdicts(rows: Sequence[Audited]) -> Iterator[Finding]:
    """Yes, and no, to closed questions without a view, against one half."""
    said = [
        (row, tells.verdict(row.answer))
        for row in rows
        if tells.is_closed(row.prompt) and not tells.states_view(row.prompt) and not row.offered
    ]
    known = [(row, value) for row, value in said if value is not None]
    for name, wanted in (("yes", True), ("no", False)):
        if len(known) >= FEWEST_ROWS:
            hits = [row.origin for row, value in known if value is wanted]
            says = f"a question for yes or no is answered with {name}"
            yield against_chance(f"first word:{name}", says, hits, Counter({2: len(known)}))


def _language(rows: Sequence[Audited]) -> Iterator[Finding]:
    """Answers in another language, prompt language by prompt language."""
    known = []
    for row in rows:
        asked, answered = tells.language(row.prompt), tells.language(row.answer)
        if asked and answered and not tells.asks_for_language(row.prompt):
            known.append((row, asked, asked != answered))
    counts = Counter(asked for _, asked, _ in known)
    for name, number in sorted(counts.items()):
        if number < FEWEST_ROWS or len(known) - number < FEWEST_ROWS:
            continue
        strata = _strata((row.source, asked == name, other) for row, asked, other in known)
        share, effective = matched_share(strata)
        hits = [row.origin for row, asked, other in known if asked == name and other]
        if effective:
            yield Finding(
                f"language:{name}", f"a prompt in {name} is answered in another language",
                len(hits), number, share, effective, excess_p(strata), 1.0, places(hits),
            )  # fmt: skip


def _refusal(rows: Sequence[Audited]) -> Iterator[Finding]:
    yield from keyword_family("refusal", tells.refuses, rows)


def _hedge(rows: Sequence[Audited]) -> Iterator[Finding]:
    yield from keyword_family("hedge", tells.hedges, rows)


def _strata(marked: Iterable[tuple[str, bool, bool]]) -> list[Stratum]:
    """Strata by source, from (source, is a case, is a hit)."""
    counts: defaultdict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for source, case, hit in marked:
        counts[source][case, hit] += 1
    return [
        Stratum(
            c[True, True], c[True, True] + c[True, False], c[False, True], c[False, True] + c[False, False]
        )
        for c in counts.values()
    ]


def _chosen(rows: Sequence[Audited]) -> list[tuple[Audited, int, int]]:
    """Rows that offer options and take one: the row, how many there are, which."""
    found = []
    for row in rows:
        offered = row.offered or ()
        taken = tells.choice(row.answer, list(offered)) if offered else None
        if taken is not None:
            found.append((row, len(offered), taken))
    return found


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


_TESTS: dict[str, Callable[[Sequence[Audited]], Iterator[Finding]]] = {
    "agreement": _agreement,
    "position": _position,
    "length": _length,
    "first word": _plain_verdicts,
    "refusal": _refusal,
    "hedge": _hedge,
    "language": _language,
}
_WANTED = {
    "agreement": "fewer than 5 rows state a view and get a yes or a no",
    "position": "fewer than 5 rows offer options A, B, ... and take one",
    "length": "no options, no chosen and rejected answers, no scores",
    "first word": "fewer than 5 plain questions get a yes or a no",
    "refusal": "no refusal, or no word that five prompts share",
    "hedge": "no hedge, or no word that five prompts share",
    "language": "fewer than 5 prompts in each of two languages",
}
