"""`burnish data bias DATA`: what answers follow that should not decide them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from burnish.cli.data.options import AsJson, Counting, Paths, Split, inputs_of
from burnish.cli.output import Output
from burnish.errors import DataError
from burnish.types import Rejected


def command(
    data: Paths,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="A set to hold first words against, for example the one before filtering."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask this model the same questions with opposite views stated.")
    ] = None,
    before: Annotated[str | None, typer.Option(help="And the model that it was trained from.")] = None,
    split: Split = "train",
    as_json: AsJson = False,
) -> None:
    """Audit labels for bias: agreement, option position, length, first word, refusals, hedges, language."""
    from burnish.curation.audited import read_audited
    from burnish.curation.bias import audit

    output = Output(as_json=as_json)
    unreadable = 0
    with Counting() as progress:
        rows, held_against = [], None
        for row in read_audited(inputs_of(data, "auto", split)):
            if isinstance(row, Rejected):
                unreadable += 1
            else:
                rows.append(row)
                progress(len(rows))
        if baseline:
            found = read_audited(inputs_of(baseline, "auto", split))
            held_against = [row for row in found if not isinstance(row, Rejected)]
    if not rows:
        raise DataError(
            f"{', '.join(data)}: no row with a prompt ({unreadable:,} without)",
            rule="the audit reads prompts and answers",
            remedy="see burnish data inspect for what the files hold",
        )
    result = audit(rows, baseline=held_against)
    probed = _probe(model, before) if model is not None else {}
    output.emit({**result.as_dict(), "unreadable": unreadable, **probed})
    if as_json:
        return
    output.table(
        ("", "tell", "rate", "95%", "baseline", "rows", "p corrected", "for example"),
        [_line(finding) for finding in result.as_dict()["findings"]],
    )
    for name, why in result.untested.items():
        output.say(f"not tested: {name} ({why})", style="dim")
    output.say(
        f"{len(rows):,} rows, {len(result.findings)} tests, "
        + (
            f"{len(result.biases)} biases"
            if result.biases
            else "no bias at the 5% level for all tests together"
        )
    )
    for name, told in probed.items():
        output.say(f"{name}: {told}")


def _line(finding: dict[str, Any]) -> tuple[str, ...]:
    low, high = finding["interval"]
    return (
        "BIAS" if finding["is_bias"] else "", f"{finding['name']}: {finding['says']}",
        f"{finding['rate']:.1%}", f"{low:.1%} to {high:.1%}", f"{finding['baseline']:.1%}",
        f"{finding['rows']:,}", f"{finding['adjusted']:.2g}", ", ".join(finding["examples"][:1]),
    )  # fmt: skip


def _probe(model: str, before: str | None) -> dict[str, Any]:
    """The stance-flip probe of one model, or of two and whether they differ."""
    from burnish.evaluation.stance import changed_p, probe
    from burnish.models.assistant import load_assistant
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    after = probe(load_assistant(model))
    told: dict[str, Any] = {"stance": after.as_dict()}
    if before is not None:
        first = probe(load_assistant(before))
        told |= {"stance_before": first.as_dict(), "stance_changed_p": changed_p(first, after)}
    return told
