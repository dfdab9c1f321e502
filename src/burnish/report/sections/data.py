"""The data: what was read, what became of it, what was proved of it, and what the model was shown, token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from burnish.report.collect import Run
from burnish.report.figure import bar_figure, keys
from burnish.report.markup import Html, bullets, definitions, folded, join, table, tag
from burnish.report.story import Section, note, run_heading, section
from burnish.report.tokens import drawn, strips
from burnish.report.values import mapping, mappings, number, text, texts
from burnish.report.words import UNKNOWN, count, decimal, percent

MAX_LISTED = 200
KINDS = (("context", "context"), ("reply", "reply"), ("reasoning", "reasoning"), ("tool call", "call"))
OTHER_KINDS = (("template", "own"), ("stop", "stop"))


def data(runs: Sequence[Run]) -> Section | None:
    """The section."""
    told: dict[Html, list[Run]] = {}  # runs on the same data are told once
    for run in runs:
        own = join([flow(run), sources(run), proved(run), lost(run), strip(run) if len(runs) == 1 else ""])
        if own:
            told.setdefault(own, []).append(run)
    parts = [part for own, same in told.items() for part in (*(run_heading(runs, run) for run in same), own)]
    return section("data", "What it learnt from", finding(runs), parts)


def finding(runs: Sequence[Run]) -> str:
    """Rows read and used, and the share of tokens that teach."""
    run = runs[0]
    read, used, _ = rows_of(run)
    tokens, graded = number(run.plan.get("tokens_per_epoch")), number(run.plan.get("graded_tokens_per_epoch"))
    teach = (
        f" {percent(graded / tokens, digits=0)} of their tokens teach; the rest is context."
        if tokens and graded
        else ""
    )
    if len(runs) > 1:
        return "Every row that was read is accounted for: used, kept aside, or dropped with its reason."
    if read is None or used is None:
        return "What the run's files say of its data."
    lost = (
        "every one was used"
        if used == read
        else f"{count(used)} were used, and each of the others has its reason"
    )
    return f"{count(read, 'row')} were read: {lost}.{teach}"


def rows_of(run: Run) -> tuple[float | None, float | None, float]:
    """Rows read, rows used (to learn from or to measure on), rows kept aside."""
    told = mapping(run.summary.get("rows"))
    read, used = number(told.get("read")), number(told.get("used"))
    held = number(run.plan.get("held_out_rows")) or 0.0
    if read is None and run.certificates:
        read, used = number(run.certificates[-1].get("rows")), number(run.certificates[-1].get("kept"))
    return read, used, held


def flow(run: Run) -> Html:
    """The rows as one bar: learnt from, kept aside, dropped."""
    read, used, held = rows_of(run)
    if read is None or used is None or read < used:
        return Html()
    learnt = max(0.0, used - held)
    shares = (("learnt from", "p0", learnt), ("kept aside", "p1", held), ("dropped", "p2", read - used))
    rows = [(name, count(size), percent(size / read if read else 0)) for name, _, size in shares]
    words = "Rows read are rows used and rows dropped; the ledger has the place and the reason of each dropped one."
    parts = [("rows", [(kind, size) for _, kind, size in shares if size], count(read))]
    names = keys(
        [(f"{name}: {count(size)}", place, "part") for place, (name, _, size) in enumerate(shares) if size]
    )
    return bar_figure("From file to lesson", words, parts, rows, ("", "rows", "share"), names)


def sources(run: Run) -> Html:
    """Each source with how often its rows came and its share, asked and given."""
    listed = mappings(run.plan.get("sources")) or mappings(run.summary.get("sources"))
    rows = [
        (
            text(source.get("name"), "source"),
            text(source.get("stage")) or UNKNOWN,
            count(number(source.get("rows"))),
            f"{decimal(number(source.get('times')))} ×",
            percent(number(source.get("asked"))),
            percent(number(source.get("share_of_rows"))),
            percent(number(source.get("share_of_graded_tokens"))),
        )
        for source in listed
    ]
    if not rows:
        return Html()
    head = ["source", "stage", "rows", "each came", "asked", "of rows", "of graded tokens"]
    unused = [at for at in (4, 1) if all(row[at] == UNKNOWN for row in rows)]  # no mixture, no stages
    kept = [at for at in range(len(head)) if at not in unused]
    return join(
        [tag("h3", "Sources"), table([head[at] for at in kept], [[row[at] for at in kept] for row in rows])]
    )


def proved(run: Run) -> Html:
    """What the certificates say was proved before the first update."""
    parts = []
    for certificate in run.certificates:
        broken = mapping(certificate.get("violations"))
        fine = certificate.get("ok") is True and not broken
        views = number(certificate.get("views"))
        words = (
            f"Proved before the first update, on each of {count(views, 'sequence')}: graded is exactly what the model "
            "must produce, in exactly the context that it will be given."
            if fine
            else f"Rules are broken: {', '.join(f'{key} ({text(value)} times)' for key, value in broken.items())}."
        )
        unusual = [
            f"{count(number(value))} × {key.replace('_', ' ')}"
            for name in ("refused", "cut", "changes", "unusual")
            for key, value in mapping(certificate.get(name)).items()
        ]
        facts = [
            ("certificate", tag("code", text(certificate.get("key"))[:16])),
            ("formats", ", ".join(texts(certificate.get("formats")))),
            ("ends its answers with", ", ".join(texts(certificate.get("stop_tokens")))),
            ("out of the ordinary", ", ".join(unusual)),
            ("chat template", text(run.plan.get("chat_template"))),
        ]
        parts += [note(words, "proof" if fine else "warning"), tag("div", definitions(facts), class_="facts")]
    return join([tag("h3", "Certificate"), *parts]) if parts else Html()


def lost(run: Run) -> Html:
    """The ledger: what was dropped, cut or changed, by reason, then row by row."""
    if not run.ledger:
        return Html()
    counted = Counter((text(line.get("action"), "?"), text(line.get("reason"), "?")) for line in run.ledger)
    summary = [f"{count(many)} {action}: {reason}" for (action, reason), many in counted.most_common()]
    rows = [
        (
            f"{text(line.get('file'))}:{text(line.get('line'))}",
            text(line.get("action")),
            text(line.get("reason")),
            text(line.get("detail")),
        )
        for line in run.ledger[:MAX_LISTED]
    ]
    more = (
        note(f"and {len(run.ledger) - MAX_LISTED:,} more in ledger.jsonl")
        if len(run.ledger) > MAX_LISTED
        else ""
    )
    listed = table(("where", "what", "reason", "detail"), rows, numeric=False)
    return join([tag("h3", "Ledger"), bullets(summary), folded("Row by row", listed, more)])


def strip(run: Run) -> Html:
    """The first rows, token by token."""
    made, why = strips(run)
    head = tag("h3", "What a lesson looks like")
    if not made:
        return join([head, note(why)]) if why else Html()
    found = {kind for strip in made for kind in strip.kinds()}
    names = [
        tag("li", tag("i", class_=f"swatch {kind}", aria_hidden="true"), word)
        for word, kind in (*KINDS, *OTHER_KINDS)
        if word in found
    ]
    words = "Grey is only shown to the model; what is in colour it must produce, and is graded on."
    return join([head, tag("p", words), tag("ul", *names, class_="legend"), *(drawn(each) for each in made)])
