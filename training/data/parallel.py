"""Cross-lingual training data from parallel documents, by the recipes that papers have named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from ...errors import InputError, check_known, list_few
from ...items import Item
from ...multilingual.collections.base import Collection
from ...multilingual.languages import fill_languages, parse_language
from ...specs import Spec, bind_options
from .base import Making
from .example import Example
from .translations import name_group

Mix = Literal["passages", "entries", "round-robin"]

# What is known of each recipe: its paper, whether documents are in several languages, whether it learns from scores.
RECIPES: Mapping[str, tuple[str, bool, bool]] = {
    "translate-train": ("Nair et al. 2022, arXiv:2201.08471", False, False),
    "translate-distill": ("Yang et al. 2024, arXiv:2401.04810", False, True),
    "mtt": ("Lawrie et al. 2023, arXiv:2209.01335", True, False),
    "mtd": ("Yang et al. 2024, arXiv:2405.00977", True, True),
}


@dataclass(frozen=True)
class ParallelDocuments:
    """Documents and their translations: `groups` has the name of a document's translations by its id, `held` them by
    that name and their language."""

    groups: Mapping[str, str]
    held: Mapping[tuple[str, str], Item]

    @classmethod
    def read(
        cls, collections: Sequence[Collection], by: str, examples: Iterable[Example], langs: Iterable[str]
    ) -> ParallelDocuments:
        """The translations of all documents of the examples in some languages.

        They are documents with the same ids (`by` is empty), with ids that differ in the language (`id`), or with the
        same value of that key of meta (as the source `translations`). Reads examples once and the collections twice;
        what is held are the translations. `InputError` where a language has none of them.
        """
        wanted = {document.id for example in examples for document in example.documents}
        groups = dict(zip(wanted, wanted, strict=True)) if not by else {}
        if by:
            for document in _read_all(collections):
                if document.id in wanted and (name := name_group(document, by)):
                    groups[document.id] = name
        names, codes = set(groups.values()), set(langs)
        held: dict[tuple[str, str], Item] = {}
        for document in _read_all(collections):
            if document.lang in codes and (name := name_group(document, by) if by else document.id) in names:
                held.setdefault((name, str(document.lang)), document)
        there = {lang for _, lang in held}
        if lacking := sorted(codes - there):
            told = f"by={by}" if by else "the same id"
            raise InputError(
                f"no document of the examples has a translation in {', '.join(lacking)} ({told}) in "
                f"{list_few(collection.name for collection in collections)}"
            )
        return cls(groups, held)

    def find(self, document: Item, lang: str) -> Item | None:
        """The document in a language, itself where it is in that; None where there is none."""
        if document.lang == lang:
            return document
        return self.held.get((self.groups.get(document.id, ""), lang))


@dataclass(frozen=True)
class LanguageRecipe:
    """How examples come to have their documents in other languages `to`; queries stay as they are.

    `translate-train` (ColBERT-X): all in one language. `translate-distill`: the same with a teacher's scores, which it
    gave to the query and the documents as they were. `mtt` (multilingual translate-train) and `mtd` (multilingual
    translate-distill): in several, `mix`ed within an example (`passages`: a language drawn for each document), between
    examples (`entries`: one for each example), or an example once in each (`round-robin`).
    """

    name: str
    to: tuple[str, ...]
    mix: Mix = "passages"

    @classmethod
    def parse(cls, text: str) -> LanguageRecipe:
        """`translate-train?to=rus`, `mtt?to=rus,zho&mix=entries`; `InputError` says what is wrong with it."""
        spec = Spec.parse(text)
        check_known(spec.family, RECIPES, "recipe for languages")
        options = bind_options(spec, _settings)
        if "to" not in options:
            raise InputError(f"{text} does not say in which language: {spec.family}?to=rus")
        to = tuple(dict.fromkeys(map(parse_language, str(options.pop("to")).split(","))))
        several = RECIPES[spec.family][1]
        if several != (len(to) > 1):
            other = {"mtt": "translate-train", "mtd": "translate-distill"}
            other |= {one: many for many, one in other.items()}
            is_for = "two languages or more" if several else "one language"
            raise InputError(f"{spec.family} is for {is_for}, and {text} has {len(to)}: see {other[spec.family]}")
        if "mix" in options and not several:
            raise InputError(f"{text}: with one language there is nothing to mix")
        return cls(spec.family, to, **options)  # type: ignore[arg-type]

    @property
    def scored(self) -> bool:
        """Whether it learns from a teacher's scores."""
        return RECIPES[self.name][2]

    def describe(self) -> dict[str, Any]:
        """As the card has it."""
        mix = {"mix": self.mix} if len(self.to) > 1 else {}
        return {"recipe": self.name, "paper": RECIPES[self.name][0], "to": list(self.to), **mix}

    def apply(self, examples: Iterable[Example], parallel: ParallelDocuments, making: Making) -> Iterator[Example]:
        """The examples in their new languages, streamed; `making` draws and counts.

        A document that has no translation is left out, and an example without a positive then. `InputError` for an
        example without scores where the recipe learns from them.
        """
        for example in examples:
            if self.scored and not example.scores:
                raise InputError(
                    f"the query {example.query.id!r} has no scores, from which {self.name} learns: add --score"
                )
            turned = (self._turn(example, langs, parallel, making) for langs in self._choose(example, making))
            made = list(islice(filter(None, turned), len(self.to) if self.mix == "round-robin" else 1))
            making.count["without_translation"] += not made
            yield from made

    def _choose(self, example: Example, making: Making) -> Iterator[list[tuple[str, ...]]]:
        """For each example to be made, or tried, the languages of each document, the first that is there is taken."""
        documents = example.documents
        if len(self.to) > 1 and self.mix == "passages":
            yield [self._rotate(making.draw("language", example.query.id, document.id)) for document in documents]
            return
        order = self.to if self.mix == "round-robin" else self._rotate(making.draw("language", example.query.id))
        for lang in order:
            yield [(lang,)] * len(documents)

    def _rotate(self, place: float) -> tuple[str, ...]:
        start = int(place * len(self.to))
        return (*self.to[start:], *self.to[:start])

    def _turn(
        self, example: Example, langs: Sequence[Sequence[str]], parallel: ParallelDocuments, making: Making
    ) -> Example | None:
        found = [
            next((item for lang in some if (item := parallel.find(document, lang)) is not None), None)
            for document, some in zip(example.documents, langs, strict=True)
        ]
        cut = len(example.positives)
        positives = _drop_repeated(found[:cut])
        if not positives:
            return None
        taken = {found[n].id for n in positives}  # type: ignore[union-attr]
        negatives = [n for n in _drop_repeated(found[cut:], cut) if found[n].id not in taken]  # type: ignore[union-attr]
        kept = [*positives, *negatives]
        making.count["documents_without_translation"] += sum(item is None for item in found)
        scores = tuple(example.scores[n] for n in kept) if self.scored else ()
        items = [item for n in kept if (item := found[n]) is not None]
        return Example(example.query, tuple(items[: len(positives)]), tuple(items[len(positives) :]), scores)


def _settings(*, to: str, mix: Mix = "passages") -> None:
    """The options of a recipe."""


def _drop_repeated(items: Sequence[Item | None], start: int = 0) -> list[int]:
    """The places, counted from `start`, of items that are there, each id once.

    Two documents may be translations of each other: then they become the same one.
    """
    first: dict[str, int] = {}
    for place, item in enumerate(items, start):
        if item is not None:
            first.setdefault(item.id, place)
    return list(first.values())


def _read_all(collections: Sequence[Collection]) -> Iterator[Item]:
    for collection in collections:
        yield from fill_languages(collection.docs())
