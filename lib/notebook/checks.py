"""Rules that a chapter's notebook keeps, as functions that return what breaks them (an empty list: nothing).

`lib.run` refuses to store an execution that breaks `output_problems`; the tests apply all of them to every notebook.
A notebook is what `nbformat.read` gives, or the same as plain JSON data.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

SECTIONS = (
    "parameters",
    "idea",
    "theory",
    "parts",
    "data",
    "training",
    "results",
    "ablations",
    "explorer",
    "claims",
    "chosen here",
    "what goes wrong",
    "exercises",
    "references",
)
"""What the second-level headings name, in this order, below the one first-level heading: the anatomy of a chapter."""
CODE_LINES, CELL_LINES, MEGABYTES = 350, 25, 3
WORDS_PER_LINE = 8

_FOLDERS = "home|root|work|tmp|Users|mnt|usr|opt|var|scratch"
_PATH = re.compile(rf"(?<![\w.:/~-])(?:/(?:{_FOLDERS})/|[A-Za-z]:\\)[\w.\\/-]*")
_WARNING = re.compile(r"\b\w*Warning\b: ")
_RESULT = re.compile(r"\d+(?:\.\d+)?\s*(?:dB|bpp|bits?/dim|bits per dim\w*)\b")
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "".join(value)


def _code(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and _text(cell["source"]).strip()]


def code_lines(cell: Mapping[str, Any]) -> int:
    """Lines of a cell that are not blank."""
    return sum(bool(line.strip()) for line in _text(cell["source"]).splitlines())


def headings(notebook: Mapping[str, Any]) -> list[tuple[int, str]]:
    """``[(1, "Chapter 2: …"), (2, "Parameters"), …]`` of the Markdown cells, without those inside fenced code."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^(```|~~~).*?^\1", "", _text(cell["source"]), flags=re.DOTALL | re.MULTILINE)
            found += [(len(m[1]), m[2].strip()) for m in re.finditer(r"^(#{1,6})\s+(.+)$", text, re.MULTILINE)]
    return found


def anatomy_problems(notebook: Mapping[str, Any], whole: bool = True) -> list[str]:
    """One title, then the sections of `SECTIONS`, each once and in order (``whole=False``: some may be absent)."""
    problems = []
    found = headings(notebook)
    if [level for level, _ in found].count(1) != 1 or not found or found[0][0] != 1:
        problems.append("needs exactly one first-level heading, the title, before all others")
    names = []
    for title in (title for level, title in found if level == 2):
        plain = re.sub(r"^[\d.]+\s*", "", title).lower()
        name = next((section for section in SECTIONS if re.search(rf"\b{section}\b", plain)), None)
        if name is None:
            problems.append(f"section {title!r} is none of: {', '.join(SECTIONS)} (use a third-level heading)")
        else:
            names.append(name)
    expected = [section for section in SECTIONS if whole or section in names]
    if names != expected and not problems:
        missing = [section for section in expected if section not in names]
        problems.append(
            f"sections missing: {', '.join(missing)}" if missing else f"sections are {names}, they must be {expected}"
        )
    return problems


def parameter_problems(notebook: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """One cell tagged ``parameters`` that assigns exactly ``defaults``, by literals."""
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1 or tagged[0]["cell_type"] != "code":
        return [f"{len(tagged)} cells are tagged 'parameters', there must be one, of code"]
    assigned = {}
    for node in ast.parse(_text(tagged[0]["source"])).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                assigned[node.targets[0].id] = ast.literal_eval(node.value)
                continue
            except ValueError:
                pass
        return [f"the parameters cell may only assign literals, not: {ast.unparse(node)}"]
    if assigned != dict(defaults):
        return [f"the parameters cell assigns {assigned}, the defaults are {dict(defaults)}"]
    return []


def prose_problems(notebook: Mapping[str, Any]) -> list[str]:
    """Length of code and of cells, and results typed into the text that reads them."""
    problems = []
    lines = [code_lines(cell) for cell in _code(notebook)]
    if sum(lines) > CODE_LINES:
        problems.append(f"{sum(lines)} lines of code, at most {CODE_LINES}")
    problems += [
        f"cell {number} of the code has {count} lines, at most {CELL_LINES}"
        for number, count in enumerate(lines, 1)
        if count > CELL_LINES
    ]
    section = ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for line in _text(cell["source"]).splitlines():
                if match := re.match(r"##\s+(.+)", line):
                    section = match[1].lower()
                elif re.search(r"\b(results|ablations)\b", section) and (typed := _RESULT.search(line)):
                    problems.append(f"{typed[0]!r} is typed under {section!r}; show it from the results instead")
    return problems


def prose_warnings(notebook: Mapping[str, Any]) -> list[str]:
    """Words of prose to a line of code: a matter of judgement, so an author is told, and no test fails."""
    lines = sum(code_lines(cell) for cell in _code(notebook))
    words = sum(len(_text(cell["source"]).split()) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    if lines and words < WORDS_PER_LINE * lines:
        return [f"{words / lines:.1f} words of prose to a line of code, wanted are {WORDS_PER_LINE} or more"]
    return []


def execution_problems(notebook: Mapping[str, Any]) -> list[str]:
    """Every code cell executed once, from top to bottom, without an error."""
    cells = _code(notebook)
    problems = []
    if [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        counts = [cell["execution_count"] for cell in cells]
        problems.append(f"not executed from top to bottom: the counts are {counts}")
    for number, cell in enumerate(cells, 1):
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            problems.append(f"cell {number} holds an error")
        last = ast.parse(re.sub(r"^\s*[%!].*$", "", _text(cell["source"]), flags=re.MULTILINE)).body[-1:]
        shows = last and isinstance(last[0], ast.Expr) and not _text(cell["source"]).rstrip().endswith(";")
        if shows and not isinstance(last[0].value, (ast.Call, ast.Constant)) and not cell["outputs"]:
            problems.append(f"cell {number} ends with a value to show, but holds no output")
    return problems


def _outputs(notebook: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any], str, str]]:
    """Cell number, output, MIME type and text of all textual outputs."""
    for number, cell in enumerate(_code(notebook), 1):
        for output in cell["outputs"]:
            if "text" in output:
                yield number, output, "text/plain", _text(output["text"])
            for mime, data in output.get("data", {}).items():
                text = "" if mime.startswith("image/") and mime != "image/svg+xml" else data
                yield number, output, mime, text if isinstance(text, dict) else _text(text)


def output_problems(notebook: Mapping[str, Any]) -> list[str]:
    """Warnings, paths of a machine, SVG (it changes from run to run), live widgets, and too many megabytes."""
    problems = []
    for number, output, mime, text in _outputs(notebook):
        where = f"output of cell {number}"
        if output.get("name") == "stderr":
            problems.append(f"{where} holds stderr: {text.strip()[:80]!r}")
        elif mime == "image/svg+xml":
            problems.append(f"{where} is SVG; show PNG")
        elif "widget" in mime:
            problems.append(f"{where} is a live widget; leave a static figure")
        elif warning := _WARNING.search(str(text)):
            problems.append(f"{where} holds a warning: {warning[0]!r}")
        elif path := _PATH.search(str(text)):
            problems.append(f"{where} holds a path of a machine: {path[0]!r}")
    for cell in notebook["cells"]:
        if path := _PATH.search(_text(cell["source"])):
            problems.append(f"a {cell['cell_type']} cell holds a path of a machine: {path[0]!r}")
    megabytes = len(json.dumps(notebook, ensure_ascii=False).encode()) / 2**20
    if megabytes > MEGABYTES:
        problems.append(f"{megabytes:.2f} MB, at most {MEGABYTES}")
    return problems


def metadata_problems(notebook: Mapping[str, Any]) -> list[str]:
    """Metadata that differ from run to run or from machine to machine: what `clean` takes out."""
    cleaned = json.loads(json.dumps(clean(notebook)))
    if json.loads(json.dumps(notebook)) != cleaned:
        return ["metadata are not clean: store it with python -m lib.run CHAPTER --update"]
    return []


def clean(notebook: Mapping[str, Any]) -> Any:
    """A copy with the metadata reduced to tags, the kernel named ``python3``, and no trace of the execution's times."""
    import nbformat

    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    copy.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "language_info": {"name": "python"}})
    for cell in copy.cells:
        kept = {name: cell.metadata[name] for name in ("tags", "jupyter") if cell.metadata.get(name)}
        cell.metadata = nbformat.from_dict(kept)
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    return copy
