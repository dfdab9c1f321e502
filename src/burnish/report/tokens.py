"""The first rows of a run's data as training saw them, token by token: encoded again from the data at its place.

Nothing is fetched: the tokenizer is that of the finished model in the run, or of a base that lies on this machine.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from burnish.chat.strip import Strip, origin_in_words, strip_of
from burnish.data.files import find_files
from burnish.data.ledger import Ledger
from burnish.data.read import is_on_hub
from burnish.data.sample import fit_row, sample_rows
from burnish.data.store import sha256_of
from burnish.errors import BurnishError
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe
from burnish.report.collect import Run
from burnish.report.markup import Html, join, tag
from burnish.report.values import mappings, text
from burnish.types import Conversation

MOST_ROWS = 3
MOST_TOKENS = 400
TRIED = 20
CLASSES = {"context": "context", "tool call": "call", "template": "own"}


def strips(run: Run) -> tuple[list[Strip], str]:
    """The first rows' strips, or none and the reason in words."""
    try:
        recipe = load_recipe(run.path / "resolved.yaml").recipe
        if any(is_on_hub(source.path) for source in recipe.datasets):
            return [], "The data lies on the hub, and a report fetches nothing: no tokens are shown."
        if changed := _changed(run, recipe):
            return [], f"{changed} is not what it was when the run began: no tokens are shown."
        return list(_strips(run, recipe)), ""
    except BurnishError as error:
        return [], f"The first rows cannot be shown token by token: {error.saw}."
    except OSError as error:
        return [], f"The first rows cannot be shown token by token: {error.strerror}."


def _strips(run: Run, recipe: Recipe) -> itertools.chain[Strip]:
    from burnish.models.tokenizer import load_chat_tokenizer  # transformers: most of two seconds

    finished = run.path / "final"
    rows = list(itertools.islice(sample_rows(recipe, Ledger()), TRIED))
    tokenizer = load_chat_tokenizer(
        str(finished) if (finished / "tokenizer.json").is_file() else _at_hand(recipe),
        chat_template=None if finished.is_dir() else recipe.chat_template,
        chat_template_kwargs=recipe.chat_template_kwargs,
        train_on=recipe.train_on.value,
        reasoning=recipe.reasoning.value,
        chat=any(isinstance(row.content, Conversation) for row in rows),
    )
    encoder = tokenizer.encoder
    made: list[list[Strip]] = []
    for row in rows:
        parts = fit_row(row, encoder, recipe, Ledger())
        if parts:
            part = parts[0]
            origins = encoder.origins(row, part.view)[part.start :][: len(part.example)]
            made.append(
                [
                    strip_of(
                        part.example, encoder, origins=origins, place=str(row.origin), num_views=len(parts)
                    )
                ]
            )
        if len(made) == MOST_ROWS:
            break
    return itertools.chain.from_iterable(made)


def _at_hand(recipe: Recipe) -> str:
    """The base's tokenizer where it needs no network."""
    name = recipe.tokenizer or recipe.model
    if name == "marble" or Path(name).is_dir():
        return name
    raise NotAtHand(
        f"the tokenizer of {name} is not on this machine",
        rule="a report fetches nothing",
        remedy="finish the run: final/ has the tokenizer",
    )


class NotAtHand(BurnishError):
    """What would have to be fetched."""


def _changed(run: Run, recipe: Recipe) -> str:
    """The name of a data file that the certificate does not know by its hash; nothing where it knows them all."""
    known = {
        text(digest)
        for certificate in run.certificates
        for files in mappings(_parts(certificate).get("datasets"))
        for digest in files.values()
    }
    if not known:
        return ""
    files = [path for source in recipe.datasets for path in find_files(source.path)]
    return next((path.name for path in files if sha256_of(path) not in known), "")


def _parts(certificate: dict[str, object]) -> dict[str, object]:
    parts = certificate.get("parts")
    return parts if isinstance(parts, dict) else {}


def drawn(strip: Strip) -> Html:
    """A strip as text whose graded tokens are coloured by what they are."""
    kinds = strip.kinds()
    tokens = [
        tag(
            "span",
            token.replace("\n", "⏎\n"),
            class_=f"token {CLASSES.get(kind, kind)}",
            title=f"{'context' if kind == 'context' else 'graded'}: {origin_in_words(origin)}",
        )
        for token, kind, origin in list(zip(strip.tokens, kinds, strip.origins, strict=True))[:MOST_TOKENS]
    ]
    more = len(kinds) - MOST_TOKENS
    rest = tag("span", f" ... {more:,} more tokens", class_="token context") if more > 0 else ""
    share = f"{strip.share:.0%} of {len(kinds):,} tokens teach"
    head = tag("p", tag("b", strip.place), " · ", share, class_="strip-head")
    return join([head, tag("div", *tokens, rest, class_="strip")])
