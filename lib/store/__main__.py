"""``python -m lib.store verify [NAME …]``: renew shipped records; ``list``: which of them other code has made."""

from __future__ import annotations

import dataclasses
import json

from lib.errors import UserError, command_line, command_parser
from lib.store.verify import Outcome, changes, records, verify


def main() -> None:
    """The command."""
    parser = command_parser("lib.store", __doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("verify", help="compute a sample again and, where it agrees, restamp").add_argument
    add("names", nargs="*", metavar="NAME", help="background.flow, background, 'faces.swaps*'; all if none is named")
    add("--all", action="store_true", help="measure on all data, and compute whole what takes long")
    add("--dry-run", action="store_true", help="only say what agrees; also from uncommitted changes")
    add("--json", action="store_true", help="outcomes as JSON on stdout")
    add = commands.add_parser("list", help="every record and what has changed since it was made").add_argument
    add("names", nargs="*", metavar="NAME")
    add("--json", action="store_true")
    given = parser.parse_args()
    if given.command == "list":
        found = [{"file": r.file, "name": r.name, "changed": list(changes(r))} for r in records(given.names)]
        lines = [f"{entry['file']} ({entry['name']}): {', '.join(entry['changed']) or 'current'}" for entry in found]
        print(json.dumps(found) if given.json else "\n".join(lines))
        return

    def say(outcome: Outcome) -> None:
        detail = f": {outcome.detail}" if outcome.detail else ""
        print(f"{outcome.state} {outcome.file} ({outcome.record}, {outcome.seconds} s){detail}", flush=True)

    outcomes = verify(
        given.names, everything=given.all, stamp=not given.dry_run, say=(lambda _: None) if given.json else say
    )
    if given.json:
        print(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes]))
    bad = [outcome for outcome in outcomes if not outcome.good]
    if bad:
        listed = ", ".join(f"{outcome.record} ({outcome.state})" for outcome in bad[:8])
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise UserError(f"{len(bad)} of {len(outcomes)} records were not renewed: {listed}{more}")


if __name__ == "__main__":
    command_line(main)
