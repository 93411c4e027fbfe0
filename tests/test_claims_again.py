"""``python -m lib.claims claim`` and ``audit``: stored and new side by side, in a repository of two tiny chapters."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys

import pandas as pd
import pytest
import skeleton

from lib.claims.again import agrees
from lib.claims.schema import Claim

# what is stored are letters of files: a table that is computed again sees what the files are now
STUDY = """
import pathlib
import pandas as pd
from lib import paths, store
class Study(store.Study):
    pass
def letters(*names):
    return pd.DataFrame({"length": [len((paths.ROOT / name).read_text()) for name in names]})
@store.measure("lengths")
def lengths(study: Study) -> pd.DataFrame:
    return letters("length.txt")
@store.measure("several", sample=lambda study: letters("one.txt"))
def several(study: Study) -> pd.DataFrame:
    return letters("one.txt", "other.txt")
"""
WORK = """
from lib import claims
from lib.tiny.study import Study
tables = Study(preset).tables
run = {"preset": preset, "data": "none", "device": "cpu"}
claims.record("02_tiny.length", tables["lengths"]["length"][0], exact=True, **run)
claims.record("02_tiny.several", tables["several"]["length"].sum(), exact=True, **run)
claims.record("02_tiny.steps", 10, exact=True, **run);
"""
CLAIM = (
    "- {{id: 02_tiny.{0}, chapter: 02_tiny, section: laptop preset, claim: It is long., quantity: length, "
    "unit: letters, bound: '>= 3', kind: target, measure: [tiny.{1}]}}\n"
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Both chapters executed, the tables of the first one shipped."""
    made = skeleton.Skeleton(tmp_path_factory.mktemp("claims"))
    listed = made.root / "notebooks" / "claims.yaml"
    listed.write_text(listed.read_text() + CLAIM.format("length", "lengths") + CLAIM.format("several", "several"))
    (made.root / "lib" / "tiny" / "study.py").write_text(STUDY)
    for name, text in {"length": "abcde", "one": "abc", "other": "abcd"}.items():
        (made.root / f"{name}.txt").write_text(text)
    made.write("02_tiny", WORK)
    for chapter in ("02_tiny", "03_other"):
        done = made.run(chapter)
        assert done.returncode == 0, done.stderr
    shutil.move(made.root / "runs" / "tables" / "tiny", made.root / "checkpoints" / "tiny")
    return made


@contextlib.contextmanager
def taking(repository, table: str, seconds: float):
    """A shipped table that took so long."""
    record = repository.root / "checkpoints" / "tiny" / f"{table}.json"
    before = record.read_text()
    record.write_text(json.dumps(json.loads(before) | {"seconds": seconds}))
    try:
        yield
    finally:
        record.write_text(before)


@contextlib.contextmanager
def holding(repository, name: str, text: str):
    """A file that is another now."""
    path = repository.root / f"{name}.txt"
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def command(repository, *words: str):
    return repository.command(sys.executable, "-m", "lib.claims", *words)


def test_a_claim_that_does_not_hold_any_more_is_told(repository):
    before = (repository.root / "figures" / "claims.d" / "02_tiny.csv").read_bytes()
    with holding(repository, "length", "ab"):
        found = command(repository, "claim", "02_tiny.length", "--json")
    assert found.returncode == 1, found.stderr
    told = json.loads(found.stdout)
    assert (told["stored"], told["new"], told["result"], told["rows"]) == (5, 2, "differs", "tiny.lengths: all 1 rows")
    assert (told["stored_verdict"], told["new_verdict"]) == ("reproduced", "not")
    assert (repository.root / "figures" / "claims.d" / "02_tiny.csv").read_bytes() == before
    assert not (repository.root / "runs" / "tables" / "tiny").exists()  # nothing is left behind


def test_of_what_takes_long_a_sample_of_rows_is_measured_and_has_to_agree(repository):
    with taking(repository, "several", 7000):
        with holding(repository, "other", "a"):  # not in the sample: its row is as stored
            found = command(repository, "claim", "02_tiny.several", "--json")
        assert found.returncode == 0, found.stderr
        assert "about 1.9 h on two CPU cores: make claim ID=02_tiny.several WHOLE=1; now a sample" in found.stderr
        told = json.loads(found.stdout)
        assert (told["stored"], told["new"], told["rows"]) == (7, 7, "tiny.several: 1 of 2 rows")
        with holding(repository, "one", "ab"):  # within the bound, but not what was stored
            found = command(repository, "claim", "02_tiny.several", "--json")
        assert found.returncode == 1, found.stderr
        told = json.loads(found.stdout)
        assert (told["new"], told["detail"]) == (6, "tiny.several: length is 2 in row 0, stored 3")
        with holding(repository, "other", "a"):
            found = command(repository, "claim", "02_tiny.several", "--whole", "--json")
        assert found.returncode == 1 and json.loads(found.stdout)["new"] == 4, found.stderr


def test_what_takes_long_and_has_no_sample_is_only_started_when_asked_for(repository):
    with taking(repository, "lengths", 7000):
        found = command(repository, "claim", "02_tiny.length")
    assert found.returncode == 2
    assert "no sample of at most 10 minutes is declared; measuring 02_tiny.length again takes" in found.stderr
    assert "takes about 1.9 h on two CPU cores: make claim ID=02_tiny.length WHOLE=1" in found.stderr


def test_a_chapter_that_fails_is_told_in_one_sentence(repository):
    notebook = repository.notebook("03_other").read_text()
    repository.write("03_other", "1 / 0")
    try:
        found = command(repository, "claim", "03_other.steps")
    finally:
        repository.notebook("03_other").write_text(notebook)
    assert found.returncode == 2
    assert "error: 03_other failed in cell [2]: ZeroDivisionError: division by zero" in found.stderr


def test_an_unknown_claim_is_refused(repository):
    found = command(repository, "claim", "02_tiny.lenght")
    assert found.returncode == 2 and "did you mean '02_tiny.length'" in found.stderr


def test_an_audit_goes_on_where_it_stopped(repository):
    found = command(repository, "audit", "--minutes", "0")  # as if it were interrupted at once
    assert found.returncode == 1, found.stderr
    assert found.stdout == "0 of 4 claims agree, 4 are not measured yet\n"
    found = command(repository, "audit", "--chapters", "02", "--live")
    assert found.stdout == "1 of 1 claims agree, 0 are not measured yet\n", found.stderr
    found = command(repository, "audit", "--chapters", "02")
    assert found.returncode == 0, found.stderr
    assert found.stdout == "3 of 3 claims agree, 0 are not measured yet\n"
    assert "| ⬜ | `03_other.steps` |" in (repository.root / "figures" / "audit.md").read_text()
    found = command(repository, "audit", "--chapters", "03", "02")
    assert found.returncode == 0, found.stderr
    assert found.stderr.startswith("[1/2] 03_other: 1 claims")
    assert "02_tiny" not in found.stderr and found.stdout == "4 of 4 claims agree, 0 are not measured yet\n"
    table = pd.read_csv(repository.root / "figures" / "audit.csv").set_index("id")
    assert set(table.index) == {"02_tiny.steps", "03_other.steps", "02_tiny.length", "02_tiny.several"}
    assert table.loc["02_tiny.several", "rows"] == "tiny.several: 1 of 2 rows"
    assert table.loc["02_tiny.steps", "rows"] == "live" and (table["result"] == "agrees").all()
    text = (repository.root / "figures" / "audit.md").read_text()
    assert "4 of 4 claims agree with their stored value, 0 differ, 0 were not measured again" in text


def test_an_audit_tells_what_differs_takes_long_or_fails(repository):
    with holding(repository, "one", "ab"), taking(repository, "lengths", 7000):
        found = command(repository, "audit", "--chapters", "02", "--afresh")
    assert found.returncode == 1, found.stderr
    table = pd.read_csv(repository.root / "figures" / "audit.csv").set_index("id")
    assert table["result"].to_dict() == {
        "02_tiny.length": "too long", "02_tiny.several": "differs", "02_tiny.steps": "agrees",
        "03_other.steps": "agrees",
    }  # fmt: skip
    text = (repository.root / "figures" / "audit.md").read_text()
    assert "* `02_tiny.length`: needs about 117 minutes" in text
    assert "* `02_tiny.several`: tiny.several: length is 2 in row 0, stored 3" in text
    notebook = repository.notebook("03_other").read_text()
    repository.write("03_other", "1 / 0")
    failed = command(repository, "audit", "--afresh", "--chapters", "03")
    repository.notebook("03_other").write_text(notebook)
    assert failed.returncode == 2 and "not measured: 03_other; run the same command again" in failed.stderr
    assert len(pd.read_csv(repository.root / "figures" / "audit.csv")) == 4  # what was done before is kept


def test_a_table_is_measured_again_when_the_code_changes(repository):
    study = repository.root / "lib" / "tiny" / "study.py"
    command(repository, "audit", "--chapters", "02", "--afresh")
    study.write_text(STUDY.replace('letters("length.txt")', 'letters("length.txt") + 2'))
    try:
        found = command(repository, "claim", "02_tiny.length", "--json")
        assert found.returncode == 1 and json.loads(found.stdout)["new"] == 7, found.stderr
        shutil.move(repository.root / "figures" / "audit.csv", repository.root / "figures" / "audit.old.csv")
        found = command(repository, "audit", "--chapters", "02")
    finally:
        study.write_text(STUDY)
    assert "tiny.lengths, whole" in found.stderr and "tiny.several, whole" not in found.stderr, found.stderr


@pytest.mark.parametrize(
    ("new", "verdict", "same"),
    [(1.0, "reproduced", True), (1.019, "reproduced", True), (1.09, "reproduced", True), (1.2, "reproduced", False),
     (1.0, "undecided", False)],
)  # fmt: skip
def test_agreement_is_the_same_verdict_and_nearly_the_same_value(new, verdict, same):
    claim = Claim("a", "02_a", "x", "It is.", "x", "", "<= 2", "target")
    stored = pd.Series({"measured": 1.0, "low": 0.9, "high": 1.1, "exact": False, "verdict": "reproduced"})
    assert agrees(claim, stored, new, verdict) == same
