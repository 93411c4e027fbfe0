"""Downloads over http(s) that resume, stay within bounds and say why they failed.

pooch hashes the files (see `lib.data.cache`), but its downloader starts again from nothing after a broken connection
and takes any amount of data; both matter for sets of gigabytes, so receiving is done here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3

TIMEOUT = 30.0  # seconds without a byte before a connection counts as dead
ATTEMPTS = 3  # tries in a row that bring nothing new
PAUSE = 0.5  # seconds before the second try, doubled for each further one
_CHUNK = 1 << 15
_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; generative-models-for-movies)", "Accept-Encoding": "identity"}


class SourceFailed(Exception):
    """A source did not give what it should; the next one is tried. ``unreachable`` ends the whole source."""

    def __init__(self, reason: str, unreachable: bool = False):
        super().__init__(reason)
        self.unreachable = unreachable


class _Interrupted(Exception):
    """The transfer broke off; trying again may help."""


def download(
    url: str,
    part: Path,
    *,
    size: int | None,
    limit: int,
    hashed: bool = True,
    advance: Callable[[int], object] = lambda count: None,
    session: requests.Session | None = None,
) -> None:
    """Receive ``url`` into ``part``, going on after the bytes that are there already.

    ``size`` is the exact number of bytes, where known; more than ``limit`` bytes are never taken. ``hashed`` says that
    the caller knows the hash, so that going on blindly is safe: otherwise the server must confirm that the file is
    unchanged. ``advance`` is told how many bytes are new. Raises `SourceFailed`; an ``OSError`` is one of writing.
    """
    best, tries = -1, 0
    while True:
        try:
            return _receive(url, part, size, limit, hashed, advance, session or requests.Session())
        except _Interrupted as broken:
            have = part.stat().st_size if part.exists() else 0
            tries = 1 if have > best >= 0 else tries + 1
            best = max(best, have)
            if tries >= ATTEMPTS:
                raise SourceFailed(str(broken)) from broken
            time.sleep(PAUSE * 2 ** (tries - 1))


def _receive(url, part: Path, size, limit, hashed, advance, session) -> None:
    etag = part.with_name(part.name + ".etag")  # what the server called the version of an unhashed file
    have = part.stat().st_size if part.exists() else 0
    validator = etag.read_text() if etag.exists() else ""
    if have and not (hashed or validator) or size is not None and have > size:
        have = 0
    if size is not None and have == size:
        return
    headers = dict(_HEADERS)
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with _open(url, headers, session) as answer:
        have = _agree(answer, part, have)
        announced = answer.headers.get("Content-Length", "")
        total = have + int(announced) if announced.isdecimal() else None
        if size is not None and total is not None and total != size:
            raise SourceFailed(f"offers {total} bytes where the catalog says {size}")
        if total is not None and total > limit:
            raise SourceFailed(f"offers {total} bytes, more than the {limit} allowed")
        if not hashed:
            etag.write_text(answer.headers.get("ETag", "") or answer.headers.get("Last-Modified", ""))
        with part.open("ab" if have else "wb") as out:
            while chunk := _read(answer, have):
                have += len(chunk)
                if have > limit:
                    break
                out.write(chunk)
                advance(len(chunk))
    if have > limit:
        part.unlink()
        etag.unlink(missing_ok=True)
        raise SourceFailed(f"sends more than the {limit} bytes allowed")
    if size is not None and have < size:
        raise _Interrupted(f"the connection ended after {have} of {size} bytes")
    etag.unlink(missing_ok=True)


def _open(url, headers, session) -> requests.Response:
    try:
        answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.TooManyRedirects as error:
        raise SourceFailed("redirects without end") from error
    except requests.ReadTimeout as error:
        raise _Interrupted(f"no answer within {TIMEOUT:g} s") from error
    except requests.ConnectionError as error:
        root = _root(error)
        if isinstance(root, ConnectionResetError):
            raise _Interrupted("the connection was closed without an answer") from error
        where = getattr(error.request, "url", None) or url
        reason = "cannot be reached" if where == url else f"redirects to {where}, which cannot be reached"
        raise SourceFailed(
            f"{reason} ({getattr(root, 'strerror', None) or type(root).__name__})", unreachable=True
        ) from error
    except requests.RequestException as error:
        raise SourceFailed(str(error), unreachable=True) from error
    if url.startswith("https:") and not answer.url.startswith("https:"):
        answer.close()
        raise SourceFailed(f"redirects from https to {answer.url}")
    return answer


def _agree(answer, part: Path, have: int) -> int:
    """How many bytes of ``part`` the answer continues; raises where it is no content."""
    code = answer.status_code
    if code == 206 and have and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    if code == 200:
        return 0
    if code in (206, 416):  # not the range we asked for: begin again
        part.unlink(missing_ok=True)
        raise _Interrupted(f"HTTP {code}: the server does not continue the file")
    reason = f"HTTP {code} {answer.reason or ''}".strip()
    if code == 429 or code >= 500:
        raise _Interrupted(reason)
    raise SourceFailed(reason)


def _read(answer, have: int) -> bytes:
    try:
        return answer.raw.read(_CHUNK)
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _Interrupted(f"no byte within {TIMEOUT:g} s after {have} bytes") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Interrupted(f"the connection ended after {have} bytes") from error


def _root(error: BaseException) -> BaseException:
    """The innermost reason of a connection error."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            return error
        error = inner
