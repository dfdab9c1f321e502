from __future__ import annotations

from tests.cli.conftest import burnish

__all__ = ["burnish"]
