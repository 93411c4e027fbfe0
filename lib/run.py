"""Execute one chapter from top to bottom: ``python -m lib.run CHAPTER [--preset P] [--seed S] [--set key=value ...]``.

    parameters ──checked──► papermill ──► runs/notebooks/<chapter>-<variant>.ipynb  (saved after every cell, kept)
                                │
                                └─► figures in their own folder ──on success──┬─► figures/ or runs/figures/<variant>
                                                                              └─► runs/done/<chapter>-<variant>.json

papermill itself only logs a mistyped parameter and goes on; here everything is checked before the first cell runs. The
*variant* is the preset and whatever else decides the results (``laptop``, ``smoke-seed3``). Only the plain ``laptop``
variant writes to ``figures/``, so that a quick or an altered run never replaces the figures that the repository shows.
The record in ``runs/done`` holds the hash of all that the results depend on; `is_current` compares it.

Exit code 0: everything was done; 1: the chapter failed, the notebook up to there is kept; 2: refused before it started;
130: interrupted.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime
import difflib
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from lib import config, paths
from lib.errors import UserError, command_line, explain_os_error
from lib.files import write_atomically

DEFAULTS = config.NotebookParameters()
RECIPE_FILES = ("requirements.txt", "constraints.txt", "notebooks/claims.yaml", "data_scripts/catalog.yaml")
"""What every chapter depends on, beside its notebook, its parameters, its checkpoints and what it imports of lib."""


class ChapterFailed(UserError):
    """A cell raised an error; the message says which and where the notebook is kept."""

    exit_code = 1


class Interrupted(UserError):
    """Ctrl-C, or the SIGTERM of a cluster that ends a job."""

    exit_code = 130


# ---------------------------------------------------------------------------------------------------------------- names


def notebooks() -> list[str]:
    """Stems of the notebooks that are present, sorted: ``["02_background", …]``."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


def resolve(names: str | Iterable[Any]) -> list[str]:
    """Chapters by stem, number or name: ``"02 faces"`` gives ``["02_background", "03_faces"]``; nothing gives all.

    Raises:
        UserError: a name fits no notebook; names the nearest one.
    """
    words = re.split(r"[\s,]+", names.strip()) if isinstance(names, str) else [str(name) for name in names]
    present = notebooks()
    if not present:
        raise UserError("there are no notebooks in notebooks/")
    known = {}
    for stem in present:
        number, _, title = stem.partition("_")
        known |= {stem: stem, number: stem, number.lstrip("0"): stem, title: stem}
    found = []
    for word in filter(None, words):
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"unknown chapter {word!r}{hint}; there are: {', '.join(present)}")
        found.append(known[word])
    return sorted(set(found)) or present


def check(chapter: str, **values: Any) -> config.NotebookParameters:
    """The notebook's parameters, checked together with the chapter's preset and the overrides.

    Raises:
        UserError: unknown name or preset, wrong type, value out of range, missing device; names the nearest valid name.
    """
    parameters = config.parameters(**values)
    config.load(chapter, parameters.preset, parameters.overrides)
    return parameters


def variant(parameters: config.NotebookParameters) -> str:
    """Short name of what decides the results: ``laptop``, ``smoke-seed3``, ``full-retrain``, ``laptop-1f3b2c4d``."""
    name = parameters.preset
    name += f"-seed{parameters.seed}" if parameters.seed != DEFAULTS.seed else ""
    name += "-retrain" if parameters.retrain else ""
    name += "-recompute" if parameters.recompute else ""
    name += f"-{config.config_hash(parameters.overrides)[:8]}" if parameters.overrides else ""
    return name


def options(parameters: config.NotebookParameters, *names: str) -> str:
    """The named parameters as options of this command and `lib.training`, quoted for a shell; no defaults."""
    words: list[str] = []
    for name in names:
        value = getattr(parameters, name)
        if name == "overrides":
            words += [word for key, inner in value.items() for word in ("--set", f"{key}={json.dumps(inner)}")]
        elif value != getattr(DEFAULTS, name):
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def models(chapter: str) -> list[str]:
    """Names under which `lib.training` trains the models of a chapter: ``["background.flow", …]``."""
    from lib.training.registry import declared

    package = config.chapter_package(chapter)
    return [f"{package}.{model}" for model in declared(package)]


def notebook_path(chapter: str, parameters: config.NotebookParameters) -> Path:
    """Where the executed notebook goes."""
    return paths.runs() / "notebooks" / f"{chapter}-{variant(parameters)}.ipynb"


def record_path(chapter: str, parameters: config.NotebookParameters) -> Path:
    """The record that is written when, and only when, a chapter was executed to its end."""
    return paths.runs() / "done" / f"{chapter}-{variant(parameters)}.json"


def figures_path(parameters: config.NotebookParameters) -> Path:
    """``figures/`` for the plain laptop variant, else a folder below ``runs/``; ``GMMP_FIGURES`` overrides both."""
    if os.environ.get("GMMP_FIGURES") or variant(parameters) == variant(DEFAULTS):
        return paths.figures()
    return paths.runs() / "figures" / variant(parameters)


# ------------------------------------------------------------------------------------------------- what is out of date


def _imported_files(sources: Iterable[str]) -> set[Path]:
    """Files of lib that the sources import, directly or through others, lazily or not."""
    found: set[Path] = set()
    pending = [(source, ("lib",)) for source in sources]
    while pending:
        source, package = pending.pop()
        code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
        names: set[tuple[str, ...]] = set()
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                names |= {tuple(alias.name.split(".")) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else ()
                base += tuple((node.module or "").split(".")) if node.module else ()
                # `from lib.flows import layers` may name a module or something inside the package
                names |= {base, *((*base, alias.name) for alias in node.names)}
        for name in names:
            if name[:1] != ("lib",):
                continue
            for depth in range(1, len(name) + 1):  # importing lib.a.b runs lib and lib.a first
                path = paths.ROOT.joinpath(*name[:depth])
                for file in (path.with_suffix(".py"), path / "__init__.py"):
                    if file.is_file() and file not in found:
                        found.add(file)
                        inside = name[:depth] if file.name == "__init__.py" else name[: depth - 1]
                        pending.append((file.read_text(encoding="utf-8"), inside))
    return found


def recipe(chapter: str, parameters: config.NotebookParameters) -> str:
    """SHA-256 of everything the results of a chapter depend on (its stored outputs and time stamps do not matter)."""
    cells = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    files = _imported_files(text for kind, text in sources if kind == "code")
    package = config.chapter_package(chapter)
    modules = {file for file in (paths.ROOT / "lib" / package).rglob("*") if "__pycache__" not in file.parts}
    files |= modules | set((paths.CHECKPOINTS / package).glob("*")) | {paths.PARAMETERS / f"{chapter}.yaml"}
    files |= _imported_files(f"import lib.{package}.{file.stem}" for file in modules if file.suffix == ".py")
    files |= {paths.ROOT / name for name in RECIPE_FILES}
    total = hashlib.sha256(json.dumps([sources, config.canonical(parameters)]).encode())
    for file in sorted(files):
        if file.is_file():
            total.update(f"{file.relative_to(paths.ROOT).as_posix()}\0{_sha256(file)}\0".encode())
    return total.hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_current(chapter: str, parameters: config.NotebookParameters) -> bool:
    """Whether the chapter was executed to its end from what lies here now, and its figures are as it left them."""
    try:
        record = json.loads(record_path(chapter, parameters).read_text(encoding="utf-8"))
        folder = figures_path(parameters)
        return (
            record["recipe"] == recipe(chapter, parameters)
            and notebook_path(chapter, parameters).is_file()
            and all(_sha256(folder / name) == digest for name, digest in record["figures"].items())
        )
    except (OSError, ValueError, KeyError):
        return False


# ------------------------------------------------------------------------------------------------------------ execution


class PeakMemory(threading.Thread):
    """Samples the resident memory of the processes below this one (kernel and workers); ``megabytes`` is the peak."""

    def __init__(self, every: float = 0.1) -> None:
        super().__init__(daemon=True)
        self.every, self.megabytes, self._ended = every, 0.0, threading.Event()

    def run(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._ended.wait(self.every):
            total = 0
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            self.megabytes = max(self.megabytes, total / 2**20)

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


class _Signals:
    """Hands Ctrl-C and SIGTERM to the kernel, where training finishes its step and saves; a second one ends at once."""

    def __init__(self) -> None:
        self.received = False

    def _handle(self, number: int, frame: object) -> None:
        import psutil

        if self.received:
            raise KeyboardInterrupt
        self.received = True
        print("interrupting the chapter; once more ends it at once", file=sys.stderr)
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                kernel.send_signal(signal.SIGINT)

    def before_cell(self, **_: object) -> None:
        """Called before each cell: a kernel that was idle when the signal came has nothing to interrupt."""
        if self.received:
            raise KeyboardInterrupt

    def __enter__(self) -> _Signals:
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kernel_environment(figures: Path, own_runs: bool = True) -> Iterator[None]:
    """What the kernel sees: where figures go, static widgets, nothing read from or left in the home folder.

    Without ``own_runs`` it has only the shipped checkpoints, as in a fresh clone.
    """
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "ipython" / "profile_default"
        profile.mkdir(parents=True)
        # the kernel advises encryption on its loopback sockets; a reader of the log can do nothing with that
        (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 'ERROR'\n")
        changes = {
            "GMMP_FIGURES": str(figures),
            "GMMP_HEADLESS": "1",
            "GMMP_RUNS": str(paths.runs() if own_runs else Path(folder) / "runs"),
            "IPYTHONDIR": str(Path(folder) / "ipython"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")])),
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _is_whole(notebook: Path) -> bool:
    try:
        return bool(json.loads(notebook.read_text(encoding="utf-8")))
    except ValueError:
        return False


def _files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@contextlib.contextmanager
def staged_figures(chapter: str, target: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for the figures of one execution that replaces what the chapter wrote before only when all went well.

    It starts with what chapters read of ``target`` (claims and timings, small tables). Yields the folder and a mapping
    that holds, after the block, the chapter's files below ``target`` and their SHA-256.
    """
    staging = paths.runs() / "staging" / f"{chapter}-{os.getpid()}"
    written: dict[str, str] = {}
    try:
        for name in ("claims.d", "performance"):
            if (target / name).is_dir():
                shutil.copytree(target / name, staging / name)
        (staging / chapter).mkdir(parents=True)
        (staging / "claims.d" / f"{chapter}.csv").unlink(missing_ok=True)  # a claim that is gone must not linger
        before = _files(staging)
        yield staging, written
        (target / chapter).mkdir(parents=True, exist_ok=True)
        # what the chapter wrote, in its own folder, its claims and anywhere else
        written.update({name: digest for name, digest in _files(staging).items() if before.get(name) != digest})
        for name in written:
            write_atomically(target / name, (staging / name).read_bytes())
        for name in _files(target / chapter):
            if f"{chapter}/{name}" not in written:  # from an earlier version of the chapter
                (target / chapter / name).unlink()
    except OSError as error:
        raise explain_os_error(error, error.filename or target, "write") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def execute(chapter: str, parameters: config.NotebookParameters, *, update: bool = False) -> dict[str, Any]:
    """Execute a chapter in this Python's own kernel and return the record that is also written to ``runs/done``.

    With ``update`` only shipped checkpoints are loaded, and the clean result also replaces the notebook under
    ``notebooks/``.

    Raises:
        ChapterFailed, Interrupted: the executed notebook up to there is kept and named.
        UserError: something cannot be read or written, or the result is not fit for ``notebooks/``.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    output, target = notebook_path(chapter, parameters), figures_path(parameters)
    done = record_path(chapter, parameters)
    if update and variant(parameters) != variant(DEFAULTS):
        raise UserError("--update stores the notebook as a reader gets it: run it with the default parameters")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, output.parent, "write to") from error
    # only what differs from the parameters cell is injected: with the defaults the notebook stays as it is committed
    passed = {name: value for name, value in parameters if value != getattr(DEFAULTS, name)}
    before = recipe(chapter, parameters)
    print(f"{chapter} ({variant(parameters)}): executing", file=sys.stderr)
    start = time.monotonic()
    with staged_figures(chapter, target) as (staging, written), kernel_environment(staging, own_runs=not update):
        with PeakMemory() as memory, _Signals() as signals:
            try:
                notebook = papermill.execute_notebook(
                    paths.NOTEBOOKS / f"{chapter}.ipynb",
                    output,
                    parameters=passed,
                    kernel_name="python3",
                    cwd=paths.NOTEBOOKS,
                    progress_bar=sys.stderr.isatty(),
                    stderr_file=sys.stderr,  # progress of training, and warnings
                    on_cell_start=signals.before_cell,
                )
            except (PapermillExecutionError, KeyboardInterrupt) as error:
                reason = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else ""
                if signals.received or not reason:
                    raise Interrupted(
                        f"{chapter} was interrupted{f' ({reason})' if reason else ''}; the notebook up to there is "
                        f"{output}, run the same command again"
                    ) from None
                raise ChapterFailed(
                    f"{chapter} failed in cell [{error.exec_count}]: {reason}; the notebook with the error is {output}"
                ) from None
            except RuntimeError as error:  # nbclient's DeadKernelError, and a kernel that does not start
                raise ChapterFailed(
                    f"the kernel of {chapter} died ({error}), for example for want of memory (peak "
                    f"{memory.megabytes:.0f} MB); the notebook up to there is {output}"
                ) from None
            except OSError as error:
                with contextlib.suppress(OSError):
                    if not _is_whole(output):
                        output.unlink()
                raise explain_os_error(error, error.filename or output, "write") from error
    record = {
        "chapter": chapter,
        "variant": variant(parameters),
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mb": round(memory.megabytes),
        "device": config.resolve_device(parameters.device).type,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "machine": platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": before,
        "figures": written,
    }
    if update:
        update_committed(chapter, notebook)
    write_atomically(done, (json.dumps(record, indent=1) + "\n").encode())
    print(
        f"{chapter} ({variant(parameters)}): done in {record['seconds']:.0f} s, peak memory "
        f"{record['peak_memory_mb']} MB, {len(written)} files in {target}, notebook {output}",
        file=sys.stderr,
    )
    return record


def update_committed(chapter: str, notebook: Any) -> None:
    """Replace ``notebooks/<chapter>.ipynb`` by an execution, free of what differs from machine to machine.

    Raises:
        UserError: the result breaks a rule of `lib.notebook_checks.output_problems`.
    """
    import nbformat

    from lib import notebook_checks

    notebook = notebook_checks.clean(notebook)
    if problems := notebook_checks.output_problems(notebook):
        raise UserError(f"{chapter} is not fit for notebooks/: {'; '.join(problems)}")
    write_atomically(paths.NOTEBOOKS / f"{chapter}.ipynb", (nbformat.writes(notebook) + "\n").encode())


# --------------------------------------------------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option as every other error: one line, with the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")

    def parse_strictly(self, arguments: list[str] | None = None) -> argparse.Namespace:
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            self.error(f"unknown option {unknown[0]!r}{config.nearest(unknown[0].split('=')[0], known)}")
        return options


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """``["flow.train.steps=100"]`` gives ``{"flow.train.steps": 100}``.

    Raises:
        UserError: an item that is not ``key=value``, or a key given twice.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        key = key.strip()
        if not separator or not key:
            raise UserError(f"--set {item!r}: write key=value, for example flow.train.steps=100")
        if key in overrides:
            raise UserError(f"--set {key}: given twice")
        overrides[key] = config.scalar(value)
    return overrides


def main() -> None:
    """``python -m lib.run``."""
    parser = _Parser(prog="python -m lib.run", description="Execute one chapter.", allow_abbrev=False)
    parser.add_argument("chapter", help="02, background or 02_background")
    parser.add_argument("--preset", default=DEFAULTS.preset, help="smoke, laptop (default) or full")
    parser.add_argument("--seed", default=DEFAULTS.seed, type=config.scalar, help="0 (default) or above")
    parser.add_argument("--retrain", action="store_true", help="train again instead of loading checkpoints")
    parser.add_argument("--recompute", action="store_true", help="compute stored evaluations again")
    parser.add_argument("--device", default=DEFAULTS.device, help="auto (default), cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one value of the preset: flow.train.steps=100"
    )
    parser.add_argument("--update", action="store_true", help="also replace the notebook under notebooks/")
    options = vars(parser.parse_strictly())
    update, overrides = options.pop("update"), parse_overrides(options.pop("set"))
    chapters = resolve([options.pop("chapter")])
    execute(chapters[0], check(chapters[0], overrides=overrides, **options), update=update)


if __name__ == "__main__":
    command_line(main)
