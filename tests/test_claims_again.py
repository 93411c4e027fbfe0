"""``python -m lib.claims claim`` and ``audit``: stored and new side by side, in a repository of two tiny chapters."""

from __future__ import annotations

import json
import shutil
import sys

import pandas as pd
import pytest
import skeleton

from lib.claims.again import agrees
from lib.claims.schema import Claim

# what is stored is the length of a file: a table that is computed again sees what the file is now
WORK = """
import pathlib, pandas as pd
from lib import claims
from lib.store import evaluate_or_load
def lengths():
    return pd.DataFrame({"length": [len(pathlib.Path("../length.txt").read_text())]})
table, _ = evaluate_or_load("lengths", {"of": "length.txt"}, lengths, package="tiny")
claims.record("02_tiny.length", table["length"][0], exact=True, preset=preset, data="none", device="cpu")
claims.record("02_tiny.steps", 10, exact=True, preset=preset, data="none", device="cpu");
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Both chapters executed, the table of the first one shipped."""
    made = skeleton.Skeleton(tmp_path_factory.mktemp("claims"))
    listed = made.root / "notebooks" / "claims.yaml"
    listed.write_text(
        listed.read_text() + "- {id: 02_tiny.length, chapter: 02_tiny, section: laptop preset, claim: It is long., "
        "quantity: length, unit: letters, bound: '>= 3', kind: target, measure: [tiny.lengths]}\n"
    )
    (made.root / "length.txt").write_text("abcde")
    made.write("02_tiny", WORK)
    for chapter in ("02_tiny", "03_other"):
        done = made.run(chapter)
        assert done.returncode == 0, done.stderr
    shutil.move(made.root / "runs" / "tables" / "tiny", made.root / "checkpoints" / "tiny")
    return made


def command(repository, *words: str):
    return repository.command(sys.executable, "-m", "lib.claims", *words)


def test_a_claim_that_does_not_hold_any_more_is_told(repository):
    before = (repository.root / "figures" / "claims.d" / "02_tiny.csv").read_bytes()
    (repository.root / "length.txt").write_text("ab")
    try:
        found = command(repository, "claim", "02_tiny.length", "--json")
    finally:
        (repository.root / "length.txt").write_text("abcde")
    assert found.returncode == 1, found.stderr
    told = json.loads(found.stdout)
    assert (told["stored"], told["new"], told["agrees"]) == (5, 2, False)
    assert (told["stored_verdict"], told["new_verdict"]) == ("reproduced", "not")
    assert (repository.root / "figures" / "claims.d" / "02_tiny.csv").read_bytes() == before
    assert not (repository.root / "runs" / "tables" / "tiny").exists()  # nothing is left behind


def test_what_takes_long_is_only_started_when_asked_for(repository):
    record = repository.root / "checkpoints" / "tiny" / "lengths.json"
    before = record.read_text()
    (repository.root / "lib" / "tiny" / "study.py").write_text("")
    record.write_text(json.dumps(json.loads(before) | {"seconds": 7000}))
    try:
        found = command(repository, "claim", "02_tiny.length")
    finally:
        record.write_text(before)
    assert found.returncode == 2
    assert "takes about 1.9 h on two CPU cores: make claim ID=02_tiny.length WHOLE=1" in found.stderr
    assert "no sample can be taken of some of its tables" in found.stderr


def test_an_unknown_claim_is_refused(repository):
    found = command(repository, "claim", "02_tiny.lenght")
    assert found.returncode == 2 and "did you mean '02_tiny.length'" in found.stderr


def test_an_audit_goes_on_where_it_stopped(repository):
    found = command(repository, "audit", "--chapters", "02")
    assert found.returncode == 0, found.stderr
    assert found.stdout == "2 of 2 claims agree\n"
    found = command(repository, "audit")
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("agrees") == 1 and found.stdout == "3 of 3 claims agree\n"  # only the other chapter's
    table = pd.read_csv(repository.root / "figures" / "audit.csv")
    assert table["id"].tolist() == ["02_tiny.steps", "03_other.steps", "02_tiny.length"] and table["agrees"].all()
    assert "3 of 3 claims agree with their stored value" in (repository.root / "figures" / "audit.md").read_text()
    repository.write("03_other", "1 / 0")
    failed = command(repository, "audit", "--afresh", "--chapters", "03")
    assert failed.returncode == 2 and "not measured: 03_other.steps" in failed.stderr
    assert len(pd.read_csv(repository.root / "figures" / "audit.csv")) == 3  # what was done before is kept


@pytest.mark.parametrize(
    ("new", "verdict", "same"),
    [(1.0, "reproduced", True), (1.019, "reproduced", True), (1.09, "reproduced", True), (1.2, "reproduced", False),
     (1.0, "undecided", False)],
)  # fmt: skip
def test_agreement_is_the_same_verdict_and_nearly_the_same_value(new, verdict, same):
    claim = Claim("a", "02_a", "x", "It is.", "x", "", "<= 2", "target")
    stored = pd.Series({"measured": 1.0, "low": 0.9, "high": 1.1, "exact": False, "verdict": "reproduced"})
    assert agrees(claim, stored, new, verdict) == same
