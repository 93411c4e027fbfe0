"""``python -m lib.claims``: write the report."""

from __future__ import annotations

from lib.claims.records import ledger
from lib.claims.reports import report


def main() -> None:
    """Write claims.csv and REPORT.md."""
    path = report()
    frame = ledger()
    held = int((frame["verdict"] == "reproduced").sum())
    print(f"{held} of {len(frame)} claims reproduced; see {path.name} in {path.parent.name}/")
