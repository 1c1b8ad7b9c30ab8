"""What a ranker learns of an example: scores of its documents, or a text to say; prepared as at inference."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import InputError
from ...items import Item
from ...multilingual.judges.classifier import ClassifierJudge
from ...multilingual.judges.local import LocalJudge
from ...multilingual.judges.messages import Message
from ...multilingual.judges.tokenized import Continuation
from ...multilingual.prompts import Prompt
from ..data.examples import Example
from .answering import Question, answer_questions, count_tokens_read, score_inputs
from .losses import LABELLED, SCORED, ListLoss
from .recipe import RankerRecipe


@dataclass(frozen=True, eq=False)
class Drawn:
    """Documents of an example as they are shown, what each is worth (a teacher's score, or 1 and 0), if it answers."""

    query: Item
    documents: tuple[Item, ...]
    targets: tuple[float, ...]
    positive: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of the model about one example, and what it should say.

    `inputs` are of a relevance head, one a document; else a language model is asked `rows` of questions: one that
    chooses a label or says a text, or one for each label where these have several tokens. `targets` [documents] are
    what `Drawn` has. `cost` is in tokens, of the whole.
    """

    inputs: tuple[dict[str, list[int]], ...]
    rows: tuple[tuple[Question, ...], ...]
    targets: tuple[float, ...]
    cost: int


def draw_documents(example: Example, loss: str, group: int, chance: random.Random) -> Drawn:
    """`group` documents of an example at most: a positive, and others drawn at random.

    Losses of labels take one positive and negatives; others any documents. `InputError` where a loss lacks a teacher's
    scores, or documents to set a positive apart from.
    """
    documents, many = example.documents, len(example.positives)
    query = example.query
    if loss in SCORED and not example.scores:
        raise InputError(
            f"the query {query.id!r} has no scores, and the loss {loss} needs a teacher's: `crosslens mine --score`, "
            f"or take softmax"
        )
    first = chance.randrange(many)
    others = [n for n in range(len(documents)) if n != first and (loss == "bce" or loss not in LABELLED or n >= many)]
    if not others and loss != "bce" and loss != "mse":
        raise InputError(f"the query {query.id!r} has one positive and no negatives: mine some (`crosslens mine`)")
    chosen = [first, *chance.sample(others, min(group - 1, len(others)))]
    scored = bool(example.scores) and loss not in LABELLED
    worth = example.scores if scored else [float(n < many) for n in range(len(documents))]
    positive = tuple(n < many for n in chosen)
    return Drawn(query, tuple(documents[n] for n in chosen), tuple(worth[n] for n in chosen), positive)


def shuffle_documents(drawn: Drawn, chance: random.Random) -> Drawn:
    """The documents in another order, so that no place is better than another."""
    order = list(range(len(drawn.documents)))
    chance.shuffle(order)
    return Drawn(
        drawn.query,
        tuple(drawn.documents[n] for n in order),
        tuple(drawn.targets[n] for n in order),
        tuple(drawn.positive[n] for n in order),
    )


def word_message(prompt: Prompt, judge: LocalJudge, query: Item, documents: Sequence[Item]) -> tuple[Prompt, Message]:
    """The prompt in the language in which it is asked of these at inference, and its message."""
    worded = prompt.in_language(prompt.choose_language(query, documents, Counter()))
    return worded, worded.message(query, documents, judge.modalities)


def draw_question(prompt: Prompt, example: Example, recipe: RankerRecipe, place: int) -> tuple[Prompt, Drawn]:
    """What is asked of an example once and for all: the prompt in its language, and the documents that it shows.

    They are shuffled by the seed and the example's `place`; one document is as often a positive as a negative.
    """
    chance = random.Random(f"{recipe.seed}/{place}")
    group = min(recipe.group, prompt.most) if prompt.most > 1 else len(example.documents)
    drawn = shuffle_documents(draw_documents(example, "ranknet", group, chance), chance)
    if prompt.most == 1:
        drawn = _draw_one(drawn, chance)
    return prompt.in_language(prompt.choose_language(drawn.query, drawn.documents, Counter())), drawn


def write_order(prompt: Prompt, targets: Sequence[float]) -> str:
    """The ranking of documents by what they are worth, as a prompt wants it said: `[2] > [1] > [3]`."""
    ranked = sorted(range(len(targets)), key=lambda n: -targets[n])
    return " > ".join(f"[{prompt.labels[n]}]" for n in ranked)


class ScoreLesson:
    """Scores of documents learnt by a loss over one query's: of a head, of labels for each, or of labels among many.

    A prompt that shows one passage gives a score for each as `Prompt.score` has it: the log-odds of its first label,
    or the expected value; one that shows several the log-probability of each one's label.
    """

    def __init__(self, prompt: Prompt, judge: LocalJudge, loss: ListLoss, name: str, group: int) -> None:
        self.prompt, self.judge, self.loss, self.name = prompt, judge, loss, name
        self.group = group if prompt.most == 1 else min(group, prompt.most)

    def prepare(self, example: Example, chance: random.Random) -> Task:
        """The questions about some of an example's documents."""
        drawn = draw_documents(example, self.name, self.group, chance)
        if self.prompt.most > 1:
            drawn = shuffle_documents(drawn, chance)
        return self.ask(drawn)

    def ask(self, drawn: Drawn) -> Task:
        """The questions about these documents."""
        if self.prompt.most > 1:
            worded, message = word_message(self.prompt, self.judge, drawn.query, drawn.documents)
            return self._make([(worded, message)], len(drawn.documents), drawn.targets)
        asked = [word_message(self.prompt, self.judge, drawn.query, [each]) for each in drawn.documents]
        if isinstance(self.judge, ClassifierJudge):
            inputs = tuple(self.judge.encode(message) for _, message in asked)
            return Task(inputs, (), drawn.targets, sum(len(each["input_ids"]) for each in inputs))
        return self._make(asked, len(self.prompt.labels), drawn.targets)

    def _make(self, asked: Sequence[tuple[Prompt, Message]], labels: int, targets: tuple[float, ...]) -> Task:
        rows: list[tuple[Question, ...]] = []
        for worded, message in asked:
            if worded.asks == "likelihood":
                raise InputError(f"the prompt {worded.name} asks for a likelihood, which is trained on texts alone")
            chosen = tuple(label + worded.closing for label in worded.labels[:labels])
            starts, plans = self.judge.prepare_choices([message], chosen)
            rows.append(tuple((starts[0], each) for each in plans[0]))
        return Task((), tuple(rows), targets, sum(count_tokens_read(each) for row in rows for each in row))

    def compute(self, tasks: Sequence[Task]) -> torch.Tensor:
        """The mean loss of the tasks, all computed as one batch."""
        losses = [
            self.loss(scores, torch.tensor(task.targets, device=scores.device))
            for scores, task in zip(self.score(tasks), tasks, strict=True)
        ]
        return torch.stack(losses).mean()

    def score(self, tasks: Sequence[Task]) -> list[torch.Tensor]:
        """The scores of each task's documents, float32 [documents]."""
        if tasks[0].inputs:
            assert isinstance(self.judge, ClassifierJudge)
            scores = score_inputs(self.judge, [each for task in tasks for each in task.inputs])
            return list(scores.split([len(task.inputs) for task in tasks]))
        rows = iter(_choose_labels(self.judge, [row for task in tasks for row in task.rows]))
        if self.prompt.most > 1:
            return list(rows)
        return [torch.stack([self._weigh(next(rows)) for _ in task.rows]) for task in tasks]

    def _weigh(self, row: torch.Tensor) -> torch.Tensor:
        """The score of a document by the scores of its labels, as `Prompt` makes it."""
        if self.prompt.values:
            return row.softmax(0) @ torch.tensor(self.prompt.values, dtype=row.dtype, device=row.device)
        return row[0] - row[1:].logsumexp(0)


class TextLesson:
    """A text that the model should say: a permutation of passages by a teacher, as a generator of rankings says it.

    The loss is the mean negative log-likelihood of the answer's tokens, its end included (RankZephyr; Pradeep et al.
    2023): the permutation is that of the scores, or positives before negatives, each in the order of the example.
    """

    def __init__(self, prompt: Prompt, judge: LocalJudge, group: int) -> None:
        self.prompt, self.judge, self.group = prompt, judge, min(group, prompt.most)
        self.end = find_end(judge)

    def prepare(self, example: Example, chance: random.Random) -> Task:
        """The question about some of an example's documents, shuffled, and the permutation that answers it."""
        return self.ask(shuffle_documents(draw_documents(example, "ranknet", self.group, chance), chance))

    def ask(self, drawn: Drawn) -> Task:
        """The question about these documents, and its answer."""
        worded, message = word_message(self.prompt, self.judge, drawn.query, drawn.documents)
        text = write_order(worded, drawn.targets)
        return self.say(message, text if message.answer[-1:].isspace() else f" {text}")

    def say(self, message: Message, text: str) -> Task:
        """The question that a message is, and a text as its answer."""
        starts, asked = self.judge.prepare_targets([message], [text])
        following = Continuation((*asked[0].tokens, self.end), asked[0].scored + 1)
        question = (starts[0], following)
        return Task((), ((question,),), (), count_tokens_read(question))

    def compute(self, tasks: Sequence[Task]) -> torch.Tensor:
        """The mean loss of the tasks' tokens, all computed as one batch."""
        answers = answer_questions(self.judge, [task.rows[0][0] for task in tasks])
        return -torch.stack([answer.mean() for answer in answers]).mean()


Lesson = ScoreLesson | TextLesson


def find_end(judge: LocalJudge) -> int:
    """The token with which a model ends what it says: its tokenizer's, or that of a chat's turn."""
    ends = judge.generator.ends
    own = judge.tokenizer.eos_token_id
    known = sorted(token for token in ends if token is not None)
    if own in ends or not known:
        if own is None:
            raise InputError(f"{judge.name} has no token that ends a text: it cannot learn when to stop")
        return int(own)
    return int(known[0])


def _choose_labels(judge: LocalJudge, rows: Sequence[tuple[Question, ...]]) -> list[torch.Tensor]:
    """Of each row of questions the scores of its labels [labels]; of labels of many tokens those of all together."""
    single = [n for n, row in enumerate(rows) if row[0][1].labels]
    several = [n for n, row in enumerate(rows) if not row[0][1].labels]
    found: dict[int, torch.Tensor] = {}
    # One batch each: labels of one token are read off a state, others are texts.
    if single:
        found.update(zip(single, answer_questions(judge, [rows[n][0] for n in single]), strict=True))
    if several:
        answers = iter(answer_questions(judge, [each for n in several for each in rows[n]]))
        found.update((n, torch.stack([next(answers).sum() for _ in rows[n]])) for n in several)
    return [found[n] for n in range(len(rows))]


def _draw_one(drawn: Drawn, chance: random.Random) -> Drawn:
    """One of the documents, as often a positive as a negative."""
    kinds = [[n for n, each in enumerate(drawn.positive) if each == wanted] for wanted in (True, False)]
    n = chance.choice(chance.choice([each for each in kinds if each]))
    return Drawn(drawn.query, (drawn.documents[n],), (drawn.targets[n],), (drawn.positive[n],))
