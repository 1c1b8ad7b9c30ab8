"""Which part of a document that is too long a judge is shown: the window that an encoder likes best for the query."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from ...encoders.base import Encoder, encode_matrix, unit
from ...errors import InputError
from ...items import Item
from ..judges import Judge
from ..rewriting.pieces import split_sentences, split_to_fit

HEAD = 0.25  # of a window, that a title may take
STRIDE = 0.5  # of a window, after which the next one begins
MARGIN = 1e-3  # of cosine: below it the earlier window is taken, for rounding must not choose

CountTokens = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class BestPassages:
    """Shows of a document that the judge would cut the window most similar to the query, by the vectors of `encoder`.

    MaxP's idea (Dai and Callan 2019, arXiv:1905.09217) before a judge: windows of about the judge's `passage_tokens`
    begin where sentences do, half a window apart, and the last one ends with the text. A title, the first line if it
    takes at most a quarter of a window, stands before each. Documents that fit stay as they are, and so do those whose
    beginning is best. All windows are encoded in one stream; each is held no longer than its batch.

    `InputError` for an encoder that is not dense or does not read text.
    """

    encoder: Encoder

    def __post_init__(self) -> None:
        spec = self.encoder.spec
        if spec.kind != "dense" or "text" not in spec.modalities:
            raise InputError(f"passages=best compares texts by dense vectors, which {spec.name} does not make")

    @property
    def fingerprint(self) -> str:
        return f"best/{self.encoder.spec.fingerprint}"

    def choose(
        self, pairs: Sequence[tuple[Item, Item]], judge: Judge, count: Counter[str]
    ) -> dict[tuple[str, str], Item]:
        """Documents with another window in place of their text, by the ids of query and document.

        Pairs whose document fits, or is best from its beginning, are not in it. Counts the pairs in it (`windowed`)
        and the windows that were compared (`windows`). `InputError` for a judge that does not cut passages.
        """
        documents = {document.id: document for _, document in pairs if document.text}
        split = split_documents(list(documents.values()), *find_limit(judge))
        asking: dict[str, list[Item]] = {}
        for query, document in pairs:
            if document.id in split and query.text:
                asking.setdefault(document.id, []).append(query)
        best = self._compare({id: split[id] for id in asking}, documents, asking)
        count["windows"] += sum(len(split[id]) for id in asking)
        count["windowed"] += sum(place > 0 for place in best.values())
        return {
            (query, id): replace(documents[id], text=split[id][place]) for (query, id), place in best.items() if place
        }

    def _compare(
        self, split: Mapping[str, Sequence[str]], documents: Mapping[str, Item], asking: Mapping[str, Sequence[Item]]
    ) -> dict[tuple[str, str], int]:
        """The number of the best window of each document for each query that asks for it."""
        queries = {query.id: query for each in asking.values() for query in each}
        rows = {id: row for row, id in enumerate(queries)}
        vectors = unit(encode_matrix(self.encoder, queries.values(), "query"))
        places = ((id, place) for id, windows in split.items() for place in range(len(windows)))
        best: dict[tuple[str, str], int] = {}
        highest: dict[tuple[str, str], float] = {}
        for batch in self.encoder.encode(_list_windows(split, documents), "document"):
            for vector, (id, place) in zip(unit(np.asarray(batch.vectors)), places, strict=False):
                asked = [query.id for query in asking[id]]
                for query, score in zip(
                    asked, (vectors[[rows[each] for each in asked]] @ vector).tolist(), strict=True
                ):
                    if score > highest.get((query, id), -np.inf) + MARGIN:
                        highest[query, id], best[query, id] = score, place
        return best


def _list_windows(split: Mapping[str, Sequence[str]], documents: Mapping[str, Item]) -> Iterator[Item]:
    for id, windows in split.items():
        for place, text in enumerate(windows):
            yield Item(f"{id}#{place}", text, lang=documents[id].lang)


def find_limit(judge: Judge) -> tuple[int, CountTokens]:
    """How many tokens of a passage a judge reads, and what counts them; `InputError` where it does not say."""
    limit, count = (getattr(judge, name, None) for name in ("passage_tokens", "count_tokens"))
    if not isinstance(limit, int) or count is None:
        raise InputError(f"{judge.name} does not say how it cuts passages: passages=best needs its passage_tokens")
    return limit, count


def split_documents(documents: Sequence[Item], limit: int, count: CountTokens) -> dict[str, list[str]]:
    """The windows of those documents that have more than `limit` tokens, by their ids; the first is the beginning."""
    texts = [(document.text or "").strip() for document in documents]
    return {
        document.id: split_windows(text, limit, count)
        for document, text, tokens in zip(documents, texts, count(texts), strict=True)
        if tokens > limit
    }


def split_windows(text: str, limit: int, count: CountTokens) -> list[str]:
    """A text's windows of about `limit` tokens, each up to the end of the sentence in which it reaches them."""
    first, end_of_line, _ = text.partition("\n")
    head = first + end_of_line if end_of_line and count([first])[0] <= HEAD * limit else ""
    body = text[len(head) :]
    room = limit - (count([head])[0] if head else 0)
    half = max(1, room // 2)
    pieces = list(split_sentences(body))
    pieces = [
        part
        for piece, tokens in zip(pieces, count(pieces), strict=True)
        for part in (split_to_fit(piece, lambda one: count([one])[0] <= half) if tokens > half else [piece])
    ]
    begins = [0, *accumulate(map(len, pieces))]  # in characters
    before = [0, *accumulate(count(pieces))]  # in tokens
    last = bisect_left(before, before[-1] - room)  # the earliest from which all of the rest is shown
    starts = [0]
    while starts[-1] < last:
        following = max(bisect_left(before, before[starts[-1]] + STRIDE * room), starts[-1] + 1)
        # The last one takes the place of one just before it.
        starts.append(following if before[last] - before[min(following, last)] > STRIDE / 2 * room else last)
    ends = (min(bisect_left(before, before[start] + room), len(pieces)) for start in starts)
    return [head + body[begins[start] : begins[end]] for start, end in zip(starts, ends, strict=True)]
