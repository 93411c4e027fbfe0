"""Rewrite shipped records when something leaves their identity, so that none must be trained or measured again.

    python scripts/migrate_records.py drop 'faces.*' config.measures             a key that code no longer hashes
    python scripts/migrate_records.py drop 'restoration.*' config.search --equals 2
    python scripts/migrate_records.py sub 'faces.*' 'recipe 2: ' ''              text within their data and config

Their hashes follow, and so do the identities of every record that names one of these. Deleted when the last hand-raised
constant has gone.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import json

from lib import config, files, paths
from lib.store.files import dump

WEIGHTS, TABLE = ("task", "version", "config", "data", "seed"), ("table", "config")


def replaced(value, change):
    """``value`` with ``change`` made to every text in it."""
    if isinstance(value, dict):
        return {key: replaced(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def migrate(change) -> dict[str, str]:
    """Apply ``change(name, identity)`` to every shipped record; the new hash of each by its old one."""
    records = {path: json.loads(path.read_text("utf-8")) for path in sorted(paths.CHECKPOINTS.glob("*/*.json"))}
    identities = {}
    for path, data in records.items():
        identity = {key: data[key] for key in (TABLE if "table" in data else WEIGHTS)}
        assert config.config_hash(identity) == data["config_hash"], f"{path} does not have the hash of its identity"
        identities[path] = change(identity.get("table") or identity["task"], copy.deepcopy(identity))
    latest: dict[str, str] = {}
    while True:  # a record may name the hash of another, which may name a third
        resolved = {
            path: replaced(identity, lambda text, latest=latest: latest.get(text, text))
            for path, identity in identities.items()
        }
        found = {records[path]["config_hash"]: config.config_hash(identity) for path, identity in resolved.items()}
        if found == latest:
            break
        latest = found
    for path, identity in resolved.items():
        data = records[path]
        new = {**data, **identity, "config_hash": latest[data["config_hash"]]}
        if new != data:
            files.write_files({path: files.text_writer(dump(new))})
    return {old: new for old, new in latest.items() if old != new}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drop = commands.add_parser("drop")
    drop.add_argument("names")
    drop.add_argument("key", help="dotted: config.measures")
    drop.add_argument("--equals", type=json.loads, help="only where it has this value")
    sub = commands.add_parser("sub")
    sub.add_argument("names")
    sub.add_argument("old")
    sub.add_argument("new")
    given = parser.parse_args()

    def change(name: str, identity: dict) -> dict:
        if not fnmatch.fnmatchcase(name, given.names):
            return identity
        if given.command == "sub":
            return replaced(identity, lambda text: text.replace(given.old, given.new))
        *outer, last = given.key.split(".")
        inner = identity
        for part in outer:
            inner = inner.get(part, {})
        if last in inner and given.equals in (None, inner[last]):
            del inner[last]
        return identity

    changed = migrate(change)
    print(f"{len(changed)} records have another hash")


if __name__ == "__main__":
    main()
