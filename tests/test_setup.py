"""The pins, the set-up script and the Makefile: what they hold, and what they say when something is missing."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s#]+)(\s+# .+)?")
# brought along by the CUDA build of torch, which constraints.txt leaves free
CUDA = re.compile(r"nvidia-|cuda-|triton$")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    """Normalised name -> version of every pinned line; other lines must be comments or options."""
    found = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "-")):
            match = PIN.fullmatch(line)
            assert match, f"{file}: not an exact pin: {line!r}"
            assert normal(match[1]) not in found, f"{file}: {match[1]} twice"
            found[normal(match[1])] = match[2]
    return found


def closure(names: list[str]) -> set[str]:
    """The installed distributions that ``names`` need, themselves included."""
    found: set[tuple[str, str]] = set()
    pending = [(normal(name), "") for name in names]
    while pending:
        item = pending.pop()
        if item in found:
            continue
        found.add(item)
        try:
            required = metadata.distribution(item[0]).requires or []
        except metadata.PackageNotFoundError:
            pytest.fail(f"{item[0]} is needed but not installed: run make test")
        for text in required:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": item[1]}):
                pending += [(normal(requirement.name), extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in found}


# ----------------------------------------------------------------------------------------------------------------- pins


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-test.txt"])
def test_every_pin_says_why(file):
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if PIN.match(line):
            assert PIN.fullmatch(line)[3], f"{file}: {line!r} has no reason"


def test_conda_and_pip_have_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-r requirements.txt"]}


def test_constraints_lock_what_the_pins_bring_along():
    direct, locked = pins("requirements.txt") | pins("requirements-test.txt"), pins("constraints.txt")
    assert not direct.keys() & locked.keys(), "pinned in two places"
    assert not [name for name in locked if CUDA.match(name)], "users choose CUDA or not"
    assert not [pin for pin in (direct | locked).items() if "+" in pin[1]], "no local versions such as +cpu"
    needed = {name for name in closure(list(direct)) if not CUDA.match(name)} - {"pip"}
    assert needed - direct.keys() - locked.keys() == set(), "add these to constraints.txt"
    assert locked.keys() - needed == set(), "stale in constraints.txt"
    installed = {name: metadata.version(name).partition("+")[0] for name in needed}
    assert {name: version for name, version in installed.items() if version != (direct | locked)[name]} == {}


def test_what_the_code_imports_is_pinned_directly():
    """A package that only comes along with another may vanish with that other's next version."""
    # from the files, not from metadata.packages_distributions: dlib-bin's top_level.txt leaves out `dlib`
    providers: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = normal(distribution.metadata["Name"])  # read from the disk each time: once is enough
        for first in {file.parts[0].removesuffix(".py") for file in distribution.files or []}:
            providers.setdefault(first, set()).add(name)
    own = {"lib", "skeleton", "conftest", *(path.stem for path in (ROOT / "tests").glob("*.py"))}

    def unpinned(folder: str, pinned: set[str]) -> set[str]:
        names = set()
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names.add(node.module.partition(".")[0])
        names -= own | set(sys.stdlib_module_names)
        return {name for name in names if not pinned & providers.get(name, set())}

    runtime = set(pins("requirements.txt"))
    # `bm3d` may not be used commercially, so whoever measures it again installs it
    assert unpinned("lib", runtime) - {"bm3d"} == set()
    assert unpinned("data_scripts", runtime) == set()
    # tests may use what the pinned tools are made of
    assert unpinned("tests", runtime | set(pins("requirements-test.txt")) | set(pins("constraints.txt"))) == set()


def test_the_project_itself_is_importable_from_anywhere(tmp_path):
    command = [sys.executable, "-c", "import lib; print(lib.__file__)"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).parent == ROOT / "lib"


# --------------------------------------------------------------------------------------------------------------- set-up


FAKE_PYTHON = """#!/bin/sh
# Stands for python3.11: makes environments that are copies of itself, and a pip that does what $FAKE_PIP says.
case "$*" in
    *version_info*) echo "${FAKE_VERSION:-3.11}" ;;
    --version) echo "Python ${FAKE_VERSION:-3.11}.7" ;;
    "-m venv --clear "*)
        echo venv >> "$CALLS"
        rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    "-m pip install "*)
        echo pip >> "$CALLS"
        eval "${FAKE_PIP:-:}" ;;
    "- "*) cat > /dev/null; eval "${FAKE_PINS:-:}" ;;
esac
"""


class Setup:
    """scripts/setup.sh in a folder of its own, with a fake Python on a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.calls = folder / "repository", folder / "bin", folder / "calls"
        self.bin.mkdir()
        self.calls.touch()
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.root / "scripts" / "setup.sh")
        for name in ("Makefile", "pyproject.toml", "requirements.txt", "requirements-test.txt", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in "sh cat cksum cp cut du rm mkdir touch tee tail grep awk dirname kill sleep".split():
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        self.disk(free=10**7)
        self.python(self.bin / "python3.11")

    def disk(self, free: int) -> None:
        """Let ``df`` report that many kilobytes free."""
        (self.bin / "df").write_text(f"#!/bin/sh\necho head\necho disk 9 9 {free} 9% /\n")
        (self.bin / "df").chmod(0o755)

    @staticmethod
    def python(path: Path) -> None:
        path.write_text(FAKE_PYTHON)
        path.chmod(0o755)

    def environment(self, **changes: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "HOME": str(self.root.parent), "CALLS": str(self.calls), **changes}

    def __call__(self, requirements: str = "requirements.txt", **changes: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / "sh"), "scripts/setup.sh", requirements]
        environment = self.environment(**changes)
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=120)

    def called(self) -> list[str]:
        """What was called since the last question."""
        calls = self.calls.read_text().split()
        self.calls.write_text("")
        return calls


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path)


def test_setup_is_quick_the_second_time_and_follows_the_pins(setup):
    first = setup()
    assert first.returncode == 0, first.stderr
    assert setup.called() == ["venv", "pip"]
    assert setup().returncode == 0
    assert setup.called() == []
    with open(setup.root / "constraints.txt", "a") as file:
        file.write("# changed\n")
    assert setup().returncode == 0
    assert setup.called() == ["pip"]
    # the extras of the tests come on top of the same environment, and stay good for make figures
    assert setup("requirements-test.txt").returncode == 0
    assert setup.called() == ["pip"]
    assert setup().returncode == setup("requirements-test.txt").returncode == 0
    assert setup.called() == []


def test_setup_mends_versions_that_somebody_changed_by_hand(setup):
    assert setup().returncode == 0
    setup.called()
    assert setup(FAKE_PINS="exit 1").returncode == 0
    assert setup.called() == ["pip"]


def test_setup_rebuilds_what_was_never_finished(setup):
    killed = subprocess.Popen(
        [str(setup.bin / "sh"), "scripts/setup.sh"],
        cwd=setup.root,
        env=setup.environment(FAKE_PIP="sleep 60"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while "pip" not in setup.calls.read_text():
        assert killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    setup.called()
    assert not list((setup.root / ".venv").glob(".ready*"))
    again = setup()
    assert again.returncode == 0
    assert "rebuilding .venv" in again.stdout
    assert setup.called() == ["venv", "pip"]


@pytest.mark.parametrize("damage", ["no python", "other version", "not a folder of an environment"])
def test_setup_rebuilds_a_broken_environment(setup, damage):
    assert setup().returncode == 0
    setup.called()
    python = setup.root / ".venv" / "bin" / "python"
    if damage == "no python":
        python.unlink()
    elif damage == "other version":
        python.write_text("#!/bin/sh\necho 3.9\n")
    else:
        shutil.rmtree(setup.root / ".venv")
        (setup.root / ".venv").mkdir()
    assert setup().returncode == 0
    assert setup.called() == ["venv", "pip"]


def test_setup_names_the_python_it_needs(setup):
    (setup.bin / "python3.11").unlink()
    none = setup()
    assert none.returncode == 2
    assert none.stderr.startswith("error: Python 3.11 is needed")
    assert "no Python 3" in none.stderr
    setup.python(setup.bin / "python3")
    other = setup(FAKE_VERSION="3.12")
    assert other.returncode == 2
    assert "found: Python 3.12.7" in other.stderr
    assert "make PYTHON=" in other.stderr
    assert not (setup.root / ".venv").exists()
    setup.python(setup.root.parent / "elsewhere")
    assert setup(PYTHON=str(setup.root.parent / "elsewhere")).returncode == 0


@pytest.mark.parametrize(
    ("pip_says", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: Retrying after connection broken by NewConnectionError", "the package index cannot be reached"),
        ("ERROR: No matching distribution found for nonsense==1", "pip could not install requirements.txt"),
    ],
)
def test_setup_says_why_pip_failed_and_leaves_no_stamp(setup, pip_says, message):
    failed = setup(FAKE_PIP=f"echo '{pip_says}' >&2; exit 1")
    assert failed.returncode == 2
    assert f"error: {message}" in failed.stderr
    assert not list((setup.root / ".venv").glob(".ready*"))
    assert setup().returncode == 0  # and the next run starts clean


def test_setup_does_not_start_on_a_full_disk(setup):
    setup.disk(free=2**20)
    full = setup()
    assert full.returncode == 2
    assert "error: the disk is full (1024 MB free here)" in full.stderr
    assert setup.called() == []


def test_no_network_is_said_by_a_real_pip(setup):
    (setup.bin / "python3.11").unlink()
    (setup.bin / "python3.11").symlink_to(sys.executable)
    # nothing listens on the discard port of this machine
    failed = setup(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull)
    assert failed.returncode == 2
    assert "error: the package index cannot be reached" in failed.stderr


# ------------------------------------------------------------------------------------------------------------- Makefile


@pytest.mark.parametrize("target", ["figures", "test", "lab", "data", "timings", "clean", "help"])
def test_make_knows(target):
    shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    if target in ("figures", "test", "lab", "data"):
        assert "scripts/setup.sh" in shown.stdout


def test_make_figures_hands_its_parameters_on():
    command = ["make", "-n", "figures", "PRESET=smoke", "CHAPTERS=02 05", "SEED=3", "JOBS=7", "RETRAIN=1"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for expected in ('preset="smoke"', 'chapters="02 05"', 'seed="3"', '--cores "7"', 'retrain="true"'):
        assert expected in shown


def test_ci_runs_the_tests_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^\s*(exec )?make test( \|\| exit 1)?\s*$", script, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
