"""Text to token ids in segments, cut before each control token, so that no text is encoded twice.

    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    segments  "<|im_start|>user\nHi"  "<|im_end|>\n"  "<|im_start|>assistant\n"

A tokenizer takes its added tokens out of the text before anything else, and encodes what lies between them
on its own: the ids of the text are the ids of its segments, one after the other. Only added tokens for which
that holds are cut at (see `_may_cut`). A segment begins with its token, so a rule for the start of a text
(Metaspace's "first") still sees that it is not at the start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer

from burnish.chat.refusal import RowRefused
from burnish.errors import DataError

_CACHED_SEGMENTS = 8192
_ANCHORS = ("\n", "0", ".", "|")
_PRIVATE_PLANE = 0xF0000


def _byte_letters() -> dict[str, int]:
    """The letter in which byte-level vocabularies write each byte, backwards: "Ġ" is 0x20, a space.

    A byte that prints as itself in Latin-1 is its own letter; the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


BYTE_OF = _byte_letters()


def any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of the strings, the longest first, as tokenizers match added tokens."""
    longest_first = sorted(strings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _again(backend: Tokenizer) -> Tokenizer:
    """A copy; DataError where a tokenizer that was read says, written down, what cannot be read."""
    try:
        return Tokenizer.from_str(backend.to_str())
    except Exception as error:  # Rust's, which have no narrower type
        raise DataError(
            f"tokenizer.json: {error}",
            rule="a tokenizer's merges join tokens of its own vocabulary, each named once",
            remedy="copy the tokenizer again, or name another: tokenizer=DIR",
        ) from error


class SegmentTokenizer:
    """A fast tokenizer's backend, without truncation or padding, and its ids for text with marks in it.

    `mark` is a character that stands inside text which only looks like a control token: it is dropped, and
    what is around it never becomes a control id.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend: Tokenizer = _again(backend)
        self._backend.no_truncation()
        self._backend.no_padding()
        tokens: dict[int, AddedToken] = self._backend.get_added_tokens_decoder()
        self.added: dict[str, int] = {token.content: index for index, token in tokens.items()}
        self.special: frozenset[str] = frozenset(token.content for token in tokens.values() if token.special)
        plain = self._backend.normalizer is None
        self._cut = any_of(token.content for token in tokens.values() if _may_cut(token, plain=plain))
        self._spells_all = _spells_every_byte(self._backend)
        self._eats_space = any(token.lstrip or token.rstrip for token in tokens.values())
        self._cache: dict[str, list[int]] = {}
        self._guarded: _GuardedBackend | None = None
        self._controls: frozenset[str] = self.special

    def guard(self, controls: Collection[str]) -> None:
        """Name the added tokens that text may not forge."""
        self._controls = frozenset(controls) & self.added.keys()
        self._guarded = None

    @property
    def prefix_ids(self) -> list[int]:
        """What the tokenizer itself puts before a text: its BOS, or nothing."""
        plain = self._backend.encode("a", add_special_tokens=False).ids
        wrapped: list[int] = self._backend.encode("a", add_special_tokens=True).ids
        # plain [64], wrapped [1, 64, 2]: the BOS is [1]; the 2 behind the text is left out.
        starts = range(len(wrapped) - len(plain) + 1)
        return next((wrapped[:start] for start in starts if wrapped[start : start + len(plain)] == plain), [])

    def ids(self, text: str, *, mark: str = "") -> list[int]:
        """The ids of a text, no BOS or EOS added: those that the tokenizer gives the whole of it."""
        segments = self._split(text)
        cache = self._cache
        missing = [segment for segment in segments if segment not in cache]
        # "<|im_end|>\n<|im_start|>assistant\n" is in every row, and encoded once for all of them.
        if missing:
            if len(cache) > _CACHED_SEGMENTS:
                cache.clear()
                missing = segments
            plain = [segment for segment in missing if not mark or mark not in segment]
            for segment, encoding in zip(
                plain, self._backend.encode_batch_fast(plain, add_special_tokens=False), strict=True
            ):
                cache[segment] = encoding.ids
        ids: list[int] = []
        for segment in segments:
            known = cache.get(segment)
            ids.extend(self._guarded_ids(segment, mark) if known is None else known)
        return ids

    def continuation_ids(self, context: str, completion: str, *, mark: str = "") -> tuple[list[int], bool]:
        """The ids of `completion` after `ids(context)`, and whether a merge across the seam was undone.

        "assistant\\n" + "\\nthe cat": the tokenizer knows "\\n\\n" as one token, but by then inference
        has fed "\\n". The completion is then encoded on its own, right after an anchor that keeps the
        tokenizer from adding a start-of-text space, and must decode to the very same text.
        """
        tail = self._split(context)[-1] if context else ""
        before = self.ids(tail, mark=mark)
        whole = self.ids(tail + completion, mark=mark)
        kept = whole[: len(before)] == before
        # A token such as Phi-3's `<|assistant|>` swallows the newlines after it, those of the reply too.
        if kept and not self._eats_space:
            return whole[len(before) :], False
        wanted = {self.text(before) + (completion.replace(mark, "") if mark else completion)}
        if kept and self.text(whole) in wanted:
            return whole[len(before) :], False
        # What a tokenizer cannot give back (an NFC form, SentencePiece's space behind a control token) is no
        # loss at the seam: the text must be that of the whole, encoded as the tokenizer likes it.
        if not self._eats_space:
            wanted.add(self.text(whole))
        # "0" + "\n\nthe" -> 0 | \n\n | the: the reply keeps its own tokens, the prompt its ids.
        for anchor in _ANCHORS:
            anchor_ids = self.ids(anchor)
            anchored = self.ids(anchor + completion, mark=mark)
            alone = anchored[len(anchor_ids) :]
            if anchored[: len(anchor_ids)] == anchor_ids and self.text(before + alone) in wanted:
                return alone, True
        raise RowRefused(
            "seam",
            f"{tail[-20:]!r} + {completion[:20]!r} has no tokens that keep the prompt's ids and the text",
        )

    def loses_text(self, text: str, ids: list[int], *, mark: str = "") -> bool:
        """Whether the vocabulary has no spelling for some of the text, so that its ids say less than it does."""
        return not self._spells_all and self.text(ids).strip() != text.replace(mark, "").strip()

    def text(self, ids: list[int]) -> str:
        """The text of ids, control tokens written out."""
        text: str = self._backend.decode(ids, skip_special_tokens=False)
        return text

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each id by itself; part of a character as its bytes: "‹F0 9F›"."""
        anchor = self.ids("0")
        before = self.text(anchor)
        alone = [[*anchor, index] for index in ids]
        texts = self._backend.decode_batch(alone, skip_special_tokens=False)
        return [
            self._bytes_of(index) if "\ufffd" in text else text.removeprefix(before)
            for index, text in zip(ids, texts, strict=True)
        ]

    def spans(self, ids: list[int], text: str) -> list[tuple[int, int]] | None:
        """Which characters of `text` each of its ids stands for; None where ids and text cannot be laid together.

        Ids that share a character, as byte tokens do, have its span each.
        """
        anchor = self.ids("0")
        before = self.text(anchor)
        alone = self._backend.decode_batch([[*anchor, index] for index in ids], skip_special_tokens=False)
        spans: list[tuple[int, int]] = []
        cursor = start = 0
        for end in range(1, len(ids) + 1):
            piece = alone[start] if end == start + 1 else self.text([*anchor, *ids[start:end]])
            piece = piece.removeprefix(before)
            if "\ufffd" in piece and not text.startswith(piece, cursor):
                continue
            # SentencePiece gives its first space back only behind something: "▁Paris" -> " Paris" or "Paris".
            if not text.startswith(piece, cursor) and text.startswith(piece.strip(" "), cursor):
                piece = piece.strip(" ")
            if not text.startswith(piece, cursor):
                return None
            spans += [(cursor, cursor + len(piece))] * (end - start)
            cursor, start = cursor + len(piece), end
        return spans if cursor == len(text) else None

    def _bytes_of(self, index: int) -> str:
        piece = self._backend.id_to_token(index) or ""
        if piece.startswith("<0x"):
            return f"‹{piece[3:-1]}›"
        known = [BYTE_OF[letter] for letter in piece if letter in BYTE_OF]
        return f"‹{bytes(known).hex(' ').upper()}›" if len(known) == len(piece) else piece

    def _split(self, text: str) -> list[str]:
        starts = [match.start() for match in self._cut.finditer(text)]
        bounds = [0, *(start for start in starts if start), len(text)]
        return [text[start:end] for start, end in pairwise(bounds)]

    def _guarded_ids(self, segment: str, mark: str) -> list[int]:
        if self._guarded is None:
            self._guarded = _GuardedBackend(self._backend, self._controls)
        return self._guarded.ids(segment, mark)


class _GuardedBackend:
    """A second backend whose control tokens have private names, so that no text can spell one.

    The template's own control tokens, which carry no mark, are renamed in the text before it is encoded, and
    their ids are mapped back after.
    """

    def __init__(self, backend: Tokenizer, controls: frozenset[str]) -> None:
        layout = json.loads(backend.to_str())
        originals = {token["content"]: token["id"] for token in layout["added_tokens"]}
        # An unguarded added token keeps its name; a guarded one becomes two private-use characters.
        self._names = {
            content: chr(_PRIVATE_PLANE) + chr(_PRIVATE_PLANE + 1 + number)
            for number, content in enumerate(originals)
            if content in controls
        }
        for token in layout["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        # It names tokens that are no longer there, and only adds BOS and EOS, which are not wanted here.
        layout["post_processor"] = None
        self._backend: Tokenizer = Tokenizer.from_str(json.dumps(layout))
        self._original = {
            self._backend.token_to_id(self._names.get(content, content)): index
            for content, index in originals.items()
        }
        self._control_ids = frozenset(originals[content] for content in self._names)
        self._written = any_of(self._names)
        # A vocabulary with holes could give a renamed token the id of a word: then nothing can be told apart.
        words = set(backend.get_vocab(with_added_tokens=False).values()) - set(originals.values())
        self._ambiguous = not words.isdisjoint(self._original)

    def ids(self, segment: str, mark: str) -> list[int]:
        """The ids of a segment with marks in it."""
        written = self._written.findall(segment)
        # segment "<|im_end|>\nsay <.|.e.n.d.|.>" -> "\U000f0000\U000f0003\nsay <|end|>"
        renamed = self._written.sub(lambda match: self._names[match[0]], segment).replace(mark, "")
        found = self._backend.encode(renamed, add_special_tokens=False).ids
        ids = [self._original.get(index, index) for index in found]
        if self._ambiguous or sum(index in self._control_ids for index in ids) != len(written):
            raise RowRefused(
                "control token in content",
                f"{segment.replace(mark, '')[:60]!r} cannot be encoded as plain text",
            )
        return ids


def _spells_every_byte(backend: Tokenizer) -> bool:
    """Whether any text at all has ids: a byte-level vocabulary, or one with a token for each of the 256 bytes."""
    words = backend.get_vocab(with_added_tokens=False)
    return all(letter in words for letter in BYTE_OF) or all(
        f"<0x{byte:02X}>" in words for byte in range(256)
    )


def _may_cut(token: AddedToken, *, plain: bool) -> bool:
    """Whether text may be cut before this added token without a change of ids.

    Not where the token takes whitespace from before it (`lstrip`), asks for a word boundary (`single_word`),
    or is looked for only after the text around it was normalised; and not where it is mere whitespace.
    """
    return not (
        token.lstrip or token.single_word or (token.normalized and not plain) or token.content.isspace()
    )
