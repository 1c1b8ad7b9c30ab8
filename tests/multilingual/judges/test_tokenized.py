"""Labels read off the next token, whatever a tokenizer makes of " A" and "A", against whole sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from crosslens.errors import InputError
from crosslens.multilingual.judges.tokenized import CachedTokenizer, LabelTokens, normalize_labels, plan_continuations
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table
from tiny.tokenizers import SENTENCES, make_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LETTERS = tuple("ABCDEFGHIJKLMNOPQRST")
NUMBERS = tuple(f"{n}]" for n in range(1, 21))
SETS = {
    "letters": LETTERS,
    "numbers": NUMBERS,
    "yes-no": ("Yes", "No"),
    "chinese": ("是", "否"),
    "russian": ("Да", "Нет"),
    "long": ("Perfectly relevant", "Highly relevant", "Irrelevant"),
}
BEFORE = ("Answer:", "Answer: ", "The answer is", "Passage [", "回答：", "Ответ:\n", "assistant\n", "")
TEXTS = (
    *SENTENCES,
    "Answer: A B C D E F G H I J K L M N O P Q R S T Yes No 是 否 Да Нет Passage [1] [2] 12 20 回答：是",
    *(f"Answer: {label} the answer is {label}" for label in LETTERS),
    "Passage Perfectly relevant Highly relevant Irrelevant relevant relevant assistant Ответ: Да Ответ: Нет",
)
ALPHABET = sorted(set("".join(TEXTS)) | set("0123456789[]():.,?!"))


def trained(model, trainer, pre, decoder=None, normalizer=None, **special):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    if decoder is not None:
        tokenizer.decoder = decoder
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator([*TEXTS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


def unigram(scheme, split=True):
    alphabet = ["▁", *ALPHABET]
    trainer = trainers.UnigramTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    return trained(models.Unigram(), trainer, pre, decoders.Metaspace(prepend_scheme=scheme))


def bpe(scheme, more=()):
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>"], initial_alphabet=["▁", *ALPHABET], show_progress=False
    )
    pre = pre_tokenizers.Sequence([*more, pre_tokenizers.Metaspace(prepend_scheme=scheme)])
    return trained(models.BPE(unk_token="<unk>"), trainer, pre, decoders.Metaspace(prepend_scheme=scheme))


def byte_fallback():
    """As Llama's: a dummy space before every text, characters out of the vocabulary as bytes."""
    pieces = ["<unk>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *(c for c in ALPHABET if ord(c) < 128)]
    merges = []
    for word in ("▁Yes", "▁No", *(f"▁{letter}" for letter in LETTERS), "▁Answer", "▁the", "Answer"):
        built = word[0]
        for character in word[1:]:
            if built + character not in pieces:
                merges.append((built, character))
                pieces.append(built + character)
            built += character
    pieces = [piece for piece in dict.fromkeys(pieces) if piece != " "]
    model = models.BPE(
        {piece: n for n, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def byte_level(digits=False):
    """As GPT-2's; with digits one by one, as Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def merging():
    """Where colon and letter are one token, and space and letter another."""
    pieces = [*ALPHABET, *(f"{sign}{letter}" for sign in ": " for letter in LETTERS)]
    merges = [(sign, letter) for sign in ": " for letter in LETTERS]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, merges))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def wordpiece():
    trainer = trainers.WordPieceTrainer(
        vocab_size=700, special_tokens=["<unk>"], initial_alphabet=ALPHABET, show_progress=False
    )
    return trained(models.WordPiece(unk_token="<unk>"), trainer, pre_tokenizers.BertPreTokenizer())


KINDS = {
    "tiny": lambda: make_tokenizer(eos_token="</s>"),
    "byte-level": byte_level,
    "byte-level, digits": lambda: byte_level(digits=True),
    "colon merges": merging,
    "unigram, dummy prefix": lambda: unigram("always"),
    "unigram, first only": lambda: unigram("first"),
    "unigram, no prefix": lambda: unigram("never"),
    "unigram, unsplit": lambda: unigram("always", split=False),
    "bpe, dummy prefix": lambda: bpe("always"),
    "bpe, digits": lambda: bpe("never", [pre_tokenizers.Digits(individual_digits=True)]),
    "byte-fallback": byte_fallback,
    "wordpiece": wordpiece,
}


@pytest.fixture(scope="module", params=list(KINDS))
def tokens(request):
    return CachedTokenizer(KINDS[request.param](), request.param)


class Chain:
    """A language model as simple as they come: the next token depends on the last one alone."""

    def __init__(self, vocabulary):
        self.table = torch.randn(vocabulary + 1, vocabulary, generator=torch.manual_seed(0)).double()
        self.table = self.table.log_softmax(-1).numpy()

    def said(self, start, ids):
        before = [start[-1] if start else -1, *ids[:-1]]
        return float(sum(self.table[a, b] for a, b in zip(before, ids, strict=True)))


def plan_all(tokens, labels):
    """The labels' plan after each beginning; none where a tokenizer lacks their characters, which alone may give up."""
    for before in BEFORE:
        try:
            plan = tokens.plan_labels(before, labels)
        except InputError:
            assert tokens.name == "wordpiece"
            assert any(tokens.tokenizer.unk_token_id in tokens.ids(label) for label in labels)
        else:
            yield before, plan


def test_labels_read_off_are_those_of_the_whole_sequences_as_the_tokenizer_writes_them(tokens):
    for labels in SETS.values():
        for before, plan in plan_all(tokens, labels):
            _read_off(tokens, before, plan)
            _written(tokens, before, labels, plan)


def _read_off(tokens, before, plan):
    model = Chain(len(tokens.tokenizer))
    start = tokens.ids(before)
    (asked,) = plan_continuations([plan])
    answers = [
        np.array(
            [np.logaddexp.reduce([model.said((*start, *part.tokens), [each]) for each in ids]) for ids in part.labels]
        )
        if part.labels
        else np.array([model.said((*start, *part.tokens[:n]), [token]) for n, token in enumerate(part.tokens)])
        for part in asked
    ]
    found, mass = normalize_labels(asked, answers)
    assert (mass is None) == plan.single  # not weighed
    assert np.isfinite(found).all()
    assert np.logaddexp.reduce(found) == pytest.approx(0)
    # In full: all tokens of each label in the forms that were read, but for an ending that all have.
    rows = plan.sequences
    ending = next(n for n in range(99) if len({row[len(row) - n - 1 :] for row in rows}) > 1)
    if not plan.single:
        full = [model.said(start, row) for row in rows]
    else:
        full = [np.logaddexp.reduce([model.said(start, (*plan.lead, each)) for each in ids]) for ids in plan.ids]
        assert all(len(row) - len(plan.lead) - ending == 1 for row in rows)
        assert all(row[len(plan.lead)] in ids for row, ids in zip(rows, plan.ids, strict=True))
    np.testing.assert_allclose(found, full - np.logaddexp.reduce(full), rtol=1e-9)


def _written(tokens, before, labels, plan):
    """Prompt and label together have the same tokens as the text of both, unless the tokenizer merges across."""
    start = tokens.ids(before)
    for n, label in enumerate(labels):
        forms = [tokens.ids(before + form) for form in (label, f" {label}")]
        merged = [both for both in forms if both[: len(start)] != start]
        assert (*start, *plan.sequences[n]) in forms or merged
        if plan.single and not plan.lead:
            for each in plan.ids[n]:
                assert tokens.tokenizer.decode([each]).strip() in (label, label.removesuffix("]"))


@table(
    ("kind", "labels", "single"),
    [
        ("byte-level", LETTERS, True),
        ("byte-level", ("是", "否"), True),
        ("byte-level", SETS["long"], False),
        ("byte-level, digits", NUMBERS, False),  # "10" begins as "1" does
        ("byte-level, digits", tuple("123"), True),
        ("byte-fallback", ("Yes", "No"), True),
        ("byte-fallback", ("是", "否"), False),  # the first byte is shared by many characters
        ("byte-fallback", ("Да", "Нет"), False),
        ("unigram, dummy prefix", LETTERS, True),
        ("bpe, dummy prefix", ("Yes", "No"), True),
        ("wordpiece", ("Yes", "No"), True),
    ],
)
def test_labels_of_many_tokens_are_found_to_be_so(kind, labels, single):
    assert CachedTokenizer(KINDS[kind](), kind).plan_labels("Answer:", labels).single is single


def test_both_ways_of_writing_a_letter_say_it():
    for kind in ("byte-level", "byte-fallback", "bpe, dummy prefix"):
        tokens = CachedTokenizer(KINDS[kind](), kind)
        (ids, *_) = tokens.plan_labels("Answer:", LETTERS).ids
        said = {tokens.tokenizer.convert_ids_to_tokens(each) for each in ids}
        assert said in ({"A", "▁A"}, {"A", "ĠA"}), kind


def test_a_prompt_that_merges_with_the_label_still_finds_the_labels_own_token():
    tokens = CachedTokenizer(merging(), "merging")
    assert len(tokens.ids(":A")) == 1  # or this tests nothing
    plan = tokens.plan_labels("Answer:", LETTERS)
    assert plan.single
    assert tokens.tokenizer.convert_tokens_to_ids("A") in plan.ids[0]
    # A space at the prompt's end merges with the label; sentencepiece would put another one before it.
    fallback = CachedTokenizer(byte_fallback(), "fallback")
    assert fallback.tokenizer.convert_tokens_to_ids("A") in fallback.plan_labels("Answer: ", LETTERS).ids[0]


def test_labels_that_cannot_be_distinguished_are_an_error():
    lower = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0, "yes": 1, "no": 2, "answer": 3}, unk_token="[UNK]")),
        unk_token="[UNK]",
    )
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    lower.backend_tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokens = CachedTokenizer(lower, "lower")
    assert tokens.plan_labels("answer", ("Yes", "No")).ids == ((1,), (2,))
    with pytest.raises(InputError, match="same tokens of two of the labels Yes, YES"):
        tokens.plan_labels("answer", ("Yes", "YES"))
    with pytest.raises(InputError, match="no tokens for the label Да"):
        tokens.plan_labels("answer", ("Да", "yes"))


def test_labels_are_asked_at_once_only_where_all_prompts_have_single_tokens():
    single = LabelTokens(True, (7,), ((1,), (2,)), ((7, 1), (7, 2)))
    many = LabelTokens(False, (), (), ((1, 2), (3,)))
    assert [[each.labels for each in row] for row in plan_continuations([single, single])] == [[((1,), (2,))]] * 2
    rows = plan_continuations([single, many])
    assert [[(each.tokens, each.scored) for each in row] for row in rows] == [
        [((7, 1), 2), ((7, 2), 2)],
        [((1, 2), 2), ((3,), 1)],
    ]
    answers = [[np.log([0.5, 0.4]), np.log([0.5, 0.6])], [np.log([0.3, 0.1]), np.log([0.09])]]
    (one, its), (other, others) = map(normalize_labels, rows, answers)
    np.testing.assert_allclose(np.exp([one, other]), [[0.4, 0.6], [0.25, 0.75]])
    assert (its, others) == (pytest.approx(0.5), pytest.approx(0.12))


@given(st.text(st.sampled_from([*ALPHABET, "😀", "ก"]), max_size=40), st.integers(0, 12))
@settings(max_examples=100)
def test_a_text_is_cut_to_its_start_between_characters(text, limit):
    for kind in ("tiny", "byte-fallback", "unigram, dummy prefix", "wordpiece"):
        cut = CUTS[kind].cut(text, limit)
        assert text.startswith(cut)
        assert CUTS[kind].count(cut) <= limit
        if CUTS[kind].count(text) <= limit:
            assert cut == text


CUTS = {
    kind: CachedTokenizer(KINDS[kind](), kind)
    for kind in ("tiny", "byte-fallback", "unigram, dummy prefix", "wordpiece")
}
