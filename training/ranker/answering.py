"""What a judge's model answers, with gradients: scores of a head, of labels, and of the tokens of texts.

What is asked is prepared by the judge itself, so that a model is trained on the very token ids that it is shown later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...encoders.pooling import collate
from ...multilingual.judges.causal import CausalJudge
from ...multilingual.judges.classifier import ClassifierJudge
from ...multilingual.judges.local import LocalJudge
from ...multilingual.judges.prefixes import count_positions
from ...multilingual.judges.seq2seq import Seq2SeqJudge
from ...multilingual.judges.tokenized import Continuation

Question = tuple[Any, Continuation]  # what the model reads of a prompt, and what follows it


def score_inputs(judge: ClassifierJudge, inputs: Sequence[dict[str, list[int]]]) -> torch.Tensor:
    """The scores of a relevance head, float32 [n]."""
    return judge.predict(inputs).float()


def answer_questions(judge: LocalJudge, questions: Sequence[Question]) -> list[torch.Tensor]:
    """Of each question the scores of its labels [labels], or the log-probabilities of its scored tokens [tokens].

    float32, computed as one batch; scores of labels are not normalised.
    """
    ends = [following for _, following in questions]
    if isinstance(judge, Seq2SeqJudge):
        states, first = _read_pairs(judge, questions)
    else:
        assert isinstance(judge, CausalJudge)
        states, first = _read_rows(judge, questions)
    # What is read off is float32 at inference, too.
    with torch.autocast(states.device.type, enabled=False):
        states = states.to(judge.head.layer.weight.dtype) if judge.head.plain else states.float()
        if ends[0].labels:
            return _score_labels(judge, states[range(len(ends)), first], ends)
        values = judge.head.score_tokens(states, first, ends)
    return list(values.split([each.scored for each in ends]))


def count_tokens_read(question: Question) -> int:
    """How many tokens a question takes."""
    start, following = question
    read = sum(map(len, start)) if start and isinstance(start[0], tuple) else len(start)
    return read + len(following.tokens)


def _read_rows(judge: CausalJudge, questions: Sequence[Question]) -> tuple[torch.Tensor, list[int]]:
    """States of the last positions of a causal model, and where in them the scored tokens begin."""
    rows = [following.after(start).tokens for start, following in questions]
    inputs = collate(rows, fill=judge.generator.pad, side="left", device=judge.device)
    width = max(following.scored for _, following in questions) + 1
    positions = count_positions(inputs["attention_mask"])
    states = judge.head.states(width=width, position_ids=positions, use_cache=False, **inputs)
    return states, [width - 1 - following.scored for _, following in questions]


def _read_pairs(judge: Seq2SeqJudge, questions: Sequence[Question]) -> tuple[torch.Tensor, list[int]]:
    """As `_read_rows`, of a decoder; each encoder input is read once."""
    fill = judge.generator.pad
    inputs = list(dict.fromkeys(start[0] for start, _ in questions))
    rows = [following.after(start[1]) for start, following in questions]
    given = collate(inputs, fill=fill, device=judge.device)
    encoded = judge.model.get_encoder()(**given)[0]
    places = torch.tensor([inputs.index(start[0]) for start, _ in questions], device=judge.device)
    shown = collate([row.shown for row in rows], fill=fill, device=judge.device)["input_ids"]
    states = judge.head.states(shown=shown, encoded=encoded[places], mask=given["attention_mask"][places])
    return states, [len(row.tokens) - row.scored - 1 for row in rows]


def _score_labels(judge: LocalJudge, states: torch.Tensor, asked: Sequence[Continuation]) -> list[torch.Tensor]:
    columns = sorted({token for each in asked for ids in each.labels for token in ids})
    place = {token: n for n, token in enumerate(columns)}
    logits = judge.head.logits(states, columns)
    return [
        torch.stack([row[[place[token] for token in ids]].logsumexp(0) for ids in each.labels])
        for row, each in zip(logits, asked, strict=True)
    ]
