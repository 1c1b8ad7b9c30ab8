"""A teacher: a reranker's prompt and judge that score pairs of a query and a document, answers kept as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from ...items import Item
from ...multilingual.judges import Judge
from ...multilingual.judges.base import can_see
from ...multilingual.judges.journal import Journal
from ...multilingual.judges.kept import KeptJudge
from ...multilingual.prompts import Prompt
from ...multilingual.reranking.plan import parse_reranker
from ...pipeline import hash_description, watch


@dataclass
class Teacher:
    """What scores pairs; `counts` has what could not be read in its answers, `usage` what they cost."""

    spec: str
    judge: Judge
    prompt: Prompt
    counts: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)  # what its judge had cost when it was hired

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    @property
    def usage(self) -> Counter[str]:
        return self.judge.usage - self.before

    def describe(self) -> dict[str, Any]:
        """As a card has it."""
        return {
            "spec": self.spec,
            "prompt": self.prompt.name,
            "prompt_fingerprint": hash_description(self.prompt),
            "judge": self.judge.fingerprint,
            "models": dict(self.models),
        }

    def score(self, asked: Sequence[tuple[Item, Sequence[Item]]]) -> list[list[float]]:
        """The scores of each query's documents, as the prompt gives them (log-odds, a grade, a log-probability)."""
        wanted = [(query, documents) for query, documents in asked if documents]
        for query, documents in wanted:
            if unseen := next((each.id for each in documents if not can_see(self.judge, query, each)), None):
                raise InputError(
                    f"{self.judge.name} cannot see {unseen!r}, or the query {query.id!r}: it reads other media"
                )
        with watch(lambda done: None):  # the bar counts examples
            rows = iter(self.prompt.score(self.judge, wanted, self.counts) if wanted else ())
        return [[float(score) for score in next(rows)] if documents else [] for _, documents in asked]


Hire = Callable[[Journal, int], Teacher]


def plan_teacher(text: str, option: str, *, device: str = "auto", trust_remote_code: bool = False) -> Hire:
    """What loads the teacher that a reranker's SPEC names, given the journal and how many answers are expected.

    `InputError`, which names the command line's `option`, for prompts that compare passages: they give no score of one.
    """
    plan = parse_reranker(text, device=device, trust_remote_code=trust_remote_code)
    if plan.prompt.most > 1:
        raise InputError(
            f"{option} {text}: the prompt {plan.prompt.name} compares passages; take one that shows a single one"
        )

    def hire(journal: Journal, expected: int) -> Teacher:
        judge = plan.judge()
        plan.prompt.check_judge(judge)
        return Teacher(text, KeptJudge(judge, journal, expected), plan.prompt, before=Counter(judge.usage))

    return hire
