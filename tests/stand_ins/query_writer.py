"""A model that writes queries by rule, and a small collection in three languages to write them for."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
from crosslens.multilingual.judges import BaseJudge, Completion
from crosslens.multilingual.judges.messages import Passage

WORDS = {
    "eng": "Every {0} in the village learns how to {1} the {2} before the long winter begins.",
    "rus": "Каждый {0} в деревне учится {1} перед долгой зимой, когда приходит {2}.",
    "fra": "Chaque {0} du village apprend à {1} avant le long hiver, avec {2}.",
}
FILLED = {
    "eng": (("baker", "sailor", "teacher", "hunter"), ("repair", "paint", "carry", "clean"), ("boat", "roof", "oven")),
    "rus": (("пекарь", "моряк", "учитель", "охотник"), ("чинить", "красить", "носить", "мыть"), ("лодка", "крыша", "печь")),
    "fra": (("boulanger", "marin", "maître", "chasseur"), ("réparer", "peindre", "porter", "laver"), ("bateau", "toit", "four")),
}  # fmt: skip


def make_documents(number: int = 24) -> list[dict]:
    """Documents of three sentences with a title, in the languages in turn, aligned by id, the third by a link, too."""
    rows = []
    for n in range(number):
        lang, own = tuple(WORDS)[n % 3], n // 3
        who, does, what = FILLED[lang]
        pick = lambda k, own=own, who=who, does=does, what=what: (  # noqa: E731
            who[(own + k) % 4], does[(own // 4 + k) % 4], what[(own // 2 + k) % 3]
        )  # fmt: skip
        text = " ".join(WORDS[lang].format(*pick(k)) for k in range(3))
        link = f" [{pick(0)[0]} {own}]({tuple(WORDS)[(n + 1) % 3]}/page{own})"
        rows.append(
            {"id": f"{lang}/page{own}", "lang": lang, "title": f"{' '.join(pick(0))} {own}", "text": text + link}
        )
    return rows


def write_collection(where: Path, rows: list[dict], topics: list[dict] = ()) -> Path:
    """A directory collection of documents and, where given, topics."""
    where.mkdir()
    (where / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if topics:
        (where / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topics))
    return where


class QueryWriter(BaseJudge):
    """Asks of the passage in the language of the request; what it samples depends on all that it is asked together.

    So does that of local models, whose random numbers go on from row to row. `calls` has how many it was asked each
    time; after `most` calls it raises KeyboardInterrupt.
    """

    can = frozenset({"generate", "choose"})
    appetite = 4

    def __init__(self, checkpoint: str = "", *, chats: bool = True, most: int = 1000, **given: object) -> None:
        super().__init__("writer", "1")
        self.chats, self.most = chats, most
        self.calls: list[int] = []
        self.asked: list = []

    @property
    def fingerprint(self) -> str:
        return "writer 1"

    def compute_completions(self, prompts, sampling):
        if len(self.calls) >= self.most:
            raise KeyboardInterrupt
        self.calls.append(len(prompts))
        self.asked += prompts
        noise = zlib.crc32("".join(each.plain() for each in prompts).encode()) + (sampling.seed or 0)
        made = []
        for row, prompt in enumerate(prompts):
            self.count_answers(1)
            self.usage["generated_tokens"] += 3
            made.append(Completion(self.write(prompt, noise * (sampling.temperature > 0) + row), 3))
        return made

    def write(self, prompt, number: int) -> str:
        (passage,) = (part.text for part in prompt.parts if isinstance(part, Passage))
        title = passage.partition("\n")[0]
        if re.search("[а-я]", prompt.user().replace(passage, "")):
            return f"Вопрос: «Как в деревне живут зимой и почему важно {title}, {number}?»"
        return f"1. Why does the village need {title} in the winter {number}?"

    def compute_choices(self, prompts, labels):
        self.count_answers(len(prompts))
        odds = [1.0 if zlib.crc32(each.plain().encode()) % 4 else -1.0 for each in prompts]
        return np.array([[-np.log1p(np.exp(-x)), -np.log1p(np.exp(x))] for x in odds])
