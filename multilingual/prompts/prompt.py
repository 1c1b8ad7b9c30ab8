"""A `Prompt` words a comparison of documents for a query and makes scores of the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ...errors import InputError
from ...items import Item, Modality, group_positions
from ..judges.answers import NOTHING_READ, read_label, read_ranking
from ..judges.base import Judge, refuse
from ..judges.messages import Message, Seam
from .calibration import find_prior, take_prior
from .places import count_place
from .wording import Value, Wording, fill_template, fill_text, show_item

Comparison = tuple[Item, Sequence[Item]]  # a query and the documents that are compared for it
Read = Callable[["Prompt", Judge, Sequence[Comparison], Counter[str]], Sequence[np.ndarray]]
THOUGHT = "</think>"
ROUNDING = 1e-5  # by which a log-probability, or a mean over probabilities, may miss its bound


@dataclass(frozen=True, kw_only=True)
class Prompt(Wording):
    """A wording of "which of these is more relevant to the query?", and how the answer becomes scores.

    Beside {query}, {language} and {instruction} the `template` has either {passage}, for one document at a time, or
    {passages}, for up to as many as there are `labels`, each written by `each` with {label} and {passage}; {count} is
    how many, {last} the last one's label. {seam} parts the two inputs of a cross-encoder. `closing` is what follows a
    label in the answer.

    `asks` says what of the judge: `choose` one of the labels by its log-probability, the `likelihood` of `target`
    (mean log-probability per token), to `generate` text, or the `score` of a relevance head. For one passage, labels
    with `values` give the expected value; labels without, the log-odds of the first against the rest. For several,
    the log-probability of each one's label, or a generated order of labels.

    `orders="both"` asks about the passages forwards and backwards and takes the mean, which cancels a preference for a
    place between two; `rotations` asks with each of them at each place, as many times as there are passages, which
    cancels it between any number. `calibrate` takes from the log-probabilities of labels what the judge gives them
    where query and passages say nothing: a few questions more in all, for each language and number of passages.

    `think` opens a reasoning of up
    to `thinking` tokens before the answer is chosen or generated; of one passage, a generated answer has as many.
    `sort` is the sorter that goes with it.
    """

    asks: Literal["choose", "likelihood", "generate", "score"]
    sort: str = "pointwise"
    each: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    closing: str = ""
    target: str = ""
    think: str = ""
    thinking: int = 1024
    orders: Literal["given", "both", "rotations"] = "given"
    calibrate: bool = False

    placeholders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "template": ("query", "passage", "passages", "language", "instruction", "count", "last", "seam"),
        "each": ("passage", "label"),
        "target": ("query", "language"),
        "system": ("language", "instruction", "count", "last"),
    }
    translated: ClassVar[tuple[str, ...]] = (*Wording.translated, "each", "target", "closing", "labels")

    def __post_init__(self) -> None:
        super().__post_init__()
        template, each = self.list_placeholders("template"), self.list_placeholders("each")
        asks, labels = self.asks, self.labels
        one, several = ("passage" in template), ("passages" in template)
        written = asks in ("choose", "generate")
        faults = (
            ("query" not in self.list_placeholders("template", "target"), "lacks the placeholder {query}"),
            (one == several, "lacks the placeholder {passage}, or {passages}; it needs one of them"),
            (asks == "likelihood" and not self.target, "asks for a likelihood and has no target"),
            ((asks == "choose" or several) and len(labels) < 2, "has fewer than two labels to choose from"),
            (len(set(labels)) < len(labels), "has a label twice"),
            (not all(map(str.strip, labels)), "has an empty label"),
            (len(self.values) not in (0, len(labels)), f"has {len(self.values)} values for {len(labels)} labels"),
            (self.orders != "given" and not several,
             f"shows one {{passage}}, which has no orders: orders={self.orders} needs {{passages}}"),
            (self.calibrate and asks != "choose", f"chooses no label that could be calibrated: it asks for a {asks}"),
            (bool(self.calibrate and self.think), "thinks before it chooses, and has no labels to calibrate till then"),
            (several and not written, f"asks for a {asks}, which takes one {{passage}}, not {{passages}}"),
            (several and not {"passage", "label"} <= set(each), "needs `each` with {label} and {passage}"),
            (asks == "generate" and not labels, "asks to generate and has no labels to look for"),
            (self.think and not written, f"can think only before it chooses or generates, and asks for a {asks}"),
            (self.thinking < 1, f"thinks for at least 1 token, not {self.thinking}"),
        )  # fmt: skip
        for is_there, fault in faults:
            if is_there:
                raise self._fault(fault)
        for code, table in self.words.items():
            if len(table.get("labels", self.labels)) != len(self.labels):
                raise InputError(
                    f"the prompt {self.name} has other labels in [{code}] than in English: as many are needed"
                )

    @property
    def most(self) -> int:
        """How many documents it can show at once."""
        return len(self.labels) if "passages" in self.list_placeholders("template") else 1

    def is_unordered(self, size: int) -> bool:
        """Whether the answer about so many passages is the same in whatever order they are given."""
        return self.orders == "rotations" or (self.orders == "both" and size == 2)

    def list_orders(self, size: int) -> list[list[int]]:
        """In which orders a set of so many passages is shown, by their places; each is a question of its own."""
        places = list(range(size))
        if self.orders == "rotations":
            return [places[first:] + places[:first] for first in places]
        return [places, places[::-1]] if self.orders == "both" else [places]

    @property
    def highest(self) -> float | None:
        """The highest score that a document can get, rounding included; None where there is no such bound."""
        if self.most > 1:
            return None
        if self.values:
            return max(self.values) if self.asks == "generate" else max(self.values) + ROUNDING
        return ROUNDING if self.asks == "likelihood" else None

    def check_judge(self, judge: Judge) -> None:
        """`InputError` where the judge cannot answer this prompt."""
        if self.asks not in judge.can:
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
        return self._by_language(type(self).ask, judge, comparisons, Counter() if count is None else count)

    def grades(self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]) -> list[np.ndarray]:
        """For each comparison the likeliest of `values` a document, float64; nan where the answer was unreadable."""
        if not self.values or self.most > 1:
            raise self._fault("gives no grades: it needs `values` for its labels and one {passage}")
        return self._by_language(Prompt._grade, judge, comparisons, count)

    def _grade(self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]) -> list[np.ndarray]:
        shares = self._share_labels(judge, _pairs(comparisons), count)
        if not np.isfinite(shares).all():
            raise InputError(f"{judge.name} gave a probability that is not finite; try ?dtype=float32")
        grades = [self.values[int(row.argmax())] if row.any() else np.nan for row in shares]
        return _split(np.array(grades), comparisons)

    def _by_language(
        self, read: Read, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]
    ) -> list[np.ndarray]:
        """What `read` makes of the comparisons, given those of one language and the prompt in that at a time."""
        languages = [self.choose_language(*comparison, count) for comparison in comparisons]
        found: dict[int, np.ndarray] = {}
        for language, some in group_positions(languages).items():
            answers = read(self.in_language(language), judge, [comparisons[place] for place in some], count)
            found.update(zip(some, answers, strict=True))
        return [found[place] for place in range(len(comparisons))]

    def message(
        self, query: Item, documents: Sequence[Item], sees: frozenset[Modality] = frozenset({"text"})
    ) -> Message:
        """The prompt worded for one comparison, with media of the modalities that a judge `sees`."""
        if len(documents) > self.most:
            raise self._fault(f"shows at most {self.most} passages at once, not {len(documents)}")
        values: dict[str, Value] = {
            "count": str(len(documents)),
            "last": self.labels[len(documents) - 1] if self.labels else "",
            "seam": Seam.SEAM,
        }
        if self.most == 1:
            values["passage"] = show_item(documents[0], sees)
        else:
            values["passages"] = tuple(
                part
                for label, document in zip(self.labels, documents, strict=False)
                for part in fill_template(self.each, {"label": label, "passage": show_item(document, sees)})
            )
        message = self.request(query, sees, **values)
        return replace(message, answer=self.think) if self.think else message

    def ask(self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]) -> list[np.ndarray]:
        """As `score`, in the prompt's own language."""
        if self.most > 1:
            return self._score_groups(judge, comparisons, count)
        return _split(self._score_pairs(judge, _pairs(comparisons), count), comparisons)

    def _share_labels(self, judge: Judge, pairs: Sequence[tuple[Item, Item]], count: Counter[str]) -> np.ndarray:
        """The probability of each label, [n, labels]; a row of zeros where a generated answer has none."""
        messages = [self.message(query, [document], judge.modalities) for query, document in pairs]
        messages = self._after_thought(judge, messages, count)
        if self.asks == "choose":
            return np.exp(self._choose(judge, messages, [1] * len(messages), count))
        shares = np.zeros((len(messages), len(self.labels)))
        for row, answer in zip(shares, judge.generate(messages, max_new_tokens=self.thinking), strict=True):
            place = read_label(answer.text, self.labels, count, after=self.closing)
            if place is not None:
                row[place] = 1.0
        return shares

    def _score_pairs(self, judge: Judge, pairs: Sequence[tuple[Item, Item]], count: Counter[str]) -> np.ndarray:
        if self.asks in ("likelihood", "score"):
            messages = [self.message(query, [document], judge.modalities) for query, document in pairs]
            if self.asks == "score":
                return judge.score(messages)
            return judge.likelihood(messages, [self._target(query) for query, _ in pairs])
        shares = self._share_labels(judge, pairs, count)
        if self.values:
            # An answer that cannot be read counts as the lowest grade: it did not say relevant.
            graded: np.ndarray = shares @ np.array(self.values) + (1 - shares.sum(axis=1)) * min(self.values)
            return graded
        # The smallest probability that float64 sets apart from 0 stands for "not said".
        logs = np.log(np.maximum(shares, 1e-300))
        with np.errstate(invalid="ignore"):  # what is no number is refused by those who read the scores
            odds: np.ndarray = logs[:, 0] - np.logaddexp.reduce(logs[:, 1:], axis=1)
        return odds

    def _score_groups(self, judge: Judge, comparisons: Sequence[Comparison], count: Counter[str]) -> list[np.ndarray]:
        views = [(n, order) for n, (_, group) in enumerate(comparisons) for order in self.list_orders(len(group))]
        messages = [
            self.message(comparisons[n][0], [comparisons[n][1][place] for place in order], judge.modalities)
            for n, order in views
        ]
        sizes = [len(order) for _, order in views]
        scores = [np.zeros(len(group)) for _, group in comparisons]
        messages = self._after_thought(judge, messages, count)
        for (n, order), found in zip(views, self._compare(judge, messages, sizes, count), strict=True):
            scores[n][order] += found
            count_place(count, self.language, found)
        asked = Counter(n for n, _ in views)
        return [each / asked[n] for n, each in enumerate(scores)]

    def _compare(
        self, judge: Judge, messages: Sequence[Message], sizes: Sequence[int], count: Counter[str]
    ) -> Iterator[np.ndarray]:
        """One score a passage for each message."""
        if self.asks == "generate":
            room = 16 + 6 * max(sizes)  # tokens: brackets, digits and signs of every label
            for answer, size in zip(judge.generate(messages, max_new_tokens=room), sizes, strict=True):
                kinds: Counter[str] = Counter()
                order = read_ranking(answer.text, self.labels[:size], kinds)
                count.update(kinds)
                # An answer that ranks nothing is no choice of the passage that happens to be shown first.
                yield np.zeros(size) if kinds.keys() & NOTHING_READ else -np.argsort(order).astype(np.float64)
            return
        for row, size in zip(self._choose(judge, messages, sizes, count), sizes, strict=True):
            yield row[:size] - np.logaddexp.reduce(row[:size])

    def _choose(
        self, judge: Judge, messages: Sequence[Message], sizes: Sequence[int], count: Counter[str]
    ) -> np.ndarray:
        """Log-probabilities [n, labels] after messages that show so many passages each; of several, one label each."""
        labels = [label + self.closing for label in self.labels[: max(sizes) if self.most > 1 else None]]
        rows = judge.choose(messages, labels)
        if not self.calibrate:
            return rows
        for size in sorted(set(sizes)):
            some = [n for n, each in enumerate(sizes) if each == size]
            own = len(labels) if self.most == 1 else size
            prior = find_prior(self.message, judge, labels[:own], size, count)
            rows[some, :own] = take_prior(rows[some, :own], prior)
        return rows

    def _after_thought(self, judge: Judge, messages: list[Message], count: Counter[str]) -> list[Message]:
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
        if not text and "query" in self.list_placeholders("target"):
            raise self._fault(f"asks for the likelihood of the query's text, and the query {query.id!r} has none")
        return fill_text(self.target, {"query": text, "language": self._name_language(query)})


def _pairs(comparisons: Sequence[Comparison]) -> list[tuple[Item, Item]]:
    return [(query, document) for query, group in comparisons for document in group]


def _split(values: np.ndarray, comparisons: Sequence[Comparison]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(group) for _, group in comparisons])[:-1])
