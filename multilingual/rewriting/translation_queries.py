"""Queries translated into several languages at once, each a probe that is searched for in its own language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...errors import InputError, list_few
from ...items import Item
from ...pipeline import Stage
from ...runs import Probe, Run
from ..languages import fill_languages
from .kept_texts import keep_translations
from .plan import Langs, choose_languages, parse_languages
from .translation import Translator, has_text, parse_translation, parse_translator, translate_items


@dataclass(frozen=True)
class TranslateQueries(Stage):
    """Each query in each of `languages` (ISO 639-3): these are searched for in its place, a probe a language.

    A query that is in one of them already stands for itself there. One for which there are no words in any language
    stays as it is. Ids, hits and the queries themselves stay, and what is counted is that of `Translate`, over all
    languages. `InputError` for a language that the translator does not know.
    """

    translator: Translator
    languages: tuple[str, ...]

    def __post_init__(self) -> None:
        known = self.translator.targets
        if known is not None and (lacking := [code for code in self.languages if code not in known]):
            raise InputError(
                f"{self.translator.name} does not translate into {list_few(lacking)}, only into "
                f"{list_few(sorted(known), 12)}"
            )

    def apply(self, run: Run, count: Counter[str]) -> Run:
        probes: dict[str, list[Probe]] = {query.id: [] for query in run.queries}
        found = list(fill_languages(run.queries))
        with keep_translations(self.translator, count) as translator:
            for code in self.languages:
                answers = translate_items(run.queries, translator, code, count)
                for query, own, answer in zip(run.queries, found, answers, strict=True):
                    if answer.parts:
                        text = Item(f"{query.id}/{code}", answer.parts[0], lang=code)
                        probes[query.id].append(Probe(text, "query"))
                    elif own.lang == code and has_text(query):
                        probes[query.id].append(Probe(query, "query"))
        return replace(run, probes={**run.probes, **{id: tuple(each) for id, each in probes.items() if each}})

    @property
    def models(self) -> Mapping[str, str]:
        return {self.translator.name: self.translator.revision}

    def __str__(self) -> str:
        return f"translate({self.translator.name}, to={','.join(self.languages)})"


def parse_query_translation(text: str, *, device: str, trust_remote_code: bool) -> Callable[[Langs], Stage]:
    """What loads the stage of a SPEC, given the languages of the documents: `translate@FAMILY:CHECKPOINT?to=`.

    One language after `to=` takes the query's place (`Translate`); several with commas between, or `document`, are
    searched for together. `InputError` as `parse_translation`.
    """
    to, load = parse_translator(text, device, trust_remote_code)
    if to != "document" and "," not in to:
        single = parse_translation(text, device=device, trust_remote_code=trust_remote_code)
        return lambda langs: single()
    wanted = parse_languages(to)
    return lambda langs: TranslateQueries(load(), choose_languages(wanted, langs, text))
