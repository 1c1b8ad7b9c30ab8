"""The SPEC grammar of the command line: `family:checkpoint[?key=value&...]`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, quote

from .errors import InputError, check_known, check_unicode, unknown_name


@dataclass(frozen=True)
class Spec:
    """A parsed SPEC; `str(spec)` gives it back."""

    family: str
    checkpoint: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """`InputError` on an empty family, an option without `=`, or an option given twice."""
        check_unicode(text, "the SPEC")
        head, _, query = text.partition("?")
        family, _, checkpoint = head.partition(":")
        if not family.strip():
            raise InputError(f"the SPEC {text!r} names no family; write family:checkpoint[?key=value&...]")
        options: dict[str, str] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict") if query else []
        except ValueError:
            raise InputError(f"the SPEC {text!r} has an option that is not key=value") from None
        for key, value in pairs:
            if key in options:
                raise InputError(f"the SPEC {text!r} gives {key!r} twice")
            options[key] = value
        return cls(family.strip(), checkpoint.strip(), options)

    def __str__(self) -> str:
        head = f"{self.family}:{self.checkpoint}" if self.checkpoint else self.family
        options = "&".join(f"{key}={quote(value, safe='/:,@')}" for key, value in self.options.items())
        return f"{head}?{options}" if options else head


def check_types(value: Any) -> None:
    """`TypeError` naming the first field of a dataclass, as it was read from JSON, that is not of its declared type."""
    for name, hint in get_type_hints(type(value)).items():
        if name in value.__dataclass_fields__ and not _fits(getattr(value, name), hint):
            raise TypeError(f"{name} is not of the type {getattr(hint, '__name__', hint)}")


def _fits(value: object, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if hint in (Any, object):
        return True
    if hint is float:
        return type(value) in (int, float)
    if is_dataclass(hint):
        if type(value) is hint:
            check_types(value)
        return type(value) is hint
    if origin is None:
        return type(value) is hint
    if not isinstance(value, origin):
        return False
    if isinstance(value, Mapping):
        return all(_fits(key, parts[0]) and _fits(each, parts[1]) for key, each in value.items())
    if isinstance(value, tuple) and parts[-1] is not Ellipsis:
        return len(value) == len(parts) and all(map(_fits, value, parts))
    return all(_fits(each, parts[0]) for each in value)


def parse_whole(text: str) -> int:
    """A whole number in digits 0-9; `ValueError` on Python's other forms (`1_000`, digits of other scripts)."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is not written in the digits 0-9")
    return int(text)


def parse_real(text: str) -> float:
    """A number in digits 0-9, or `inf` or `nan`; `ValueError` as `parse_whole`, and where a float cannot hold it."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is not written in the digits 0-9")
    value = float(text)
    if value in (math.inf, -math.inf) and "i" not in text.lower():
        raise ValueError(f"{text!r} is too large")
    if value == 0 and any(digit in "123456789" for digit in text.lower().partition("e")[0]):
        raise ValueError(f"{text!r} is too small")
    return value


def find_factory(
    spec: Spec, group: str, builtin: Mapping[str, str], what: str, *, more: Sequence[str] = ()
) -> tuple[Any, Spec]:
    """What the family of `spec` stands for, and the SPEC as it is meant for it.

    `builtin` maps families to `module:Name` inside crosslens. Other packages add families by entry points of the
    group `crosslens.GROUP` (`my-family = "my_package.module:Name"`); without one, `py:MODULE:NAME[:CHECKPOINT]` names
    any object that can be imported. `InputError` lists the known families, `more` among them, or says what could not
    be imported.
    """
    if spec.family == "py":
        module, _, rest = spec.checkpoint.partition(":")
        name, _, checkpoint = rest.partition(":")
        if not module or not name:
            raise InputError(f"{spec}: write py:MODULE:NAME, as in py:my_module:MyEncoder")
        return _import_object(f"{module}:{name}", str(spec)), replace(spec, checkpoint=checkpoint)
    if spec.family in builtin:
        module, _, name = builtin[spec.family].partition(":")
        return getattr(import_module(f".{module}", __package__), name), spec
    added = {each.name: each.value for each in entry_points(group=f"crosslens.{group}")}
    check_known(spec.family, (*builtin, *added, *more, "py"), what)
    if spec.family in more:
        raise InputError(f"the {what} {spec.family} takes nothing after its name: {spec}")
    return _import_object(added[spec.family], f"{spec.family} (of an installed package)"), spec


def _import_object(reference: str, named: str) -> Any:
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{named}: cannot import {reference} ({error}); is it installed, or on PYTHONPATH?") from None
    return found


def bind_options(spec: Spec, target: Callable[..., Any], **given: object) -> dict[str, object]:
    """The options of `spec` as keyword arguments for `target`, converted by its annotations.

    The `known_options` of `target` are declared in one place, its signature; those in `given` are the program's own
    and no option may set them. `InputError` lists the known options.
    """
    return distribute_options(spec, spec.family, [(target, given)])[0]


def distribute_options(
    spec: Spec, what: str, targets: Sequence[tuple[Callable[..., Any], Mapping[str, object]]]
) -> list[dict[str, object]]:
    """The options of `spec` for several targets side by side, as `bind_options` gives them to one; each to the
    first target that knows it.

    Each target comes with what the program sets itself. `InputError` lists the options of all for an unknown one.
    """
    owned = [{n: each for n, each in known_options(target).items() if n not in given} for target, given in targets]
    for key in spec.options:
        check_known(key, {name for known in owned for name in known}, f"option of {what}")
    left = dict(spec.options)
    made = []
    for (target, given), known in zip(targets, owned, strict=True):
        mine = {key: known[key].annotation for key in left if key in known}
        arguments = dict(given) | {key: _converted(key, left.pop(key), kind, spec) for key, kind in mine.items()}
        for name, each in _own_options(target).items():
            if _is_part(target, each):
                fields = known_options(each.annotation).keys() & arguments.keys()
                arguments[name] = each.annotation(**{key: arguments.pop(key) for key in fields})
        made.append(arguments)
    return made


def known_options(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of `target` by name; all fields where it is a dataclass.

    A dataclass that a parameter must be stands for its fields, so that targets can share options.
    """
    known: dict[str, inspect.Parameter] = {}
    for name, each in _own_options(target).items():
        known |= known_options(each.annotation) if _is_part(target, each) else {name: each}
    return known


def check_options(target: Callable[..., Any], given: Mapping[str, object], what: str) -> None:
    """`InputError` on a name that is none of the `known_options` of `target`, or a value that is not of its type."""
    known = known_options(target)
    for name, value in given.items():
        check_known(name, known, what)
        if not _fits(value, hint := known[name].annotation):
            raise InputError(f"the {what} {name!r} must be {getattr(hint, '__name__', hint)}, not {value!r}")


def _own_options(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    if is_dataclass(target):
        hints = get_type_hints(target)  # each by the module of the class that declares it
        parameters = inspect.signature(target).parameters
        return {name: each.replace(annotation=hints.get(name, each.annotation)) for name, each in parameters.items()}
    parameters = inspect.signature(target, eval_str=True).parameters
    return {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}


def _is_part(target: Callable[..., Any], parameter: inspect.Parameter) -> bool:
    required = parameter.default is parameter.empty and not is_dataclass(target)
    return required and isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)


def _converted(key: str, text: str, annotation: object, spec: Spec) -> object:
    kinds = get_args(annotation) or (annotation,)
    words = [str(word) for kind in kinds for word in get_args(kind)]  # of a Literal beside another type
    if text in words:
        return text
    if all(isinstance(kind, str) for kind in kinds):  # a Literal
        if text not in kinds:
            raise unknown_name(text, tuple(str(kind) for kind in kinds), f"value of {key} in {spec}")
        return text
    if bool in kinds:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise InputError(f"{key}={text!r} in {spec}: write {', '.join(['true', *words])} or false")
        return text.lower() in ("true", "1", "yes")
    for kind, parse in ((int, parse_whole), (float, parse_real)):
        if kind in kinds:
            try:
                return parse(text)
            except ValueError:
                raise InputError(f"{key}={text!r} in {spec} is not a number of type {kind.__name__}") from None
    return text
