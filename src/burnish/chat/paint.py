"""Strips in a terminal, through rich: grey what is context, in colour what teaches.

row 6 · view 2 of 3 · grades message 3 · 84 tokens · 37% of tokens teach
<|im_start|>user⏎
...
"""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from burnish.chat.strip import Strip, visible

STYLES = {
    "context": "grey58",
    "reply": "grey7 on #b9e2cc",
    "reasoning": "grey7 on #bcd6f5",
    "tool call": "grey7 on #d9c8f0",
    "template": "grey7 on #ecdcae",
    "stop": "bold white on #1d6b49",
}
_SHARED, _CUT, _MARK = "grey46", "#d0604c", "bold #b8860b"
_LINE = "⏎\n"


def terminal(strip: Strip) -> Group:
    """The strip for a terminal: a line of figures, the tokens, and what the colours mean."""
    example = strip.example
    figures = f"{len(example)} tokens · {strip.share:.0%} of tokens teach"
    place = f"  {visible(strip.place)}" if strip.place else ""
    head = Text.assemble((f"{strip.title} · {figures}", "bold"), (place, "grey58"))
    body, weight_before = Text(), 0.0
    for at, (token, kind) in enumerate(zip(strip.tokens, strip.kinds(), strict=True)):
        weight = example.weights[at]
        if weight not in (0.0, 1.0, weight_before):
            body.append(f"×{weight:g} ", style=_MARK)
        weight_before = weight
        style = _SHARED if at < strip.shared and kind == "context" else STYLES[kind]
        body.append(visible(token).replace("\n", _LINE), style=style)
        if at + 1 == strip.shared:
            body.append(f"[{strip.shared} tokens shared with view {strip.view - 1}]", style="italic grey58")
    if example.cut:
        body.append(f" ╱╱╱ {example.cut} graded tokens cut off ╱╱╱", style=_CUT)
    return Group(head, body, legend(strip))


def legend(strip: Strip) -> Text:
    """What the colours that are in the strip mean."""
    present = {"context", *strip.kinds()}
    entries = [Text(name, style=style) for name, style in STYLES.items() if name in present]
    if strip.example.cut:
        entries.append(Text("╱╱ cut", style=_CUT))
    return Text("  ").join(entries)
