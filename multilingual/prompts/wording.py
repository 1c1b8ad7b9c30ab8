"""A `Wording`: what a model is asked, as a template with placeholders, in several languages, and as a TOML file."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from ...errors import InputError, check_known
from ...files import parse_toml
from ...items import Item, Modality
from ..judges.messages import Attachment, Chat, Message, Part, Passage
from ..languages import name_language, parse_language

VALUE_TYPES: dict[Any, tuple[tuple[type, ...], str]] = {  # of values in a file, by a field's type; else a text
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    tuple[float, ...]: ((int, float), "a list of numbers"),
    tuple[str, ...]: ((str,), "a list of texts, or a range as A..T or 1..20"),
}
Value = Part | tuple[Part, ...]  # what stands in place of a placeholder


@dataclass(frozen=True)
class Wording:
    """Words around what is asked, and how a chat model is shown them.

    `template` is what the user says and `system` the instruction before it, with placeholders: {query}, {language}
    (the query's, in English or in the wording's own) and {instruction} here, others in subclasses, which list them in
    `placeholders`. `answer` is how the model's answer is begun for it, `chat` as in `Message`. `language` is that of
    the words: a code that there is a translation for (`words`, of the texts in `translated`), `query` or `document`.
    `paper` is what it follows. `InputError` names the wording and its fault.
    """

    name: str
    template: str
    paper: str = ""
    system: str = ""
    answer: str = ""
    instruction: str = ""
    chat: Chat = "auto"
    language: str = "eng"
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    placeholders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "template": ("query", "language", "instruction"),
        "system": ("language", "instruction"),
    }
    translated: ClassVar[tuple[str, ...]] = ("template", "system", "answer", "instruction")

    def __post_init__(self) -> None:
        for key, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal:
                check_known(getattr(self, key), get_args(hint), f"`{key}` in the prompt {self.name}:")
        for key, allowed in self.placeholders.items():
            for name in self.list_placeholders(key):
                check_known(name, allowed, f"placeholder in `{key}` of the prompt {self._title}:")
        if self.instruction and "instruction" not in self.list_placeholders("template", "system"):
            raise self._fault("has no place for an instruction: no {instruction} in `template` or `system`")
        check_known(self.language, ("eng", "query", "document", *self.words), f"language of the prompt {self.name}:")

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """A wording from TOML; its tables are translations, named by language. `InputError` names what is wrong."""
        try:
            data = parse_toml(text)
        except InputError as error:
            raise InputError(f"the prompt {name}: {error}") from None
        keys = {f.name: f.default is MISSING for f in fields(cls) if f.name not in ("name", "words")}
        own = {key: value for key, value in data.items() if not isinstance(value, dict)}
        values = cls._read_values(own, tuple(keys), name)
        if missing := sorted(key for key, required in keys.items() if required and key not in own):
            raise InputError(f"the prompt {name} lacks {', '.join(missing)}")
        words: dict[str, dict[str, Any]] = {}
        for key, table in data.items():
            if key in own:
                continue
            try:
                code = parse_language(key)
            except InputError as error:
                raise InputError(f"table [{key}] of the prompt {name}: {error}") from None
            if code == "eng" or code in words:
                raise InputError(f"the prompt {name} has a wording in {code} and a table [{key}] for the same")
            words[code] = cls._read_values(table, cls.translated, f"{name} [{key}]")
        wording = cls(name=name, **values, words=words)
        for code in words:
            wording.in_language(code)
        return wording

    @classmethod
    def _read_values(cls, table: Mapping[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
        for key in table:
            check_known(key, keys, f"key in the prompt {where}:")
        hints = get_type_hints(cls)
        return {key: _read_value(key, value, hints[key], where) for key, value in table.items()}

    def in_language(self, code: str) -> Self:
        """The wording in a language that it has."""
        return replace(self, language=code, **self.words.get(code, {}))

    def choose_language(self, query: Item, documents: Sequence[Item], count: Counter[str]) -> str:
        """The language in which something is asked about a query and documents: one that the wording has.

        Fallbacks to English are counted by ISO 639-3 code: `und` where no language is known, `mul` for documents in
        several.
        """
        langs = {document.lang or "und" for document in documents}
        spoken = {"query": query.lang or "und", "document": langs.pop() if len(langs) == 1 else "mul"}
        wanted = spoken.get(self.language, self.language)
        if wanted != "eng" and wanted not in self.words:
            count[f"prompt_not_in_{wanted}"] += 1
            return "eng"
        return wanted

    def list_placeholders(self, *keys: str) -> list[str]:
        """The placeholders that texts of the wording have; `InputError` for one that is not well formed."""
        found: list[str] = []
        for key in keys:
            try:
                found += [name for _, name in _parse_template(getattr(self, key)) if name is not None]
            except ValueError as error:
                raise self._fault(f"has a faulty `{key}`: {error}") from None
        return found

    def request(self, query: Item, sees: frozenset[Modality] = frozenset({"text"}), **values: Value) -> Message:
        """The words for one query, with its media of the modalities that a judge `sees`, and further values."""
        return self.fill(
            {
                "query": show_item(query, sees, cut=False),
                "language": self._name_language(query),
                "instruction": str(query.meta.get("instruction") or self.instruction),
                **values,
            }
        )

    def fill(self, values: Mapping[str, Value]) -> Message:
        """Template and system with values in place of their placeholders."""
        parts, system = fill_template(self.template, values), fill_text(self.system, values)
        return Message(parts, system, self.answer, self.chat, self._spoken)

    def _name_language(self, query: Item) -> str:
        """The name of the query's language, in English or in the wording's own."""
        return name_language(query.lang or "eng", self._spoken)

    @property
    def _spoken(self) -> str:
        """The language of the words as they are."""
        return self.language if self.language in self.words else "eng"

    @property
    def _title(self) -> str:
        return f"{self.name} [{self.language}]" if self.language in self.words else self.name

    def _fault(self, what: str) -> InputError:
        return InputError(f"the prompt {self._title} {what}")


def show_item(item: Item, sees: frozenset[Modality], *, cut: bool = True) -> tuple[Part, ...]:
    """An item's text, and its media of the modalities that a judge `sees`; `cut` says whether the text may be cut."""
    text = (item.text or "").strip()
    media = [
        Attachment(name, content) for name, content in item.contents.items() if content is not None and name in sees
    ]
    return (Passage(text) if cut else text, *media)


def fill_template(template: str, values: Mapping[str, Value]) -> tuple[Part, ...]:
    """The template's literal text and the values in place of its placeholders; a medium is shown only once."""
    parts: list[Part] = []
    for literal, key in _parse_template(template):
        parts += [literal] if literal else []
        value = values[key] if key else ()
        for part in value if isinstance(value, tuple) else (value,):
            if not (isinstance(part, Attachment) and any(part is shown for shown in parts)):
                parts.append(part)
    return tuple(parts)


def fill_text(template: str, values: Mapping[str, Value]) -> str:
    """As `fill_template`, for values that are texts."""
    return "".join(map(str, fill_template(template, values)))


@lru_cache(maxsize=1024)
def _parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Literal text and the placeholder after it; `ValueError` on braces that do not match, `{a:b}` and `{a!b}`."""
    pieces = []
    for literal, key, form, conversion in string.Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"{{{key}}} takes no format")
        pieces.append((literal, key))
    return tuple(pieces)


def _read_value(key: str, value: Any, hint: Any, where: str) -> Any:
    """A value of a TOML file as its field has it; `InputError` for one of another type."""
    many = get_origin(hint) is tuple
    kinds, wanted = VALUE_TYPES.get(hint, ((str,), "a text"))
    if many and kinds == (str,) and isinstance(value, str):
        return _read_range(value, where)
    if isinstance(value, list) != many or any(type(each) not in kinds for each in (value if many else [value])):
        raise InputError(f"`{key}` in the prompt {where} must be {wanted}, not {value!r}")
    return tuple(value) if many else value


def _read_range(text: str, where: str) -> tuple[str, ...]:
    """`A..T` and `1..20` as the labels from one to the other."""
    first, _, last = text.partition("..")
    if all(end.isascii() and end.isdecimal() and len(end) < 4 for end in (first, last)):
        if int(first) < int(last):
            return tuple(map(str, range(int(first), int(last) + 1)))
    elif len(first) == len(last) == 1 and ("A" <= first < last <= "Z" or "a" <= first < last <= "z"):
        return tuple(map(chr, range(ord(first), ord(last) + 1)))
    raise InputError(f"labels in the prompt {where} are a list, or a range as A..T or 1..20, not {text!r}")
