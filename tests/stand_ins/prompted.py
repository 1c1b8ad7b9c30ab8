"""A query, documents, and judges that answer prompts by a rule."""

from __future__ import annotations

from collections import Counter

import numpy as np
from crosslens.items import Item
from crosslens.multilingual.judges.messages import Passage

QUERY = Item("q", "how long do {cats} sleep", lang="rus")


DOCS = [Item(f"d{n}", f"text number {n} with {{braces}}", lang="zho") for n in range(20)]


BOTH = frozenset({"text", "image"})


class Judge:
    """Keeps what it was asked; answers by rule: `prefers` of a passage's text, or the first place where None."""

    name = revision = fingerprint = "fake"
    appetite = 1024

    def __init__(
        self, prefers=None, says=(), can=("choose", "likelihood", "generate", "score"), chats=True, sees=("text",)
    ):
        self.prefers, self.says = prefers, list(says)
        self.can, self.chats, self.modalities = frozenset(can), chats, frozenset(sees)
        self.usage, self.asked, self.sampling, self.labels = Counter(), [], [], []

    def rows(self, messages, width):
        self.asked += messages
        rows = np.full((len(messages), width), -50.0)
        for row, message in zip(rows, messages, strict=True):
            passages = [part.text for part in message.parts if isinstance(part, Passage)]
            values = [self.prefers(text) if self.prefers else -float(n) for n, text in enumerate(passages)]
            row[: len(values)] = values
        return rows

    def choose(self, messages, labels):
        self.labels.append(tuple(labels))
        rows = self.rows(messages, len(labels))
        return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)

    def likelihood(self, messages, targets):
        self.targets = list(targets)
        return self.rows(messages, 1)[:, 0]

    def score(self, messages):
        return self.rows(messages, 1)[:, 0]

    def generate(self, messages, **sampling):
        self.asked += messages
        self.sampling.append(sampling)
        return [self.says.pop(0) for _ in messages]


class Sure(Judge):
    """Gives each label of a single passage the probability it is told to."""

    def __init__(self, *shares):
        super().__init__()
        self.shares = shares

    def choose(self, messages, labels):
        self.asked += messages
        return np.log(np.array([self.shares] * len(messages)))
