"""The ledger of claims: strict bounds, faulty files, notebooks side by side, and the report."""

from __future__ import annotations

import csv
import math
import multiprocessing

import pandas as pd
import pytest
import torch
import yaml

from lib import claims, paths
from lib.errors import UserError

CLAIM = {
    "id": "background.bpd",
    "chapter": "02_background",
    "section": "2.3",
    "claim": "A flow gives exact likelihoods.",
    "quantity": "bits per dimension, MNIST test",
    "unit": "bits/dim",
    "bound": "<= 1.15",
    "partly": "<= 1.3",
    "kind": "target",
}
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
        entry(id="background.roundtrip", bound="within 0.00001 of 0", partly=None, kind="thesis", unit=""),
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
    write(text=yaml.safe_dump([entry()]).replace("'2.3'", "2.3"))
    assert claims.load()["background.bpd"].section == "2.3"


# --- recording -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "verdict"), [(1.1, "reproduced"), (1.2, "partly"), (2, "not")])
def test_a_value_gets_its_verdict(write, value, verdict):
    assert claims.record("background.bpd", value, **RUN) == verdict
    row = claims.ledger().set_index("id").loc["background.bpd"]
    assert row["verdict"] == verdict and row["measured"] == pytest.approx(value)
    assert row["notebook"] == "02_background" and row["device"] == "CPU"


def test_values_come_from_tensors_and_booleans(write):
    claims.record("background.bpd", torch.tensor(1.0), **RUN | {"device": torch.device("cpu")})
    claims.record("background.roundtrip", False, **RUN | {"device": "NVIDIA H200"})
    ledger = claims.ledger().set_index("id")
    assert ledger.loc["background.bpd", "measured"] == 1
    assert ledger.loc["background.roundtrip", ["measured", "device", "verdict"]].tolist() == [
        0,
        "NVIDIA H200",
        "reproduced",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, "1.1", None, torch.ones(2)])
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
    claims.record("background.bpd", 1.2, **RUN)
    write(entry(bound="<= 1.25"))
    assert claims.ledger()["verdict"].tolist() == ["reproduced"]


def test_rounding_never_helps(write):
    assert claims.record("background.bpd", 1.1500001, **RUN) == "partly"
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


# --- reading ---------------------------------------------------------------------------------------------------------


def test_report_is_a_ledger_of_all_claims(write, tmp_path):
    claims.record("background.bpd", 1.2, **RUN, detail="Mean of 3 seeds.")
    claims.record("background.roundtrip", 2e-6, **RUN)
    (tmp_path / "figures/02_background").mkdir()
    (tmp_path / "figures/02_background/samples.png").touch()
    (tmp_path / "figures/02_background/scores.md").touch()
    path = claims.report()
    text = path.read_text()
    assert path == tmp_path / "figures" / "REPORT.md"
    assert "**1 of 1 claims of the thesis** and **0 of 2 targets** are reproduced." in text
    assert (
        '| [Chapter 2: background](#chapter-2-background) | 2 | 1 | 1 | 0 | 0 | `make figures CHAPTERS="02"` |' in text
    )
    assert "| [Chapter 5: compression](#chapter-5-compression) | 1 | 0 | 0 | 0 | 1 |" in text
    assert (
        "| 🟡 | A flow gives exact likelihoods. *(bits per dimension, MNIST test)* Mean of 3 seeds. | target | 2.3 "
        "| ≤ 1.15 bits/dim (partly: ≤ 1.3) | 1.2 bits/dim | MNIST test, preset laptop | CPU |" in text
    )
    assert "| ✅ |" in text and "| within 1e-05 of 0 | 2e-06 |" in text
    assert "| ⬜ | Near \\| lossless." in text and "| ≥ 45 dB | – |  |  |" in text
    assert "[samples](02_background/samples.png)" in text and "[scores](02_background/scores.md)" in text
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({row.replace("\\|", "").count("|") for row in table.splitlines()}) == 1, table
    assert claims.report().read_text() == text


def test_claims_csv_has_the_agreed_columns(write, tmp_path):
    claims.record("background.bpd", 1 / 3, **RUN)
    claims.report()
    table = pd.read_csv(tmp_path / "figures/claims.csv")
    expected = "id, chapter, section, claim, bound, measured, unit, verdict, preset, data, device, notebook"
    assert ", ".join(table.columns) == expected
    assert table["verdict"].tolist() == ["reproduced", "not measured", "not measured"]
    assert table["measured"][0] == 0.333333 and table["measured"].isna().tolist() == [False, True, True]


def test_chapter_table_is_what_a_notebook_shows(write):
    claims.record("background.bpd", 1.078432, **RUN)
    table = claims.chapter_table("02_background")
    assert table["measured"].tolist() == ["1.08 bits/dim", "–"]
    assert table["verdict"].tolist() == ["✅ reproduced", "⬜ not measured"]
    with pytest.raises(
        UserError, match="no claim of chapter '04_restoration'; there are 02_background, 05_compression"
    ):
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


def test_command_writes_the_report(write, capsys):
    claims.record("background.bpd", 1, **RUN)
    claims.main()
    assert capsys.readouterr().out == "1 of 3 claims reproduced; see REPORT.md in figures/\n"


def test_names_of_chapters_and_appendices():
    assert claims._title("02_background") == "Chapter 2: background"
    assert claims._title("07_disentangled_dynamics") == "Chapter 7: disentangled dynamics"
    assert claims._title("A1_performance") == "Appendix A1: performance"
