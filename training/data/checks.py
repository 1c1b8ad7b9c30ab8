"""What a draft must pass before a model is asked: language, length, copies, held-out topics, duplicates."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

from ...errors import InputError
from ...items import Item, hash_text
from ...multilingual.languages import measure_text
from ...multilingual.rewriting.reading import is_in
from .base import Draft

LEAST, MOST = 4, 400  # letters of a query, as `measure_text` counts
LONG_COPY = 30  # letters from which a common substring is a copy: about five words, or ten Chinese characters
GRAM = 3  # characters of the pieces by which texts are compared
NEAR = 0.7  # from this share of common pieces on (Jaccard), two queries of one document are duplicates
NEAR_TOPIC = 0.8  # and a query is that of a held-out topic


def normalise(text: str) -> str:
    """Letters, marks and digits of a text in one form (NFKC, case folded), its words apart by one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(each if unicodedata.category(each)[0] in "LMN" else " " for each in folded).split())


def list_pieces(text: str) -> frozenset[str]:
    """The overlapping pieces of a normalised text, with its ends marked."""
    marked = f" {text} "
    return frozenset(marked[n : n + GRAM] for n in range(len(marked) - GRAM + 1))


class KnownTexts:
    """Texts, by which another can be found to be the same or nearly so: the Jaccard measure of their pieces."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._pieces: list[frozenset[str]] = []
        self._held: defaultdict[str, list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, text: str) -> None:
        """Add a text as it is."""
        pieces = list_pieces(normalise(text))
        for piece in pieces:
            self._held[piece].append(len(self._pieces))
        self._pieces.append(pieces)

    def near(self, text: str) -> float:
        """The greatest likeness of a text to one that is known, 0 to 1."""
        pieces = list_pieces(normalise(text))
        common = Counter(number for piece in pieces for number in self._held.get(piece, ()))
        return max(
            (shared / (len(pieces) + len(self._pieces[number]) - shared) for number, shared in common.items()),
            default=0.0,
        )


def find_copied_share(query: str, document: str) -> float:
    """The share of a query's longest substring that the document has too, if that is long enough to be a copy; else 0.

    Compared as `normalise` gives them; long is what has `LONG_COPY` letters as `measure_text` counts.
    """
    query, document = normalise(query), normalise(document)
    longest, begins = 0, 0
    for start in range(len(query)):
        while start + longest < len(query) and query[start : start + longest + 1] in document:
            longest, begins = longest + 1, start
    copied = query[begins : begins + longest]
    return longest / len(query) if query and measure_text(copied) >= LONG_COPY else 0.0


class Checks:
    """Why a draft is left out: the reasons by which the card counts, in the order in which they are looked for.

    What its source found (`Draft.fault`: `empty`, `refused`, `cut`, ...), `short` and `long` (fewer than 4 letters,
    more than 400; a Chinese character counts as three), `language` (it is clearly in another than it was to be),
    `copied` (a substring of 30 letters or more that the document has too makes more than `most_copied` of it; not of
    sources whose queries are the documents' own words), and `held_out` (it is one of the collection's topics, or nearly
    so).
    """

    def __init__(self, *, copies: bool, most_copied: float = 0.6, held_out: Iterable[str] = ()) -> None:
        if not 0 <= most_copied <= 1:
            raise InputError(f"the share of a query that may be copied is from 0 to 1, not {most_copied:g}")
        self.copies, self.most_copied = copies, most_copied
        self.held_out = KnownTexts(held_out)

    def find_fault(self, document: Item, draft: Draft) -> str:
        """The reason, or an empty text for a draft that passes."""
        if draft.fault:
            return draft.fault
        length = measure_text("".join(normalise(draft.text).split()))
        if not LEAST <= length <= MOST:
            return "short" if length < LEAST else "long"
        if draft.lang is not None and not is_in(draft.text, draft.lang):
            return "language"
        if not self.copies and find_copied_share(draft.text, document.text or "") > self.most_copied:
            return "copied"
        if self.held_out.near(draft.text) >= NEAR_TOPIC:
            return "held_out"
        return ""


class Duplicates:
    """Which queries are there already: of the same document nearly the same, of any the same words in any order.

    What is added stays: 8 bytes of its hash and its topic's id.
    """

    def __init__(self) -> None:
        self._topics: dict[int, str] = {}
        self._of: str | None = None
        self._own = KnownTexts()

    def find(self, document: str, text: str) -> str | None:
        """The id of the topic with the same words; empty for what is nearly a query of the same document, else None.

        Documents come one after the other.
        """
        if document != self._of:
            self._of, self._own = document, KnownTexts()
        if (known := self._topics.get(_hash_words(text))) is not None:
            return known
        return "" if self._own.near(text) >= NEAR else None

    def add(self, topic: str, text: str) -> None:
        """Take a query of the document that was last looked for."""
        self._topics[_hash_words(text)] = topic
        self._own.add(text)


def _hash_words(text: str) -> int:
    return hash_text(" ".join(sorted(normalise(text).split())))
