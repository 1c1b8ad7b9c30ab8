"""The seam of rewriters, by one that expands queries with a document and one that replaces them; neither is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import BaseJudge, Completion
from crosslens.multilingual.prompts import Wording, configure_wording
from crosslens.multilingual.rewriting.base import Probes, Rewriter
from crosslens.pipeline import watch
from crosslens.runs import Hit, Probe, Run

PASSAGE = Wording.parse(
    """
paper = "Gao et al. 2023, Precise Zero-Shot Dense Retrieval without Relevance Labels (HyDE), arXiv:2212.10496"
template = "Write a passage in {language} that answers the question.\\nQuestion: {query}\\nPassage:"
language = "query"
[rus]
template = "Напишите текст, который отвечает на вопрос.\\nВопрос: {query}\\nТекст:"
""",
    "passage",
)


@dataclass(frozen=True)
class Passages(Rewriter):
    """What is written is encoded as documents, beside the query."""

    def rewrite(self, query: Item, texts: Sequence[str]) -> Probes:
        passages = [Probe(Item(f"{query.id}/{n}", text, lang=query.lang), "document") for n, text in enumerate(texts)]
        return (Probe(query, "query"), *passages)


@dataclass(frozen=True)
class Keywords(Rewriter):
    """What is written takes the place of the query's words."""

    def rewrite(self, query: Item, texts: Sequence[str]) -> Item:
        return replace(query, id="ignored", text=" ".join(texts))


class Writer(BaseJudge):
    """Writes what `answers` has for a request that holds one of its keys."""

    can = frozenset({"generate"})
    fingerprint = "writer"

    def __init__(self, answers):
        super().__init__("writer", "1")
        self.answers, self.seen = answers, []

    def compute_completions(self, prompts, sampling):
        self.seen.append((len(prompts), sampling.seed))
        self.usage["generated_tokens"] += 3 * len(prompts)
        self.count_answers(len(prompts))
        texts = [next(text for key, text in self.answers.items() if key in each.user()) for each in prompts]
        return [Completion(text, 3, ended=not text.endswith("...")) for text in texts]


QUERIES = (
    Item("q1", "how long do cats sleep", lang="eng"),
    Item("q2", "кошка ночью", lang="rus"),
    Item("q3", "nothing", lang="eng"),
    Item("q4", "endless", lang="eng"),
    Item("photo", image=b"..."),
)
ANSWERS = {
    "cats": "<think>hm</think> Cats sleep all day.\n",
    "кошка": "Кошка спит днём.",
    "nothing": "<think>I wonder",
    "endless": "And so on...",
}


def test_probes_are_set_and_queries_and_hits_stay():
    judge = Writer(ANSWERS)
    stage = Passages(judge, PASSAGE)
    run = Run.of(QUERIES).ranking({"q1": [("d", 1.0)]})
    seen = []
    with watch(seen.append):
        done = stage(run)
    assert done.queries == QUERIES
    assert done["q1"] == (Hit("d", 1.0),)
    assert done.probes == {
        "q1": (Probe(QUERIES[0], "query"), Probe(Item("q1/0", "Cats sleep all day.", lang="eng"), "document")),
        "q2": (Probe(QUERIES[1], "query"), Probe(Item("q2/0", "Кошка спит днём.", lang="rus"), "document")),
        "q4": (Probe(QUERIES[3], "query"), Probe(Item("q4/0", "And so on...", lang="eng"), "document")),
    }
    assert judge.seen == [(4, 0)]  # one batch
    assert seen == [4]
    (record,) = done.manifest.records
    faults = {"unseen": 1, "empty": 1, "unwritten": 1, "cut_answers": 1}
    assert record.counts == {**faults, "calls": 4, "generated_tokens": 12}
    assert record.stage == "passages(passage@writer)"
    assert record.models == {"writer": "1"}


def test_queries_are_replaced_and_keep_their_ids():
    done = (Passages(Writer(ANSWERS), PASSAGE) >> Keywords(Writer(ANSWERS), PASSAGE))(QUERIES[:2])
    assert [(query.id, query.text) for query in done.queries] == [
        ("q1", "Cats sleep all day."),
        ("q2", "Кошка спит днём."),
    ]
    assert not done.probes  # those of the old words


def test_requests_are_worded_in_the_language_of_the_query():
    texts = []

    class Listening(Writer):
        def compute_completions(self, prompts, sampling):
            texts.extend(prompt.user() for prompt in prompts)
            return super().compute_completions(prompts, sampling)

    Passages(Listening(ANSWERS), PASSAGE)(QUERIES[:2])
    assert texts[0].startswith("Write a passage in English that answers the question.\nQuestion: how long")
    assert texts[1].startswith("Напишите текст")
    run = Passages(Writer(ANSWERS), PASSAGE)([replace(QUERIES[0], lang="fas")])
    assert run.manifest.total("prompt_not_in_fas") == 1
    Passages(Listening(ANSWERS), configure_wording(PASSAGE, language="eng"))(QUERIES[1:2])
    assert texts[-1].startswith("Write a passage in Russian")


def test_samples_are_batches_that_differ_by_their_seed():
    judge = Writer(ANSWERS)
    done = Passages(judge, PASSAGE, samples=3, temperature=0.7, seed=5)(QUERIES[:1])
    assert judge.seen == [(1, 5), (1, 6), (1, 7)]
    assert [probe.role for probe in done.probes["q1"]] == ["query", "document", "document", "document"]


def test_what_it_computes_is_in_its_fingerprint():
    stages = [
        Passages(Writer(ANSWERS), PASSAGE),
        Keywords(Writer(ANSWERS), PASSAGE),
        Passages(Writer(ANSWERS), PASSAGE, seed=1),
        Passages(Writer(ANSWERS), configure_wording(PASSAGE, language="eng")),
    ]
    assert len({stage.fingerprint for stage in stages}) == len(stages)
    assert stages[0].fingerprint == Passages(Writer({}), PASSAGE).fingerprint


def test_mistakes_are_one_line():
    silent = BaseJudge("silent", "1")
    with pytest.raises(InputError, match="silent cannot answer `generate`"):
        Passages(silent, PASSAGE)
    with pytest.raises(InputError, match="samples must be at least 1, not 0"):
        Passages(Writer({}), PASSAGE, samples=0)
    with pytest.raises(InputError, match="unknown placeholder in `template` of the prompt x: 'passage'"):
        Wording.parse('template = "{query} {passage}"', "x")
    assert not Passages(Writer({}), PASSAGE)(QUERIES[-1:]).probes
