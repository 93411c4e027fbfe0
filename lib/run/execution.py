"""One chapter from top to bottom, its figures kept apart until all went well."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from lib import config, paths
from lib.errors import UserError, explain_os_error
from lib.files import write_atomically
from lib.run.kernel import PeakMemory, Signals, kernel_environment
from lib.run.names import DEFAULTS, figures_path, notebook_path, record_path, variant
from lib.run.progress import Progress
from lib.run.staging import staged_figures
from lib.run.staleness import recipe


class ChapterFailed(UserError):
    """A cell raised an error; the message says which and where the notebook is kept."""

    exit_code = 1


class Interrupted(UserError):
    """Ctrl-C, or the SIGTERM of a cluster that ends a job."""

    exit_code = 130


def _is_whole(notebook: Path) -> bool:
    try:
        return bool(json.loads(notebook.read_text(encoding="utf-8")))
    except ValueError:
        return False


def _cells(chapter: str, passed: dict[str, Any]) -> int:
    """Cells that are executed: those of the notebook, and the one that holds what is passed."""
    text = (paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8")
    return len(json.loads(text)["cells"]) + bool(passed)


def threads() -> int:
    """Threads of the first level that OpenMP is told to use (``OMP_NUM_THREADS`` may be a list), else all cores."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else os.cpu_count() or 1


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
    progress = Progress(output.stem, _cells(chapter, passed))
    start = time.monotonic()
    with staged_figures(chapter, target) as (staging, outcome), kernel_environment(staging, own_runs=not update):
        with PeakMemory() as memory, Signals() as signals, progress:

            def before_cell(**told: Any) -> None:
                signals.before_cell()
                progress.before_cell(**told)

            try:
                notebook = papermill.execute_notebook(
                    paths.NOTEBOOKS / f"{chapter}.ipynb",
                    output,
                    parameters=passed,
                    kernel_name="python3",
                    cwd=paths.NOTEBOOKS,
                    progress_bar=sys.stderr.isatty(),
                    stderr_file=sys.stderr,  # progress of training, and warnings
                    on_cell_start=before_cell,
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
        "threads": threads(),
        "machine": platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": before,
        "figures": outcome.files,
        "agreement": outcome.sentences(),
    }
    if update:
        update_committed(chapter, notebook)
    write_atomically(done, (json.dumps(record, indent=1) + "\n").encode())
    print(
        f"{chapter} ({variant(parameters)}): done in {record['seconds']:.0f} s, peak memory "
        f"{record['peak_memory_mb']} MB, {len(outcome.files)} files in {target}, notebook {output}",
        file=sys.stderr,
    )
    for sentence in record["agreement"]:
        print(f"{chapter}: {sentence}", file=sys.stderr)
    return record


def update_committed(chapter: str, notebook: Any) -> None:
    """Replace ``notebooks/<chapter>.ipynb`` by an execution, free of what differs from machine to machine.

    Raises:
        UserError: the result breaks a rule of `lib.notebook.checks.output_problems`.
    """
    import nbformat

    from lib.notebook import checks

    notebook = checks.clean(notebook)
    if problems := checks.output_problems(notebook):
        raise UserError(f"{chapter} is not fit for notebooks/: {'; '.join(problems)}")
    for warning in checks.prose_warnings(notebook):
        print(f"{chapter}: {warning}", file=sys.stderr)
    write_atomically(paths.NOTEBOOKS / f"{chapter}.ipynb", (nbformat.writes(notebook) + "\n").encode())
