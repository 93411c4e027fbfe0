"""``python -m lib.claims``: write the report; ``… claim ID`` measures claims again, ``… audit`` all of them.

``claim`` prints the stored and the new value side by side and exits with 1 where they disagree. Where that takes longer
than ten minutes it computes a sample of the rows behind the claim again, and says how to start the whole. ``audit``
measures every claim, one group at a time, and keeps what is done in ``figures/audit.csv``: stop it at any time and
start it again.
"""

from __future__ import annotations

import math
import sys

import pandas as pd

from lib import paths
from lib.claims.again import LONGEST, Comparison, chosen, groups, measure_again, tables_of
from lib.claims.records import ledger
from lib.claims.reports import audit_text, duration, report
from lib.claims.schema import Claim, load
from lib.errors import UserError, command_parser, show
from lib.files import write_atomically

AUDIT = ("id", "stored", "new", "stored_verdict", "new_verdict", "agrees", "seconds")
"""Columns of ``audit.csv``."""


def main() -> None:
    """The command; see the head of this file."""
    parser = command_parser("lib.claims", "Write claims.csv and REPORT.md, or measure claims again.")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("claim", help="measure a claim again and compare")
    one.add_argument("id", help="such as 5.jpeg")
    one.add_argument("--whole", action="store_true", help=f"also where it takes longer than {LONGEST // 60} minutes")
    one.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    every = commands.add_parser("audit", help="measure all claims again, or the rest after an interruption")
    every.add_argument("--chapters", nargs="+", metavar="NUMBER", help="only these: 02 05")
    every.add_argument("--afresh", action="store_true", help="also what audit.csv has already")
    options = parser.parse_args()
    if options.command == "claim":
        again = _claim(options.id, options.whole, options.json)
    elif options.command == "audit":
        again = _audit(options.chapters, options.afresh)
    else:
        path, frame = report(), ledger()
        held = int((frame["verdict"] == "reproduced").sum())
        print(f"{held} of {len(frame)} claims reproduced; see {path.name} in {path.parent.name}/")
        return
    if not again:
        raise SystemExit(1)


def _claim(id: str, whole: bool, as_json: bool) -> bool:
    claims = chosen([id])
    seconds = float(ledger().set_index("id").loc[id, "seconds"])
    if seconds > LONGEST and not whole:
        return _sample(claims[0], duration(seconds))
    expected = "unknown" if math.isnan(seconds) else f"about {duration(seconds)}"
    print(f"measuring {id} again (time on two CPU cores: {expected})", file=sys.stderr)
    (found,) = measure_again(claims)
    show(vars(found) | {"unit": claims[0].unit}, as_json)
    return found.agrees


def _sample(claim: Claim, takes: str) -> bool:
    """Compute some rows again of the tables behind a claim that takes long as a whole. True where all agree."""
    from lib.store.verify import Verifier, records

    whole = f"measuring {claim.id} again takes about {takes} on two CPU cores: make claim ID={claim.id} WHOLE=1"
    print(f"{whole}; now a sample of the rows behind it", file=sys.stderr)
    verify = Verifier(stamp=False, again=True)
    outcomes = [verify(record) for record in records(tables_of([claim]))]
    for outcome in outcomes:
        print(f"{outcome.record}: {outcome.state}{f' ({outcome.detail})' if outcome.detail else ''}")
    differ = [outcome.record for outcome in outcomes if outcome.state == "differs"]
    if not differ and not all(outcome.good for outcome in outcomes):
        raise UserError(f"no sample can be taken of some of its tables; {whole}")
    return not differ


def _audit(chapters: list[str] | None, afresh: bool) -> bool:
    """Measure every claim again that audit.csv does not have, and write its report. True where all agree."""
    stored = ledger().set_index("id")
    claims = [claim for claim in load().values() if not math.isnan(stored.loc[claim.id, "measured"])]
    if chapters:
        claims = [claim for claim in claims if claim.chapter.partition("_")[0] in chapters]
        if not claims:
            raise UserError(f"no claim of the chapters {', '.join(chapters)} has a stored value")
    rows = _done(stored)
    parts = [part for part in groups(claims) if afresh or any(claim.id not in rows for claim in part)]
    failed = []
    for number, part in enumerate(parts, start=1):
        names = ", ".join(claim.id for claim in part)
        seconds = float(stored.loc[part[0].id, "seconds"])
        print(f"[{number}/{len(parts)}] {names}: about {duration(seconds) or 'some minutes'}", file=sys.stderr)
        try:
            found = measure_again(part)
        except UserError as error:
            failed.append(names)
            print(f"  not measured: {error}", file=sys.stderr)
            continue
        for one in found:
            rows[one.id] = one
            print(
                f"  {one.id}: {one.stored:.6g} -> {one.new:.6g}, {'agrees' if one.agrees else 'DISAGREES'}",
                file=sys.stderr,
            )
        _write(rows)
    disagree = [claim.id for claim in claims if claim.id in rows and not rows[claim.id].agrees]
    print(f"{len(claims) - len(disagree) - sum(c.id not in rows for c in claims)} of {len(claims)} claims agree")
    if failed:
        raise UserError(f"not measured: {', '.join(failed)}; run the same command again")
    return not disagree


def _done(stored: pd.DataFrame) -> dict[str, Comparison]:
    """What audit.csv has of the values that are stored now."""
    try:
        table = pd.read_csv(paths.figures() / "audit.csv", dtype={"id": str})
        rows = [Comparison(**row) for row in table.to_dict("records")]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise UserError("audit.csv in the folder of figures is damaged: delete it and start again") from error
    return {
        row.id: row
        for row in rows
        if row.id in stored.index and math.isclose(row.stored, stored.loc[row.id, "measured"], rel_tol=1e-8)
    }


def _write(rows: dict[str, Comparison]) -> None:
    order = [id for id in load() if id in rows]
    frame = pd.DataFrame([vars(rows[id]) for id in order], columns=AUDIT)
    folder = paths.figures()
    text = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(folder / "audit.csv", text.encode())
    write_atomically(folder / "audit.md", audit_text(frame).encode())
