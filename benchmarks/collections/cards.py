"""What a collection says of itself: counts by language, `card.json`, `README.txt`; and samples of its topics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from directory import HALVES, Topic, sampled

NO_LANGUAGE = "0"  # column 2 of the judgements of a picture


def langs_of(topic: Topic) -> set[str]:
    """The languages that a topic is about: of its documents, or where those are pictures its own."""
    return {judgement.lang for judgement in topic.judgements} - {NO_LANGUAGE} or {str(topic.record["lang"])}


def sampled_by_language(topics: Sequence[Topic], most: int | None) -> list[Topic]:
    """At most `most` topics for each half and language, in the order of their ids.

    A topic of several languages counts in each of them. A smaller sample is part of a larger.
    """
    langs = sorted({lang for topic in topics for lang in langs_of(topic)})
    found = {
        topic.id: topic
        for lang in langs
        for topic in sampled([topic for topic in topics if lang in langs_of(topic)], most)
    }
    return [found[id] for id in sorted(found)]


def counted(topics: Sequence[Topic]) -> dict[str, Any]:
    """Topics and judgements of all, `dev` and `test`, by language too."""

    def count(part: Sequence[Topic]) -> dict[str, Any]:
        asked: Counter[str] = Counter()
        judged: Counter[str] = Counter()
        for topic in part:
            langs = langs_of(topic)
            asked.update(langs)
            if len(langs) == 1:
                judged[min(langs)] += len(topic.judgements)
            else:
                judged.update(judgement.lang for judgement in topic.judgements)
        return {
            "topics": len(part),
            "judgements": sum(len(topic.judgements) for topic in part),
            "by language": {lang: {"topics": asked[lang], "judgements": judged[lang]} for lang in sorted(asked)},
        }

    return {"all": count(topics), **{half: count([topic for topic in topics if topic.half == half]) for half in HALVES}}


def readme(what: str, script: str, card: Mapping[str, Any]) -> str:
    """The text of `README.txt`: `what` the collection is, then sizes, judgements and sources from its card."""
    sources = "\n".join(
        "  " + " ".join(list(source.values())[:-1]) + "\n    " + " ".join(list(source.items())[-1])
        for source in card["sources"]
    )
    documents = ", ".join(f"{count} {kind}" for kind, count in card["documents"].items())
    sizes = "\n".join(
        f"  {lang}: " + ", ".join(f"{_topics(card, half, lang)} topics in {half}" for half in HALVES)
        for lang in card["all"]["by language"]
    )
    return (
        f"{card['name']}: {what}\n\nDocuments: {documents}.\n{sizes}\n\nJudgements: {card['judgements']}.\n"
        "Choose weights and prompts on dev, report on test.\n\n"
        f"Made by crosslens' benchmarks/collections/{script} from\n{sources}\n"
        f"Licence: {card['licence']}. More in card.json.\n"
    )


def write_card(root: Path, card: Mapping[str, Any], text: str) -> None:
    (root / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (root / "README.txt").write_text(text, "utf-8")


def _topics(card: Mapping[str, Any], half: str, lang: str) -> int:
    return int(card[half]["by language"].get(lang, {"topics": 0})["topics"])
