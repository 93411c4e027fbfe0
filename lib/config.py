"""Presets and parameters: YAML files turned into typed, frozen configs that refuse what they do not know.

    notebooks/parameters/02_background.yaml          lib/background/config.py
        config: lib.background.config:BackgroundConfig ──► class BackgroundConfig(Config)
        smoke:  {...}                                             │
        laptop: {...}  ──► load("02_background", "laptop", {"flow.train.steps": 100}) ──► frozen config
        full:   {...}

papermill only logs an unknown parameter and goes on with the default. Here an unknown key, a wrong type and a value
out of range are a `UserError` that names the key, the value, what is allowed and the nearest valid name.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pydantic
import yaml
from pydantic import Field

from lib import paths
from lib.devices import check_device_name, resolve_device, warn_without_gpu
from lib.errors import UserError, nearest

PRESETS = ("smoke", "laptop", "full")


class Config(pydantic.BaseModel):
    """Base of every config: frozen, unknown keys refused, no coercion but int to float, no NaN and no infinity.

    Built from Python it raises `pydantic.ValidationError`; `load`, `override` and `validate` raise `UserError` instead.
    Fields named in ``unhashed`` do not decide the result of a run and stay out of `config_hash`.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    unhashed: ClassVar[frozenset[str]] = frozenset()


class TrainConfig(Config):
    """How one optimiser runs. ``steps``, ``batch_size``, ``precision``, ``channels_last`` and the three intervals
    hold for the whole run; the other fields may differ between parameter groups (`lib.training.Task.train_config`)."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"log_every", "checkpoint_every", "validate_every"})

    steps: int = Field(gt=0, description="optimisation steps of the run")
    batch_size: int = Field(gt=0, description="examples a step, over all processes together")
    lr: float = Field(gt=0, le=10, description="peak learning rate")
    optimizer: Literal["adam", "adamax", "adamw", "muon"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    clip: float | None = Field(None, gt=0, description="largest gradient norm of a group, or null")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the weights' moving average, or null; shorter early on"
    )
    precision: Literal["32", "bf16"] = "32"
    channels_last: bool = False
    log_every: int = Field(50, gt=0, description="steps between rows of the CSV log")
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    validate_every: int | None = Field(None, gt=0, description="steps between validations, or null: at the end")

    @pydantic.field_validator("precision", mode="before")
    @classmethod
    def _precision(cls, precision: Any) -> Any:
        return "32" if precision == 32 and not isinstance(precision, bool) else precision  # a command line says 32

    @pydantic.field_validator("betas")
    @classmethod
    def _betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("both must lie in [0, 1)")
        return betas


class NotebookParameters(Config):
    """The one ``parameters`` cell that every notebook has."""

    preset: Literal["smoke", "laptop", "full"] = "laptop"
    seed: int = Field(0, ge=0, lt=2**32)
    retrain: bool = False
    recompute: bool = False
    device: str = "auto"
    overrides: dict[str, Any] = {}

    @property
    def variant(self) -> str:
        """Short name of what decides the results: ``laptop``, ``smoke-seed3-retrain``, ``laptop-1f3b2c4d``."""
        name = self.preset + (f"-seed{self.seed}" if self.seed else "")
        name += ("-retrain" if self.retrain else "") + ("-recompute" if self.recompute else "")
        return name + (f"-{config_hash(self.overrides)[:8]}" if self.overrides else "")


ConfigT = TypeVar("ConfigT", bound=Config)


# ------------------------------------------------------------------------------------------------ names and messages


def _listed(choices: Iterable[str]) -> str:
    return ", ".join(choices) or "none"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(model: type[pydantic.BaseModel], path: Iterable[object]) -> list[str]:
    """Names of the fields that are valid at ``path`` below ``model`` (empty where no config lies)."""
    current: Any = model
    for part in path:
        field = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, pydantic.BaseModel)), None)
    return list(current.model_fields) if current is not None else []


def _explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel], where: str) -> UserError:
    sentences = []
    for entry in error.errors(include_url=False):
        location, kind = entry["loc"], entry["type"]
        key = ".".join(str(part) for part in location) or where
        if kind == "extra_forbidden":
            valid = _fields_at(model, location[:-1])
            sentences.append(f"unknown key {key!r}{nearest(location[-1], valid)}, allowed here are: {_listed(valid)}")
        elif kind == "missing":
            sentences.append(f"key {key!r} is missing")
        else:
            rule = entry["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
            hint = ""
            if kind == "literal_error":
                hint = nearest(entry["input"], re.findall(r"'([^']*)'", entry["ctx"]["expected"]))
            sentences.append(f"{key!r} is {_shown(entry['input'])}{hint}: it {rule}".replace(": it both", ": both"))
    more = f" (and {len(sentences) - 4} more)" if len(sentences) > 4 else ""
    return UserError(f"{where}: " + "; ".join(sentences[:4]) + more)


def validate(model: type[ConfigT], data: Mapping[str, Any], where: str) -> ConfigT:
    """Build ``model`` from plain data (as YAML or JSON gives it: lists stand for tuples).

    Raises:
        UserError: names ``where``, the key, the value, what is allowed and the nearest valid name.
    """
    try:
        # JSON mode: strict about types, yet a list may fill a tuple, which YAML cannot write
        return model.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        raise _explain(error, model, where) from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: holds something that is neither a number, text, list nor mapping: {error}") from None


# --------------------------------------------------------------------------------------------------- parameter files


class _Loader(yaml.SafeLoader):
    """Safe YAML where ``1e-3`` is a number (YAML 1.1 reads it as text) and a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def scalar(text: str) -> Any:
    """Read one value of ``--set key=value`` as YAML: ``100``, ``1e-3``, ``true``, ``null``, ``[0.5, 0.9]``, text."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"cannot read the value {text!r}: {' '.join(str(error).split())}") from None


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """What ``--set`` was given: ``["flow.train.steps=100"]`` gives ``{"flow.train.steps": 100}``.

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
        overrides[key] = scalar(value)
    return overrides


def chapters() -> list[str]:
    """Stems of the parameter files, sorted: ``["02_background", …]``."""
    return sorted(path.stem for path in paths.PARAMETERS.glob("*.yaml"))


def chapter_file(chapter: str) -> dict[str, Any]:
    """The parameter file of ``chapter`` as plain data, its top level checked.

    Raises:
        UserError: unknown chapter, unreadable YAML, a top-level key that is not ``config``, ``card`` or a preset.
    """
    if chapter not in chapters():
        raise UserError(f"unknown chapter {chapter!r}{nearest(chapter, chapters())}; there are: {_listed(chapters())}")
    path = paths.PARAMETERS / f"{chapter}.yaml"
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the parameters {path}: {' '.join(str(error).split())}") from None
    known = ("config", "card", *PRESETS)
    if not isinstance(data, dict) or not isinstance(data.get("config"), str):
        raise UserError(f"{path.name}: needs a line 'config: lib.<package>.config:<Class>'")
    for key, value in data.items():
        if key not in known:
            raise UserError(f"{path.name}: unknown key {key!r}{nearest(key, known)}; allowed are: {_listed(known)}")
        if key != "config" and not isinstance(value, dict):
            raise UserError(f"{path.name}: {key!r} must be a mapping, it is {_shown(value)}")
    if not re.fullmatch(r"lib\.[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", data["config"]):
        raise UserError(f"{path.name}: 'config' is {data['config']!r}, it must read lib.<package>.config:<Class>")
    return data


def chapter_package(chapter: str) -> str:
    """Name of the package below ``lib`` that a chapter uses: ``"02_background"`` gives ``"background"``."""
    return chapter_file(chapter)["config"].split(":")[0].split(".")[1]


def planned(chapter: str, preset: str) -> str:
    """What the card of a chapter says of the time that a preset takes; empty where it is silent."""
    said = chapter_file(chapter).get("card", {}).get("minutes", {}).get(preset, "")
    return said if isinstance(said, str) else f"{said:g} minutes"


def package_chapter(package: str) -> str:
    """The chapter whose config lies in ``lib.<package>``: ``"background"`` gives ``"02_background"``."""
    packages = {chapter_package(chapter): chapter for chapter in chapters()}
    if package not in packages:
        raise UserError(f"unknown package {package!r}{nearest(package, packages)}; there are: {_listed(packages)}")
    return packages[package]


def config_class(chapter: str) -> type[Config]:
    """The class that types the presets of ``chapter``."""
    module, name = chapter_file(chapter)["config"].split(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{chapter}.yaml: cannot find {module}:{name} ({error})") from None
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise UserError(f"{chapter}.yaml: {module}:{name} is not a subclass of lib.config.Config")
    return found


def load(chapter: str, preset: str = "laptop", overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of one chapter at one preset, with ``overrides`` such as ``{"flow.train.steps": 100}`` put in.

    Raises:
        UserError: unknown chapter, preset or key, wrong type, value out of range; names the nearest valid name.
    """
    data = chapter_file(chapter)
    available = [name for name in PRESETS if name in data]
    if preset not in available:
        raise UserError(f"unknown preset {preset!r}{nearest(preset, available)}; {chapter} has: {_listed(available)}")
    config = validate(config_class(chapter), data[preset], f"{chapter}.yaml, preset {preset}")
    return override(config, overrides or {})


def override(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """A copy of ``config`` with dotted keys replaced, ``{"train.lr": 1e-3}``, validated as strictly as the whole.

    Raises:
        UserError: as `validate`.
    """
    if not isinstance(changes, Mapping):
        raise UserError(f"overrides: must be a mapping of dotted keys such as 'train.steps', it is {_shown(changes)}")
    if not changes:
        return config
    data = config.model_dump(mode="json")
    for key, value in changes.items():
        if not isinstance(key, str):
            raise UserError(f"overrides: the key {key!r} is not text; write for example 'train.steps'")
        *parents, last = key.split(".")
        inner = data
        for depth, part in enumerate(parents):
            if part not in inner:
                valid = list(inner)
                unknown = ".".join(key.split(".")[: depth + 1])
                raise UserError(
                    f"overrides: unknown key {unknown!r}{nearest(part, valid)}, allowed here are: {_listed(valid)}"
                )
            if inner[part] is None:
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                raise UserError(f"overrides: {key!r} goes too deep, {'.'.join(parents[: depth + 1])!r} is a value")
        inner[last] = value
    return validate(type(config), data, "overrides")


def parameters(**values: Any) -> NotebookParameters:
    """Check the parameters cell of a notebook, ``parameters(preset=preset, seed=seed, …)``, and keep its figures apart.

    What papermill was given under any other name is refused, too. Figures, tables and claims of this process go to
    ``runs/figures/<variant>`` from here on (see `paths.keep_apart`).

    Raises:
        UserError: as `check_parameters`.
    """
    checked = check_parameters(**(_injected() | values))
    warn_without_gpu(checked.preset, checked.device)
    paths.keep_apart(checked.variant)
    return checked


def _injected() -> dict[str, None]:
    """Names that papermill was given: those that the cell which it puts below the parameters cell assigns."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cells = [] if shell is None else shell.user_ns.get("In", [])
    parsed = [ast.parse(cell).body for cell in cells if cell.startswith("# Parameters\n")]
    assigned = [node for body in parsed for node in body if isinstance(node, ast.Assign)]
    return {target.id: None for node in assigned for target in node.targets if isinstance(target, ast.Name)}


def check_parameters(here: bool = True, /, **values: Any) -> NotebookParameters:
    """The parameters of a notebook, checked.

    Args:
        here: the device must be on this machine; else its name alone is checked, for a job that runs elsewhere.

    Raises:
        UserError: unknown parameter, wrong type, unknown preset or device; names the nearest valid name.
    """
    checked = validate(NotebookParameters, values, "parameters")
    if here:
        resolve_device(checked.device)
    else:
        check_device_name(checked.device)
    return checked


# ------------------------------------------------------------------------------------------------------------- hashes


def _canonical(value: Any) -> Any:
    if isinstance(value, Config):
        return {
            name: _canonical(getattr(value, name)) for name in type(value).model_fields if name not in value.unhashed
        }
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("only mappings with text as keys can be hashed")
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def canonical(value: Any) -> Any:
    """``value`` (configs, mappings, lists, scalars) as plain JSON data, without the fields that are not hashed."""
    return json.loads(json.dumps(_canonical(value), allow_nan=False))


def config_hash(value: Any) -> str:
    """SHA-256 (hex) of ``value`` as canonical JSON: independent of the order of keys, of Python and of the machine."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys: ``{"train": {"lr": 1}}`` gives ``{"train.lr": 1}``."""
    if not isinstance(data, Mapping):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def differences(ours: Any, theirs: Any) -> list[str]:
    """``["train.lr: 0.001 here, 0.002 there", …]``: where two nested mappings differ, sorted by key."""
    left, right = flatten(ours), flatten(theirs)
    absent = object()

    def shown(side: dict[str, Any], key: str) -> str:
        value = side.get(key, absent)
        return "absent" if value is absent else _shown(value)

    return [
        f"{key}: {shown(left, key)} here, {shown(right, key)} there"
        for key in sorted(left.keys() | right.keys())
        if left.get(key, absent) != right.get(key, absent)
    ]
