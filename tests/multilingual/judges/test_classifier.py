"""Relevance heads against plain transformers code and sentence-transformers; adapters of peft; what `hf:` picks."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from crosslens.checkpoints.options import Loading
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import hf
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.classifier import ClassifierJudge
from crosslens.multilingual.judges.messages import Message, Passage, Seam
from crosslens.multilingual.prompts import Prompt
from tiny.tokenizers import make_tokenizer
from tokenizers.processors import TemplateProcessing

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
PAIRS = [
    ("how long do cats sleep", "The cat sleeps all day and hunts at night. " * 3),
    ("кошка ночью", "Кошка спит весь день."),
    ("x", "猫"),
    ("how long do cats sleep", "گربه تمام روز می‌خوابد."),
    ("x", ""),
]


def tokenizer_of(kind, **options):
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "llama":  # no padding token, as Llama has none
        tokenizer = make_tokenizer(**special)
        template = {"single": "<s> $A", "pair": "<s> $A <s> $B"}
    elif kind == "bert":
        special |= {"pad_token": "<pad>"}
        tokenizer = make_tokenizer(**special)
        template = {"single": "<s> $A </s>", "pair": "<s>:0 $A:0 </s>:0 $B:1 </s>:1"}
    else:
        # XLM-R's order: <s> 0, <pad> 1, </s> 2.
        tokenizer = make_tokenizer(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
        template = {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"}
    used = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(**template, special_tokens=used)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=options.pop("model_max_length", 128),
        model_input_names=names,
        **tokenizer.special_tokens_map,
        **options,
    )


def config_of(kind, tokenizer, labels):
    same = {"vocab_size": len(tokenizer), "num_labels": labels, **SIZE}
    if kind == "llama":
        return transformers.LlamaConfig(**same, num_key_value_heads=1, max_position_embeddings=128, pad_token_id=None)
    if kind == "bert":
        return transformers.BertConfig(**same, max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id)
    return transformers.XLMRobertaConfig(
        **same, max_position_embeddings=66, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id
    )


def saved(where: Path, kind: str, labels: int = 1, **options) -> str:
    tokenizer = tokenizer_of(kind, **options)
    tokenizer.save_pretrained(where)
    torch.manual_seed(0)
    config = config_of(kind, tokenizer, labels)
    transformers.AutoModelForSequenceClassification.from_config(config).float().save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made: dict[tuple, str] = {}

    def of(kind, labels=1, **options):
        key = (kind, labels, *options.items())
        if key not in made:
            made[key] = saved(tmp_path_factory.mktemp(kind), kind, labels, **options)
        return made[key]

    return of


def load(where, **options):
    return hf.open_hf(where, loading=Loading(device="cpu"), dtype="float32", **options)


def paired(query, text):
    return Message((query, Seam.SEAM, Passage(text)))


def messages(pairs=PAIRS):
    return [paired(*pair) for pair in pairs]


@torch.inference_mode()
def plain(where, pairs, **options) -> np.ndarray:
    """Logits, one pair a forward pass, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(where, **options).float().eval()
    rows = [model(**tokenizer(*pair, return_tensors="pt")).logits[0].double().numpy() for pair in pairs]
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["xlmr", "bert", "llama"])
def test_scores_are_the_logits_of_plain_code_alone_and_in_a_batch(folder, kind):
    where = folder(kind)
    judge = load(where)
    assert isinstance(judge, ClassifierJudge)
    expected = plain(where, PAIRS)[:, 0]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(judge.score(messages()), expected, atol=1e-5)
    np.testing.assert_allclose([judge.score([m])[0] for m in messages()], expected, atol=1e-5)
    judge.budget = 30
    np.testing.assert_allclose(judge.score(messages()), expected, atol=1e-5)
    assert judge.model.config.pad_token_id == (None if kind == "llama" else judge.tokenizer.pad_token_id)


@pytest.mark.parametrize("kind", ["xlmr", "bert", "llama"])
def test_scores_in_bfloat16_are_not_rounded_to_it(folder, kind):
    where = folder(kind)
    scores = hf.open_hf(where, loading=Loading(device="cpu"), dtype="bfloat16").score(messages())
    assert np.all(torch.tensor(scores).bfloat16().double().numpy() != scores)
    np.testing.assert_allclose(scores, plain(where, PAIRS)[:, 0], atol=0.1)


def test_a_pair_has_the_token_types_of_its_model(folder):
    judge = load(folder("bert"))
    encoded = judge.encode(paired("a query", "a passage"))
    assert encoded == dict(judge.tokenizer("a query", "a passage"))
    assert set(encoded["token_type_ids"]) == {0, 1}
    assert "token_type_ids" not in load(folder("xlmr")).encode(paired("a query", "a passage"))


@pytest.mark.parametrize("kind", ["xlmr", "llama"])
def test_the_side_that_a_tokenizer_pads_on_changes_nothing(folder, kind):
    left = load(folder(kind, padding_side="left"))
    assert left.tokenizer.padding_side == "left"
    right = load(folder(kind, padding_side="right"))
    np.testing.assert_allclose(left.score(messages()), right.score(messages()), atol=1e-5)


def test_an_input_that_ends_like_padding_is_read_to_its_end(folder):
    """With </s> taken for padding, a head would look at the token before it."""
    where = folder("llama", pad_token="</s>")
    pairs = [("a query", "a passage</s>"), ("a query", "a much longer passage than that</s>")]
    np.testing.assert_allclose(load(where).score(messages(pairs)), plain(where, pairs)[:, 0], atol=1e-5)


def test_scores_equal_those_of_sentence_transformers(folder):
    from sentence_transformers import CrossEncoder

    where = folder("xlmr")
    theirs = CrossEncoder(where, device="cpu", activation_fn=torch.nn.Identity())
    pairs = PAIRS[:-1]  # of an empty text they make no second input
    expected = theirs.predict(pairs, batch_size=len(pairs))
    np.testing.assert_allclose(load(where).score(messages(pairs)), expected, atol=1e-5)


def test_two_labels_give_log_odds_and_grades_their_expected_value(folder):
    logits = plain(folder("xlmr", 2), PAIRS)
    np.testing.assert_allclose(load(folder("xlmr", 2)).score(messages()), logits[:, 1] - logits[:, 0], atol=1e-5)
    logits = plain(folder("xlmr", 4), PAIRS)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(load(folder("xlmr", 4)).score(messages()), shares @ [0, 1, 2, 3], atol=1e-5)


def test_classes_that_are_no_grades_are_refused(tmp_path):
    where = saved(tmp_path, "xlmr", 3)
    config = json.loads((tmp_path / "config.json").read_text())
    names = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    config |= {"id2label": names, "label2id": {name: int(n) for n, name in names.items()}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="classifies as entailment, neutral, contradiction"):
        load(where)


def test_the_passage_is_cut_to_the_context_and_the_query_never(folder):
    judge = load(folder("xlmr"))
    assert judge.context == 64  # 66 positions, of which RoBERTa keeps two
    before = Counter(judge.usage)
    query = "how long do cats sleep"
    (cut, whole) = judge.encode(paired(query, "cat " * 300)), judge.encode(paired(query, "cat"))
    spent = judge.usage - before
    assert spent["cut_passages"] == 1
    assert 60 <= len(cut["input_ids"]) <= 64
    start = judge.tokenizer("how long do cats sleep")["input_ids"]
    assert cut["input_ids"][: len(start)] == whole["input_ids"][: len(start)] == start
    assert cut["input_ids"][-1] == judge.tokenizer.eos_token_id
    assert np.isfinite(judge.score([paired("cats", "cat " * 300)])).all()
    with pytest.raises(InputError, match="context is too short for one passage"):
        judge.score([paired("cats " * 60, "cat " * 300)])
    with pytest.raises(InputError, match="exceeds the context of 64"):
        judge.score([Message(("cats " * 80,))])
    short = load(folder("xlmr"), passage_tokens=5)
    assert judge.tokenizer.decode(short.encode(paired("q", "cat " * 50))["input_ids"]).count("cat") <= 5
    assert short.fingerprint != judge.fingerprint


def test_one_input_or_two_and_no_more(folder):
    judge = load(folder("xlmr"))
    single = Message(("Is ", Passage("this"), " it?"), system="Judge.")
    assert judge.encode(single) == dict(judge.tokenizer("Judge.\n\nIs this it?"))
    with pytest.raises(InputError, match="has 2 seams"):
        judge.score([Message(("a", Seam.SEAM, "b", Seam.SEAM, "c"))])


def test_usage_counts_every_token_but_padding(folder):
    judge = load(folder("xlmr"))
    judge.budget = 40
    judge.score(messages())
    assert judge.usage["prompt_tokens"] == sum(len(judge.tokenizer(*pair)["input_ids"]) for pair in PAIRS)


def test_a_prompt_with_a_seam_reaches_the_judge_as_a_pair(folder):
    where = folder("xlmr")
    prompt = Prompt.parse('asks = "score"\ntemplate = "{query}{seam}{passage}"', "cross")
    (scores,) = prompt.score(load(where), [(Item("q", "cats"), [Item("d", "The cat."), Item("e", "x")])])
    np.testing.assert_allclose(scores, plain(where, [("cats", "The cat."), ("cats", "x")])[:, 0], atol=1e-5)


# Adapters


def lora(where: Path, base: str, task: str, **options) -> str:
    """A random adapter on q and v, saved by peft."""
    import peft

    torch.manual_seed(1)
    auto = {"SEQ_CLS": transformers.AutoModelForSequenceClassification, "CAUSAL_LM": transformers.AutoModelForCausalLM}
    given = {"num_labels": 1} if task == "SEQ_CLS" else {}
    model = auto[task].from_pretrained(base, dtype=torch.float32, **given)
    config = peft.LoraConfig(
        task_type=task, r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options
    )
    tuned = peft.get_peft_model(model, config)
    if task == "SEQ_CLS":
        torch.nn.init.normal_(tuned.base_model.model.score.modules_to_save.default.weight)
    tuned.save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama without any head of a classifier, as RankLLaMA starts from."""
    where = tmp_path_factory.mktemp("llama-base")
    tokenizer = tokenizer_of("llama")
    tokenizer.save_pretrained(where)
    torch.manual_seed(0)
    config = config_of("llama", tokenizer, 1)
    transformers.LlamaForCausalLM(config).float().save_pretrained(where)
    return str(where)


@torch.inference_mode()
def test_rankllama_is_its_base_with_adapter_and_head_merged(llama, tmp_path):
    import peft

    where = lora(tmp_path / "rank", llama, "SEQ_CLS")
    judge = load(where)
    assert isinstance(judge, ClassifierJudge)
    assert not any("lora" in name for name, _ in judge.model.named_modules())
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(llama, num_labels=1, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, where).eval()
    expected = [float(model(**tokenizer(*pair, return_tensors="pt")).logits) for pair in PAIRS]
    np.testing.assert_allclose(judge.score(messages()), expected, atol=1e-5)
    alone = load(llama)
    base, plus, added = judge.revision.partition("+")
    assert base == alone.revision
    assert plus
    assert len(added) == 16
    # The same, asked for the other way round, and with the base elsewhere.
    again = load(llama, adapter=where)
    np.testing.assert_allclose(again.score(messages()), expected, atol=1e-5)
    config = json.loads((tmp_path / "rank/adapter_config.json").read_text())
    (tmp_path / "rank/adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "nobody/nothing"})
    )
    np.testing.assert_allclose(load(where, base=llama).score(messages()), expected, atol=1e-5)
    assert isinstance(alone, CausalJudge)


@torch.inference_mode()
def test_a_causal_adapter_changes_the_answers_as_peft_has_them(llama, tmp_path):
    import peft

    where = lora(tmp_path, llama, "CAUSAL_LM")
    judge = load(where)
    assert isinstance(judge, CausalJudge)
    model = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, where).eval()
    ids = judge.tokenizer("<s>The cat", add_special_tokens=False)["input_ids"]
    said = judge.tokenizer(" sleeps", add_special_tokens=False)["input_ids"]
    logits = model(input_ids=torch.tensor([ids + said])).logits[0].log_softmax(-1)
    expected = np.mean([float(logits[len(ids) - 1 + n, token]) for n, token in enumerate(said)])
    asked = [Message(("The cat",))]
    assert judge.likelihood(asked, [" sleeps"])[0] == pytest.approx(expected, abs=1e-5)
    assert load(llama).likelihood(asked, [" sleeps"])[0] != pytest.approx(expected, abs=1e-3)


def test_faulty_adapters_are_one_clear_line(llama, folder, tmp_path, monkeypatch):
    where = Path(lora(tmp_path / "a", llama, "SEQ_CLS"))
    for options, message in (
        ({"adapter": str(tmp_path / "none")}, "there is no adapter"),
        ({"adapter": llama}, "there is no adapter"),
        ({"adapter": str(where), "base": llama}, "leave base out"),
        ({"base": llama}, "is no adapter"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load(llama, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is itself an adapter"):
        load(str(where), adapter=str(where))
    with pytest.raises(InputError, match="does not fit its base model: No modules") as caught:
        load(str(where), base=folder("xlmr"))
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[lora\]'"):
        load(str(where))
    monkeypatch.undo()
    torch.save({}, where / "adapter_model.bin")
    (where / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="pickled weights only"):
        load(str(where))


def test_an_adapter_that_lacks_tensors_is_refused(llama, tmp_path):
    from safetensors.torch import load_file, save_file

    where = Path(lora(tmp_path, llama, "SEQ_CLS"))
    path = where / "adapter_model.safetensors"
    tensors = {key: value for key, value in load_file(path).items() if "layers.1" not in key}
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InputError, match="is incomplete: .*layers.1"):
        load(str(where))


# What `hf:` picks


def test_a_checkpoint_runs_as_what_its_configuration_says(folder, llama, tiny_encoder, tmp_path):
    assert type(load(folder("llama"))) is ClassifierJudge
    assert type(load(llama)) is CausalJudge
    with pytest.raises(InputError, match="is BertModel, which answers no questions"):
        load(str(tiny_encoder))
    with pytest.raises(InputError, match="weights are missing from the checkpoint: .*score"):
        load(llama, task="classify")
    with pytest.raises(InputError, match="sees no pictures"):
        load(llama, max_pixels=100)
    with pytest.raises(InputError, match="there is no directory not a name"):
        load("not a name")
    with pytest.raises(InputError, match="there is no directory"):
        load(str(tmp_path / "none"))
    with pytest.raises(InputError, match="passage_tokens must be at least 1"):
        load(folder("xlmr"), passage_tokens=0)


def test_pickled_weights_are_not_read(folder, tmp_path):
    import shutil

    shutil.copytree(folder("xlmr"), tmp_path / "pickled")
    path = tmp_path / "pickled/model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(path), tmp_path / "pickled/pytorch_model.bin")
    path.unlink()
    message = "has pickled weights only .*convert them once: python -c .*AutoModelForSequenceClassification"
    with pytest.raises(InputError, match=message) as caught:
        load(str(tmp_path / "pickled"))
    assert "\n" not in str(caught.value)
