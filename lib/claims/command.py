"""``python -m lib.claims``: write the report; ``… claim ID`` measures a claim again, ``… audit`` all of them.

``claim`` prints the stored and the new value side by side and exits with 1 where they disagree. Where that takes longer
than ten minutes it computes a sample of the rows behind the claim again, and says how to start the whole. ``audit``
goes through all claims, chapter by chapter, and keeps what is done in ``runs/audit`` and ``figures/audit.csv``: stop it
at any time and start it again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from lib import paths
from lib.claims.again import LONGEST, MEASURED, Comparison, Renewed, Tables, behind, chosen, measure_again, sources
from lib.claims.records import ledger
from lib.claims.reports import audit_text, duration, report
from lib.claims.schema import Claim, load
from lib.errors import UserError, command_parser, show
from lib.files import write_atomically
from lib.store.verify import TooLong


def main() -> None:
    """The command; see the head of this file."""
    parser = command_parser("lib.claims", "Write claims.csv and REPORT.md, or measure claims again.")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("claim", help="measure a claim again and compare")
    one.add_argument("id", help="such as 5.jpeg")
    one.add_argument("--whole", action="store_true", help=f"also where it takes longer than {LONGEST // 60} minutes")
    one.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    every = commands.add_parser("audit", help="measure all claims again, or the rest after an interruption")
    every.add_argument("--chapters", nargs="+", metavar="NUMBER", help="only these, in this order: 06 02")
    every.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after so many minutes")
    every.add_argument("--live", action="store_true", help="only what chapters measure without stored tables")
    every.add_argument("--whole", action="store_true", help="all rows of every table instead of samples")
    every.add_argument("--afresh", action="store_true", help="also what audit.csv has already")
    options = parser.parse_args()
    if options.command == "claim":
        again = _claim(options.id, options.whole, options.json)
    elif options.command == "audit":
        again = _audit(options)
    else:
        path, frame = report(), ledger()
        held = int((frame["verdict"] == "reproduced").sum())
        print(f"{held} of {len(frame)} claims reproduced; see {path.name} in {path.parent.name}/")
        return
    if not again:
        raise SystemExit(1)


def _claim(id: str, whole: bool, as_json: bool) -> bool:
    claim = chosen(id)
    if not sources([claim]):
        raise UserError(f"claim {id!r} has no stored value to compare with: execute its chapter first")
    (source,) = sources([claim])
    seconds = float(ledger().set_index("id").loc[id, "seconds"])
    say = f"measuring {id} again takes about {duration(seconds) or 'some minutes'} on two CPU cores"
    long = seconds > LONGEST and not whole
    if long:
        say += f": make claim ID={id} WHOLE=1"
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(Path(folder), everything=not long)
        try:
            if long and tables.takes([claim]) > LONGEST:
                raise TooLong()
        except TooLong:
            raise UserError(f"no sample of at most {LONGEST // 60} minutes is declared; {say}") from None
        print(f"{say}; now a sample of the rows behind it" if long else say, file=sys.stderr)
        renewed = {record.name: tables.renew(record) for record in behind([claim])}
        (found,) = measure_again(source, [claim], Path(folder), renewed)
    if found.result not in MEASURED:
        raise UserError(f"claim {id!r} was not measured: {found.detail}")
    show(vars(found) | {"unit": claim.unit}, as_json)
    return found.agrees


@dataclasses.dataclass
class _Clock:
    """Says when nothing new is to begin."""

    minutes: float
    start: float

    @property
    def over(self) -> bool:
        return time.monotonic() - self.start > 60 * self.minutes


def _audit(options: argparse.Namespace) -> bool:
    """Measure every claim again that audit.csv does not have, and write its report. True where all agree."""
    chapters, afresh = options.chapters, options.afresh
    claims = list(load().values())
    if chapters:  # in this order
        of = {number: [c for c in claims if c.chapter.partition("_")[0] == number] for number in chapters}
        claims = [claim for number in chapters for claim in of[number]]
    waiting = sources(claim for claim in claims if not (options.live and claim.measure))
    if not waiting:
        raise UserError("no such claim has a stored value to compare with")
    clock, rows, failed = _Clock(options.minutes, time.monotonic()), _done(), []
    tables = Tables(paths.runs() / "audit", everything=options.whole)

    def keep(found: list[Comparison]) -> None:
        for one in found:
            rows[one.id] = dataclasses.replace(one, commit=tables.commit)
            print(f"  {one.id}: {one.stored:.6g} -> {one.new:.6g}, {one.result}", file=sys.stderr)
        _write(rows)

    left = {
        source: [one for one in group if afresh or one.id not in rows or rows[one.id].result == "failed"]
        for source, group in waiting.items()
    }
    for source, group in left.items():  # first what is known without computing anything
        refused = {record.name: tables.refused(record) or Renewed(record.name) for record in behind(group)}
        blocked = [one for one in group if any(refused[record.name].result for record in behind([one]))]
        keep(measure_again(source, blocked, tables.folder, refused))
        left[source] = [one for one in group if one not in blocked]
    for number, (source, group) in enumerate(left.items(), start=1):
        title = f"[{number}/{len(left)}] {source}"
        renewed = _renew(tables, group, title, clock, afresh)
        if clock.over:
            break
        if not group:
            continue
        print(f"{title}: {len(group)} claims", file=sys.stderr)
        try:
            keep(measure_again(source, group, tables.folder, renewed))
        except UserError as error:
            failed.append(source)
            print(f"  not measured: {error}", file=sys.stderr)
    done = [rows[claim.id] for group in waiting.values() for claim in group if claim.id in rows]
    count = sum(map(len, waiting.values()))
    print(f"{sum(one.agrees for one in done)} of {count} claims agree, {count - len(done)} are not measured yet")
    if failed:
        raise UserError(f"not measured: {', '.join(failed)}; run the same command again")
    return all(one.agrees for one in done) and len(done) == count


def _renew(tables: Tables, claims: list[Claim], title: str, clock: _Clock, afresh: bool) -> dict[str, Renewed]:
    """The tables behind claims, as far as the clock allows; what lies there from before is not computed again."""
    found, listed = {}, behind(claims)
    for number, record in enumerate(listed, start=1):
        kept = None if afresh else tables.kept(record)
        if clock.over:
            break
        if kept is None:
            takes = duration(float(record.data.get("seconds", 0.0)))
            print(f"{title}, table {number}/{len(listed)}: {record.name}, whole {takes}", file=sys.stderr)
            kept = tables.renew(record)
            told = kept.why or (f"differs: {kept.wrong}" if kept.wrong else "agrees")
            print(f"  {kept.rows + ', ' if kept.rows else ''}{duration(kept.seconds)}: {told}", file=sys.stderr)
        found[record.name] = kept
    return found


def _done() -> dict[str, Comparison]:
    """What audit.csv has of the values that are stored now."""
    stored = ledger().set_index("id")["measured"]
    try:
        table = pd.read_csv(paths.figures() / "audit.csv", dtype={"id": str, "commit": str})
        texts = {name: "" for name in ("stored_verdict", "new_verdict", "result", "rows", "detail", "commit")}
        rows = [Comparison(**row) for row in table.fillna(texts).to_dict("records")]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise UserError("audit.csv in the folder of figures is damaged: delete it and start again") from error
    return {one.id: one for one in rows if one.id in stored and math.isclose(one.stored, stored[one.id], rel_tol=1e-8)}


def _write(rows: dict[str, Comparison]) -> None:
    columns = [field.name for field in dataclasses.fields(Comparison)]
    frame = pd.DataFrame([vars(rows[id]) for id in load() if id in rows], columns=columns)
    folder = paths.figures()
    text = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(folder / "audit.csv", text.encode())
    write_atomically(folder / "audit.md", audit_text(frame).encode())
