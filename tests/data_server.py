"""A loopback HTTP server that misbehaves on request, and a catalog that points at it, for the data tests."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTENT = bytes(range(256)) * 1200  # 307,200 bytes: several reads of the downloader


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: DataServer

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        name = self.path.lstrip("/")
        wanted = self.headers.get("Range")
        self.server.requests.append((name, wanted))
        behaviour = self.server.behaviours.get(name, "normal")
        content = self.server.content.get(name)
        if isinstance(behaviour, list):  # one behaviour for each request, the last one stays
            behaviour = behaviour.pop(0) if len(behaviour) > 1 else behaviour[0]
        try:
            if behaviour == "normal" and content is None:
                behaviour = 404
            if isinstance(behaviour, int):
                self._head(behaviour, 0)
            else:
                getattr(self, behaviour)(content, wanted)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def _head(self, code: int, length: int | None, **headers: str):
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("ETag", self.server.etag)
        self.send_header("Connection", "close")
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def normal(self, content, wanted):
        """The file, or the rest of it for a Range (unless If-Range names another version)."""
        if wanted and self.headers.get("If-Range", self.server.etag) == self.server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self._head(416, 0)
                return
            self._head(206, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.wfile.write(content[start:])
        else:
            self._head(200, len(content))
            self.wfile.write(content)

    def truncated(self, content, wanted):
        """Announces all and ends after a good half; knows no ranges."""
        self._head(200, len(content))
        self.wfile.write(content[: len(content) * 5 // 8])

    def silent_truncated(self, content, wanted):
        """Announces no length and ends early."""
        self._head(200, None)
        self.wfile.write(content[: len(content) // 2])

    def norange(self, content, wanted):
        self._head(200, len(content))
        self.wfile.write(content)

    def wrong(self, content, wanted):
        self._head(200, len(content))
        self.wfile.write(content[:-1] + b"!")

    def longer(self, content, wanted):
        self._head(200, len(content) + 1)
        self.wfile.write(content + b"!")

    def endless(self, content, wanted):
        self._head(200, None)
        while True:
            self.wfile.write(content)

    def slow(self, content, wanted):
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        extra = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if wanted else {}
        self._head(206 if wanted else 200, len(content) - start, **extra)
        for place in range(start, len(content), 8192):
            self.wfile.write(content[place : place + 8192])
            self.wfile.flush()
            time.sleep(self.server.delay)

    def stalled(self, content, wanted):
        self._head(200, len(content))
        self.wfile.write(content[:1000])
        self.wfile.flush()
        self.server.stop.wait(10)

    def silent(self, content, wanted):
        """Closes the connection without a word."""

    def nowhere(self, content, wanted):
        self._head(302, 0, Location=f"http://127.0.0.1:{closed_port()}/gone")

    def circle(self, content, wanted):
        self._head(302, 0, Location=self.path)


class DataServer(http.server.ThreadingHTTPServer):
    """``with DataServer() as server``: serves ``server.content[name]`` the way ``server.behaviours[name]`` says."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: dict[str, bytes] = {}
        self.behaviours: dict[str, str | int | list] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.etag = '"first"'
        self.delay = 0.01
        self.stop = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def __exit__(self, *problem):
        self.stop.set()
        self.shutdown()
        super().__exit__(*problem)


class Store:
    """A catalog and an empty cache in a folder; `add` puts sets into the catalog."""

    def __init__(self, folder: Path):
        self.catalog, self.cache = folder / "catalog.yaml", folder / "cache"
        self.entries: dict[str, dict] = {}

    def add(self, name: str, files: dict[str, bytes] | list[dict], sources: list[dict], **more) -> None:
        about = dict.fromkeys(("title", "what", "licence", "citation", "credit", "origin"), "test")
        if isinstance(files, dict):
            files = [{"path": path, "bytes": len(data), "sha256": sha256(data)} for path, data in files.items()]
        about |= {"chapters": ["09"], "embedded": False, "files": files, "sources": sources}
        self.entries[name] = about | more
        self.catalog.write_text(json.dumps(self.entries))  # JSON is YAML

    def left(self) -> list[str]:
        """The files of the cache, without states and locks."""
        found = (path.relative_to(self.cache) for path in self.cache.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if path.parts[0] not in (".state", ".lock"))

    def start(self, *names: str, before: str = "") -> subprocess.Popen:
        """Fetch in a process of its own, as a command: `UserError` is one line and exit code 2."""
        script = (
            # a shell that runs the tests in the background hands on that Ctrl-C is ignored
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "import sys; from pathlib import Path; from lib import paths; from lib.data import fetch\n"
            "from lib.errors import command_line\n"
            f"paths.CATALOG = Path({str(self.catalog)!r})\n{before}\n"
            f"command_line(lambda: [fetch(name, progress=False) for name in {names!r}])\n"
        )
        return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def run(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and stderr of a process that `Store.start` began."""
    _, told = process.communicate(timeout=60)
    return process.returncode, told
