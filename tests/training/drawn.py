"""Examples drawn by lot, with all that a store of them must heed."""

from __future__ import annotations

import random
from pathlib import Path

from crosslens.items import Item
from crosslens.training.data.example import Example


def draw_examples(count: int, seed: int) -> list[Example]:
    """Examples with all that batches must heed: texts with several ids, ids with several texts, queries that recur,
    pictures with and without words, languages that are not known, scores of some, surrogates and long texts."""
    lots = random.Random(seed)

    def draw(role: str, few: int) -> Item:
        text = f"{role} \n\0 {lots.randrange(few)} \ud800 \U0001f600 " + "ä" * lots.choice((0, 3, 5000))
        image = Path(f"pictures/{lots.randrange(9)}.png") if lots.random() < 0.2 else None
        lang = lots.choice((None, "eng", "deu", "jpn"))
        return Item(f"{role}{lots.randrange(few)}", lots.choice((text, None)) if image else text, image, lang)

    made = []
    while len(made) < count:
        documents = {each.id: each for each in (draw("d", 400) for _ in range(lots.randrange(1, 7)))}
        cut = lots.randrange(1, len(documents) + 1)
        scores = tuple(lots.random() for _ in documents) if lots.random() < 0.5 else ()
        several = tuple(documents.values())
        made.append(Example(draw("q", 300), several[:cut], several[cut:], scores))
    return made
