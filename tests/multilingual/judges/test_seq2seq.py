"""The encoder-decoder judge against plain transformers code: one prompt a forward pass, full logits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from crosslens.checkpoints.options import Loading
from crosslens.errors import InputError
from crosslens.multilingual.judges import hf
from crosslens.multilingual.judges.messages import Message, Passage
from crosslens.multilingual.judges.seq2seq import Seq2SeqJudge
from crosslens.pipeline import watch
from tiny.tokenizers import SENTENCES, make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

TEXTS = (*SENTENCES, "Query: Document: Relevant: Yes No how long do cats sleep?", *["true false A B C D"] * 20)
PASSAGES = ("The cat sleeps all day and hunts at night. " * 3, "Le chat dort.", "猫整天睡觉，晚上捕猎。", "x")


def t5_tokenizer():
    """A sentencepiece-like tokenizer (a space before every text) that ends what it reads with </s>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    alphabet = ["▁", *sorted(set("".join(TEXTS)) - {" "})]
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS] * 4, trainer)
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def bart_tokenizer():
    tokenizer = make_tokenizer(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    used = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=used)
    return tokenizer


def t5(tokenizer, kind=transformers.T5Config, **options):
    return kind(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        initializer_factor=4.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        **options,
    )


def bart(tokenizer):
    return transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        init_std=0.4,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_bos_token_id=tokenizer.bos_token_id,
    )


KINDS = {
    "t5": (t5_tokenizer, lambda t: t5(t)),
    "mt5": (
        t5_tokenizer,
        lambda t: t5(t, transformers.MT5Config, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    ),
    "bart": (bart_tokenizer, bart),
}


@pytest.fixture(scope="module", params=list(KINDS))
def judge(request, tmp_path_factory):
    tokenizer_of, config_of = KINDS[request.param]
    where = tmp_path_factory.mktemp(request.param)
    tokenizer = tokenizer_of()
    tokenizer.save_pretrained(where)
    torch.manual_seed(0)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config_of(tokenizer)).float()
    if request.param == "bart":
        model.final_logits_bias.normal_()
    model.save_pretrained(where)
    judge = hf.open_hf(str(where), loading=Loading(device="cpu"), dtype="float32")
    assert isinstance(judge, Seq2SeqJudge)
    return judge


def copied(judge, **options):
    given = {"passage_tokens": 384, "device": judge.device, **options}
    return Seq2SeqJudge(judge.model, judge.tokenizer, "tiny", "0", **given)


def start_of(judge):
    config = judge.model.config
    forced = judge.model.generation_config.forced_bos_token_id
    return [config.decoder_start_token_id, *([] if forced is None else [forced])]


@torch.inference_mode()
def plain(judge, text: str, answer: str, said: list[int]) -> list[float]:
    """Log-probabilities of the tokens `said`."""
    inputs = judge.tokenizer(text, return_tensors="pt")
    begun = start_of(judge) + judge.tokenizer(answer, add_special_tokens=False)["input_ids"] * bool(answer)
    logits = judge.model(input_ids=inputs["input_ids"], decoder_input_ids=torch.tensor([begun + said])).logits[0]
    return [float(logits.log_softmax(-1)[len(begun) - 1 + n, token]) for n, token in enumerate(said)]


def messages(answer=""):
    return [Message(("Query: how long? Document: ", Passage(text), " Relevant:"), answer=answer) for text in PASSAGES]


def normalised(rows):
    rows = np.array(rows)
    return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)


def test_the_encoder_reads_the_end_of_its_input(judge):
    ids = judge.encode(messages()[1])["input_ids"]
    assert judge.tokenizer.convert_ids_to_tokens(ids)[-1] == "</s>"
    assert ids == judge.tokenizer(messages()[1].plain())["input_ids"]


@pytest.mark.parametrize("answer", ["", "Relevant:"])
@pytest.mark.parametrize("labels", [("true", "false"), ("A", "B", "C", "D"), ("how long do cats", "Le chat dort")])
def test_choose_is_that_of_plain_code(judge, labels, answer):
    plan = judge.tokens.plan_labels(answer, labels)
    asked = messages(answer)
    if plan.single:
        expected = [
            [
                np.logaddexp.reduce([plain(judge, m.user(), answer, [*plan.lead, t])[-1] for t in ids])
                for ids in plan.ids
            ]
            for m in asked
        ]
    else:
        expected = [[sum(plain(judge, m.user(), answer, list(row))) for row in plan.sequences] for m in asked]
    np.testing.assert_allclose(judge.choose(asked, labels), normalised(expected), rtol=1e-4, atol=1e-4)


def test_labels_of_one_and_of_many_tokens_are_both_tested(judge):
    assert not judge.tokens.plan_labels("", ("how long do cats", "Le chat dort")).single
    assert judge.tokens.plan_labels("", ("A", "B", "C", "D")).single


def test_likelihood_is_that_of_plain_code_and_targets_carry_no_end(judge):
    targets = ["how long do cats sleep?", "Le chat", "кошка", "猫"]
    pairs = [(m, target) for m in messages() for target in targets]
    expected = [
        np.mean(plain(judge, m.user(), "", judge.tokenizer(target, add_special_tokens=False)["input_ids"]))
        for m, target in pairs
    ]
    found = judge.likelihood([m for m, _ in pairs], [target for _, target in pairs])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    tight = copied(judge)
    tight.budget = 40
    np.testing.assert_allclose(tight.likelihood(*map(list, zip(*pairs, strict=True))), expected, rtol=1e-4)
    alone = [judge.likelihood([m], [target])[0] for m, target in pairs]
    np.testing.assert_allclose(found, alone, rtol=1e-4)


def test_a_head_that_is_no_plain_matrix_gives_the_same_from_whole_logits(judge):
    asked = messages()
    expected = judge.choose(asked, ("true", "false"))
    said = judge.likelihood(asked, ["how long?"] * 4)
    assert judge.head.plain
    other = copied(judge)
    other.head.way = None
    np.testing.assert_allclose(other.choose(asked, ("true", "false")), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other.likelihood(asked, ["how long?"] * 4), said, rtol=1e-4)


def test_equal_inputs_are_encoded_once(judge):
    asked = messages()[:1]
    length = len(judge.encode(asked[0])["input_ids"])
    for many in (1, 5):
        before = Counter(judge.usage)
        judge.likelihood(asked * many, ["how long?", "x", "кошка", "true", "Yes"][:many])
        spent = judge.usage - before
        assert spent["calls"] == many
        assert length < spent["prompt_tokens"] < 2 * length + 10 * many - length


@torch.inference_mode()
def test_generate_says_what_the_model_says_to_each_prompt_alone(judge):
    asked = [*messages(), *messages("Le chat")]
    before = Counter(judge.usage)
    together = judge.generate(asked, max_new_tokens=6)
    spent = judge.usage - before
    for message, said in zip(asked, together, strict=True):
        inputs = judge.tokenizer(message.user(), return_tensors="pt")
        answer = message.answer
        begun = start_of(judge) + (judge.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else [])
        out = judge.model.generate(
            input_ids=inputs["input_ids"], decoder_input_ids=torch.tensor([begun]), max_new_tokens=6, do_sample=False
        )[0, len(begun) :]
        assert said.text == judge.tokenizer.decode(out, skip_special_tokens=True)
        assert said.ended == (judge.tokenizer.eos_token_id in out.tolist())
    assert spent["generated_tokens"] == sum(each.tokens for each in together) > 0
    assert spent["calls"] == len(asked)


def test_passages_are_cut_and_queries_are_not(judge):
    short = copied(judge, passage_tokens=3)
    ids = short.encode(Message((Passage("The cat sleeps all day"), " the query")))["input_ids"]
    text = judge.tokenizer.decode(ids, skip_special_tokens=True)
    assert text.endswith("the query")
    assert "day" not in text
    assert short.usage["cut_passages"] == 1


def test_only_absolute_positions_limit_the_prompt(judge):
    long = [Message(("long " * 200,))]
    if judge.model.config.model_type != "bart":
        assert np.isfinite(judge.choose(long, ("true", "false"))).all()
        return
    assert judge.context == 128
    with pytest.raises(InputError, match="exceeds the context of 128"):
        judge.choose(long, ("true", "false"))
    with pytest.raises(InputError, match="exceeds the 128 of its decoder"):
        judge.generate(messages(), max_new_tokens=200)


def test_progress_counts_questions_whatever_labels_are_made_of(judge):
    seen = []
    with watch(seen.append):
        judge.choose(messages(), ("true", "false"))
        judge.choose(messages(), ("how long do cats", "Le chat dort"))
    assert seen == [*range(1, 9)]
    with pytest.raises(InputError, match="has no tokens"):
        judge.likelihood(messages()[:1], [""])


def test_a_chat_template_goes_around_where_there_is_one(judge):
    tokenizer = type(judge.tokenizer)(
        tokenizer_object=judge.tokenizer.backend_tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %} Relevant:",
    )
    chatting = Seq2SeqJudge(judge.model, tokenizer, "tiny", "0", passage_tokens=384, device=judge.device)
    ids = chatting.encode(Message(("how long?",), answer="A", chat="auto"))["input_ids"]
    assert ids == tokenizer("user: how long? Relevant:", add_special_tokens=False)["input_ids"]
    with pytest.raises(InputError, match="has no chat template"):
        judge.choose([Message(("how long?",), chat="always")], ("true", "false"))
