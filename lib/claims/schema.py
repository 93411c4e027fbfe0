"""What ``notebooks/claims.yaml`` may say: claims, their bounds, and where the thesis says them."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, fields
from typing import Any

import yaml

from lib import paths
from lib.errors import UserError, explain_os_error

VERDICTS = {
    "reproduced": "✅",
    "partly": "🟡",
    "undecided": "❔",
    "not": "❌",
    "no evidence": "⚪",
    "not measured": "⬜",
}
"""Verdicts and their marks in the report."""

SECTIONS = {
    "abstract": "of the thesis, or of the paper that `source` names",
    "1": "introduction",
    "1.1": "introduction",
    "1.2": "introduction",
    "2": "generative models",
    "2.1": "variational auto-encoders",
    "2.2": "generative adversarial networks",
    "2.3": "normalizing flows",
    "3.1": "related work on face swapping",
}
"""Sections of the thesis whose text is known here; claims of the thesis are cited from these or from a paper."""

PAPERS = {
    "EGSR 2020": "High-resolution neural face swapping for visual effects",
    "arXiv 2009.04583": "Generic image restoration with flow based priors",
    "ICLR 2021 workshop": "Lossy image compression with normalizing flows",
    "BMVC 2021": "Microdosing: knowledge distillation for GAN based compression",
    "AABI 2018": "Disentangled dynamic representations from unordered data",
}
"""The papers behind the thesis. What is known of them is their abstracts."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPARISON = re.compile(rf"(<=|>=|<|>|==)\s*({_NUMBER})")
_WITHIN = re.compile(rf"within\s+({_NUMBER})\s+of\s+({_NUMBER})")
_CHAPTER = re.compile(r"[A-Z0-9][0-9]_[a-z0-9_]+")
_TABLE = re.compile(r"[a-z_]+\.[a-z0-9_*?]+")


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

    def over(self, low: float, high: float) -> str:
        """``"all"``, ``"some"`` or ``"none"``: which values of the interval ``low`` to ``high`` meet the bound."""
        if self.holds(low) and self.holds(high):
            return "all"
        if self.relation in ("within", "=="):
            inside = high >= self.value - self.tolerance and low <= self.value + self.tolerance
        else:
            inside = self.holds(low) or self.holds(high)
        return "some" if inside else "none"

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
    """Where the thesis says it, one of `SECTIONS`; for a target, where the repository promises it."""
    claim: str
    quantity: str
    """What is measured, in words, e.g. ``bits per dimension on the MNIST test set``."""
    unit: str
    bound: str
    kind: str
    """``thesis``: said in the thesis or in one of its papers; ``target``: set by this repository."""
    partly: str = ""
    """A looser bound; a value that meets only this one is ``partly`` reproduced."""
    source: str = ""
    """Of the kind thesis: what says it, ``thesis`` or one of `PAPERS`, then in a few words what it says there."""
    measure: tuple[str, ...] = ()
    """Stored tables that the value is read from, as ``package.table``, with ``*`` and ``?``; empty where the notebook
    measures it live."""
    tolerance: float = 0.02
    """By how much, relative, a second measurement may differ and still agree."""
    changed: tuple[str, ...] = ()
    """Each change of the bound or the measure that was made after measuring, with its reason."""

    def verdict(
        self, measured: float | None, low: float | None = None, high: float | None = None, null: float | None = None
    ) -> str:
        """One of `VERDICTS`.

        Every value of the 95 % interval has to meet the bound; where only some do, it is undecided, and so it is
        without an interval. Where ``null``, the value of the answer that does nothing, meets the bound as well, the
        claim is no evidence.
        """
        if measured is None:
            return "not measured"
        if low is None or high is None:
            return "undecided"
        straddles = False
        for verdict, text in (("reproduced", self.bound), ("partly", self.partly)):
            if not text:
                continue
            bound = Bound.parse(text)
            met = bound.over(low, high)
            if met == "all":
                return "no evidence" if null is not None and bound.holds(null) else verdict
            straddles |= met == "some"
        return "undecided" if straddles else "not"


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


_OPTIONAL = ("partly", "source", "measure", "tolerance", "changed")


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
        if key not in entry and key not in _OPTIONAL:
            raise UserError(f"{where}: the key {key!r} is missing")
    found = {key: _value(where, key, value) for key, value in entry.items()}
    if not _CHAPTER.fullmatch(found["chapter"]):
        raise UserError(f"{where}: chapter is the stem of a notebook such as 02_background, not {found['chapter']!r}")
    if found["kind"] not in ("thesis", "target"):
        raise UserError(f"{where}: kind is 'thesis' or 'target', not {found['kind']!r}")
    for key in ("bound", "partly"):
        if key in found:
            try:
                Bound.parse(found[key])
            except ValueError as error:
                raise UserError(f"{where}: {key} {found[key]!r} is not understood; {error}") from error
    for name in found.get("measure", ()):
        if not _TABLE.fullmatch(name):
            raise UserError(f"{where}: measure names stored tables (compression.curve_jpeg_kodak), not {name!r}")
    if problem := _citation_problem(found):
        raise UserError(f"{where}: {problem}")
    return Claim(**found)


def _value(where: str, key: str, value: Any) -> Any:
    """One value of an entry in its type."""
    if key in ("measure", "changed"):
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise UserError(f"{where}: {key} is a list of texts, not {value!r}")
        return tuple(" ".join(item.split()) for item in value)
    if key == "tolerance":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10:
            raise UserError(f"{where}: tolerance is a number from 0 to 10, such as 0.02, not {value!r}")
        return float(value)
    if key == "section" and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # a section such as 2.3 is a number to YAML
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} must be text, not {value!r}; put it in quotes")
    if not value.strip() and key != "unit":
        raise UserError(f"{where}: {key} is empty")
    return " ".join(value.split())


def _citation_problem(entry: dict[str, Any]) -> str:
    """What is wrong with section and source, or nothing: nobody here may cite what nobody here has read."""
    section, source = entry["section"], entry.get("source", "")
    if entry["kind"] == "target":
        if source or re.fullmatch(r"[\d.]+", section):
            return (
                "a target has no section of the thesis and no source: say which preset or text of this repository "
                "promises it, or make it a claim of the kind 'thesis'"
            )
        return ""
    if section not in SECTIONS:
        return (
            f"section {section!r} of the thesis is not known here ({', '.join(SECTIONS)} are): cite one of these, or "
            "make it a claim of the kind 'target'"
        )
    says = next((name for name in ("thesis", *PAPERS) if source.startswith(f"{name}: ")), None)
    if says is None:
        return f"a claim of the kind 'thesis' needs a source that starts with 'thesis: ' or '{next(iter(PAPERS))}: '"
    if says != "thesis" and section != "abstract":
        return f"of {says} only the abstract is known here: its section is 'abstract'"
    return ""
