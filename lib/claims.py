"""The ledger of claims: what the thesis says, what we measured, and the verdict.

``notebooks/claims.yaml`` lists the claims, each with a bound; a notebook records its measured value; `report` joins
both::

    claims.yaml ----------------------------+
    notebook --record--> claims.d/<chapter>.csv --report--> claims.csv, REPORT.md

Each chapter has its own file of measurements, replaced in one step, so that notebooks that run side by side lose
nothing. Verdicts are worked out when they are asked for: a bound that changes in claims.yaml changes the verdict, not
the measurement.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib import paths
from lib.errors import UserError, command_line, explain_os_error
from lib.files import locked, write_atomically

COLUMNS = (
    "id",
    "chapter",
    "section",
    "claim",
    "bound",
    "measured",
    "unit",
    "verdict",
    "preset",
    "data",
    "device",
    "notebook",
)
"""Columns of ``claims.csv``, which scripts rely on."""
VERDICTS = {"reproduced": "✅", "partly": "🟡", "not": "❌", "not measured": "⬜"}
"""Verdicts and their marks in the report."""

_MEASURED = ("id", "measured", "preset", "data", "device", "notebook", "detail")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPARISON = re.compile(rf"(<=|>=|<|>|==)\s*({_NUMBER})")
_WITHIN = re.compile(rf"within\s+({_NUMBER})\s+of\s+({_NUMBER})")
_CHAPTER = re.compile(r"[A-Z0-9][0-9]_[a-z0-9_]+")


@dataclass(frozen=True)
class Bound:
    """A condition on a measured value: ``<= 1.15``, ``>= 20``, ``< 1``, ``> 0``, ``== 8`` or ``within 2 of 0``."""

    relation: str
    value: float
    tolerance: float = 0.0

    @classmethod
    def parse(cls, text: Any) -> Bound:
        """Read a bound; anything else than the six forms above raises `ValueError`."""
        text = " ".join(text.split()) if isinstance(text, str) else ""
        if match := _COMPARISON.fullmatch(text):
            bound = cls(match[1], float(match[2]))
        elif match := _WITHIN.fullmatch(text):
            bound = cls("within", float(match[2]), float(match[1]))
        else:
            raise ValueError("a bound reads '<= 1.15', '>= 20', '< 1', '> 0', '== 8' or 'within 2 of 0'")
        if not math.isfinite(bound.value) or not math.isfinite(bound.tolerance) or bound.tolerance < 0:
            raise ValueError("the numbers of a bound are finite, and the distance in 'within' is not negative")
        return bound

    def holds(self, measured: float) -> bool:
        """Whether ``measured`` meets the bound; NaN never does."""
        if self.relation == "within":
            return abs(measured - self.value) <= self.tolerance
        return {
            "<=": measured <= self.value,
            ">=": measured >= self.value,
            "<": measured < self.value,
            ">": measured > self.value,
            "==": measured == self.value,
        }[self.relation]

    def __str__(self) -> str:
        if self.relation == "within":
            return f"within {self.tolerance:g} of {self.value:g}"
        sign = {"<=": "≤", ">=": "≥", "==": "="}.get(self.relation, self.relation)
        return f"{sign} {self.value:g}"


@dataclass(frozen=True)
class Claim:
    """One entry of claims.yaml."""

    id: str
    chapter: str
    """Stem of the notebook that measures it, e.g. ``02_background``."""
    section: str
    """Where the thesis says it, e.g. ``2.3``; for a target, where the repository promises it."""
    claim: str
    quantity: str
    """What is measured, in words, e.g. ``bits per dimension on the MNIST test set``."""
    unit: str
    bound: str
    kind: str
    """``thesis``: said in the thesis; ``target``: set by this repository."""
    partly: str = ""
    """A looser bound; a value that meets only this one is ``partly`` reproduced."""

    def verdict(self, measured: float | None) -> str:
        """One of `VERDICTS`."""
        if measured is None:
            return "not measured"
        if Bound.parse(self.bound).holds(measured):
            return "reproduced"
        return "partly" if self.partly and Bound.parse(self.partly).holds(measured) else "not"


def load() -> dict[str, Claim]:
    """All claims of ``notebooks/claims.yaml`` by id, in the file's order.

    Raises `UserError` that names the entry and the key when the file is faulty.
    """
    path = paths.NOTEBOOKS / "claims.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f" at line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise UserError(f"notebooks/claims.yaml is not valid YAML{where}: mend it and run again") from error
    if not isinstance(entries, list):
        raise UserError("notebooks/claims.yaml must hold a list of claims, each with id, chapter, section, claim, …")
    claims: dict[str, Claim] = {}
    for number, entry in enumerate(entries, start=1):
        claim = _claim(entry, number)
        if claim.id in claims:
            raise UserError(f"notebooks/claims.yaml lists the claim {claim.id!r} twice: rename one")
        claims[claim.id] = claim
    return claims


def _claim(entry: Any, number: int) -> Claim:
    where = f"notebooks/claims.yaml, entry {number}"
    if not isinstance(entry, dict):
        raise UserError(
            f"{where} is not a mapping: give it id, chapter, section, claim, quantity, unit, bound and kind"
        )
    where += f" ({entry['id']})" if isinstance(entry.get("id"), str) else ""
    known = [f.name for f in fields(Claim)]
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise UserError(f"{where}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    for key in known:
        if key not in entry and key != "partly":
            raise UserError(f"{where}: the key {key!r} is missing")
    # a section such as 2.3 is a number to YAML
    entry = {
        k: str(v) if k == "section" and isinstance(v, (int, float)) and not isinstance(v, bool) else v
        for k, v in entry.items()
    }
    for key, value in entry.items():
        if not isinstance(value, str):
            raise UserError(f"{where}: {key} must be text, not {value!r}; put it in quotes")
        if not value.strip() and key != "unit":
            raise UserError(f"{where}: {key} is empty")
    if not _CHAPTER.fullmatch(entry["chapter"]):
        raise UserError(f"{where}: chapter is the stem of a notebook such as 02_background, not {entry['chapter']!r}")
    if entry["kind"] not in ("thesis", "target"):
        raise UserError(f"{where}: kind is 'thesis' or 'target', not {entry['kind']!r}")
    for key in ("bound", "partly"):
        if key in entry:
            try:
                Bound.parse(entry[key])
            except ValueError as error:
                raise UserError(f"{where}: {key} {entry[key]!r} is not understood; {error}") from error
    return Claim(**{key: " ".join(value.split()) for key, value in entry.items()})


def record(
    id: str,
    measured: float,
    *,
    preset: str,
    data: str,
    device: Any,
    notebook: str = "",
    detail: str = "",
) -> str:
    """Store a measured value and return its verdict.

    ``data`` names the data set (and split); ``device`` is a torch device or a text such as ``"NVIDIA H200"`` for a
    value that was measured elsewhere; ``notebook`` defaults to the claim's chapter; ``detail`` is one sentence for
    the report. A value recorded before for the same claim is replaced. Raises `UserError` for an unknown claim, a
    value that is no finite number, or a folder that cannot be written to.
    """
    claims = load()
    if id not in claims:
        near = difflib.get_close_matches(id, claims, n=1, cutoff=0.4)
        raise UserError(f"notebooks/claims.yaml has no claim {id!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    claim = claims[id]
    try:
        value = float("text" if isinstance(measured, str) else measured)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the measured value of claim {id!r} is not a number: {measured!r}") from error
    if not math.isfinite(value):
        raise UserError(f"the measured value of claim {id!r} is {value}: a claim needs a finite number")
    row = {
        "id": id,
        "measured": f"{value:.9g}",
        "preset": preset,
        "data": data,
        "device": device_name(device),
        "notebook": notebook or claim.chapter,
        "detail": detail,
    }
    for key, text in row.items():
        row[key] = " ".join(str(text).split())
        if re.search(r"(^|\s)(/\w+/|~/|[A-Za-z]:\\)", row[key]):
            raise ValueError(f"claim {id!r}: {key} names a path of this machine: {row[key]!r}")
    folder = paths.figures() / "claims.d"
    with locked(folder):
        path = folder / f"{claim.chapter}.csv"
        rows = {r["id"]: r for r in _read_measured(path)} | {id: row}
        order = [i for i, c in claims.items() if c.chapter == claim.chapter and i in rows]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, _MEASURED, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[i] for i in order)  # a claim that was renamed leaves here
        write_atomically(path, buffer.getvalue().encode())
    return claim.verdict(float(row["measured"]))


def ledger() -> pd.DataFrame:
    """Every claim with its measured value (NaN where there is none) and verdict.

    Columns `COLUMNS`, then ``quantity``, ``kind``, ``partly`` and ``detail``.
    """
    claims = load()
    measured: dict[str, dict[str, str]] = {}
    for chapter in sorted({c.chapter for c in claims.values()}):
        measured |= {r["id"]: r for r in _read_measured(paths.figures() / "claims.d" / f"{chapter}.csv")}
    rows = []
    for claim in claims.values():
        found = measured.get(claim.id, {})
        value = float(found["measured"]) if found else None
        rows.append(
            {
                "id": claim.id,
                "chapter": claim.chapter,
                "section": claim.section,
                "claim": claim.claim,
                "bound": claim.bound,
                "measured": math.nan if value is None else value,
                "unit": claim.unit,
                "verdict": claim.verdict(value),
                **{key: found.get(key, "") for key in ("preset", "data", "device")},
                "notebook": found.get("notebook", claim.chapter),
                "quantity": claim.quantity,
                "kind": claim.kind,
                "partly": claim.partly,
                "detail": found.get("detail", ""),
            }
        )
    return pd.DataFrame(rows, columns=[*COLUMNS, "quantity", "kind", "partly", "detail"])


def chapter_table(chapter: str) -> pd.DataFrame:
    """The claims of one chapter as the notebook shows them, with measured values at three stable digits."""
    frame = ledger()
    frame = frame[frame["chapter"] == chapter]
    if frame.empty:
        known = sorted(set(ledger()["chapter"]))
        raise UserError(
            f"notebooks/claims.yaml has no claim of chapter {chapter!r}; there are {', '.join(known) or 'none'}"
        )
    return pd.DataFrame(
        {
            "claim": frame["claim"],
            "section": frame["section"],
            "measured quantity": frame["quantity"],
            "bound": [str(Bound.parse(b)) for b in frame["bound"]],
            "measured": [_measured_text(row) for _, row in frame.iterrows()],
            "verdict": [f"{VERDICTS[v]} {v}" for v in frame["verdict"]],
        }
    ).reset_index(drop=True)


def report() -> Path:
    """Write ``claims.csv`` and ``REPORT.md`` into the folder of figures and return the path of the report."""
    frame = ledger()
    folder = paths.figures()
    table = frame[list(COLUMNS)].to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomically(folder / "claims.csv", table.encode())
    path = folder / "REPORT.md"
    write_atomically(path, _report_text(frame).encode())
    return path


def _report_text(frame: pd.DataFrame) -> str:
    thesis, targets = frame[frame["kind"] == "thesis"], frame[frame["kind"] == "target"]
    lines = [
        "# What was reproduced",
        "",
        "Each chapter measures the claims that the thesis makes about its method (kind *thesis*) and the goals that",
        "this repository set for itself (kind *target*). A claim is **reproduced** when the measured value meets its",
        "bound, **partly** when it meets only a looser one that is stated beside it. `make figures` measures all of",
        "them again and writes this file; `claims.csv` holds the same as a table.",
        "",
        f"**{_count(thesis, 'reproduced')} of {len(thesis)} claims of the thesis** and "
        f"**{_count(targets, 'reproduced')} of {len(targets)} targets** are reproduced.",
        "",
        " | ".join(["| chapter", "claims", *(f"{mark} {name}" for name, mark in VERDICTS.items()), "run it again |"]),
        "| :-- | --: | " + "--: | " * len(VERDICTS) + ":-- |",
    ]
    for chapter, part in frame.groupby("chapter", sort=True):
        counts = " | ".join(str(_count(part, verdict)) for verdict in VERDICTS)
        link = f"[{_title(chapter)}](#{_anchor(chapter)})"
        lines.append(f"| {link} | {len(part)} | {counts} | `{_command(chapter)}` |")
    for chapter, part in frame.groupby("chapter", sort=True):
        lines += ["", f"## {_title(chapter)}", ""]
        lines.append(f"Notebook: [{chapter}.ipynb](../notebooks/{chapter}.ipynb) · run it again: `{_command(chapter)}`")
        lines += [
            "",
            "| | claim | kind | section | bound | measured | on | device |",
            "| :-: | :-- | :-- | :-- | :-- | --: | :-- | :-- |",
        ]
        for _, row in part.iterrows():
            lines.append(
                "| "
                + " | ".join(
                    _escape(text)
                    for text in (
                        VERDICTS[row["verdict"]],
                        f"{row['claim']} *({row['quantity']})*" + (f" {row['detail']}" if row["detail"] else ""),
                        row["kind"],
                        row["section"],
                        _bound_text(row),
                        _measured_text(row),
                        ", ".join(t for t in (row["data"], f"preset {row['preset']}" if row["preset"] else "") if t),
                        row["device"],
                    )
                )
                + " |"
            )
        pictures = sorted(p.name for p in (paths.figures() / chapter).glob("*.png"))
        tables = sorted(p.name for p in (paths.figures() / chapter).glob("*.md"))
        for what, names in (("Figures", pictures), ("Tables", tables)):
            if names:
                links = " · ".join(f"[{Path(n).stem}]({chapter}/{n})" for n in names)
                lines += ["", f"{what}: {links}"]
    return "\n".join(lines) + "\n"


def _count(frame: pd.DataFrame, verdict: str) -> int:
    return int((frame["verdict"] == verdict).sum())


def _title(chapter: str) -> str:
    """``02_background`` -> ``Chapter 2: background``; ``A1_performance`` -> ``Appendix A1: performance``."""
    number, _, name = chapter.partition("_")
    kind = f"Chapter {int(number)}" if number.isdigit() else f"Appendix {number}"
    return f"{kind}: {name.replace('_', ' ')}"


def _anchor(chapter: str) -> str:
    return _title(chapter).lower().replace(":", "").replace(" ", "-")


def _command(chapter: str) -> str:
    return f'make figures CHAPTERS="{chapter.partition("_")[0]}"'


def _bound_text(row: pd.Series) -> str:
    text = f"{Bound.parse(row['bound'])} {row['unit']}".strip()
    return text + (f" (partly: {Bound.parse(row['partly'])})" if row["partly"] else "")


def _measured_text(row: pd.Series) -> str:
    """Three digits (of large numbers those before the point), and more only where rounding would hide the verdict."""
    value = row["measured"]
    if math.isnan(value):
        return "–"
    bound = Bound.parse(row["bound"])
    texts = [f"{value:.0f}"] if 1000 <= abs(value) < 1e9 else []
    texts += [f"{value:.{digits}g}" for digits in range(3, 10)]
    text = next((text for text in texts if bound.holds(float(text)) == bound.holds(value)), texts[-1])
    return f"{text} {row['unit']}".strip()


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _read_measured(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    except UnicodeDecodeError:
        text = "\0"
    damaged = UserError(f"{path} is damaged: delete it and execute the chapter {path.stem} again")
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise damaged from error
    if tuple(reader.fieldnames or ()) != _MEASURED:
        raise damaged
    for row in rows:
        try:
            whole = None not in row and None not in row.values() and math.isfinite(float(row["measured"]))
        except ValueError:
            whole = False
        if not whole:
            raise damaged
    return rows


def device_name(device: Any) -> str:
    """What a reader calls a device: ``CPU``, ``NVIDIA H200``, ``Apple GPU``; any other text stays as it is."""
    text = str(device)
    if text == "cpu" or text.startswith("cpu:"):
        return "CPU"
    if text == "mps" or text.startswith("mps:"):
        return "Apple GPU"
    if text == "cuda" or text.startswith("cuda:"):
        import torch

        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else "CUDA GPU"
    return text


def main() -> None:
    """``python -m lib.claims``: write the report."""
    path = report()
    frame = ledger()
    print(f"{_count(frame, 'reproduced')} of {len(frame)} claims reproduced; see {path.name} in {path.parent.name}/")


if __name__ == "__main__":
    command_line(main)
