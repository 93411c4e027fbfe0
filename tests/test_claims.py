"""The ledger of claims: strict bounds, faulty files, notebooks side by side, and the report."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from lib import claims, paths
from lib.claims import intervals, overview, records, reports
from lib.claims.__main__ import main
from lib.errors import UserError

CLAIM = {
    "id": "background.bpd",
    "chapter": "02_background",
    "section": "laptop preset",
    "claim": "A flow gives exact likelihoods.",
    "quantity": "bits per dimension, MNIST test",
    "unit": "bits/dim",
    "bound": "<= 1.15",
    "partly": "<= 1.3",
    "kind": "target",
}
THESIS = {"kind": "thesis", "source": "thesis: a flow is a bijection"}
RUN = {"preset": "laptop", "data": "MNIST test", "device": "cpu"}


def entry(**changes):
    return {key: value for key, value in (CLAIM | changes).items() if value is not None}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes claims.yaml (a list of entries, or text); figures go to a folder of the test."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("GMMP_FIGURES", str(tmp_path / "figures"))

    def write(*entries, text=None):
        text = yaml.safe_dump(list(entries), allow_unicode=True) if text is None else text
        (tmp_path / "claims.yaml").write_bytes(text.encode(errors="surrogateescape"))

    write(
        entry(),
        entry(id="background.roundtrip", bound="within 0.00001 of 0", partly=None, unit="", section="2.3", **THESIS),
        entry(
            id="codec.psnr", chapter="05_compression", bound=">= 45", partly=None, unit="dB", claim="Near | lossless."
        ),
    )
    return write


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds", "fails", "shown"),
    [
        ("<= 1.15", [1.15, -3], [1.1500001, math.nan], "≤ 1.15"),
        (">=20", [20, math.inf], [19.999], "≥ 20"),
        ("< 1e-5", [0], [1e-5], "< 1e-05"),
        ("> -.5", [0], [-0.5], "> -0.5"),
        ("== 8", [8], [8.01], "= 8"),
        ("within 2 of 0", [2, -2, 0], [2.1, -2.1, math.nan], "within 2 of 0"),
        ("  within  0.5  of  -1 ", [-1.5], [-0.4], "within 0.5 of -1"),
    ],
)
def test_bounds_hold_where_they_say(text, holds, fails, shown):
    bound = claims.Bound.parse(text)
    assert all(bound.holds(value) for value in holds)
    assert not any(bound.holds(value) for value in fails)
    assert str(bound) == shown


@pytest.mark.parametrize(
    "text",
    ["", "1.15", "<= ", "=< 1", "<= 1.15 dB", "<= one", "<= nan", "<= 1e999", "within -1 of 0", "within 1", "~ 3",
     "<= 1,5", "1 <= 2", "<= 1 <= 2", None, 1.15, ["<= 1"]],
)  # fmt: skip
def test_what_is_no_bound_is_refused(text):
    with pytest.raises(ValueError, match="bound"):
        claims.Bound.parse(text)


# --- the file of claims ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bound": "about 1"}, "bound 'about 1' is not understood; a bound reads"),
        ({"bound": 1.15}, "bound must be text, not 1.15"),
        ({"partly": "rather"}, "partly 'rather' is not understood"),
        ({"bound": None}, "the key 'bound' is missing"),
        ({"bonud": "<= 1"}, "unknown key 'bonud', did you mean 'bound'"),
        ({"kind": "hope"}, "kind is 'thesis' or 'target', not 'hope'"),
        ({"chapter": 2}, "chapter must be text"),
        ({"chapter": "background"}, "stem of a notebook such as 02_background"),
        ({"chapter": "../02_background"}, "stem of a notebook"),
        ({"claim": " "}, "claim is empty"),
        ({"section": True}, "section must be text"),
    ],
)
def test_a_faulty_entry_is_named(write, changes, message):
    write(entry(id="good"), entry(**changes))
    with pytest.raises(UserError, match=rf"claims.yaml, entry 2 \(background.bpd\).*{message}"):
        claims.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a: [", "not valid YAML at line"),
        ("a: 1", "must hold a list"),
        ("", "must hold a list"),
        ("- 3", "entry 1 is not a mapping"),
        ("\udcff", "not valid YAML"),
        ("- !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_faulty_file_is_explained(write, text, message):
    write(text=text)
    with pytest.raises(UserError, match=message):
        claims.load()


def test_an_id_has_one_claim(write):
    write(entry(), entry())
    with pytest.raises(UserError, match="'background.bpd' twice"):
        claims.load()


def test_a_missing_file_is_explained(write, tmp_path):
    (tmp_path / "claims.yaml").unlink()
    with pytest.raises(UserError, match=r"cannot read .*claims.yaml: it does not exist"):
        claims.load()


def test_a_section_may_be_a_number(write):
    write(text=yaml.safe_dump([entry(section="2.3", **THESIS)]).replace("'2.3'", "2.3"))
    assert claims.load()["background.bpd"].section == "2.3"


# --- recording -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "verdict"), [(1.1, "reproduced"), (1.2, "partly"), (2, "not")])
def test_a_value_gets_its_verdict(write, value, verdict):
    assert claims.record("background.bpd", value, exact=True, **RUN) == verdict
    row = claims.ledger().set_index("id").loc["background.bpd"]
    assert row["verdict"] == verdict and row["measured"] == pytest.approx(value)
    assert row["notebook"] == "02_background" and row["device"] == "CPU"


def test_values_come_from_tensors_and_booleans(write):
    claims.record("background.bpd", torch.tensor(1.0), exact=True, **RUN | {"device": torch.device("cpu")})
    claims.record("background.roundtrip", False, exact=True, **RUN | {"device": "NVIDIA H200"})
    ledger = claims.ledger().set_index("id")
    assert ledger.loc["background.bpd", "measured"] == 1
    assert ledger.loc["background.roundtrip", ["measured", "device", "verdict"]].tolist() == [
        0,
        "NVIDIA H200",
        "reproduced",
    ]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "1.1", None, [], [1, math.nan], ["1.1"], pd.DataFrame({"a": [1], "b": [2]})]
)
def test_a_value_that_is_no_number_is_refused(write, value):
    with pytest.raises(UserError, match="background.bpd"):
        claims.record("background.bpd", value, **RUN)


def test_an_unknown_claim_is_refused(write):
    with pytest.raises(UserError, match="did you mean 'background.bpd'"):
        claims.record("background.bdp", 1, **RUN)


@pytest.mark.parametrize("key", ["data", "device", "detail", "notebook", "preset"])
def test_paths_of_a_machine_stay_out(write, key):
    with pytest.raises(ValueError, match="path of this machine"):
        claims.record("background.bpd", 1, **RUN | {key: "in /home/me/data"})
    claims.record("background.bpd", 1, **RUN | {key: "and/or 5 / 3, km/h"})


def test_recording_again_replaces_and_forgotten_claims_leave(write, tmp_path):
    claims.record("background.bpd", 1.1, **RUN)
    claims.record("background.roundtrip", 0, **RUN)
    claims.record("background.bpd", 1.3, **RUN | {"preset": "full"}, detail='three seeds, "a, b"\nsecond line')
    rows = list(csv.DictReader((tmp_path / "figures/claims.d/02_background.csv").open()))
    assert [(r["id"], r["measured"], r["preset"]) for r in rows] == [
        ("background.bpd", "1.3", "full"),
        ("background.roundtrip", "0", "laptop"),
    ]
    assert rows[0]["detail"] == 'three seeds, "a, b" second line'
    write(entry(id="background.other"))
    claims.record("background.other", 1, **RUN)
    assert len((tmp_path / "figures/claims.d/02_background.csv").read_text().splitlines()) == 2


def test_a_verdict_follows_the_bound_of_today(write):
    claims.record("background.bpd", 1.2, exact=True, **RUN)
    write(entry(bound="<= 1.25"))
    assert claims.ledger()["verdict"].tolist() == ["reproduced"]


def test_rounding_never_helps(write):
    assert claims.record("background.bpd", 1.1500001, exact=True, **RUN) == "partly"
    assert claims.chapter_table("02_background")["measured"][0] == "1.1500001 bits/dim"


def _record(number: int) -> None:
    chapter = ("02_background", "05_compression")[number % 2]
    claims.record(f"{chapter}.{number}", number, **RUN)


def test_notebooks_side_by_side_lose_nothing(write):
    write(*(entry(id=f"{c}.{n}", chapter=c) for n in range(40) for c in [("02_background", "05_compression")[n % 2]]))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_record, range(40), chunksize=1)
    assert claims.ledger()["measured"].tolist() == list(range(40))


@pytest.mark.parametrize(
    "damage",
    [b"", b"id,measured\n", b"\xff\xfe", b"id,measured,preset,data,device,notebook,detail\nbackground.bpd,1.1,lap",
     b"id,measured,preset,data,device,notebook,detail\nbackground.bpd,good,laptop,a,b,c,d\n",
     b"id,measured,preset,data,device,notebook,detail\nbackground.bpd,nan,laptop,a,b,c,d\n",
     b'id,measured,preset,data,device,notebook,detail\nbackground.bpd,1,"laptop,a,b,c,d\n'],
)  # fmt: skip
def test_damaged_measurements_are_named(write, tmp_path, damage):
    claims.record("background.bpd", 1.1, **RUN)
    (tmp_path / "figures/claims.d/02_background.csv").write_bytes(damage)
    with pytest.raises(UserError, match=r"02_background.csv is damaged: delete it"):
        claims.report()


# --- intervals -------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=50)


def test_the_interval_of_a_mean_is_the_textbook_s():
    found = intervals.estimate(NORMAL)
    half = 1.96 * NORMAL.std(ddof=1) / math.sqrt(50)
    assert found.value == pytest.approx(NORMAL.mean()) and found.n == 50
    assert found.low == pytest.approx(NORMAL.mean() - half, abs=0.03)
    assert found.high == pytest.approx(NORMAL.mean() + half, abs=0.03)
    assert intervals.estimate(NORMAL) == found


def test_few_units_have_student_s_interval():
    from scipy import stats

    seeds = np.array([1.0, 1.2, 1.5])
    low, high = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
    found = intervals.estimate(pd.DataFrame({"bpd": seeds, "seed": [0, 1, 2]}), column="bpd", groups="seed")
    assert (found.low, found.high) == (pytest.approx(low, rel=0.05), pytest.approx(high, rel=0.05))
    assert found.seeds == 3
    assert intervals.estimate([1.3]) == intervals.Estimate(1.3, n=1)  # one value says nothing of others


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    for size in (3, 8, 24):
        samples = rng.normal(size=(200, size))
        found = [intervals.estimate(sample, draws=400) for sample in samples]
        assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.89, size


def test_rows_of_a_group_are_drawn_together():
    frame = pd.DataFrame({"person": np.repeat(range(20), 10), "x": np.repeat(RNG.normal(size=20), 10)})
    apart = intervals.estimate(frame, column="x")
    together = intervals.estimate(frame, column="x", groups="person")
    assert together.value == pytest.approx(apart.value) and together.n == 20
    assert together.high - together.low > 2.5 * (apart.high - apart.low)  # ten rows of a person are one observation


def test_a_share_of_all_is_not_certain():
    low, high = (lambda e: (e.low, e.high))(intervals.estimate([True] * 56, "share"))
    assert low == pytest.approx(93.62, abs=0.01) and high == 100  # Clopper and Pearson, n = 56
    groups = np.repeat(range(8), 7)
    assert intervals.estimate([True] * 56, "share", groups=groups).low == pytest.approx(63.06, abs=0.01)  # n = 8


def test_other_statistics():
    pairs = np.stack([2 * np.arange(1, 31.0), np.arange(1, 31.0)], 1)
    assert intervals.estimate(pairs, "ratio").value == 2 == intervals.estimate(pairs, "ratio").high
    frame = pd.DataFrame({"clip": ["a", "b"] * 30, "x": np.tile([1.0, 3.0], 30) + RNG.normal(size=60) / 10})
    worst = intervals.estimate(frame, lambda rows: rows.groupby("clip")["x"].mean().max(), strata="clip")
    assert worst.low < worst.value < worst.high and worst.value == pytest.approx(3, abs=0.1)
    curves = RNG.normal(size=(24, 5, 2))
    assert intervals.estimate(curves, lambda rows: rows.mean(0)[0, 1]).value == pytest.approx(curves[:, 0, 1].mean())
    for name in ("median", "max", "min"):
        found = intervals.estimate(NORMAL, name)
        assert found.low <= getattr(np, name)(NORMAL) <= found.high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], "mode"), "no statistic 'mode'"),
        (([0.5, 1.0], "share"), "true or false"),
        (([1.0, 2.0], "ratio"), "2 numbers a row, not of 1"),
        (([1.0, 2.0], lambda rows: math.nan), "whole sample is nan"),
        ((list(range(20)), lambda rows: 1 if 19 in rows else math.nan), "undefined for"),
    ],
)
def test_what_cannot_be_resampled_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        intervals.estimate(*arguments)
    with pytest.raises(UserError, match="one label a row"):
        intervals.estimate([1.0, 2.0], groups=[1])
    with pytest.raises(UserError, match="a group lies in two strata"):
        intervals.estimate([1.0, 2.0], groups=[0, 0], strata=[0, 1])


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.0, 1.15, "reproduced"),  # the unfavourable end meets the bound
        (1.0, 1.16, "partly"),  # and here only the looser one
        (1.14, 1.31, "undecided"),
        (1.2, 1.31, "undecided"),
        (1.31, 1.4, "not"),
    ],
)
def test_the_unfavourable_end_decides(write, low, high, verdict):
    assert claims.record("background.bpd", (low + high) / 2, interval=(low, high), n=3, **RUN) == verdict


@pytest.mark.parametrize(
    ("bound", "low", "high", "met"),
    [("> 0", 0, 1, "some"), ("> 0", 0.1, 1, "all"), ("> 0", -1, 0, "none"), ("within 1 of 5", 4.5, 5.5, "all"),
     ("within 1 of 5", 3, 7, "some"), ("within 1 of 5", 6.1, 7, "none"), ("== 8", 8, 8, "all"), ("== 8", 7, 9, "some"),
     ("== 8", 7, 7, "none")],
)  # fmt: skip
def test_a_bound_over_an_interval(bound, low, high, met):
    assert claims.Bound.parse(bound).over(low, high) == met


def test_a_value_without_an_interval_is_undecided(write):
    assert claims.record("background.bpd", 1.0, **RUN) == "undecided"
    assert claims.record("background.bpd", 2.0, **RUN) == "undecided"
    assert claims.chapter_table("02_background")["95 % interval"][0] == "no interval"


def test_what_doing_nothing_passes_is_no_evidence(write):
    assert claims.record("background.bpd", 1.1, exact=True, null=(1.14, "histogram"), **RUN) == "no evidence"
    assert claims.record("background.bpd", 1.2, exact=True, null=(1.14, "histogram"), **RUN) == "no evidence"
    assert claims.record("background.bpd", 1.1, exact=True, null=(1.2, "histogram"), **RUN) == "reproduced"
    assert claims.record("background.bpd", 2.0, exact=True, null=(1.1, "histogram"), **RUN) == "not"
    assert claims.chapter_table("02_background")["does nothing"].tolist() == ["1.1 (histogram)", "–"]


def test_a_sample_is_resampled(write):
    assert claims.record("background.bpd", np.linspace(1.0, 1.2, 100), **RUN, published=(1.08, "a tutorial")) == (
        "reproduced"
    )
    row = claims.ledger().set_index("id").loc["background.bpd"]
    assert (row["n"], row["source"], row["published"]) == (100, "live", "1.08 (a tutorial)")
    assert 1.08 < row["low"] < 1.1 < row["high"] < 1.12
    assert claims.record("background.bpd", torch.linspace(1.0, 1.6, 40), **RUN) == "undecided"
    frame = pd.DataFrame({"bpd": [1.0, 1.01, 1.02], "seed": [0, 1, 2]})
    assert claims.record("background.bpd", frame, column="bpd", groups="seed", **RUN) == "reproduced"
    assert claims.ledger().set_index("id").loc["background.bpd", "seeds"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exact": True, "interval": (1, 2)}, "exact or has an interval, not both"),
        ({"interval": (2, 3)}, "does not lie in its interval"),
        ({"interval": (0, math.nan)}, "does not lie in its interval"),
        ({"source": "memory"}, "is 'live' or 'stored', not 'memory'"),
        ({"null": (math.nan, "input")}, "a finite number and a text"),
        ({"null": 1.0}, "a number and a text"),
        ({"published": (1.0, " ")}, "a finite number and a text"),
    ],
)
def test_faulty_evidence_is_refused(write, changes, message):
    with pytest.raises(UserError, match=rf"background.bpd.*{message}"):
        claims.record("background.bpd", 1.0, **RUN | changes)


# --- where the thesis says it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (THESIS | {"section": "3.4"}, "section '3.4' of the thesis is not known here"),
        (THESIS | {"section": "5"}, "section '5' of the thesis is not known here"),
        (THESIS | {"source": None}, "needs a source"),
        (THESIS | {"source": "everybody says so"}, "needs a source"),
        (THESIS | {"source": "EGSR 2020: it is grown", "section": "2.3"}, "only the abstract is known here"),
        ({"section": "2.3"}, "a target has no section of the thesis"),
        ({"source": "thesis: it is said"}, "a target has no section of the thesis and no source"),
        ({"measure": "compression.curve"}, "measure is a list of texts"),
        ({"measure": ["curve"]}, "measure names stored tables"),
        ({"tolerance": "0.1"}, "tolerance is a number"),
        ({"changed": [""]}, "changed is a list of texts"),
    ],
)
def test_a_citation_that_nobody_can_check_is_refused(write, changes, message):
    write(entry(**({"section": "2.3"} if changes.get("kind") == "thesis" else {}) | changes))
    with pytest.raises(UserError, match=message):
        claims.load()


def test_what_the_papers_say_is_cited_from_their_abstracts(write):
    write(entry(kind="thesis", section="abstract", source="EGSR 2020: it is grown"))
    assert claims.load()["background.bpd"].source == "EGSR 2020: it is grown"


def test_claims_of_this_repository_name_tables_that_ship():
    measured = claims.ledger().set_index("id")["verdict"] != "not measured"
    for claim in claims.load().values():
        for name in claim.measure if measured[claim.id] else ():
            one = claims.Claim(**{**vars(claim), "measure": (name,)})
            assert records.stored_tables(one), f"{claim.id}: checkpoints/ has no table {name}"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_report_is_a_ledger_of_all_claims(write, tmp_path):
    claims.record("background.roundtrip", 2e-6, exact=True, **RUN)
    claims.record(
        "background.bpd", 1.2, interval=(1.18, 1.22), n=3, seeds=3, **RUN, detail="Mean.", null=(1.94, "histogram")
    )
    path = claims.report()
    text = path.read_text()
    assert path == tmp_path / "figures" / "REPORT.md"
    assert "**1 of 1 claims of the thesis** and **0 of 2 targets** are reproduced; 0 are refuted, 0 undecided." in text
    assert "| [Chapter 2: background](#chapter-2-background) | 2 | 0 | 0 | 0 | 0 | 1 | 1 | – |" in text
    assert "| [Chapter 5: compression](#chapter-5-compression) | 1 | 0 | 0 | 0 | 1 | 0 | 0 | – |" in text
    assert (
        "| 🟡 | `background.bpd` | A flow gives exact likelihoods. *(bits per dimension, MNIST test)* Mean. "
        "| target (laptop preset) | ≤ 1.15 bits/dim (partly: ≤ 1.3) | 1.2 bits/dim | 1.18 to 1.22 | 3, 3 seeds "
        "| 1.94 (histogram) | – | MNIST test, preset laptop, CPU | live |" in text
    )
    assert "| thesis: a flow is a bijection (2.3) | within 1e-05 of 0 | 2e-06 | exact | – |" in text
    assert "| ⬜ | `codec.psnr` | Near \\| lossless." in text
    assert text.index("`background.bpd`") < text.index("`background.roundtrip`")  # what does not hold comes first
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({row.replace("\\|", "").count("|") for row in table.splitlines()}) == 1, table
    assert claims.report().read_text() == text


def test_report_says_where_figures_come_from(write, tmp_path):
    claims.record("background.bpd", 1.2, **RUN)
    cells = [
        {"cell_type": "code", "execution_count": 7, "source": ['plotting.save(f, "02_background/samples")']},
        {"cell_type": "code", "execution_count": 8, "source": ["show(x)"], "outputs": ["02_background/scores.csv"]},
    ]
    (tmp_path / "02_background.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "figures/02_background").mkdir()
    for name in ("samples.png", "samples.csv", "scores.md", "score.md"):
        (tmp_path / "figures/02_background" / name).touch()
    text = claims.report().read_text()
    made = "[cell 7](../notebooks/02_background.ipynb) | [csv](02_background/samples.csv)"
    again = '`make figures CHAPTERS="02"`'
    assert f"| [samples](02_background/samples.png) | {made} | {again} |" in text
    assert f"| [scores](02_background/scores.md) | [cell 8](../notebooks/02_background.ipynb) | – | {again} |" in text
    assert "| [score](02_background/score.md) | – | – | – |" in text
    assert f"Notebook: [02_background.ipynb](../notebooks/02_background.ipynb) · run it again: {again}" in text
    assert "05_compression.ipynb" not in text  # no link to a notebook that is not there


def test_report_says_what_was_changed_after_measuring(write):
    write(entry(changed=["The bound was 1.1 before seeing results."]))
    assert "Changed after measuring:\n\n* `background.bpd`: The bound was 1.1" in claims.report().read_text()


def test_claims_csv_has_the_agreed_columns(write, tmp_path):
    claims.record("background.bpd", 1 / 3, interval=(0.3, 0.4), n=24, seeds=3, null=(0.5, "input"), **RUN)
    claims.report()
    table = pd.read_csv(tmp_path / "figures/claims.csv")
    expected = (
        "id, chapter, section, claim, bound, measured, unit, verdict, preset, data, device, notebook, "
        "n, seeds, low, high, source, seconds, command, null, published"
    )
    assert ", ".join(table.columns) == expected
    assert table["verdict"].tolist() == ["no evidence", "not measured", "not measured"]
    assert table["measured"][0] == 0.333333 and table["measured"].isna().tolist() == [False, True, True]
    assert (table["n"][0], table["command"][0], table["null"][0]) == (24, "make claim ID=background.bpd", "0.5 (input)")


def test_measurements_of_before_there_were_intervals_are_undecided(write, tmp_path):
    (tmp_path / "figures/claims.d").mkdir(parents=True)
    (tmp_path / "figures/claims.d/02_background.csv").write_text(
        "id,measured,preset,data,device,notebook,detail\nbackground.bpd,1.1,laptop,MNIST,CPU,02_background,\n"
    )
    assert claims.ledger()["verdict"].tolist() == ["undecided", "not measured", "not measured"]


def test_chapter_table_is_what_a_notebook_shows(write):
    claims.record("background.bpd", 1.078432, exact=True, **RUN)
    table = claims.chapter_table("02_background")
    assert table["measured"].tolist() == ["1.08 bits/dim", "–"]
    assert table["verdict"].tolist() == ["✅ reproduced", "⬜ not measured"]
    with pytest.raises(UserError, match="no claim of chapter '04_restoration'; there are 02_background"):
        claims.chapter_table("04_restoration")


@pytest.mark.parametrize(
    ("value", "bound", "shown"),
    [(1.1504, "<= 1.15", "1.1504"), (1.1496, "<= 1.15", "1.15"), (44.96, ">= 45", "44.96"), (123456.2, "> 0", "123456"),
     (1.2e-7, "<= 1", "1.2e-07"), (0.5, "<= 1", "0.5")],
)  # fmt: skip
def test_shown_digits_do_not_contradict_the_verdict(write, value, bound, shown):
    write(entry(bound=bound, partly=None, unit=""))
    claims.record("background.bpd", value, **RUN)
    assert claims.chapter_table("02_background")["measured"][0] == shown


def test_command_writes_the_report(write, capsys, monkeypatch):
    claims.record("background.bpd", 1, exact=True, **RUN)
    monkeypatch.setattr("sys.argv", ["lib.claims"])
    main()
    assert capsys.readouterr().out == "1 of 3 claims reproduced; see REPORT.md in figures/\n"


def test_names_of_chapters_and_appendices():
    assert reports.title("02_background") == "Chapter 2: background"
    assert reports.title("07_disentangled_dynamics") == "Chapter 7: disentangled dynamics"
    assert reports.title("A1_performance") == "Appendix A1: performance"


# --- at a glance -----------------------------------------------------------------------------------------------------


def test_contributions_count_the_ledger_and_name_its_claims():
    table, found = claims.contributions(), claims.ledger()
    assert set(table["chapter"]) == {3, 4, 5, 6, 7}
    for _, row in table.iterrows():
        part = found[found["chapter"].str.startswith(f"0{row['chapter']}_")]
        said = part[part["kind"] == "thesis"]
        assert row["claims of the thesis"].split(", ") == said["id"].tolist()
        counted = sum(int(text.split()[1]) for text in row["their verdicts"].split(" · "))
        assert (counted, row["goals of our own"]) == (len(said), len(part) - len(said))


def test_verdicts_are_counted_worst_first():
    found = overview.counted(["reproduced", "not", "reproduced", "partly"])
    assert found == f"{claims.VERDICTS['not']} 1 · {claims.VERDICTS['partly']} 1 · {claims.VERDICTS['reproduced']} 2"
    assert overview.counted([]) == "–"


def test_only_what_stands_between_the_marks_of_the_readme_is_renewed(monkeypatch, tmp_path):
    monkeypatch.setattr(overview, "README", tmp_path / "README.md")
    monkeypatch.setattr(overview, "chapters_table", lambda: "new")
    overview.update_readme()  # no README: nothing happens
    assert not (tmp_path / "README.md").exists()
    first, last = overview.MARKS
    for text, expected in ((f"a\n{first}\nold\n{last}\nb\n", f"a\n{first}\nnew\n{last}\nb\n"), ("a\n", "a\n")):
        (tmp_path / "README.md").write_text(text)
        overview.update_readme()
        assert (tmp_path / "README.md").read_text() == expected
