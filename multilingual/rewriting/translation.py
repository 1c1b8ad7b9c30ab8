"""Translation of queries: the stage that translates, the stage that reads translations from a file, and translators."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from ...checkpoints.sharing import load_shared
from ...errors import InputError, list_few, unknown_name
from ...files import read_bytes
from ...items import Item
from ...pipeline import Stage
from ...rows.fields import FileRow
from ...runs import Run
from ...specs import Spec, distribute_options
from ..collections.published import read_rows
from ..judges import find_judge
from ..languages import fill_languages, parse_language
from .kept_texts import keep_translations

EXAMPLE = "translate@hf:facebook/nllb-200-distilled-600M?to=rus"


class Translator(Protocol):
    """A model that translates.

    `sources` and `targets` are the languages (ISO 639-3) that it knows, None where they are not known: any may be
    tried. `usage` counts prompt_tokens, generated_tokens and whatever went wrong by kind (`cut_answers`, `empty`,
    ...); it only grows. `appetite` is how many characters it likes to be handed at once.
    """

    name: str
    revision: str
    sources: frozenset[str] | None
    targets: frozenset[str] | None
    appetite: int

    @property
    def usage(self) -> Counter[str]: ...

    @property
    def fingerprint(self) -> str:
        """Everything that changes the translations: model, revision, precision, beams, prompt."""
        ...

    def translate(self, texts: Sequence[str], sources: Sequence[str | None], to: str) -> list[str]:
        """Each text in the language `to`; empty where there is no translation.

        `sources` are the texts' languages, None where not known. Languages are among `sources` and `targets`.
        """
        ...


@dataclass(frozen=True)
class Translate(Stage):
    """Queries in the language `to`, translated by a model; ids, images, meta and hits are kept.

    A query whose language is not given is identified. Queries in `to` already, those without text, and those for
    which the translator has no words stay as they are, and are counted (`already`, `without_text`, `untranslated`).
    `InputError` for a language that the translator does not know.
    """

    translator: Translator
    to: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", parse_language(self.to))
        known = self.translator.targets
        if known is not None and self.to not in known:
            raise InputError(
                f"{self.translator.name} does not translate into {self.to}, only into {list_few(sorted(known), 12)}"
            )

    def apply(self, run: Run, count: Counter[str]) -> Run:
        with keep_translations(self.translator, count) as translator:
            answers = translate_items(run.queries, translator, self.to, count)
        queries = [
            replace(query, text=answer.parts[0], lang=self.to) if answer.parts else query
            for query, answer in zip(run.queries, answers, strict=True)
        ]
        return replace(run, queries=tuple(queries))

    @property
    def models(self) -> Mapping[str, str]:
        return {self.translator.name: self.translator.revision}

    def __str__(self) -> str:
        return f"translate({self.translator.name}, to={self.to})"


@dataclass(frozen=True)
class Translated(Stage):
    """Queries in the words that a file has for them: JSON lines `id, text, lang`, or lines `id<TAB>text`.

    The latter are in `.tsv` and `.txt` files; both may be `.gz`, and `.parquet` has columns of those names. `to` is the
    language of the translations; it may be left out where every line gives one `lang`, and chooses where a file has
    several. Queries without text, or in that language already, may be missing from the file; another that is missing
    is an `InputError`, as are lines that cannot be read. What counts is the file's content, not where it lies.
    """

    path: Path = field(compare=False)
    to: str | None = None
    sha256: str = field(init=False)
    texts: Mapping[str, str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        path = Path(self.path)
        wanted = None if self.to is None else parse_language(self.to)
        try:
            content = read_bytes(path)
            content = gzip.decompress(content) if path.suffix == ".gz" else content
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise InputError(f"cannot read the translations {path}: {error}") from None
        to, texts = _from_file(path, wanted)
        digest = hashlib.sha256(content).hexdigest()
        for name, value in {"path": path, "to": to, "sha256": digest, "texts": texts}.items():
            object.__setattr__(self, name, value)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        lacking = []
        queries = []
        for query, found in zip(run.queries, fill_languages(run.queries), strict=True):
            if (text := self.texts.get(query.id)) is not None:
                count["translated"] += 1
                query = replace(query, text=text, lang=self.to)
            elif not has_text(query):
                count["without_text"] += 1
            elif found.lang == self.to:
                count["already"] += 1
            else:
                lacking.append(query.id)
            queries.append(query)
        if lacking:
            raise InputError(
                f"{self.path} lacks the translations of {len(lacking)} of {len(queries)} queries: {list_few(lacking)}"
            )
        return replace(run, queries=tuple(queries))

    def __str__(self) -> str:
        return f"translated({self.path.name}, to={self.to})"


def take_text(item: Item) -> tuple[str, ...]:
    """An item's text as the only part of it."""
    return (item.text or "",)


class Translation(NamedTuple):
    """What became of an item's text: its parts in the new language (none: it stays as it is), and the old language."""

    parts: tuple[str, ...]
    source: str | None


def translate_items(
    items: Sequence[Item],
    translator: Translator,
    to: str,
    count: Counter[str],
    split: Callable[[Item], tuple[str, ...]] = take_text,
) -> list[Translation]:
    """The texts of items in the language `to`, as `split` cuts them up (a title apart from its text).

    `InputError` for an item that declares a language which the translator does not know; where it was only
    identified, it is taken for not known.
    """
    known = translator.sources
    if known is not None:
        declared = [(item.id, parse_language(item.lang)) for item in items if item.lang and has_text(item)]
        if foreign := [f"{id} ({lang})" for id, lang in declared if lang not in known | {to}]:
            raise InputError(
                f"{translator.name} translates from {list_few(sorted(known), 12)} only, and not {list_few(foreign)}"
            )
    langs = [item.lang and parse_language(item.lang) for item in fill_languages(items)]
    parts = [split(item) if has_text(item) and lang != to else () for item, lang in zip(items, langs, strict=True)]
    readable = [lang if known is None or lang in known else None for lang in langs]
    sources = [lang for lang, some in zip(readable, parts, strict=True) for _ in some]
    before = Counter(translator.usage)
    answers = iter(translator.translate([text for some in parts for text in some], sources, to))
    count.update(translator.usage - before)
    translations = []
    for item, lang, some in zip(items, langs, parts, strict=True):
        new = [next(answers) for _ in some]
        if not some:
            count["already" if has_text(item) else "without_text"] += 1
        else:
            count["translated" if any(new) else "untranslated"] += 1
        if any(new) and "" in new:
            count["untranslated_parts"] += new.count("")
        kept = tuple(words or old for words, old in zip(new, some, strict=True)) if any(new) else ()
        translations.append(Translation(kept, lang))
    return translations


def has_text(item: Item) -> bool:
    return "text" in item.modalities


def parse_translation(
    text: str, *, to: str | None = None, device: str = "auto", trust_remote_code: bool = False
) -> Callable[[], Translate]:
    """What loads the stage that a SPEC names: `translate@FAMILY:CHECKPOINT?to=rus[&key=value&...]`.

    `hf:` checkpoints that were trained to translate (OPUS-MT, NLLB, M2M100, mBART-50, MADLAD) do so; any other, and
    those of the other families of judges, are prompted. `to` may be given here instead. `InputError` for what is
    wrong or lacking, unknown options before any weights are loaded.
    """
    named, load = parse_translator(text, device, trust_remote_code)
    codes = list(dict.fromkeys(parse_language(each) for each in (named, to) if each))
    if len(codes) > 1:
        raise InputError(f"{text} translates into {codes[0]}, and {codes[1]} was asked for: name one")
    if not codes:
        raise InputError(f"{text} does not say into which language; add to=, as in {EXAMPLE}")
    return lambda: Translate(load(), codes[0])


def parse_translator(text: str, device: str, trust_remote_code: bool) -> tuple[str, Callable[[], Translator]]:
    """What a SPEC says of languages, empty for nothing, and what loads its translator; `InputError` as above."""
    method, model = text.split("@", 1) if "@" in text.partition("?")[0] else ("translate", text)
    if method != "translate":
        raise unknown_name(method, ("translate",), f"method in {text!r}; as in {EXAMPLE}:")
    factory, spec = _find_translator(Spec.parse(model), trust_remote_code)
    given = {"device": device, "trust_remote_code": trust_remote_code}
    stage, options = distribute_options(spec, text.partition("?")[0], [(_into, {}), (factory, given)])
    return _into(**stage), lambda: load_shared(factory, spec.checkpoint, options)  # type: ignore[arg-type]


def load_translation(
    text: str, *, to: str | None = None, device: str = "auto", trust_remote_code: bool = False
) -> Translate:
    """The stage that a SPEC names (see `parse_translation`), its model loaded."""
    return parse_translation(text, to=to, device=device, trust_remote_code=trust_remote_code)()


def _into(*, to: str = "") -> str:
    return to


def _find_translator(spec: Spec, trust_remote_code: bool) -> tuple[Callable[..., Translator], Spec]:
    """What opens the translator, a trained one or a judge to be prompted, and the SPEC as it is meant for that."""
    factory, spec = find_judge(spec)
    if spec.family == "hf":
        from .translation_models import is_trained, open_translator

        if is_trained(spec.checkpoint, spec.options.get("revision"), trust_remote_code):
            return open_translator, spec
    from .translation_prompt import prompt_judge

    return prompt_judge(factory), spec


def _from_file(path: Path, to: str | None) -> tuple[str, dict[str, str]]:
    """The language of a file's translations, and the texts by id; `InputError` names file and line."""
    texts: dict[str, dict[str, str]] = {}
    for place, row in read_rows([path]):
        try:
            record = FileRow.parse(row) if type(row) is bytes else row
            id = record.read_id()
            text = record.require_text("text", "the translation of", id).strip()
            lang = record.read_lang() or to
            if lang is None:
                raise InputError(f"the translation of {id!r} has no language; give it with to=")
            if id in (held := texts.setdefault(lang, {})):
                raise InputError(f"a second translation of {id!r} into {lang}")
            held[id] = text
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    if to is None and len(texts) > 1:
        raise InputError(f"{path} has translations into {list_few(sorted(texts), 8)}: choose with to=")
    to = to or next(iter(texts), "")
    if to not in texts:
        only = f" into {to}, only into {list_few(sorted(texts), 8)}" if texts else ""
        raise InputError(f"{path} has no translations{only}")
    return to, texts[to]
