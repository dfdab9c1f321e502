"""Ids to text while they come: no half character is shown, and no part of a stop string.

    ids       ["The", " caf", "\\xc3", "\\xa9", " is", "\\n\\nUs", "er"]        stop ["\\n\\nUser"]
    deltas     "The"  " caf"   ""      "é"     " is"   ""        -> stopped

What is shown is always a prefix of the whole answer's text, so the deltas together are that text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from burnish.chat.segments import BYTE_OF

HALF = "\ufffd"
"""What a tokenizer writes for bytes that are no character, or not yet one."""


class Vocabulary:
    """A tokenizer as serving needs it: ids to text, and one id as it is written."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        added = self._backend.get_added_tokens_decoder()
        self._special = {index for index, token in added.items() if token.special}
        self._added = {index: token.content for index, token in added.items()}
        self._spelled: dict[int, str] = {}
        anchor = self._backend.encode("0", add_special_tokens=False).ids
        self._anchor, self._before = anchor, self._backend.decode(anchor, skip_special_tokens=False)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def text(self, ids: Sequence[int], shown: Collection[str] = ()) -> str:
        """The text of ids without special tokens, but for those in `shown`."""
        if not shown:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        kept = [i for i in ids if i not in self._special or self._added[i] in shown]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def piece(self, index: int) -> str:
        """One id as it is written; the bytes of part of a character as `bytes:\\xf0\\x9f`, as OpenAI writes them."""
        if index not in self._spelled:
            if index in self._added:
                self._spelled[index] = self._added[index]
            else:
                text = self._backend.decode([*self._anchor, index], skip_special_tokens=False)
                piece = text.removeprefix(self._before)
                if HALF in piece:
                    piece = "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.bytes_of(index))
                self._spelled[index] = piece
        return self._spelled[index]

    def bytes_of(self, index: int) -> list[int]:
        """The bytes of one id, also where they are no whole character."""
        if index in self._added:
            return list(self._added[index].encode())
        token: Any = self._backend.id_to_token(index) or ""
        if token.startswith("<0x") and len(token) == 6:
            return [int(token[3:5], 16)]
        text = self._backend.decode([*self._anchor, index], skip_special_tokens=False).removeprefix(
            self._before
        )
        if HALF in text and all(letter in BYTE_OF for letter in token):
            return [BYTE_OF[letter] for letter in token]
        return list(text.encode())


class Spelling:
    """The text of one answer as it grows; `shown` are special tokens that are text all the same."""

    def __init__(
        self, vocabulary: Vocabulary, *, stops: Sequence[str] = (), shown: Collection[str] = ()
    ) -> None:
        self._vocabulary, self._stops, self._shown = vocabulary, tuple(stops), shown
        self._ids: list[int] = []
        self._settled = 0  # ids before this one are settled in `_text`
        self._window = 0  # decoding begins here: some ids are written otherwise at the very beginning
        self._text = ""
        self._given = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was given out so far."""
        return self._text[: self._given]

    @property
    def length(self) -> int:
        """How many characters are known, given out or not."""
        return len(self._text)

    def push(self, index: int) -> str:
        """Take in one id; what may be shown now. After `stopped`, nothing more comes."""
        self._ids.append(index)
        before = self._decode(self._window, self._settled)
        after = self._decode(self._window, len(self._ids))
        fresh = after[len(before) :]
        if fresh and not fresh.endswith(HALF):
            self._text += fresh
            self._window, self._settled = self._settled, len(self._ids)
        return self._give(whole=False)

    def finish(self) -> str:
        """What is left to show when no more ids come."""
        if not self.stopped:
            whole = self._decode(0, len(self._ids))
            # Bytes that never became a character are shown as what they are not.
            if whole.startswith(self._text):
                self._text = whole
        return self._give(whole=True)

    def _decode(self, start: int, end: int) -> str:
        return self._vocabulary.text(self._ids[start:end], self._shown)

    def _give(self, *, whole: bool) -> str:
        if self.stopped:
            return ""
        found = [at for stop in self._stops if (at := self._text.find(stop, self._given)) >= 0]
        end = len(self._text)
        if found:
            self.stopped, end = True, min(found)
            self._text = self._text[:end]
        elif not whole:
            end -= held_back(self._text[self._given :], self._stops)
        delta, self._given = self._text[self._given : end], end
        return delta


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text could be the beginning of one of the strings."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
