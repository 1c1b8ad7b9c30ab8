"""Whether a query leads to its document: found again in an index, and judged by a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError, check_cutoff
from ...indexes.base import Index, Mode
from ...items import Item, group_positions
from ...multilingual.judges import Judge
from ...multilingual.prompts import Prompt, bind_judge, split_lone
from ...pipeline import hash_description, watch
from .base import Making

Pair = tuple[Item, Item]  # a query and its document


@dataclass(frozen=True)
class RoundTrip:
    """The first `k` documents that an index finds for a query, among those in the language of its own document.

    By vectors where the index has them, else by full text. So an encoder's preference for the query's own language
    does not decide. This is the consistency filter of Promptagator (Dai et al. 2023; k = 1 there).
    """

    index: Index
    k: int = 20

    def __post_init__(self) -> None:
        check_cutoff(self.k, "--round-trip")

    @property
    def mode(self) -> Mode:
        return "dense" if self.index.specs else "lexical"

    def describe(self) -> dict[str, Any]:
        return {"k": self.k, "mode": self.mode, "index": self.index.fingerprint}

    def find_ranks(self, pairs: Sequence[Pair], making: Making) -> list[int | None]:
        """The rank of each query's document from 1, None where it is not among the first k.

        `InputError` for a document that the index does not hold.
        """
        key = [self.describe(), [[query.text, query.lang, document.id] for query, document in pairs]]
        ranks: list[int | None] = making.keep("searching", key, lambda: self._search(pairs), Counter()) if pairs else []
        return ranks

    def _search(self, pairs: Sequence[Pair]) -> list[int | None]:
        ranks: list[int | None] = [None] * len(pairs)
        for lang, places in group_positions(document.lang for _, document in pairs).items():
            queries = [Item(str(place), pairs[place][0].text, lang=pairs[place][0].lang) for place in places]
            run = self.index.search(queries, self.k, where={"lang": lang} if lang else None, mode=self.mode)
            for place in places:
                wanted = pairs[place][1].id
                found = (rank for rank, hit in enumerate(run[str(place)], 1) if hit.id == wanted)
                ranks[place] = next(found, None)
        if lacking := [document.id for (_, document), rank in zip(pairs, ranks, strict=True) if rank is None]:
            try:
                self.index.get(lacking)
            except InputError as error:
                raise InputError(f"{self.index.path} is no index of this collection: {error}") from None
        return ranks


@dataclass(frozen=True)
class Verdict:
    """The score that a reranker's prompt and judge give a pair; from `threshold` on the pair is kept."""

    judge: Judge
    prompt: Prompt
    threshold: float

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    def describe(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt.name,
            "prompt_fingerprint": hash_description(self.prompt),
            "judge": self.judge.fingerprint,
            "threshold": self.threshold,
        }

    def score(self, pairs: Sequence[Pair], making: Making) -> list[float]:
        """The score of each pair, as the prompt gives it (log-odds, an expected grade, a log-probability).

        `InputError` for a judge that gives one that is not finite.
        """

        def ask() -> dict[str, Any]:
            counts: Counter[str] = Counter()
            with watch(lambda done: None):  # the bar counts other steps
                rows = self.prompt.score(self.judge, [(query, [document]) for query, document in pairs], counts)
            scores = [float(score) for (score,) in rows]
            if not all(map(math.isfinite, scores)):
                raise InputError(f"{self.judge.name} gave a score that is not finite; try ?dtype=float32")
            return {"scores": scores, "counts": dict(counts)}

        pieces = [[query.text, query.lang, document.text, document.lang] for query, document in pairs]
        key = [self.judge.fingerprint, hash_description(self.prompt), pieces]
        if not pairs:
            return []
        found = making.keep("judging", key, ask, self.judge.usage)
        making.count.update(found["counts"])
        return list(found["scores"])


def parse_verdict(
    text: str, threshold: float | None, *, device: str = "auto", trust_remote_code: bool = False
) -> Callable[[], Verdict]:
    """What loads the judge of a SPEC `PROMPT@FAMILY:CHECKPOINT`, its prompt one that shows one passage.

    Without a `threshold` it is 0 where scores are log-odds (a label against the rest): more yes than no. `InputError`
    for prompts of several passages, and where other scores come without a threshold.
    """
    prompt, spec = split_lone(text)
    if prompt.most > 1:
        raise InputError(
            f"--judge {text}: the prompt {prompt.name} compares passages; take one that shows a single one"
        )
    if threshold is None and (prompt.asks not in ("choose", "generate") or prompt.values):
        what = "an expected grade" if prompt.values else f"a {prompt.asks}"
        raise InputError(f"--judge {text} scores by {what}: say from which --threshold on a pair is kept")
    prompt, load, *_ = bind_judge(text, spec, prompt, device=device, trust_remote_code=trust_remote_code)
    return lambda: Verdict(load(), prompt, threshold or 0.0)
