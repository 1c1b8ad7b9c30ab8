"""PromptReps: both representations by hand, what the model is shown, words of every script, bad checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crosslens.checkpoints.offline import packages as offline
from crosslens.encoders import promptreps
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.encoders.words import is_spaced, list_stopwords, read_prompt_texts, split_words, tokenize_answers
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.pipeline import zscore
from stand_ins.table import table

TEXTS = [
    "The cat sleeps all day, and HUNTS at night.",
    "Le chat dort toute la journée.",
    "Кошка спит весь день. " * 12,
    "cat",
]
ITEMS = [Item(f"d{number}", text) for number, text in enumerate(TEXTS)]
# What CHAT says of a turn and of where an answer begins.
CHAT = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def weights(encoder: Any, items: list[Item], role: str = "document") -> np.ndarray:
    return np.concatenate([batch.vectors.toarray() for batch in encoder.encode(items, role)])


def terms(encoder: Any, item: Item) -> set[str]:
    """The terms of a document as text."""
    return {encoder.tokenizer.decode([term]) for term in np.flatnonzero(weights(encoder, [item])[0])}


def shown(encoder: Any, item: Item, role: str = "document") -> str:
    return encoder.tokenizer.decode(encoder.prepare([item], role)[0].tokens)


def by_hand(where: Path, role: str, bos: str) -> tuple[np.ndarray, np.ndarray]:
    """The paper's formulas, a text at a time, on the checkpoint as transformers loads it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(where)
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    kind = {"document": "Passage", "query": "Query"}[role]
    after = (
        f'"\nRepresent this {kind.lower()} for retrieval by its one most important word, in lower case.\nThe word is: "'
    )
    dense, sparse = [], []
    for text in TEXTS:
        ids = [tokenizer.convert_tokens_to_ids(bos)]
        for part in (f'{kind}: "', text, after):
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        state = out.hidden_states[-1][0, -1]
        dense.append((state / state.norm()).numpy())
        saturated = torch.log1p(torch.relu(out.logits[0, -1]))
        mine = set()
        for word in set(re.findall(r"\w+", text.lower())) - read_prompt_texts()["eng"].stopwords:
            mine |= set(tokenizer(word, add_special_tokens=False)["input_ids"])
        row = torch.zeros_like(saturated)
        row[list(mine)] = saturated[list(mine)]
        sparse.append(row.numpy())
    return np.stack(dense), np.stack(sparse)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize(("kind", "bos"), [("tiny_llm", "<s>"), ("tiny_judge", "<bos>")])
def test_both_representations_are_those_of_the_formula(
    kind: str, bos: str, role: Any, request: pytest.FixtureRequest
) -> None:
    where = request.getfixturevalue(kind)
    states, expected = by_hand(where, role, bos)
    spec = f"promptreps:{where}?dtype=float32"
    np.testing.assert_allclose(encode_matrix(load_encoder(spec), ITEMS, role), states, atol=2e-5)
    found = weights(load_encoder(f"{spec}&rep=sparse"), ITEMS, role)
    held = (expected > 0).any(axis=1)
    assert held.sum() >= 3  # a text none of whose words has a weight is another test's
    np.testing.assert_allclose(found[held], expected[held], atol=2e-5)


def test_the_spec_holds_the_prompt_and_what_else_decides(tiny_llm: Path) -> None:
    dense, sparse = (
        load_encoder(f"promptreps:{tiny_llm}").spec,
        load_encoder(f"promptreps:{tiny_llm}?rep=sparse").spec,
    )
    assert dense.document_prompt.startswith('Passage: "{text}"')
    assert dense.query_prompt.startswith('Query: "{text}"')
    assert dense.special_tokens == "<s>"
    assert (dense.kind, dense.metric, dense.normalized, dense.dim) == ("dense", "cosine", True, 32)
    assert (sparse.kind, sparse.metric, sparse.normalized) == ("sparse", "dot", False)
    assert sparse.dim > 256
    specs = [
        load_encoder(f"promptreps:{tiny_llm}?{more}").spec
        for more in ("prompt=deu", "prompt=own", "rep=sparse&terms=5")
    ]
    assert len({spec.fingerprint for spec in (dense, sparse, *specs)}) == 5


def test_dense_and_sparse_share_one_model(tiny_llm: Path) -> None:
    dense, sparse = load_encoder(f"promptreps:{tiny_llm}"), load_encoder(f"promptreps:{tiny_llm}?rep=sparse")
    assert dense.model is sparse.model  # type: ignore[attr-defined]


def test_a_long_text_is_cut_and_the_prompt_never(tiny_llm: Path) -> None:
    frame = load_encoder(f"promptreps:{tiny_llm}").longest  # type: ignore[attr-defined]
    encoder: Any = load_encoder(f"promptreps:{tiny_llm}?rep=sparse&max_tokens={frame + 20}&dtype=float32")
    item = Item("long", "cat " * 30 + "hunts night sleeps")
    piece = encoder.prepare([item], "document")[0]
    assert len(piece.tokens) == frame + 20
    after = encoder.frames["eng"]["document"].after
    assert piece.tokens[-len(after) :] == after
    # Words that were not read are no terms.
    assert set(piece.terms) == set(tokenize_answers(encoder.tokenizer, [('"', "cat")])[0])
    assert encoder.room() == 20


def test_special_tokens_in_a_text_stay_text(tiny_llm: Path) -> None:
    encoder: Any = load_encoder(f"promptreps:{tiny_llm}?rep=sparse")
    piece = encoder.prepare([Item("a", "the cat </s> <s> sleeps")], "document")[0]
    special = encoder.tokenizer.all_special_ids
    assert [token for token in piece.tokens if token in special] == [encoder.tokenizer.bos_token_id]
    assert not set(piece.terms) & set(special)
    assert "</s> <s> sleeps" in encoder.tokenizer.decode(piece.tokens)


def test_own_asks_in_the_language_of_the_item(tiny_llm: Path) -> None:
    encoder = load_encoder(f"promptreps:{tiny_llm}?prompt=own")
    assert shown(encoder, Item("a", "猫整天睡觉", lang="zho")).startswith("<s>段落：“猫整天睡觉”\n")
    assert "Запрос: «кошка»" in shown(encoder, Item("a", "кошка", lang="rus"), "query")
    for lang in (None, "heb"):
        assert "Represent this passage" in shown(encoder, Item("a", "חתול", lang=lang))
    chinese = load_encoder(f"promptreps:{tiny_llm}?prompt=zho")
    assert shown(chinese, Item("a", "chat", lang="fra")).startswith("<s>段落：“chat”\n")
    items = [Item("a", "chat", lang=lang) for lang in ("fra", "deu", None)]
    assert len(np.unique(encode_matrix(encoder, items, "query").round(4), axis=0)) == 3


@pytest.fixture
def chatty(tiny_llm: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The checkpoint with a chat template."""

    def made(template: str) -> Path:
        where = tmp_path / "chatty"
        shutil.copytree(tiny_llm, where)
        (where / "chat_template.jinja").write_text(template)
        return where

    return made


def test_a_chat_template_goes_around_and_the_answer_is_begun(chatty: Callable[[str], Path]) -> None:
    where = chatty(CHAT)
    said = shown(load_encoder(f"promptreps:{where}"), Item("a", "the cat"))
    assert said.startswith('<s><user>Passage: "the cat"\n')
    assert said.endswith(', in lower case.\n<assistant>The word is: "')
    assert said.count("<s>") == 1
    plain = shown(load_encoder(f"promptreps:{where}?chat=false"), Item("a", "the cat"))
    assert plain.startswith('<s>Passage: "the cat"')
    assert "<user>" not in plain


def test_a_thought_is_closed_where_the_template_would_open_one(chatty: Callable[[str], Path]) -> None:
    where = chatty(CHAT + "{% if enable_thinking is false %}<think></think>{% endif %}")
    assert shown(load_encoder(f"promptreps:{where}"), Item("a", "cat")).endswith(
        '<assistant><think></think>The word is: "'
    )


def test_a_chat_template_that_does_not_take_the_turn(chatty: Callable[[str], Path]) -> None:
    where = chatty("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}")
    with pytest.raises(InputError, match=r"chat template does not take a user's turn alone; write chat=false"):
        load_encoder(f"promptreps:{where}")


# Words and their tokens


@table(
    ("text", "expected"),
    [
        ("The cat's 2 CATS, re-read: naïve!", {"the", "cat", "s", "2", "cats", "re", "read", "naïve"}),
        ("बिल्ली दिन भर सोती है।", {"बिल्ली", "दिन", "भर", "सोती", "है"}),
        ("گربه تمام روز می‌خوابد.", {"گربه", "تمام", "روز", "می‌خوابد"}),
        ("猫整天睡觉，晚上捕猎。", {"猫整天睡觉", "晚上捕猎"}),
        ("แมวนอนทั้งวัน 😀", {"แมวนอนทั้งวัน"}),
        ("cafe\u0301 Z\u0351o", {"cafe\u0301", "z\u0351o"}),
        ("👩‍👩‍👧 🐈‍⬛\ufe0f … —", set()),
    ],
)
def test_words_of_any_script(text: str, expected: set[str]) -> None:
    assert split_words(text) == expected


def test_scripts_without_spaces() -> None:
    assert [is_spaced(word) for word in ("cat", "кошка", "고양이", "गर्मी")] == [True] * 4
    assert [is_spaced(word) for word in ("猫整天", "ネコ", "แมว", "nasaは", "𠀋")] == [False] * 5


def test_stopwords_are_those_of_the_language_of_the_item(tiny_llm: Path) -> None:
    encoder: Any = load_encoder(f"promptreps:{tiny_llm}?rep=sparse&prompt=own")
    german = Item("a", "die Katze and", lang="deu")
    said = {word: set(tokenize_answers(encoder.tokenizer, [('"', word)])[0]) for word in ("die", "katze", "and")}
    assert set(encoder.prepare([german], "document")[0].terms) == said["katze"] | said["and"]
    english = Item("a", "die Katze and")
    assert set(encoder.prepare([english], "document")[0].terms) == said["die"] | said["katze"]
    assert list_stopwords("heb") == list_stopwords(None) == read_prompt_texts()["eng"].stopwords


def test_without_spaces_tokens_are_compared_with_stopwords(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load_encoder(f"promptreps:{tiny_llm}?rep=sparse")
    stopword, word = "猫整天睡觉", "x猫整天睡觉"
    silent, whole = map(set, tokenize_answers(encoder.tokenizer, [('"', stopword), ('"', word)]))
    assert len(silent) == 1
    assert silent < whole
    for stopwords, kept in (({}, whole), ({stopword}, whole - silent)):
        encoder = load_encoder(f"promptreps:{tiny_llm}?rep=sparse")
        monkeypatch.setattr(promptreps, "list_stopwords", lambda lang, held=stopwords: frozenset(held))
        terms = encoder.prepare([Item("a", word, lang="zho")], "document")[0].terms
        assert set(terms) == kept


def test_a_word_is_tokenised_as_it_goes_on_from_the_quotation_mark() -> None:
    """A word alone may get a space before it, as SentencePiece writes it; after the mark it has none."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [
        ("<unk>", 0.0),
        ("▁", -3.0),
        ("▁cat", -1.0),
        ("cat", -1.5),
        ('▁"', -1.0),
        ('"', -2.0),
        ("“c", -0.1),
        ("at", -0.1),
    ]
    vocabulary += [(f"{mark}“", -2.0) for mark in ("", "▁")]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    found = tokenize_answers(tokenizer, [('The word is: "', "cat"), ("这个词是：“", "cat")])
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in found] == [["cat"], ["▁cat"]]


def test_a_text_without_words_gets_the_strongest_of_the_vocabulary(tiny_llm: Path) -> None:
    encoder: Any = load_encoder(f"promptreps:{tiny_llm}?rep=sparse&dtype=float32")
    row = weights(encoder, [Item("a", "😀 …")])[0]
    assert (row > 0).sum() == 10
    assert (row[encoder.tokenizer.all_special_ids] == 0).all()


def test_few_terms_are_the_strongest(tiny_judge: Path) -> None:
    every = weights(load_encoder(f"promptreps:{tiny_judge}?dtype=float32&rep=sparse&terms=0"), ITEMS[:1])[0]
    few = weights(load_encoder(f"promptreps:{tiny_judge}?dtype=float32&rep=sparse&terms=2"), ITEMS[:1])[0]
    assert (every > 0).sum() > 2
    np.testing.assert_allclose(np.sort(few)[-3:], [0, *np.sort(every)[-2:]], atol=1e-6)


def test_int8_is_near(tiny_judge: Path) -> None:
    spec = f"promptreps:{tiny_judge}?rep=sparse&dtype="
    full, few = (weights(load_encoder(spec + dtype), ITEMS) for dtype in ("float32", "int8"))
    cosines = (full * few).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(few, axis=1)
    assert cosines.min() > 0.95


# Prompts


def test_every_wording_is_whole() -> None:
    assert {"eng", "zho", "rus", "fas", "deu", "fra", "spa", "ita", "jpn", "ara", "kor"} <= set(read_prompt_texts())
    for name, wording in read_prompt_texts().items():
        assert wording.document.count("{text}") == wording.query.count("{text}") == 1, name
        assert wording.answer[-1] in '"“「«', name
        assert wording.document[-1].isspace(), name  # the answer stands apart in plain text
        assert all(word == word.lower() for word in wording.stopwords), name
        assert name == "topic" or len(wording.stopwords) > 70, name
        # A stopword of several words would never be found.
        assert all(word.strip() and (split_words(word) <= {word}) for word in wording.stopwords), name


# In indexes


def test_hybrid_search_over_both_indexes(tiny_llm: Path) -> None:
    stages = []
    for kind, rep in (("flat", "dense"), ("sparse", "sparse")):
        index = create_index("memory://", kind=kind, lexical=False)
        assert index.add(ITEMS, load_encoder(f"promptreps:{tiny_llm}?dtype=float32&rep={rep}")) == len(ITEMS)
        stages.append(index.retriever("dense", 10))
    run = (zscore(stages[0]) + zscore(stages[1]))([Item("q", TEXTS[0])])
    assert run["q"][0].id == "d0"
    assert len(run["q"]) == len(ITEMS)


def test_gemma_says_what_a_text_is_about() -> None:
    if not offline.is_available("gemma"):
        pytest.skip("needs crosslens[offline]")
    encoder = load_encoder("promptreps:offline:gemma?rep=sparse&prompt=own", device="cpu")
    assert encoder.spec.special_tokens == "<bos>"
    texts = {
        "eng": "Coffee beans are roasted and ground, and the coffee is brewed with hot water.",
        "zho": "成年猫每天大约睡十二到十六个小时。",
    }
    items = [Item(lang, text, lang=lang) for lang, text in texts.items()]
    for item, row, topic in zip(items, weights(encoder, items), ("coffee", "猫"), strict=True):
        best = [encoder.tokenizer.decode([term]) for term in np.argsort(-row)[:3]]  # type: ignore[attr-defined]
        assert topic in best, item.text


# Bad input


@table(
    ("options", "message"),
    [
        ("rep=both", r"unknown value of rep .*'both'.*\(known: dense, sparse\)"),
        ("prompt=germ", r"unknown prompt of promptreps 'germ'.*did you mean deu|known: .*deu.*own"),
        ("prompt=pol", r"unknown prompt of promptreps 'pol'.*known: ara.*zho"),
        ("terms=-1", r"terms must be at least 0, not -1"),
        ("chat=true", r"has no chat template: leave chat out"),
        ("max_tokens=9", r"max_tokens must be in \d+\.\.512, the prompt included, not 9$"),
        ("max_tokens=513", r"max_tokens must be in \d+\.\.512, the prompt included, not 513$"),
        ("dtype=4bit", r"dtype=4bit needs a CUDA GPU"),
    ],
)
def test_bad_options(tiny_llm: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_encoder(f"promptreps:{tiny_llm}?{options}", device="cpu")
    assert "\n" not in str(refused.value)


def test_checkpoints_that_say_no_next_word(
    tiny_encoder: Path, tiny_bidirectional_llm: Path, tmp_path: Path, llm_folder: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=r"is BertModel, and promptreps: needs a causal language model with its head"):
        load_encoder(f"promptreps:{tiny_encoder}")
    headless = llm_folder("headless", "Llama", "<s> $A", False)
    with pytest.raises(InputError, match=r"is LlamaModel, .*for trained decoders llm:"):
        load_encoder(f"promptreps:{headless}")
    both_ways = llm_folder("both", "Gemma3", "<s> $A", True, use_bidirectional_attention=True)
    with pytest.raises(InputError, match="attends in both directions, so it says no next word"):
        load_encoder(f"promptreps:{both_ways}")
    short = llm_folder("short", max_position_embeddings=64)
    with pytest.raises(InputError, match=r"context of 64 tokens is too short for the prompt eng"):
        load_encoder(f"promptreps:{short}")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5/config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(InputError, match=r"is no decoder \(t5\); write hf: for promptreps:"):
        load_encoder(f"promptreps:{tmp_path}/t5")


def test_a_checkpoint_without_its_head_tokenizer_or_safetensors(llm_folder: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    where = llm_folder("llama", tie_word_embeddings=False)
    tensors = load_file(where / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if k != "lm_head.weight"}, where / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match=r"weights are missing from the checkpoint: lm_head.weight"):
        load_encoder(f"promptreps:{where}")
    (where / "model.safetensors").unlink()
    torch.save(tensors, where / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled weights only .*AutoModelForCausalLM"):
        load_encoder(f"promptreps:{where}")
    for file in where.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        load_encoder(f"promptreps:{where}")


def test_offline_names() -> None:
    with pytest.raises(InputError, match=r"unknown offline language model 'gema'; did you mean gemma"):
        load_encoder("promptreps:offline:gema")
    with pytest.raises(InputError, match="leave revision out"):
        load_encoder("promptreps:offline:gemma?revision=main")
