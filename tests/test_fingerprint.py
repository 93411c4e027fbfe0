"""The fingerprint of the code: arithmetic changes it, where it stands and what it is called does not."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import config, data, paths, store
from lib.store import fingerprint, provenance, tables, verify, weights
from lib.store.fingerprint import Code, changed_files
from lib.training.registry import build_task, declared

FLOW = "lib.background.experiments.FlowTask"


@pytest.fixture(scope="module")
def original() -> Code:
    return Code(paths.ROOT)


@pytest.fixture
def copy(tmp_path):
    """A copy of lib that may be edited: ``edit("lib/flows/layers.py", old, new)`` gives the code with a change."""
    shutil.copytree(paths.ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.npz"))

    def edit(file: str, old: str, new: str, count: int = 1) -> Code:
        path = tmp_path / file
        text = path.read_text()
        assert old in text, f"{file} does not hold {old!r}"
        path.write_text(text.replace(old, new, count))
        return Code(tmp_path)

    edit.root = tmp_path
    return edit


def changes(before: Code, after: Code, root: str = FLOW) -> list[str]:
    return changed_files(after.fingerprint([root]), before.fingerprint([root]).record(), after)


def test_arithmetic_of_a_layer(original, copy):
    after = copy("lib/flows/layers.py", "shift, raw = self.network(x_a)", "shift, raw = 0.5 * self.network(x_a)")
    assert changes(original, after) == ["lib/flows/layers.py"]
    assert changes(original, after, "lib.background.experiments.GANTask") == []  # has no flow in it


def test_what_decides_nothing(original, copy):
    copy("lib/flows/layers.py", '"""', '"""Other words. ')
    copy("lib/flows/layers.py", "\nclass AffineCoupling", "\n\n# a comment\nclass AffineCoupling")
    copy("lib/flows/multiscale.py", "def dequantise(", "def unrelated():\n    return 1\n\n\ndef dequantise(")
    copy("lib/errors.py", "exit_code = 2", "exit_code = 3")
    after = copy("lib/background/experiments.py", "config: FlowConfig, chapter", "config: 'FlowConfig', chapter")
    assert changes(original, after) == []


def test_a_function_that_moves_to_another_file(original, copy):
    path = copy.root / "lib/flows/multiscale.py"
    text = path.read_text()
    moved = re.search(r"def dequantise\(.*?\n\n\n", text, re.DOTALL)[0]
    path.write_text("from lib.flows.noise import dequantise\n" + text.replace(moved, ""))
    head = text[: re.search(r"\n(def|class) ", text).start()]
    (copy.root / "lib/flows/noise.py").write_text(head + "\n\n" + moved)
    assert "def dequantise" not in path.read_text()
    after = Code(copy.root)
    assert "lib.flows.noise.dequantise" in after.fingerprint([FLOW]).symbols
    assert changes(original, after) == []


def test_the_list_of_records_passes_over_what_only_moved(original, copy, monkeypatch):
    record = verify.Record(Path(), {"code": original.fingerprint([FLOW]).record()})
    copy("lib/flows/multiscale.py", "def dequantise(", "def unrelated():\n    return 1\n\n\ndef dequantise(")
    shutil.move(copy.root / "lib/flows/multiscale.py", copy.root / "lib/flows/levels.py")
    for path in (copy.root / "lib").rglob("*.py"):
        path.write_text(path.read_text().replace("lib.flows.multiscale", "lib.flows.levels"))
    monkeypatch.setattr(verify, "source", lambda: Code(copy.root))
    assert list(verify.changes(record)) == []
    after = copy("lib/flows/layers.py", "shift, raw = self.network(x_a)", "shift, raw = 0.5 * self.network(x_a)")
    monkeypatch.setattr(verify, "source", lambda: after)
    assert list(verify.changes(record)) == ["lib/flows/layers.py"]


def test_what_is_new_in_a_table_that_is_only_looked_into(original, copy):
    table = '"additive": AdditiveCoupling'
    copy("lib/flows/layers.py", "\nCOUPLINGS:", "\nclass Other(AffineCoupling):\n    pass\n\n\nCOUPLINGS:")
    after = copy("lib/flows/layers.py", table, f'{table}, "other": Other')
    assert changes(original, after) == []
    assert "lib.flows.layers.Other" in after.fingerprint([FLOW]).symbols
    after = copy("lib/flows/layers.py", '"affine": AffineCoupling', '"affine": Other')
    assert changes(original, after) == ["lib/flows/layers.py"]
    copy("lib/flows/layers.py", '"affine": Other', '"affine": AffineCoupling')
    after = copy("lib/flows/layers.py", "return torch.cat([x_a, x_b + self", "return torch.cat([x_a, 2 * x_b + self")
    assert changes(original, after) == ["lib/flows/layers.py"]


def test_a_consistent_new_name(original, copy):
    for path in (copy.root / "lib").rglob("*.py"):
        path.write_text(re.sub(r"\bAffineCoupling\b", "AffineLayer", path.read_text()))
    after = Code(copy.root)
    assert "lib.flows.layers.AffineLayer" in after.fingerprint([FLOW]).symbols
    assert changes(original, after) == []


def test_a_measure_and_what_it_calls(original, copy):
    root = "lib.background.study.sampling_time"
    after = copy("lib/background/evaluate.py", "return min(times)", "return min(times) + 1")
    assert changes(original, after, root) == ["lib/background/evaluate.py"]
    after = copy("lib/background/study.py", '"ms per sample": evaluate', '"ms per sample": 2 * evaluate')
    assert changes(original, after, root) == ["lib/background/evaluate.py", "lib/background/study.py"]


def test_all_symbols_of_a_chapter_take_less_than_a_second():
    settings, code = config.load("02_background", "smoke"), Code(paths.ROOT)
    roots = {fingerprint.full_name(type(build_task("background", name, settings))) for name in declared("background")}
    begin = time.process_time()
    assert all(code.fingerprint([root]).symbols for root in roots)
    assert time.process_time() - begin < 1


# -------------------------------------------------------------------------------------------------- what is referred to


@pytest.fixture
def tree(tmp_path):
    """``tree(a="…", b="…")`` writes modules lib.a, lib.b and gives the code and ``symbols(root)``."""

    def tree(**modules: str) -> Code:
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / "__init__.py").write_text("")
        for name, text in modules.items():
            path = tmp_path / "lib" / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return Code(tmp_path)

    return tree


def symbols(code: Code, root: str) -> set[str]:
    return {name.removeprefix("lib.") for name in code.fingerprint([f"lib.{root}"]).symbols}


def test_names_are_followed_through_imports_attributes_and_functions(tree):
    code = tree(
        a="""
            from lib import b
            from lib.c import inner as renamed
            LIMIT: int = 3
            TABLE = {"x": LIMIT}
            TABLE |= {"y": renamed}
            def root(x):
                from lib import d
                return b.first(x) + d.Part().value + [TABLE[k] for k in x]
        """,
        b="from lib.c import second as first\nfrom lib.c import unused\n",
        c="def second(x): return x\ndef unused(): pass\ndef inner(): pass\n",
        d="class Part(Base := object): value = 1\n",
    )
    assert symbols(code, "a.root") == {"a.root", "a.TABLE", "a.LIMIT", "c.second", "c.inner", "d.Part"}


def test_local_names_hide_those_of_the_module(tree):
    code = tree(
        a="""
            def data(): pass
            def other(): pass
            def root(data, *rest, key=None):
                other = 1
                def inner(other): return other
                return [data for data in rest] + [inner(x) for x in data] + (lambda other: other)(1) + other
        """
    )
    assert symbols(code, "a.root") == {"a.root"}


def test_methods_of_a_study_one_by_one(tree):
    text = """
        from lib.store import Study as Base, measure
        class Study(Base):
            def used(self): return self.deeper()
            def deeper(self): return 1
            def unused(self): return 2
        @measure("x", decides=lambda study: {"n": 1})
        def root(study: Study): return study.used() + study.settings.n
    """
    code = tree(a=text)
    assert symbols(code, "a.root") == {"a.root", "a.Study.used", "a.Study.deeper"}
    before = code.fingerprint(["lib.a.root"])
    same = tree(a=text.replace("return 2", "return 3").replace('{"n": 1}', '{"n": 2}'))
    assert same.fingerprint(["lib.a.root"]).digest == before.digest
    other = tree(a=text.replace("return 1", "return 3"))
    assert other.fingerprint(["lib.a.root"]).digest != before.digest


def test_a_default_a_decorator_an_external_name_count_and_wording_does_not(tree):
    text = "import numpy as np\ndef root(x=1):\n    if x: raise ValueError('no')\n    return np.sin(x)\n"
    before = tree(a=text).fingerprint(["lib.a.root"]).digest
    decorated = "@np.vectorize\ndef root"
    for old, new in (("x=1", "x=2"), ("np.sin", "np.cos"), ("def root", decorated), ("if x", "if not x")):
        assert tree(a=text.replace(old, new)).fingerprint(["lib.a.root"]).digest != before, new
    for old, new in (("'no'", "'never'"), ("(x=1)", "(x: int = 1) -> float"), ("numpy as np", "numpy")):
        changed = text.replace(old, new)
        changed = changed.replace("np.", "numpy.") if new == "numpy" else changed
        assert tree(a=changed).fingerprint(["lib.a.root"]).digest == before, new


def test_links_that_change_places(tree):
    text = "def one(): return 1\ndef two(): return 1\ndef three(): return 3\ndef root(): return one() - three()\n"
    before = tree(a=text).fingerprint(["lib.a.root"])
    swapped = tree(a=text.replace("one() - three()", "three() - one()")).fingerprint(["lib.a.root"])
    assert before.digest != swapped.digest
    same = tree(a=text.replace("one() - three()", "two() - three()")).fingerprint(["lib.a.root"])
    assert before.digest == same.digest


def test_a_circle_ends(tree):
    code = tree(a="def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\n")
    assert symbols(code, "a.even") == {"a.even", "a.odd"}


# ----------------------------------------------------------------------------------------------------- what a user sees


def test_weights_of_other_code_are_loaded_with_a_line(toy, capsys):
    task = toy.task()
    store.train_or_load(task, device="cpu", progress=False)
    path = weights.run_folder(task) / "model.json"
    data = json.loads(path.read_text())
    assert data["code"]["fingerprint"] and "lib.training.sampling.seed_all" in data["code"]["symbols"]
    data["code"]["fingerprint"] = "0" * 20
    data["code"]["symbols"]["lib.training.sampling.seed_all"] = "0" * 10
    path.write_text(json.dumps(data))
    capsys.readouterr()
    found = store.train_or_load(toy.task(), device="cpu")
    assert found.source == "runs"
    expected = "lib/training/sampling.py has changed since; python -m lib.store verify toy.line renews it, "
    expected += "retrain=True trains it anew"
    assert capsys.readouterr().out.splitlines()[1] == f"toy.line: {expected}" and found.stale == expected


def test_tables_of_other_code_are_loaded_with_a_line(toy, capsys):
    recipe = tables.Recipe("toy", "scores", {}, ("lib.training.sampling.sample_indices",))
    frame = pd.DataFrame({"a": [1]})
    tables.get_table(recipe, lambda: frame)
    assert tables.get_table(recipe, lambda: frame)[1].stale == ""
    other = tables.Recipe("toy", "scores", {}, ("lib.training.sampling.seed_all",))
    capsys.readouterr()
    found, made = tables.get_table(other, lambda: pytest.fail("it computed"))
    assert found["a"].tolist() == [1]
    assert "python -m lib.store verify toy.scores renews it, recompute=True computes it anew" in made.stale
    assert made.stale in capsys.readouterr().out


def test_a_record_without_a_fingerprint_says_so(toy):
    recipe = tables.Recipe("toy", "scores", {}, ())
    assert recipe.stale({"code": {"commit": "0" * 40}}).startswith("made before its code was recorded; python -m")


def test_committed_notebooks_show_no_results_of_other_code_but_those_that_wait_to_be_renewed():
    """``pending.txt`` names records that could not be verified yet; it may only shrink."""
    listed = Path(__file__).with_name("pending.txt").read_text(encoding="utf-8").splitlines()
    pending = {line for line in listed if line and not line.startswith("#")}
    shown: set[str] = set()
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            outputs = json.dumps(cell.get("outputs", []))
            shown |= set(re.findall(r"python -m lib\.store verify (\S+) renews it", outputs))
    assert sorted(shown - pending) == []
    assert sorted(pending - shown) == []


def test_code_version_of_this_repository():
    assert set(provenance.code_version()) == {"commit", "dirty"}


def test_arrays_made_by_other_code_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    calls = []

    def made():
        def make():
            calls.append(1)
            return {"a": np.arange(3)}

        make.__module__, make.__qualname__ = "lib.flows.layers", "AffineCoupling.<locals>.make"
        return data.made_once("things", {"n": 1}, make)

    assert made()["a"].tolist() == made()["a"].tolist() == [0, 1, 2] and len(calls) == 1
    assert set(made()) == {"a"}
    other = Code(paths.ROOT)
    monkeypatch.setattr(other, "fingerprint", lambda roots: fingerprint.Fingerprint("0" * 20, {}))
    monkeypatch.setattr("lib.data.cache.source", lambda: other)
    assert made()["a"].tolist() == [0, 1, 2] and len(calls) == 2
