"""More replay than was planned: rows added to an update from the step on at which a share was raised.

planned update     t t t t t t t r         8 rows, the last of them replay
share 0.25         t t t t t t t r r       the planned rows stay, and as many more are drawn as the share asks

The rows of an update stay a pure function of (plan, step, raises), so a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnish.data.plan import Course
from burnish.data.store import Array

_STREAM = 2**32 - 1  # mixtures use the streams from 0 up, two a source


def share_at(raises: Sequence[Sequence[float]], step: int) -> float | None:
    """The share that holds for update `step` (from 0); None where none was raised yet."""
    return next((share for since, share in reversed(raises) if step >= since), None)


def further_replay(course: Course, graded: Array, step: int, *, share: float, seed: int) -> list[int]:
    """Replay rows to add to the update's own until, over many updates, `share` of the graded tokens are replay.

    `graded` are the targets of each row of all stages. None are added in a stage that has no replay.
    """
    number, _ = course.stage_of(step)
    part = course.plans[number].mixed.replay
    if part is None or not part.rows:
        return []
    first = sum(plan.num_rows for plan in course.plans[:number]) + part.first
    planned = np.asarray(course.rows_of(step))
    is_replay = (planned >= first) & (planned < first + part.rows)
    wanted = graded[planned[~is_replay]].sum() * share / (1.0 - share) - graded[planned[is_replay]].sum()
    random = np.random.Generator(np.random.Philox(key=[(_STREAM << 32) + seed, step]))
    found: list[int] = []
    while wanted > 0:
        for row in (first + random.permutation(part.rows)).tolist():
            # The last row comes as often as the share asks for its tokens: small updates and long rows keep it too.
            if random.random() * graded[row] >= wanted:
                return found
            found.append(row)
            wanted -= graded[row]
    return found
