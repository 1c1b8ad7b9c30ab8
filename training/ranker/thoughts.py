"""Thoughts to be learnt: what a teacher reasoned about a query and passages before a verdict that was right."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ...errors import InputError
from ...files import parse_json, write_atomically
from ...items import Item
from ...multilingual.collections.records import read_json_lines, to_json_line
from ...multilingual.judges import Judge
from ...multilingual.judges.journal import Journal
from ...multilingual.judges.kept import KeptJudge
from ...multilingual.judges.local import LocalJudge
from ...multilingual.prompts import Prompt
from ...multilingual.prompts.prompt import THOUGHT
from ..data.examples import Example
from .lessons import Drawn, Task, TextLesson, draw_question, word_message, write_order
from .recipe import RankerRecipe
from .rewards import Asked, list_right, reward_rank

JOURNAL = "thoughts.journal"  # of a teacher's answers


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


def write_thoughts(prompt: Prompt, judge: Judge, examples: Sequence[Example], recipe: RankerRecipe, work: Path) -> Path:
    """Let a teacher answer the prompt about each example, `recipe.samples` times, and keep thoughts that were right.

    Right is a label that the example has, and of rankings the best of an example's (rejection sampling; STaR, Zelikman
    et al. 2022). Answers are kept in `work` as they come; the file there has what `ThoughtLesson` reads. `InputError`
    where the teacher was right about nothing.
    """
    asked = [Asked(*draw_question(prompt, example, recipe, place)) for place, example in enumerate(examples)]
    messages = [each.prompt.message(each.drawn.query, each.drawn.documents, judge.modalities) for each in asked]
    path = work / "thoughts.jsonl"
    room = recipe.thinking + 16 + 6 * prompt.most
    with closing(Journal(work / JOURNAL)) as journal, write_atomically(path) as out:
        kept = KeptJudge(judge, journal, len(messages) * recipe.samples)
        answers = [
            kept.generate(messages, max_new_tokens=room, temperature=recipe.sampling, seed=recipe.seed + n)
            for n in range(recipe.samples)
        ]
        found = 0
        for place, question in enumerate(asked):
            said = dict.fromkeys(row[place].text for row in answers)
            rewards = {text: reward_rank(question, text) for text in said if THOUGHT in text}
            best = max(rewards.values(), default=0.0)
            for text in (text for text, reward in rewards.items() if reward == best > 0):
                drawn = question.drawn
                line = {"query": drawn.query.id, "documents": [document.id for document in drawn.documents]}
                out.write(to_json_line(drawn.query.id, {**line, "thought": text.partition(THOUGHT)[0]}))
                found += 1
        if not found:
            raise InputError(f"{judge.name} gave no right answer with a thought to any of {len(asked)} questions")
    return path


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
