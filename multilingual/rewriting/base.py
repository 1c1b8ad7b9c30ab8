"""The base of stages that have a judge write something for every query: hypothetical documents, expansions, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import check_at_least
from ...items import Item
from ...pipeline import Stage
from ...runs import Probe, Run
from ..judges import Judge, refuse
from ..judges.answers import drop_thoughts
from ..judges.messages import Message
from ..prompts import Wording

Probes = tuple[Probe, ...]


@dataclass(frozen=True)
class Rewriter(Stage):
    """A judge writes `samples` texts for each query, as `wording` asks it to; `rewrite` makes probes of them.

    A subclass says in `rewrite` what is encoded (and averaged) in the query's place, each item in its role, or returns
    a query that takes its place. Ids, hits and what the query was stay. Queries that the judge cannot see
    (`unseen`) and those for which it wrote nothing (`unwritten`) stay as they are; both are counted, as are answers
    that are `empty` or were cut at `max_new_tokens` (`cut_answers`). Samples differ by their seed. `InputError` for a
    judge that does not generate.
    """

    judge: Judge
    wording: Wording
    max_new_tokens: int = 256
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, max_new_tokens=self.max_new_tokens, samples=self.samples)
        if "generate" not in self.judge.can:
            raise refuse(self.judge, "generate")

    def rewrite(self, query: Item, texts: Sequence[str]) -> Item | Probes:
        """What takes the query's place, of at least one text that was written for it."""
        raise NotImplementedError

    def read(self, answer: str) -> str:
        """What of an answer is used; empty where there is nothing."""
        return drop_thoughts(answer).strip()

    def apply(self, run: Run, count: Counter[str]) -> Run:
        before = Counter(self.judge.usage)
        faults: Counter[str] = Counter()
        requests = self._request(run.queries, faults)
        texts = self._write(requests, faults) if requests else {}
        queries: list[Item] = []
        probes = dict(run.probes)
        for query in run.queries:
            made = self.rewrite(query, texts[query.id]) if texts.get(query.id) else query
            if not isinstance(made, Item):
                probes[query.id] = made
            elif made is not query:
                probes.pop(query.id, None)
            queries.append(replace(made, id=query.id) if isinstance(made, Item) else query)
        faults["unwritten"] = sum(not some for some in texts.values())
        count.update(+faults + (Counter(self.judge.usage) - before))
        return replace(run, queries=tuple(queries), probes=probes)

    def _request(self, queries: Sequence[Item], faults: Counter[str]) -> dict[str, Message]:
        """The requests by the ids of the queries that the judge can see."""
        requests: dict[str, Message] = {}
        for query in queries:
            if query.modalities & self.judge.modalities:
                wording = self.wording.in_language(self.wording.choose_language(query, (), faults))
                requests[query.id] = wording.request(query, self.judge.modalities)
            else:
                faults["unseen"] += 1
        return requests

    def _write(self, requests: Mapping[str, Message], faults: Counter[str]) -> dict[str, list[str]]:
        """What the judge wrote for each query, one batch a sample; empty answers are left out."""
        texts: dict[str, list[str]] = {id: [] for id in requests}
        for sample in range(self.samples):
            answers = self.judge.generate(
                list(requests.values()),
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                seed=self.seed + sample,
            )
            for id, answer in zip(requests, answers, strict=True):
                text = self.read(answer.text)
                faults["cut_answers"] += not answer.ended
                faults["empty"] += not text
                texts[id] += [text] if text else []
        return texts

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}({self.wording.name}@{self.judge.name})"
