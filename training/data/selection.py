"""Which documents get queries: a sample by language and length, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappush, heapreplace
from typing import Any

from ...errors import InputError, check_at_least, list_few
from ...items import Item, SeenIds, hash_text
from ...multilingual.languages import measure_text


@dataclass(frozen=True)
class Choice:
    """The chosen documents: whether an id is among them (`ids`), and how many there were and are, by language.

    `content` is a hash of the texts of all documents that were read, in whatever order.
    """

    ids: Container[str]
    read: int
    langs: Mapping[str, int]
    passed_over: Mapping[str, int]
    content: str

    def describe(self) -> dict[str, Any]:
        """As the card has it."""
        return {
            "read": self.read, "chosen": self.number, "langs": dict(self.langs), "passed_over": dict(self.passed_over),
            "content": self.content,
        }  # fmt: skip

    @property
    def number(self) -> int:
        return sum(self.langs.values())


@dataclass(frozen=True)
class Selection:
    """At most `documents` of those with text, in one of `langs` (none: any), of a length between two bounds.

    Lengths are in letters as `measure_text` counts. With `balance` each language gets the same number, and what a
    language lacks goes to the others. Which are taken depends on seed and id alone, not on the order.
    """

    documents: int | None = None
    langs: tuple[str, ...] = ()
    shortest: int = 1
    longest: int | None = None
    balance: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, documents=self.documents, shortest=self.shortest, longest=self.longest)
        if self.longest is not None and self.longest < self.shortest:
            raise InputError(f"no document can have {self.shortest} letters at least, and {self.longest} at most")
        if self.balance and self.documents is None:
            raise InputError("languages are balanced in a sample: say of how many documents (--documents)")

    def choose(self, documents: Iterable[Item], name: str) -> Choice:
        """Read all documents of the collection `name` once; `InputError` where none is left, saying why."""
        heaps: dict[str, list[tuple[int, str]]] = {}
        there: Counter[str] = Counter()
        passed_over: Counter[str] = Counter()
        taken = SeenIds()
        langs: Counter[str] = Counter()
        content = 0
        for document in documents:
            content ^= hash_text(f"{document.id}\0{document.lang}\0{document.text}")
            lang = document.lang or ""
            there[lang] += 1
            if fault := self._find_fault(document):
                passed_over[fault] += 1
            elif self.documents is None:
                taken.add(document.id)
                langs[lang] += 1
            else:
                heap = heaps.setdefault(lang if self.balance else "", [])
                entry = (-hash_text(f"{self.seed}\0{document.id}"), f"{lang}\0{document.id}")
                if len(heap) < self.documents:
                    heappush(heap, entry)
                elif entry > heap[0]:
                    heapreplace(heap, entry)
        shares = share_evenly(self.documents or 0, {lang: len(heap) for lang, heap in heaps.items()})
        for group, heap in heaps.items():
            for _, named in sorted(heap, reverse=True)[: shares[group]]:
                lang, _, id = named.partition("\0")
                taken.add(id)
                langs[lang] += 1
        if not langs:
            raise self._explain(name, there, passed_over)
        return Choice(
            taken, there.total(), dict(sorted(langs.items())), dict(sorted(passed_over.items())), f"{content:016x}"
        )

    def _find_fault(self, document: Item) -> str:
        if "text" not in document.modalities:
            return "without_text"
        if self.langs and document.lang not in self.langs:
            return "other_language"
        length = measure_text(document.text or "")
        if length < self.shortest:
            return "too_short"
        return "too_long" if self.longest is not None and length > self.longest else ""

    def _explain(self, name: str, there: Counter[str], passed_over: Counter[str]) -> InputError:
        if not there:
            return InputError(f"{name} has no documents")
        if passed_over["other_language"] == there.total():
            held = list_few([lang or "no known language" for lang, _ in there.most_common()], 8)
            return InputError(f"{name} has no documents in {', '.join(self.langs)}, only in {held}")
        why = ", ".join(f"{number} {fault.replace('_', ' ')}" for fault, number in passed_over.most_common())
        return InputError(f"none of the {there.total()} documents of {name} can get a query: {why}")


def share_evenly(number: int, held: Mapping[str, int]) -> dict[str, int]:
    """How many each group gives of what it holds, so that all give the same as far as they can: `number` in all."""
    shares = dict.fromkeys(held, 0)
    left = min(number, sum(held.values()))
    while left:
        able = sorted(group for group in held if shares[group] < held[group])
        each = max(left // len(able), 1)
        for group in able:
            given = min(each, held[group] - shares[group], left)
            shares[group] += given
            left -= given
    return shares
