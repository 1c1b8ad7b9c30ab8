"""The causal judge against a plain loop over the model: one prompt a forward pass, full logits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from crosslens.checkpoints.options import Loading
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import hf
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.mass import read_mass
from crosslens.multilingual.judges.messages import Message, Passage
from crosslens.multilingual.judges.prefixes import group_prefixes
from crosslens.multilingual.prompts import load_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

DOCS = [
    Item("cat", "The cat sleeps all day and hunts at night. " * 3, lang="eng"),
    Item("chat", "Le chat dort toute la journée.", lang="fra"),
    Item("mao", "猫整天睡觉，晚上捕猎。", lang="zho"),
    Item("gorbe", "گربه تمام روز می‌خوابد.", lang="fas"),
]
QUERIES = [Item("q1", "how long do cats sleep", lang="eng"), Item("q2", "кошка ночью", lang="rus"), Item("q3", "x")]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


@pytest.fixture(scope="module")
def judge(tiny_judge):
    return hf.open_hf(str(tiny_judge), loading=Loading(device="cpu"), dtype="float32")


def copied(judge, passage_tokens=384):
    return CausalJudge(judge.model, judge.tokenizer, "tiny", "0", passage_tokens=passage_tokens, device=judge.device)


@torch.inference_mode()
def plain(judge, prompt: str, target: str) -> list[float]:
    """Log-probabilities of the target's tokens."""
    start = [judge.tokenizer.bos_token_id, *judge.tokenizer(prompt)["input_ids"]]
    said = judge.tokenizer(target)["input_ids"]
    logits = judge.model(torch.tensor([start + said])).logits[0].log_softmax(-1)
    return [float(logits[len(start) - 1 + i, token]) for i, token in enumerate(said)]


@torch.inference_mode()
def test_label_mass_is_the_probability_of_all_labels_together_and_taken_of_a_sample(judge):
    labels = tuple("abcdefghijklmnopqrstuvwxyz")
    messages = [Message((Passage(f"{doc.text} {n}"), " Is it? Answer:")) for n in range(20) for doc in DOCS]
    fresh, shares = copied(judge), []
    fresh.choose(messages, labels)
    for message in (messages[n - 1] for n in (1, 2, 4, 8, 16, 32, 64)):
        plan = judge.tokens.plan_labels(message.plain(), labels)
        start = [judge.tokenizer.bos_token_id, *judge.tokenizer(message.plain())["input_ids"], *plan.lead]
        said = judge.model(torch.tensor([start])).logits[0, -1].softmax(-1)
        shares.append(float(said[[token for ids in plan.ids for token in ids]].sum()))
    assert 0.01 < np.mean(shares) < 0.9
    assert read_mass(fresh.usage) == {"eng": (7, pytest.approx(np.mean(shares), abs=5e-4))}
    fresh.sample = 1
    fresh.choose(messages[:5], labels)
    assert read_mass(fresh.usage)["eng"][0] == 7 + 5


def normalised(rows):
    rows = np.array(rows)
    return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)


def test_likelihood_is_that_of_a_plain_loop_whatever_is_shared_and_batched(judge):
    prompt = load_prompt("likelihood")
    pairs = [(query, doc) for query in QUERIES for doc in DOCS]
    messages = [prompt.message(query, [doc]) for query, doc in pairs]
    targets = [f" {query.text}" for query, _ in pairs]
    expected = [np.mean(plain(judge, m.plain(), target)) for m, target in zip(messages, targets, strict=True)]
    np.testing.assert_allclose(judge.likelihood(messages, targets), expected, rtol=1e-4)
    tight = copied(judge)
    tight.budget = 40  # many batches, many copies of the cache
    np.testing.assert_allclose(tight.likelihood(messages, targets), expected, rtol=1e-4)


@pytest.mark.parametrize("first", ["passage", "query"])
@pytest.mark.parametrize("labels", [("Yes", "No"), ("Yes, very much", "No"), ("1]", "10]", "2]")])
def test_choose_is_that_of_a_plain_loop_for_labels_of_one_and_many_tokens(judge, labels, first):
    words = "A question that many passages are asked about: how long do cats sleep? "
    messages = [
        Message(
            (Passage(doc.text), words, "\nIs it? Answer:")
            if first == "passage"
            else (words, Passage(doc.text), " Answer:")
        )
        for doc in DOCS
    ]
    plans = [judge.tokens.plan_labels(m.plain(), labels) for m in messages]
    if plans[0].single:
        expected = [
            [
                np.logaddexp.reduce(
                    [
                        plain(judge, m.plain() + judge.tokenizer.decode(plan.lead), judge.tokenizer.decode([t]))[0]
                        for t in ids
                    ]
                )
                for ids in plan.ids
            ]
            for m, plan in zip(messages, plans, strict=True)
        ]
    else:
        expected = [[sum(plain(judge, m.plain(), f" {label}")) for label in labels] for m in messages]
    np.testing.assert_allclose(judge.choose(messages, labels), normalised(expected), rtol=1e-3, atol=1e-4)


def test_a_shared_prefix_is_computed_once(judge):
    passage = Passage(DOCS[0].text)
    before = Counter(judge.usage)
    judge.likelihood([Message((passage, " question one:"))], [" yes"])
    alone = judge.usage - before
    before = Counter(judge.usage)
    judge.likelihood([Message((passage, f" question {n}:")) for n in ("one", "two", "three", "four")], [" yes"] * 4)
    together = judge.usage - before
    assert together["calls"] == 4
    assert together["prompt_tokens"] < 2 * alone["prompt_tokens"]


def test_a_window_that_ends_within_a_shared_prefix_counts_tokens_not_padding(tiny_judge, judge):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_judge, sliding_window=24, dtype=torch.float32).eval()
    near = CausalJudge(model, judge.tokenizer, "near", "0", passage_tokens=384, device=judge.device)
    messages = [Message((Passage(DOCS[0].text), " Is it? " * n, "Answer:")) for n in (1, 2, 9, 30)]
    alone = [near.choose([each], ("Yes", "No"))[0] for each in messages]
    np.testing.assert_allclose(near.choose(messages, ("Yes", "No")), alone, atol=1e-5)
    assert np.abs(judge.choose(messages, ("Yes", "No")) - alone).max() > 1e-3  # the window does cut


rows_of_tokens = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=30).map(tuple), max_size=14)


@given(rows_of_tokens, st.lists(st.integers(1, 2), max_size=20).map(tuple))
@settings(max_examples=300)
def test_prefixes_are_shared_and_every_row_is_in_one_group(rows, head):
    rows = [head + row for row in rows]
    groups = group_prefixes(rows)
    assert sorted(n for _, members in groups for n in members) == list(range(len(rows)))
    for length, members in groups:
        assert len({rows[n][:length] for n in members}) == 1
        assert length == 0 or len(members) > 1
    if len(head) >= 8 and len(rows) > 1:  # sharing the head alone would save this much
        assert sum(length * (len(members) - 1) for length, members in groups) >= len(head) * (len(rows) - 1)


def test_a_long_passage_is_cut_and_the_query_is_not(judge):
    short = copied(judge, passage_tokens=5)
    text = short.write_text(Message((Passage("The cat sleeps all day and hunts at night."), " the query")), 1)
    assert text.endswith(" the query")
    assert short.tokens.count(text.removesuffix(" the query")) == 5
    assert short.usage["cut_passages"] == 1
    with pytest.raises(InputError, match="exceeds the context"):
        judge.likelihood([Message(("cat " * 600,))], [" yes"])


def test_many_passages_are_cut_alike_until_all_fit_and_too_many_are_an_error(judge):
    small = copied(judge)
    small.context = 120
    long, tiny = "The cat sleeps all day and hunts at night. " * 9, "Le chat"
    text = small.write_text(Message((Passage(long), "|", Passage(tiny), "|", Passage(long), " the query")), 1)
    assert small.tokens.count(text) < 120
    first, second, third = text.removesuffix(" the query").split("|")
    assert second == tiny
    assert first == third
    assert small.tokens.count(first) > 30
    with pytest.raises(InputError, match="too short for 20 passages"):
        small.write_text(Message((*[Passage(long)] * 20, " the query")), 1)
    with pytest.raises(InputError, match="too short for one passage"):
        small.write_text(Message((Passage(long), "cat " * 118)), 1)


def test_generate_continues_every_prompt_as_it_does_alone(judge):
    messages = [Message((text,)) for text in ("The cat", "Le chat dort toute la journée et", "x")]
    together = judge.generate(messages, max_new_tokens=5)
    alone = [judge.generate([message], max_new_tokens=5)[0] for message in messages]
    assert together == alone
    assert all(0 < each.tokens <= 5 for each in together)


def test_generation_ends_at_a_stop_string(judge):
    (free,) = judge.generate([Message(("The cat",))], max_new_tokens=12)
    assert not free.ended
    assert len(free.text) > 4
    stop = free.text[2:4]
    (stopped,) = judge.generate([Message(("The cat",))], max_new_tokens=12, stop=[stop])
    assert stopped.ended
    assert stopped.text == free.text[: free.text.index(stop) + 2]


def test_a_chat_template_goes_around_where_it_is_wanted(judge):
    chat = copied(judge)
    chat.tokenizer = type(judge.tokenizer).from_pretrained(judge.tokenizer.name_or_path)
    chat.tokenizer.chat_template, chat.chats = TEMPLATE, True
    message = Message(("Is ", Passage("water"), " wet?"), system="Be brief.", answer="It", chat="auto")
    assert chat.write_text(message, 1) == "<system>Be brief.\n<user>Is water wet?\n<model>It"
    assert judge.write_text(message, 1) == "Be brief.\n\nIs water wet?It"
    never = Message(("Is it?",), chat="never")
    assert chat.write_text(never, 1) == "Is it?"
    chat.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    )
    assert chat.write_text(message, 1) == "<user>Be brief.\n\nIs water wet?\n<model>It"
    with pytest.raises(InputError, match="has no chat template"):
        judge.write_text(Message(("Is it?",), chat="always"), 1)


@pytest.mark.parametrize("kind", ["plain", "gemma2", "gpt2", "neox", "cohere"])
def test_the_sliced_head_equals_the_whole_one_in_every_architecture(kind, tiny_judge, tmp_path):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_judge)
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 256, "initializer_range": 0.3}  # fmt: skip
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = {
        "plain": lambda: transformers.Qwen2Config(**size, num_key_value_heads=1, **ends),
        "gemma2": lambda: transformers.Gemma2Config(
            **size, num_key_value_heads=1, head_dim=16, final_logit_softcapping=3.0, **ends
        ),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3, **ends
        ),
        "neox": lambda: transformers.GPTNeoXConfig(**size, **ends),
        "cohere": lambda: transformers.CohereConfig(**size, logit_scale=0.25, **ends),
    }[kind]()
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = hf.open_hf(str(tmp_path), loading=Loading(device="cpu"), dtype="float32")
    messages = [Message((Passage(doc.text), "\nA question about cats. Is it? Answer:")) for doc in DOCS]
    expected = [
        [np.logaddexp.reduce([plain(judge, m.plain(), judge.tokenizer.decode([t]))[0] for t in ids])
         for ids in judge.tokens.plan_labels("Answer:", ("Yes", "No")).ids]
        for m in messages
    ]  # fmt: skip
    np.testing.assert_allclose(judge.choose(messages, ["Yes", "No"]), normalised(expected), rtol=1e-3, atol=1e-4)
    assert judge.head.way is not None
    mean = [np.mean(plain(judge, m.plain(), " Yes, it is")) for m in messages]
    np.testing.assert_allclose(judge.likelihood(messages, [" Yes, it is"] * len(DOCS)), mean, rtol=1e-3)
    judge.head.way = None  # as for an architecture whose head cannot be told apart
    np.testing.assert_allclose(judge.choose(messages, ["Yes", "No"]), normalised(expected), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(judge.likelihood(messages, [" Yes, it is"] * len(DOCS)), mean, rtol=1e-3)
