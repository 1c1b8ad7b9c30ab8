"""What every judge of this process keeps, whatever runs it. A new judge is one entry in KINDS."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.documents import InMemoryDocuments
from crosslens.multilingual.judges import Ask, hf
from crosslens.multilingual.judges.messages import Message, Passage, Seam
from crosslens.multilingual.prompts import list_prompts, load_prompt
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.pipeline import watch
from crosslens.runs import Run, ranked

TEXTS = (
    "The cat sleeps all day and hunts at night. " * 4,
    "Le chat dort.",
    "猫整天睡觉，晚上捕猎。",
    "x",
    "Кошка спит весь день.",
)
MESSAGES = [Message(("about cats: ", Seam.SEAM, Passage(text), " Is it?")) for text in TEXTS]


LONG = 4096  # tokens of context: prompts are long to a tokenizer of bytes


def causal(vocabulary: int) -> object:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=vocabulary, **NEOX))


def classifier(vocabulary: int) -> object:
    from transformers import GPTNeoXConfig, GPTNeoXForSequenceClassification

    return GPTNeoXForSequenceClassification(GPTNeoXConfig(vocab_size=vocabulary, num_labels=1, **NEOX))


def seq2seq(vocabulary: int) -> object:
    from transformers import BartConfig, BartForConditionalGeneration

    size = {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 64))
    }
    ids = {**IDS, "decoder_start_token_id": 1, "forced_eos_token_id": None}
    config = BartConfig(
        vocab_size=vocabulary, d_model=32, max_position_embeddings=LONG, init_std=0.3, **size, **ids
    )
    return BartForConditionalGeneration(config)


IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
NEOX = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": LONG, "initializer_range": 0.3, **IDS,
}  # fmt: skip
KINDS = {"causal": causal, "seq2seq": seq2seq, "classifier": classifier}


@pytest.fixture(scope="module", params=list(KINDS))
def where(request, tiny_judge, tmp_path_factory):
    import torch
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(tiny_judge, model_max_length=LONG)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    KINDS[request.param](len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture
def judge(where):
    return hf.open_hf(str(where), device="cpu", dtype="float32")


def asked(judge, ask, messages):
    """The answers to one kind of question, as rows of numbers."""
    if ask == "choose":
        return judge.choose(messages, ["Yes", "No"])
    if ask == "likelihood":
        return judge.likelihood(messages, [" how long do cats sleep"] * len(messages))[:, None]
    if ask == "score":
        return judge.score(messages)[:, None]
    return np.array(
        [[each.tokens, hash(each.text) % 1009] for each in judge.generate(messages, max_new_tokens=4)]
    )


def test_it_says_what_it_is(judge, where):
    assert judge.name == f"hf:{where}"
    assert judge.revision
    assert judge.modalities == {"text"}
    assert judge.can <= set(get_args(Ask))
    assert judge.appetite > 0
    assert (
        judge.fingerprint
        != hf.open_hf(str(where), device="cpu", dtype="float32", passage_tokens=7).fingerprint
    )
    assert judge.fingerprint == hf.open_hf(str(where), device="cpu", dtype="float32").fingerprint


@pytest.mark.parametrize("ask", get_args(Ask))
def test_alone_as_in_a_mixed_batch_and_in_order(judge, ask):
    if ask not in judge.can:
        with pytest.raises(InputError, match=f"cannot answer `{ask}`"):
            asked(judge, ask, MESSAGES)
        return
    told = []
    with watch(told.append):
        together = asked(judge, ask, MESSAGES)
    assert judge.usage["calls"] == len(MESSAGES)
    assert told[-1] == len(MESSAGES)
    assert told == sorted(told)
    assert judge.usage["prompt_tokens"] > 0
    alone = np.concatenate([asked(judge, ask, [message]) for message in MESSAGES])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    judge.budget = 30  # many batches
    np.testing.assert_allclose(asked(judge, ask, MESSAGES[::-1])[::-1], together, rtol=1e-4, atol=1e-5)
    assert len(asked(judge, ask, [])) == 0
    if ask == "choose":
        np.testing.assert_allclose(np.exp(together).sum(axis=1), 1, rtol=1e-6)
    if ask == "likelihood":
        assert (together < 0).all()


def test_a_prompt_that_is_too_long_is_one_line_and_a_long_passage_is_cut(judge):
    ask = next(iter(sorted(judge.can)))
    with pytest.raises(InputError, match="context"):
        asked(judge, ask, [Message(("cat " * 6000, Seam.SEAM, Passage("x")))])
    before = Counter(judge.usage)
    asked(judge, ask, [Message(("query", Seam.SEAM, Passage("猫整天睡觉，" * 400)))])
    assert (judge.usage - before)["cut_passages"] == 1


@pytest.mark.parametrize("name", list_prompts())
def test_every_prompt_reranks_or_says_that_it_does_not_fit(where, judge, name):
    prompt = load_prompt(name)
    options = "dtype=float32&depth=5&k=3" + ("&thinking=4" if prompt.think else "")
    options += "&window=4&step=2" if prompt.sort == "window" else ""
    docs = {str(n): Item(str(n), text[:60]) for n, text in enumerate(TEXTS)}
    run = Run(
        (Item("q", "how long do cats sleep", lang="eng"),),
        {"q": ranked((each, -float(each)) for each in docs)},
    )
    spec = f"{name}@hf:{where}?{options}"
    if prompt.asks not in judge.can or prompt.chat == "always":
        with pytest.raises(InputError, match="cannot answer|no chat template"):
            load_reranker(spec, device="cpu")
        return
    done = load_reranker(spec, device="cpu")(replace(run, docs=InMemoryDocuments(docs)))
    assert sorted(hit.id for hit in done["q"]) == sorted(docs)
    assert done.manifest.total("calls") > 0
