"""Thoughts to be learnt: what a teacher reasoned about a query and passages before a verdict that was right."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...files import parse_json
from ...items import Item
from ...multilingual.collections.records import read_json_lines
from ...multilingual.judges.local import LocalJudge
from ...multilingual.prompts import Prompt
from ...multilingual.prompts.prompt import THOUGHT
from ..data.examples import Example
from .lessons import Drawn, Task, TextLesson, word_message, write_order
from .rewards import list_right


class ThoughtLesson(TextLesson):
    """A thought and the verdict after it, as one text (Rank1; Weller et al. 2025: SFT on the traces of a larger model).

    The file has lines `{"query": ID, "documents": [IDS as shown], "thought": TEXT}`; documents are found in the
    query's example, from which the verdict is, too. Of several thoughts about a query one is drawn each epoch.
    `InputError` for a line that is none, and for a query without thoughts.
    """

    def __init__(self, prompt: Prompt, judge: LocalJudge, path: Path) -> None:
        super().__init__(prompt, judge, prompt.most)
        self.path = path
        self.thoughts: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for place, line in read_json_lines(path):
            query, shown, thought = _read_line(line, place)
            sound = isinstance(shown, list) and 0 < len(shown) <= prompt.most and all(isinstance(n, str) for n in shown)
            if not (isinstance(query, str) and isinstance(thought, str) and sound):
                raise InputError(
                    f"{place}: a thought is an object with query, documents (a list of at most {prompt.most} ids) and "
                    f"thought"
                )
            self.thoughts[query].append((tuple(shown), thought))  # type: ignore[arg-type]

    def prepare(self, example: Example, chance: random.Random) -> Task:
        """The question that one of the thoughts is about, and thought and verdict as its answer."""
        known = self.thoughts.get(example.query.id)
        if not known:
            raise InputError(f"{self.path} has no thoughts about the query {example.query.id!r}")
        shown, thought = chance.choice(known)
        drawn = find_shown(example, shown, str(self.path))
        worded, message = word_message(self.prompt, self.judge, drawn.query, drawn.documents)
        verdict = worded.answer + write_verdict(worded, drawn)
        return self.say(message, thought.removesuffix(THOUGHT) + THOUGHT + verdict)


def _read_line(line: bytes, place: str) -> tuple[object, object, object]:
    try:
        value = parse_json(line)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    held = value if isinstance(value, dict) else {}
    return held.get("query"), held.get("documents"), held.get("thought")


def find_shown(example: Example, ids: Sequence[str], where: str) -> Drawn:
    """Documents of an example by their ids; `InputError` where it has one not."""
    documents = {document.id: n for n, document in enumerate(example.documents)}
    if lacking := next((each for each in ids if each not in documents), None):
        raise InputError(f"{where}: the example of the query {example.query.id!r} has no document {lacking!r}")
    places = [documents[each] for each in ids]
    many = len(example.positives)
    worth = example.scores or [float(n < many) for n in range(len(documents))]
    shown: tuple[Item, ...] = tuple(example.documents[n] for n in places)
    return Drawn(example.query, shown, tuple(worth[n] for n in places), tuple(n < many for n in places))


def write_verdict(worded: Prompt, drawn: Drawn) -> str:
    """What a prompt wants said of documents after the thought: a label, or a ranking."""
    if worded.asks == "generate" and worded.most > 1:
        return write_order(worded, drawn.targets)
    right = min(list_right(worded, drawn))
    return worded.labels[right] + worded.closing
