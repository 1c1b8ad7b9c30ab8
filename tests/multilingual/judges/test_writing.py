"""Text written for many prompts at a time is what `generate` of transformers writes for each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from crosslens.multilingual.judges import hf, writing
from crosslens.multilingual.judges.base import take_answers
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.messages import Message
from crosslens.multilingual.judges.sampling import draw_tokens

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 256, "initializer_range": 0.3}  # fmt: skip
KINDS = {
    "qwen": lambda size: transformers.Qwen2Config(**SIZE, **size, num_key_value_heads=1),
    # Its window is shorter than most prompts, and ends within them.
    "gemma": lambda size: transformers.Gemma3TextConfig(
        **SIZE, **size, num_key_value_heads=1, head_dim=16, sliding_window=24,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gpt2": lambda size: transformers.GPT2Config(
        **size, n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3
    ),
}  # fmt: skip
HEAD = "The cat sleeps all day and hunts at night, and the dog sleeps at night. "
TEXTS = ["x", HEAD, f"{HEAD} What?", f"{HEAD} Le chat dort toute la journée.", "Le chat", HEAD, "猫整天睡觉，晚上捕猎。",
         f"{HEAD * 2} Who?", f"{HEAD * 2} Why is it?"]  # fmt: skip
PROMPTS = [Message((text,)) for text in TEXTS]
TOKENS = 12


@pytest.fixture(scope="module", params=KINDS)
def opened(request, tiny_judge, tmp_path_factory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_judge)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(
        KINDS[request.param]({"vocab_size": len(tokenizer), **ends})
    ).eval()
    where = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return hf.open_hf(str(where), loading=hf.Loading(device="cpu"), dtype="float32")


def fresh(judge, ends=None, **settings):
    """The judge, with checkpoint settings of its own."""
    config = judge.model.generation_config
    config = transformers.GenerationConfig(**{**config.to_diff_dict(), "eos_token_id": ends, **settings})
    model = type(judge.model)(judge.model.config)
    model.load_state_dict(judge.model.state_dict())
    model.generation_config = config
    return CausalJudge(model, judge.tokenizer, "tiny", "0", passage_tokens=384, device=judge.device)


@torch.inference_mode()
def generate(judge, prompt, **options):
    """What transformers writes after one prompt: its tokens, and whether it ended."""
    start = [judge.tokenizer.bos_token_id, *judge.tokenizer(prompt.plain(), add_special_tokens=False)["input_ids"]]
    options = {"max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0, **options}
    out = judge.model.generate(torch.tensor([start]), attention_mask=torch.ones(1, len(start)), **options)
    return out[0, len(start) :].tolist()


def as_read(judge, prompt):
    return judge.generator.read(generate(judge, prompt), ())


@pytest.fixture(scope="module")
def free(opened):
    """What transformers writes after each prompt alone, and nothing ends."""
    judge = fresh(opened)
    return [generate(judge, prompt) for prompt in PROMPTS]


def end_early(judge, free):
    """A judge whose end is a token that ends some answers and others not, and these answers."""
    counts = {token: sum(token in each for each in free) for each in free for token in each}
    end = min(
        counts,
        key=lambda token: (abs(counts[token] - 4), min(each.index(token) for each in free if token in each), token),
    )
    ending = fresh(judge, end)
    cut = [each[: each.index(end) + 1] if end in each else each for each in free]
    return ending, [ending.generator.read(list(each), ()) for each in cut]


@pytest.mark.parametrize("slots", [64, 3, 1])
def test_greedy_answers_are_those_of_generate_whoever_ends_and_comes(opened, free, slots):
    judge, expected = end_early(opened, free)
    judge.writer.slots = slots
    assert 1 < sum(each.ended for each in expected) < len(expected)
    assert judge.generate(PROMPTS, max_new_tokens=TOKENS) == expected
    assert judge.usage["generated_tokens"] == sum(each.tokens for each in expected)
    assert as_read(judge, PROMPTS[1]) == expected[1]


def test_an_answer_ends_with_the_token_that_completes_a_stop_string(opened, free):
    judge = fresh(opened)
    texts = [judge.tokenizer.decode(each) for each in free]
    pairs = [text[n : n + 2] for text in texts for n in range(2, len(text) - 1)]
    stop = [pair for pair in pairs if "\ufffd" not in pair][:40:20]  # in the midst of tokens, of whole characters

    def cut(tokens):
        ends = [n for n in range(1, TOKENS) if any(each in judge.tokenizer.decode(tokens[:n]) for each in stop)]
        return judge.generator.read(tokens[: min(ends, default=TOKENS)], stop)

    expected = list(map(cut, free))
    assert any(each.ended for each in expected)
    assert judge.generate(PROMPTS, max_new_tokens=TOKENS, stop=stop) == expected


def test_a_checkpoint_that_asks_for_a_penalty_or_more_gets_it(opened):
    judge, some = fresh(opened, repetition_penalty=1.3), PROMPTS[:4]
    expected = [as_read(judge, prompt) for prompt in some]
    assert judge.writer is not None
    judge.writer.slots = 3
    assert judge.generate(some, max_new_tokens=TOKENS) == expected
    assert fresh(opened).generate(some, max_new_tokens=TOKENS) != expected
    judge = fresh(opened, no_repeat_ngram_size=1)
    assert judge.writer is None
    assert judge.generate(some[:2], max_new_tokens=TOKENS) == [as_read(judge, prompt) for prompt in some[:2]]


@pytest.mark.parametrize("settings", [{}, {"no_repeat_ngram_size": 12}], ids=["own loop", "generate"])
def test_what_is_sampled_depends_on_seed_and_prompt_and_not_on_the_batch(opened, settings):
    judge = fresh(opened, **settings)
    assert (judge.writer is None) == bool(settings)
    how = {"max_new_tokens": 8, "temperature": 0.8, "seed": 3}
    prompts = PROMPTS[:5]
    together = judge.generate(prompts, **how)
    assert [judge.generate([prompt], **how)[0] for prompt in prompts] == together
    assert judge.generate(prompts[::-1], **how)[::-1] == together
    small = fresh(opened, **settings)
    small.budget = 60
    if small.writer is not None:
        small.writer.slots = 2
    assert small.generate(prompts, **how) == together
    again = judge.generate([prompts[0]] * 4, **how)
    assert again[0] == together[0]
    assert len({each.text for each in again}) > 2
    assert judge.generate(prompts, **how | {"seed": 4}) != together


def test_samples_of_one_prompt_read_it_once_and_a_shared_beginning_is_read_once(opened):
    judge = fresh(opened)
    judge.generate(PROMPTS[3:4], max_new_tokens=2)
    alone = judge.usage["prompt_tokens"]
    judge.generate(PROMPTS[3:4] * 6, max_new_tokens=2, temperature=1.0)
    assert judge.usage["prompt_tokens"] == 2 * alone
    judge = fresh(opened)
    judge.generate([Message((f"{HEAD}{each}?",)) for each in ("One", "Two", "Three", "Four")], max_new_tokens=2)
    assert judge.usage["prompt_tokens"] < 2 * alone


def test_rows_that_ended_make_place_and_are_handed_over_before_the_others_end(opened, free):
    judge, expected = end_early(opened, free)
    judge.writer.slots = 4
    steps, seen = [], {}
    hook = judge.model.register_forward_hook(
        lambda _, given, more, out: steps.append(len(out.logits)), with_kwargs=True
    )
    with take_answers(lambda place, answer: seen.setdefault(place, len(steps))):
        judge.generate(PROMPTS, max_new_tokens=TOKENS)
    hook.remove()
    assert sorted(seen) == list(range(len(PROMPTS)))
    assert min(seen.values()) < max(seen.values()) / 2
    assert max(steps) == 4
    # Each answer takes a step for each of its tokens, its end included, and no place of a row that has ended.
    assert sum(steps) == sum(each.tokens + each.ended for each in expected)


def test_as_many_rows_are_written_as_their_keys_and_values_have_room(opened, monkeypatch):
    judge, sizes = fresh(opened), []
    expected = judge.generate(PROMPTS, max_new_tokens=TOKENS)
    token = sum(part.nbytes for layer in judge.writer.shapes for part in layer)
    longest = max(len(ids) for ids in judge.prepare_prompts(PROMPTS, TOKENS)[0])
    monkeypatch.setattr(writing, "ROOM", 3 * (longest - 1 + TOKENS) * token)
    judge.model.register_forward_pre_hook(lambda _, given, more: sizes.append(len(more["input_ids"])), with_kwargs=True)
    assert judge.generate(PROMPTS, max_new_tokens=TOKENS) == expected
    assert sizes[0] == 3


def test_a_prompt_that_no_memory_is_enough_for_is_named(opened):
    judge = fresh(opened)

    def scarce(*_):
        raise torch.OutOfMemoryError("out of memory")

    assert judge.writer.shapes  # looked at before
    judge.model.base_model.register_forward_pre_hook(scarce)
    with pytest.raises(hf.InputError, match="does not fit into memory"):
        judge.generate(PROMPTS[:2], max_new_tokens=2)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, generator=generator) * 3
    n = 6_000
    keys = torch.randint(-(1 << 62), 1 << 62, (n,), generator=generator)
    for temperature in (0.5, 1.0, 2.0):
        drawn = draw_tokens(logits.expand(n, -1), temperature, keys, torch.arange(n) % 50)
        counts = np.bincount(drawn.numpy(), minlength=300)
        expected = (logits / temperature).softmax(-1).numpy() * n
        often = expected > 5
        chi = ((counts - expected) ** 2 / expected)[often].sum()
        assert chi < often.sum() + 5 * np.sqrt(2 * often.sum())
        assert abs(counts[~often].sum() - expected[~often].sum()) < 5 * np.sqrt(expected[~often].sum()) + 5
    one = draw_tokens(logits.expand(n, -1), 1.0, keys[:1].expand(n), torch.arange(n))
    assert 20 < len(set(one.tolist())) < 300  # steps of one row differ
