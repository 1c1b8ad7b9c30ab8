"""Ways of rewriting queries, each with the paper that it follows; what it asks for stands in a TOML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import InputError, check_at_least
from ...items import Item, Role
from ...runs import Probe, Run
from ..judges import Completion
from ..judges.messages import Part
from ..prompts.wording import Value, show_item
from .base import Rewriter, RewritingPrompt
from .feedback import fetch_results
from .reading import read_entries, read_line, read_words

MOST = 100  # times that the query's own ranking counts, each of them a search of its own
KEYWORDS = 20  # at most: what a model lists beyond them is no longer about the query


@dataclass(frozen=True)
class Hyde(Rewriter):
    """Hypothetical documents that answer the query, encoded as documents; their mean with the query is searched for.

    Gao et al. 2023, Precise Zero-Shot Dense Retrieval without Relevance Labels, arXiv:2212.10496. There eight are
    written (`n=8`) at temperature 0.7, and the query counts as much as one of them (`weight=1`).
    """

    prompt: ClassVar[str] = "passage"
    role: ClassVar[Role] = "document"


@dataclass(frozen=True)
class Query2doc(Rewriter):
    """The query and a passage that answers it, joined into one query.

    Wang et al. 2023, Query2doc: Query Expansion with Large Language Models, arXiv:2303.07678. Dense search encodes what
    is joined. For lexical search the query counts five times: once in that, and four times beside it (`weight=4`).
    """

    weight: float = 4.0

    prompt: ClassVar[str] = "passage"

    def keep_query(self, query: Item) -> Sequence[Probe]:
        return [Probe(query, "query", self.weight, only="words")] if self.weight else []

    def use(self, query: Item, texts: Sequence[Item]) -> Sequence[Probe]:
        return [Probe(replace(text, text=f"{query.text or ''}\n{text.text}".strip()), "query") for text in texts]


@dataclass(frozen=True)
class Keywords(Rewriter):
    """Keywords and synonyms beside the query.

    Jagerman et al. 2023, Query Expansion by Prompting Large Language Models (there Q2E), arXiv:2305.03653. The query
    counts five times (`weight=5`).
    """

    max_new_tokens: int = 96
    weight: float = 5.0

    prompt: ClassVar[str] = "keywords"

    def read(self, answer: Completion, faults: Counter[str]) -> list[str]:
        return [", ".join(words[:KEYWORDS])] if (words := read_words(answer, faults)) else []


@dataclass(frozen=True)
class Question(Rewriter):
    """The query in other words, as one to search with; with a `weight` the query itself counts beside it.

    Ma et al. 2023, Query Rewriting for Retrieval-Augmented Large Language Models (Rewrite-Retrieve-Read),
    arXiv:2305.14283. There the new words take the query's place (`weight=0`).
    """

    max_new_tokens: int = 96
    weight: float = 0.0

    prompt: ClassVar[str] = "question"

    def read(self, answer: Completion, faults: Counter[str]) -> list[str]:
        return [line] if (line := read_line(answer, faults)) else []


@dataclass(frozen=True)
class Decompose(Rewriter):
    """Up to `n` simpler questions, each a search of its own; their rankings and the query's own are fused by RRF.

    Press et al. 2022, Measuring and Narrowing the Compositionality Gap in Language Models, arXiv:2210.03350, for the
    questions; Rackauckas 2024, RAG-Fusion, arXiv:2402.03367, for their fusion, in which the query is one of the
    rankings (`weight=1`). `weight` is a whole number: so often does the query's own ranking count.
    """

    n: int = 3
    max_new_tokens: int = 128

    prompt: ClassVar[str] = "decompose"

    def __post_init__(self) -> None:
        if not (0 <= self.weight <= MOST and self.weight == int(self.weight)):
            raise InputError(
                f"weight is how often the query's own ranking counts: a whole number up to {MOST}, not {self.weight:g}"
            )
        super().__post_init__()

    @property
    def samples(self) -> int:
        return 1

    def read(self, answer: Completion, faults: Counter[str]) -> list[str]:
        return read_entries(answer, faults)[: self.n]

    def use(self, query: Item, texts: Sequence[Item]) -> Sequence[Probe]:
        return [Probe(text, self.role, group=group) for group, text in enumerate(texts)]

    def keep_query(self, query: Item) -> Sequence[Probe]:
        return [Probe(query, "query", group=-group) for group in range(1, int(self.weight) + 1)]


@dataclass(frozen=True)
class Cot(Rewriter):
    """A chain of thought, from what the query is about to a draft of its answer, beside the query.

    Su et al. 2024, BRIGHT: A Realistic and Challenging Benchmark for Reasoning-Intensive Retrieval, arXiv:2407.12883,
    search with such text alone (`weight=0`); Jagerman et al. 2023, Query Expansion by Prompting Large Language Models,
    arXiv:2305.03653, let the query count five times beside it (`weight=5`).
    """

    max_new_tokens: int = 320
    weight: float = 5.0

    prompt: ClassVar[str] = "cot"


class FeedbackPrompt(RewritingPrompt):
    """A wording that also shows {passages}: the first results, with their numbers."""

    placeholders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **RewritingPrompt.placeholders,
        "template": (*RewritingPrompt.placeholders["template"], "passages"),
    }


@dataclass(frozen=True)
class Feedback(Rewriter):
    """A passage that answers the query, written after reading the first `passages` results, and encoded as a document.

    LameR: Shen et al. 2024, Retrieval-Augmented Retrieval: Large Language Models are Strong Zero-Shot Retriever,
    arXiv:2304.14233. Unlike the generative relevance feedback of Mackie et al. 2023 (arXiv:2304.13157), which has the
    model write from memory, as `hyde` does. Queries without hits stay as they are (`without_hits`).
    """

    passages: int = 3

    prompt: ClassVar[str] = "feedback"
    words: ClassVar[type[RewritingPrompt]] = FeedbackPrompt
    role: ClassVar[Role] = "document"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, passages=self.passages)

    def show(self, run: Run) -> Mapping[str, Mapping[str, Value]]:
        return {query.id: {"passages": self._number(found.first)} for query, found in fetch_results(run, self.passages)}

    def _number(self, items: Sequence[Item]) -> tuple[Part, ...]:
        """The documents as the judge sees them, each after its number."""
        parts: list[Part] = []
        for number, item in enumerate(items, 1):
            parts += ["\n\n" * (number > 1) + f"[{number}] ", *show_item(item, self.judge.modalities)]
        return tuple(parts)
