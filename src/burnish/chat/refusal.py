"""A row that cannot be graded exactly, and why."""

from __future__ import annotations

from burnish.errors import DataError


class RowRefused(DataError):
    """This row cannot be graded: `reason` in a few countable words, `detail` with what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(
            f"{reason}: {detail}",
            rule="what is graded must follow exactly from the template, or the row is not trained on",
            remedy="correct the row or the template, or train without it: on_bad_row: drop",
        )
        self.reason = reason
        self.detail = detail
