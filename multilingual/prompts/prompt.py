"""A `Prompt` words a comparison of documents for a query and makes scores of the answer."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ...errors import InputError, check_known, unknown_name
from ...items import Item, Modality
from ..judges.answers import label_in, ranking_in
from ..judges.messages import Chat, Message, Part, Passage, Picture, Seam
from ..languages import name_language

if TYPE_CHECKING:
    from ..judges import Judge

Comparison = tuple[Item, Sequence[Item]]  # a query and the documents that are compared for it
Asks = Literal["choose", "likelihood", "generate", "score"]
Orders = Literal["given", "both"]

PLACEHOLDERS = {
    "template": ("query", "passage", "passages", "language", "instruction", "count", "last", "seam"),
    "each": ("passage", "label"),
    "target": ("query", "language"),
    "system": ("language", "instruction", "count", "last"),
}
THOUGHT = "</think>"


@dataclass(frozen=True)
class Prompt:
    """A wording of "which of these is more relevant to the query?", and how the answer becomes scores.

    `template` is what the user says, with {query}, {language} (the query's, in English or in the prompt's own),
    {instruction}, and either {passage}, for one document at a time, or {passages}, for up to as many as there are
    `labels`, each written by `each` with {label} and {passage}; {count} is how many, {last} the last one's label.
    {seam} parts the two inputs of a cross-encoder. `answer` is how the model's answer is begun for it, and `closing`
    what follows a label in it.

    `asks` says what of the judge: `choose` one of the labels by its log-probability, the `likelihood` of `target`
    (mean log-probability per token), to `generate` text, or the `score` of a relevance head. For one passage, labels
    with `values` give the expected value; labels without, the log-odds of the first against the rest. For several,
    the log-probability of each one's label, or a generated order of labels. `orders="both"` asks about the passages
    forwards and backwards and takes the mean, which cancels a preference for a place. `think` opens a reasoning of up
    to `thinking` tokens before the answer is chosen or generated; of one passage, a generated answer has as many.

    `language` is that of the prompt: a code that it has a translation for (`words`), `query` or `document`.
    `sort` is the sorter that goes with it, `paper` what it follows.
    """

    name: str
    asks: Asks
    template: str
    paper: str = ""
    sort: str = "pointwise"
    each: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    closing: str = ""
    target: str = ""
    system: str = ""
    answer: str = ""
    think: str = ""
    thinking: int = 1024
    instruction: str = ""
    orders: Orders = "given"
    chat: Chat = "auto"
    language: str = "eng"
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """`InputError` naming the prompt and its fault."""
        for key, allowed in (("asks", Asks), ("orders", Orders), ("chat", Chat)):
            if getattr(self, key) not in get_args(allowed):
                raise unknown_name(
                    getattr(self, key), get_args(allowed), f"`{key}` in the prompt {self.name}:"
                )
        used = self._placeholders()
        if "query" not in used["template"] + used["target"]:
            raise self._fault("lacks the placeholder {query}")
        if ("passage" in used["template"]) == ("passages" in used["template"]):
            raise self._fault("lacks the placeholder {passage}, or {passages}; it needs one of them")
        if self.asks == "likelihood" and not self.target:
            raise self._fault("asks for a likelihood and has no target")
        if (self.asks == "choose" or "passages" in used["template"]) and len(self.labels) < 2:
            raise self._fault("has fewer than two labels to choose from")
        if len(set(self.labels)) < len(self.labels):
            raise self._fault("has a label twice")
        if not all(label.strip() for label in self.labels):
            raise self._fault("has an empty label")
        if self.values and len(self.values) != len(self.labels):
            raise self._fault(f"has {len(self.values)} values for {len(self.labels)} labels")
        if self.instruction and "instruction" not in used["template"] + used["system"]:
            raise self._fault("has no place for an instruction: no {instruction} in `template` or `system`")
        if self.orders == "both" and "passages" not in used["template"]:
            raise self._fault("shows one {passage}, which has no orders: orders=both needs {passages}")
        if "passages" in used["template"]:
            if self.asks not in ("choose", "generate"):
                raise self._fault(f"asks for a {self.asks}, which takes one {{passage}}, not {{passages}}")
            if not {"passage", "label"} <= set(used["each"]):
                raise self._fault("needs `each` with {label} and {passage}")
        elif self.asks == "generate" and not self.labels:
            raise self._fault("asks to generate and has no labels to look for")
        if self.think and self.asks not in ("choose", "generate"):
            raise self._fault(f"can think only before it chooses or generates, and asks for a {self.asks}")
        if self.thinking < 1:
            raise self._fault(f"thinks for at least 1 token, not {self.thinking}")
        if self.language not in ("eng", "query", "document") and self.language not in self.words:
            raise unknown_name(
                self.language,
                ("eng", "query", "document", *self.words),
                f"language of the prompt {self.name}:",
            )

    @property
    def most(self) -> int:
        """How many documents it can show at once."""
        return len(self.labels) if "passages" in _names_in(self.template) else 1

    def check_judge(self, judge: Judge) -> None:
        """`InputError` where the judge cannot answer this prompt."""
        if self.asks not in judge.can:
            from ..judges import refuse

            raise refuse(judge, self.asks)
        if self.think and "generate" not in judge.can:
            raise InputError(f"{judge.name} cannot generate, and the prompt {self.name} lets it think first")
        if self.chat == "always" and not judge.chats:
            raise InputError(
                f"{judge.name} has no chat template, and the prompt {self.name} needs one; take an instruction-tuned "
                f"model, or set chat=never"
            )

    def score(
        self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str] | None = None
    ) -> list[np.ndarray]:
        """For each comparison one finite score a document, float64, higher is better.

        What could not be read in the answers, and wordings that fell back to English, are added to `count` by kind.
        """
        count = Counter() if count is None else count
        scores: list[np.ndarray] = [np.empty(0)] * len(comparisons)
        for wording, places in self._by_language(comparisons, count):
            mine = [comparisons[place] for place in places]
            read = wording._of_several if wording.most > 1 else wording._of_one
            for place, found in zip(places, read(judge, mine, count), strict=True):
                scores[place] = found
        return scores

    def grades(
        self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]
    ) -> list[np.ndarray]:
        """For each comparison the likeliest of `values` a document, float64; nan where the answer was unreadable."""
        if not self.values or self.most > 1:
            raise self._fault("gives no grades: it needs `values` for its labels and one {passage}")
        grades: list[np.ndarray] = [np.empty(0)] * len(comparisons)
        for wording, places in self._by_language(comparisons, count):
            mine = [comparisons[place] for place in places]
            shares = wording._shares(judge, _pairs(mine), count)
            found = np.array([wording.values[int(row.argmax())] if row.any() else np.nan for row in shares])
            for place, part in zip(places, _split(found, mine), strict=True):
                grades[place] = part
        return grades

    def message(
        self, query: Item, documents: Sequence[Item], sees: frozenset[Modality] = frozenset({"text"})
    ) -> Message:
        """The prompt worded for one comparison; pictures are in it if `sees` has images."""
        language = (
            name_language(query.lang, self._said_in) if query.lang else name_language("eng", self._said_in)
        )
        if len(documents) > self.most:
            raise self._fault(f"shows at most {self.most} passages at once, not {len(documents)}")
        values: dict[str, Part | tuple[Part, ...]] = {
            "query": _shown(query, sees, cut=False),
            "language": language,
            "instruction": str(query.meta.get("instruction") or self.instruction),
            "count": str(len(documents)),
            "last": self.labels[len(documents) - 1] if self.labels else "",
            "seam": Seam.SEAM,
        }
        if self.most == 1:
            values["passage"] = _shown(documents[0], sees)
        else:
            values["passages"] = tuple(
                part
                for label, document in zip(self.labels, documents, strict=False)
                for part in _filled(self.each, {"label": label, "passage": _shown(document, sees)})
            )
        return Message(
            _filled(self.template, values),
            "".join(str(part) for part in _filled(self.system, values)),
            self.think or self.answer,
            self.chat,
        )

    def _of_one(
        self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]
    ) -> list[np.ndarray]:
        pairs = _pairs(comparisons)
        if self.asks in ("likelihood", "score"):
            messages = [self.message(query, [document], judge.modalities) for query, document in pairs]
            if self.asks == "score":
                return _split(judge.score(messages), comparisons)
            targets = [self._target(query) for query, _ in pairs]
            return _split(judge.likelihood(messages, targets), comparisons)
        shares = self._shares(judge, pairs, count)
        if self.values:
            # An answer that cannot be read counts as the lowest grade: it did not say relevant.
            found = shares @ np.array(self.values) + (1 - shares.sum(axis=1)) * min(self.values)
        else:
            # The smallest probability that float64 tells from 0 stands for "not said".
            sure = np.log(np.maximum(shares, 1e-300))
            found = sure[:, 0] - np.logaddexp.reduce(sure[:, 1:], axis=1)
        return _split(found, comparisons)

    def _of_several(
        self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]
    ) -> list[np.ndarray]:
        views: list[tuple[int, list[int]]] = []
        for n, (_, group) in enumerate(comparisons):
            given = list(range(len(group)))
            views += [(n, given), (n, given[::-1])] if self.orders == "both" else [(n, given)]
        messages = [
            self.message(comparisons[n][0], [comparisons[n][1][place] for place in order], judge.modalities)
            for n, order in views
        ]
        sizes = [len(order) for _, order in views]
        scores = [np.zeros(len(group)) for _, group in comparisons]
        for (n, order), said in zip(views, self._said(judge, messages, sizes, count), strict=True):
            scores[n][order] += said
        return [each / (2 if self.orders == "both" else 1) for each in scores]

    def _said(
        self, judge: Judge, messages: Sequence[Message], sizes: Sequence[int], count: Counter[str]
    ) -> Iterator[np.ndarray]:
        """One score a passage for each message."""
        if self.asks == "generate":
            room = 16 + 6 * max(sizes)  # tokens: brackets, digits and signs of every label
            answers = judge.generate(self._thought(judge, messages, count), max_new_tokens=room)
            for said, size in zip(answers, sizes, strict=True):
                order = ranking_in(said.text, self.labels[:size], count)
                yield -np.argsort(order).astype(np.float64)
            return
        labels = [label + self.closing for label in self.labels[: max(sizes)]]
        for row, size in zip(judge.choose(self._thought(judge, messages, count), labels), sizes, strict=True):
            yield row[:size] - np.logaddexp.reduce(row[:size])

    def _shares(self, judge: Judge, pairs: Sequence[tuple[Item, Item]], count: Counter[str]) -> np.ndarray:
        """The probability of each label, [n, labels]; a row of zeros where a generated answer has none."""
        messages = [self.message(query, [document], judge.modalities) for query, document in pairs]
        if self.asks == "choose":
            labels = [label + self.closing for label in self.labels]
            return np.exp(judge.choose(self._thought(judge, messages, count), labels))
        shares = np.zeros((len(messages), len(self.labels)))
        answers = judge.generate(self._thought(judge, messages, count), max_new_tokens=self.thinking)
        for row, said in zip(shares, answers, strict=True):
            found = label_in(said.text, self.labels, count, after=self.closing)
            if found is not None:
                row[found] = 1.0
        return shares

    def _thought(self, judge: Judge, messages: Sequence[Message], count: Counter[str]) -> Sequence[Message]:
        """The messages with the model's own reasoning before the answer, closed for it where it found no end."""
        if not self.think:
            return messages
        thoughts = judge.generate(messages, max_new_tokens=self.thinking, stop=[THOUGHT])
        if cut := sum(not each.ended for each in thoughts):
            count["thoughts_cut"] += cut
        return [
            replace(message, answer=self.think + each.text.removesuffix(THOUGHT) + THOUGHT + self.answer)
            for message, each in zip(messages, thoughts, strict=True)
        ]

    def _target(self, query: Item) -> str:
        text = (query.text or "").strip()
        if not text and "query" in _names_in(self.target):
            raise self._fault(
                f"asks for the likelihood of the query's text, and the query {query.id!r} has none"
            )
        language = name_language(query.lang or "eng", self._said_in)
        parts = _filled(self.target, {"query": text, "language": language})
        return "".join(str(part) for part in parts)

    def _by_language(
        self, comparisons: Sequence[Comparison], count: Counter[str]
    ) -> Iterator[tuple[Prompt, list[int]]]:
        """The prompt in each language that is called for, and the comparisons it words.

        Fallbacks to English are counted by ISO 639-3 code: `und` where no language is known, `mul` for documents in
        several.
        """
        places: dict[str, list[int]] = {}
        for place, (query, group) in enumerate(comparisons):
            wanted = self.language
            if wanted == "query":
                wanted = query.lang or "und"
            elif wanted == "document":
                langs = {document.lang or "und" for document in group}
                wanted = langs.pop() if len(langs) == 1 else "mul"
            if wanted != "eng" and wanted not in self.words:
                count[f"prompt_not_in_{wanted}"] += 1
                wanted = "eng"
            places.setdefault(wanted, []).append(place)
        for wanted, found in places.items():
            yield self.spoken(wanted), found

    def spoken(self, language: str) -> Prompt:
        """The prompt in a language that it has."""
        if language == "eng":
            return replace(self, language="eng")
        return replace(self, language=language, **self.words[language])

    @property
    def _said_in(self) -> str:
        return self.language if self.language in self.words else "eng"

    def _placeholders(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for key, allowed in PLACEHOLDERS.items():
            try:
                found[key] = _names_in(getattr(self, key))
            except ValueError as error:
                raise self._fault(f"has a faulty `{key}`: {error}") from None
            for name in found[key]:
                check_known(name, allowed, f"placeholder in `{key}` of the prompt {self._title}:")
        return found

    @property
    def _title(self) -> str:
        return f"{self.name} [{self.language}]" if self.language in self.words else self.name

    def _fault(self, what: str) -> InputError:
        return InputError(f"the prompt {self._title} {what}")


def _pairs(comparisons: Sequence[Comparison]) -> list[tuple[Item, Item]]:
    return [(query, document) for query, group in comparisons for document in group]


def _split(values: np.ndarray, comparisons: Sequence[Comparison]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(group) for _, group in comparisons])[:-1])


def _shown(item: Item, sees: frozenset[Modality], *, cut: bool = True) -> tuple[Part, ...]:
    """An item's text and picture; a document's text may be cut, a query's never."""
    text = (item.text or "").strip()
    parts: tuple[Part, ...] = (Passage(text) if cut else text,)
    return (*parts, Picture(item.image)) if item.image is not None and "image" in sees else parts


@lru_cache(maxsize=1024)
def _parsed(template: str) -> tuple[tuple[str, str | None], ...]:
    """Literal text and the placeholder after it; `ValueError` on braces that do not match, `{a:b}` and `{a!b}`."""
    pieces = []
    for literal, key, form, conversion in string.Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"{{{key}}} takes no format")
        pieces.append((literal, key))
    return tuple(pieces)


def _names_in(template: str) -> tuple[str, ...]:
    return tuple(key for _, key in _parsed(template) if key is not None)


def _filled(template: str, values: Mapping[str, Part | tuple[Part, ...]]) -> tuple[Part, ...]:
    """The template's literal text and the values in place of its placeholders; a picture is shown only once."""
    parts: list[Part] = []
    for literal, key in _parsed(template):
        parts += [literal] if literal else []
        if key:
            value = values[key]
            parts += [
                part
                for part in (value if isinstance(value, tuple) else (value,))
                if not (isinstance(part, Picture) and any(part is shown for shown in parts))
            ]
    return tuple(parts)
