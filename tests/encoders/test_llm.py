"""The llm: encoder: what the model sees, what is pooled, adapters, attention and few bits, against plain code."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from crosslens.checkpoints.int8 import Int8Linear
from crosslens.encoders import registry
from crosslens.encoders.base import Tokenizes, encode_matrix
from crosslens.encoders.llm import find_retriever, instruct_prompt
from crosslens.errors import InputError
from crosslens.items import Item
from safetensors.torch import load_file
from stand_ins.texts import ITEMS, TEXTS
from tiny.text import publish

E5 = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


def load(checkpoint: Path, options: str = "", dtype: str = "float32"):
    return registry.load_encoder(f"llm:{checkpoint}?dtype={dtype}" + (f"&{options}" if options else ""), device="cpu")


def tokens(encoder, text: str) -> str:
    return encoder.tokenizer.decode(encoder.token_ids([text])[0])


def states(model, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).last_hidden_state[0]


# What the model sees


def test_repllama_reads_one_beginning_its_prompts_and_one_end(llm_folder):
    encoder = load(llm_folder("repllama-tiny"))
    assert (encoder.spec.query_prompt, encoder.spec.document_prompt) == ("query: ", "passage: ")
    assert tokens(encoder, "query: cats") == "<s>query: cats</s>"
    assert tokens(encoder, "query: cats</s>") == "<s>query: cats</s>"
    assert encoder.spec.special_tokens == "<s></s>"
    assert encoder.spec.pooling == "last"
    seen = []
    encoder.model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    encode_matrix(encoder, [Item("a", "cats")], "document")
    assert encoder.tokenizer.decode(seen[0][0]) == "<s>passage: cats</s>"


def test_a_tokenizer_that_ends_texts_itself_is_left_to_it(llm_folder):
    """Qwen3-Embedding's appends <|endoftext|>, which is not its eos_token."""
    encoder = load(llm_folder("Qwen3-Embedding-tiny", "Qwen3", "$A <pad>"))
    assert encoder.tokenizer.eos_token == "</s>"
    assert tokens(encoder, "cats") == "cats<pad>"
    assert (encoder.spec.query_prompt, encoder.spec.document_prompt) == (E5, "")


def test_sentence_transformers_files_are_followed_but_for_checkpoints_known_to_need_an_end(llm_folder):
    bare = load(publish(llm_folder("tiny"), "lasttoken", prompts={"query": "Find: "}))
    assert tokens(bare, "cats") == "<s>cats"
    assert (bare.spec.query_prompt, bare.spec.document_prompt) == ("Find: ", "")
    assert tokens(load(Path(bare.spec.name[4:].partition("?")[0]), "eos=true"), "cats") == "<s>cats</s>"
    mistral = load(publish(llm_folder("e5-mistral-tiny"), "lasttoken"))
    assert tokens(mistral, "cats") == "<s>cats</s>"
    assert mistral.spec.query_prompt == f"{E5} "


def test_the_end_that_a_checkpoint_is_known_by_is_not_its_eos_token(llm_folder):
    where = llm_folder("Qwen3-Embedding-tiny", "Qwen3", "$A")
    for path in where.glob("tokenizer*.json"):
        path.write_text(path.read_text().replace('"<end>"', '"<|endoftext|>"'))
    encoder = load(where)
    assert encoder.tokenizer.eos_token == "</s>"
    assert tokens(encoder, "cats") == "cats<|endoftext|>"


def test_an_end_that_only_the_tokenizers_configuration_asks_for_is_put(llm_folder, caplog):
    """SFR-Embedding-Mistral: `add_eos_token`, which transformers 5 ignores where there is a tokenizer.json."""
    where = publish(llm_folder("sfr-tiny"), "lasttoken")
    assert tokens(load(where), "cats") == "<s>cats"
    assert "the vector is the state of a text's last word" in caplog.text
    config = json.loads((where / "tokenizer_config.json").read_text())
    caplog.clear()
    for asked, expected in ((False, "<s>cats"), (True, "<s>cats</s>")):
        (where / "tokenizer_config.json").write_text(json.dumps({**config, "add_eos_token": asked}))
        assert tokens(load(where), "cats") == expected
    assert tokens(load(where, "eos=false"), "cats") == "<s>cats"
    ids = load(where, "max_tokens=8").token_ids(["cats sleep " * 50])[0]
    assert (len(ids), ids[-1]) == (8, load(where).tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("kind", "template", "shown"),
    [
        ("LlamaTokenizer", "<s> $A", "<s>{}</s>"),  # RepLLaMA's: no end, which we append
        ("LlamaTokenizer", "<s> $A </s>", "<s>{}</s>"),
        ("Qwen2Tokenizer", "$A <pad>", "{}<pad>"),  # Qwen3-Embedding's
        ("GemmaTokenizer", "<s> $A </s>", "<s>{}</s>"),  # EmbeddingGemma's
    ],
)
def test_tokenizers_of_the_published_classes_keep_their_special_tokens(llm_folder, kind, template, shown):
    """transformers 5 builds most of these again from vocabulary and merges."""
    where = llm_folder("tiny", "Llama", template)
    path = where / "tokenizer_config.json"
    more = {"tokenizer_class": kind, "add_bos_token": False, "add_eos_token": False, "mask_token": "<end>"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    encoder = load(where)
    ids = encoder.token_ids(["cats"])[0]
    word = encoder.tokenizer("cats", add_special_tokens=False)["input_ids"]
    before, after = shown.split("{}")
    named = [encoder.tokenizer.convert_tokens_to_ids(each) for each in (before, after) if each]
    assert ids == [*named[: bool(before)], *word, named[-1]]


def test_the_end_is_as_wanted(tiny_llm):
    assert tokens(load(tiny_llm), "cats") == "<s>cats</s>"
    assert tokens(load(tiny_llm, "eos=false"), "cats") == "<s>cats"
    assert tokens(load(tiny_llm, "pooling=mean"), "cats") == "<s>cats"
    spec = load(tiny_llm).spec
    assert load(tiny_llm, "eos=false").spec.fingerprint != spec.fingerprint


def test_truncation_keeps_prompt_and_special_tokens(llm_folder):
    encoder = load(llm_folder("repllama-tiny"), "max_tokens=16")
    ids = encoder.token_ids(["query: " + "cats sleep " * 50])[0]
    assert len(ids) == 16
    assert encoder.tokenizer.decode(ids).startswith("<s>query: cats")
    assert ids[-1] == encoder.tokenizer.eos_token_id
    assert isinstance(encoder, Tokenizes)
    fits = encoder.room("query")
    spans = encoder.token_spans(["cats sleep " * 50])[0]
    text = ("cats sleep " * 50)[: spans[fits - 1][1]]
    assert tokens(encoder, "query: " + text) == f"<s>query: {text}</s>"


def test_a_vocabulary_beyond_the_embeddings_is_an_error_unless_it_only_pads(tiny_llm, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_llm)
    copied = Path(shutil.copytree(tiny_llm, tmp_path / "padded"))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(copied)
    np.testing.assert_array_equal(
        encode_matrix(load(copied), ITEMS, "document"), encode_matrix(load(tiny_llm), ITEMS, "document")
    )
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(copied)
    with pytest.raises(InputError, match=r"its tokenizer has a token \d+, its model embeddings for only \d+"):
        load(copied)


def test_without_truncation_a_long_text_is_an_error_by_name(tiny_llm):
    encoder = load(tiny_llm, "truncate=false&max_tokens=32")
    with pytest.raises(InputError, match=r"item '3' has \d{3} tokens, and llm:.* reads 32"):
        encode_matrix(encoder, ITEMS, "document")
    np.testing.assert_array_equal(
        encode_matrix(encoder, ITEMS[:2], "query"), encode_matrix(load(tiny_llm, "max_tokens=32"), ITEMS[:2], "query")
    )


def test_a_prompt_must_not_repeat_the_beginning(tiny_llm):
    with pytest.raises(InputError, match="begins with <s>, which the tokenizer puts there itself"):
        load(tiny_llm, "query_prompt=<s>query:+")


# Instructions


@pytest.mark.parametrize(
    ("prompt", "style", "expected"),
    [
        (find_retriever("intfloat/e5-mistral-7b-instruct").query_prompt, None, "Instruct: Find news\nQuery: "),
        (find_retriever("Qwen/Qwen3-Embedding-0.6B").query_prompt, None, "Instruct: Find news\nQuery:"),
        (find_retriever("google/embeddinggemma-300m").query_prompt, None, "task: Find news | query: "),
        ("", None, "Instruct: Find news\nQuery: "),
        ("query: ", "tart", "Find news [SEP] "),
        ("query: ", "gemma", "task: Find news | query: "),
    ],
)
def test_a_task_goes_into_the_prompt(prompt, style, expected):
    assert instruct_prompt(prompt, "Find news", style, "x") == expected


def test_instructions_are_for_queries_and_need_a_place(tiny_llm, llm_folder):
    plain, instructed = load(tiny_llm), load(tiny_llm, "instruct=Find+news")
    assert instructed.spec.query_prompt == "Instruct: Find news\nQuery: "
    np.testing.assert_array_equal(encode_matrix(plain, ITEMS, "document"), encode_matrix(instructed, ITEMS, "document"))
    assert np.abs(encode_matrix(plain, ITEMS, "query") - encode_matrix(instructed, ITEMS, "query")).max() > 0.1
    with pytest.raises(InputError, match=r"reads its queries after 'query: ', which holds no task"):
        load(llm_folder("repllama-tiny"), "instruct=Find+news")
    with pytest.raises(InputError, match="query_prompt is the whole prompt"):
        load(tiny_llm, "instruct=Find+news&query_prompt=q")


# Pooling, padding, attention


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Gemma3"])
def test_pooling_is_what_it_says_one_text_at_a_time(llm_folder, kind, pooling, padding):
    layers = {"layer_types": ["sliding_attention", "full_attention"]} if kind == "Gemma3" else {}
    window = {"sliding_window": 16} if kind == "Gemma3" else {}
    encoder = load(llm_folder("tiny", kind, **layers, **window), f"pooling={pooling}&padding={padding}&normalize=false")
    expected = []
    for text in TEXTS:
        found = states(encoder.model, encoder.token_ids([text])[0])
        expected.append({"mean": found.mean(0), "cls": found[0], "last": found[-1]}[pooling].numpy())
    np.testing.assert_allclose(encode_matrix(encoder, ITEMS, "document"), expected, rtol=2e-3, atol=1e-4)
    assert encoder.spec.extra["attention"] == "causal"


@pytest.mark.parametrize("padding", ["right", "left"])
def test_positions_are_counted_from_the_text_where_a_model_learned_them(tiny_llm, tmp_path, padding):
    where = tmp_path / "gpt2"
    transformers.AutoTokenizer.from_pretrained(tiny_llm).save_pretrained(where)
    config = transformers.GPT2Config(
        vocab_size=700, n_embd=32, n_layer=2, n_head=2, n_positions=512, initializer_range=0.3
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(where)
    encoder = load(where, f"padding={padding}")
    expected = torch.stack([states(encoder.model, ids)[-1] for ids in encoder.token_ids(TEXTS)])
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    np.testing.assert_allclose(encode_matrix(encoder, ITEMS, "document"), expected, atol=1e-4)


def test_attention_in_both_directions_is_that_of_a_full_mask(tiny_llm):
    both = load(tiny_llm, "attention=bidirectional&pooling=mean")
    assert both.spec.extra["attention"] == "bidirectional"
    plain = transformers.AutoModel.from_pretrained(tiny_llm, dtype="float32").eval()
    expected = []
    for ids in both.token_ids(TEXTS):
        everything = torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool)
        with torch.inference_mode():
            expected.append(plain(torch.tensor([ids]), attention_mask=everything).last_hidden_state[0].mean(0))
    expected = torch.nn.functional.normalize(torch.stack(expected), dim=-1).numpy()
    np.testing.assert_allclose(encode_matrix(both, ITEMS, "document"), expected, atol=1e-4)
    causal = load(tiny_llm, "pooling=mean")
    assert causal.spec.fingerprint != both.spec.fingerprint
    assert (encode_matrix(causal, ITEMS, "document") * expected).sum(1).min() < 0.99


def test_attention_is_the_configurations_where_it_says(tiny_llm, tiny_bidirectional_llm, tmp_path):
    assert load(tiny_bidirectional_llm).spec.extra["attention"] == "bidirectional"
    with pytest.raises(InputError, match=r"cannot be given causal attention.*gemma3_text"):
        load(tiny_bidirectional_llm, "attention=causal")
    stated = Path(shutil.copytree(tiny_llm, tmp_path / "stated"))
    config = json.loads((stated / "config.json").read_text())
    (stated / "config.json").write_text(json.dumps({**config, "is_causal": False}))
    asked = load(tiny_llm, "attention=bidirectional")
    np.testing.assert_array_equal(encode_matrix(load(stated), ITEMS, "query"), encode_matrix(asked, ITEMS, "query"))
    assert load(stated, "attention=causal").spec.extra["attention"] == "causal"


def test_a_checkpoint_with_code_of_its_own_must_be_known_or_instructed(tiny_llm, tmp_path):
    for name in ("mystery", "drama-tiny", "gte-Qwen2-tiny"):
        copied = Path(shutil.copytree(tiny_llm, tmp_path / name))
        config = json.loads((copied / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "modeling_own.OwnModel"}
        (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"brings code of its own.*attention=causal or"):
        load(tmp_path / "mystery")
    assert load(tmp_path / "mystery", "attention=causal").spec.extra["attention"] == "causal"
    drama = load(tmp_path / "drama-tiny").spec
    assert (drama.extra["attention"], drama.pooling, drama.query_prompt) == ("bidirectional", "mean", "Query: ")
    gte = load(tmp_path / "gte-Qwen2-tiny").spec
    assert (gte.extra["attention"], gte.pooling) == ("bidirectional", "last")


def test_an_architecture_without_such_attention_says_so(tiny_llm, tmp_path):
    where = tmp_path / "mamba"
    transformers.AutoTokenizer.from_pretrained(tiny_llm).save_pretrained(where)
    config = transformers.MambaConfig(vocab_size=700, hidden_size=32, num_hidden_layers=2, state_size=4)
    transformers.MambaForCausalLM(config).save_pretrained(where)
    with pytest.raises(InputError, match=r"cannot be given bidirectional attention.*mamba"):
        load(where, "attention=bidirectional")


# Dimensions and precisions


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.99), ("float16", 0.999), ("int8", 0.999), ("auto", 0.99)])
def test_lower_precision_is_the_same_space(tiny_llm, dtype, least):
    low, high = load(tiny_llm, dtype=dtype), load(tiny_llm)
    low.spec.require(high.spec)
    assert high.spec.dtype == "float32"
    assert low.spec.dtype in ((dtype,) if dtype != "auto" else ("float32", "bfloat16"))
    cosines = (encode_matrix(low, ITEMS, "document") * encode_matrix(high, ITEMS, "document")).sum(axis=1)
    assert cosines.min() > least


def test_int8_holds_every_linear_layer_in_eight_bits(tiny_llm):
    model = load(tiny_llm, dtype="int8").model
    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    layers = [module for module in model.modules() if isinstance(module, Int8Linear)]
    assert len(layers) == 14
    assert {layer.weight.dtype for layer in layers} == {torch.int8}


def test_an_int8_layer_is_near_and_each_row_stands_alone():
    torch.manual_seed(0)
    linear = torch.nn.Linear(70, 50)
    layer = Int8Linear(linear)
    states = torch.randn(3, 5, 70) * torch.tensor([1.0, 1000, 1e-6])[:, None, None]
    states[..., 0] *= 100  # an outlier, beside which one int8 number would leave two digits
    found = layer(states)
    exact = linear(states)
    rounded = torch.nn.functional.linear(states, layer.weight * layer.scale[:, None], linear.bias)
    scale = exact.abs().amax(-1, keepdim=True)
    assert ((found - rounded).abs() / scale).max() < 5e-4  # one int8 number: 250 times that
    assert ((found - exact).abs() / scale).max() < 5e-3
    torch.testing.assert_close(layer(states[1:2, 2:3]), found[1:2, 2:3], rtol=0, atol=0)
    states[0, 0, 3] = float("nan")
    found = layer(states)
    assert found[0, 0].isnan().all()
    assert not found[0, 1:].isnan().any()


def test_devices_and_bits_that_are_not_here(tiny_llm):
    with pytest.raises(InputError, match=r"dtype=4bit needs a CUDA GPU, not cpu"):
        load(tiny_llm, dtype="4bit")
    with pytest.raises(InputError, match="there is no device 'cuda:99'"):
        registry.load_encoder(f"llm:{tiny_llm}", device="cuda:99")
    with pytest.raises(InputError, match="unknown value of dtype"):
        load(tiny_llm, dtype="int3")


# Adapters


def adapter(base: Path, where: Path, headed: bool, recorded: str | None = None) -> Path:
    """A LoRA with weights that matter, trained on a language model or on its trunk."""
    import peft

    auto = transformers.AutoModelForCausalLM if headed else transformers.AutoModel
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(2)
    model = peft.get_peft_model(auto.from_pretrained(base), config)
    model.peft_config["default"].base_model_name_or_path = recorded or str(base)
    model.save_pretrained(where)
    return where


@pytest.mark.parametrize("headed", [True, False])
def test_an_adapter_is_merged_into_its_base(tiny_llm, tmp_path, headed):
    import peft

    where = adapter(tiny_llm, tmp_path / "adapter", headed)
    encoder = load(tiny_llm, f"adapter={where}")
    auto = transformers.AutoModelForCausalLM if headed else transformers.AutoModel
    tuned = peft.PeftModel.from_pretrained(auto.from_pretrained(tiny_llm), where).eval()
    trunk = tuned.base_model.model.model if headed else tuned
    expected = torch.stack([states(trunk, ids)[-1] for ids in encoder.token_ids(TEXTS)])
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    np.testing.assert_allclose(encode_matrix(encoder, ITEMS, "document"), expected, atol=1e-4)
    plain = load(tiny_llm)
    assert (encode_matrix(plain, ITEMS, "document") * expected).sum(1).max() < 0.99
    assert encoder.spec.extra["adapter"]
    assert plain.spec.revision == encoder.spec.revision
    assert "adapter" in plain.spec.difference(encoder.spec)
    itself = load(where)  # as castorini/repllama-v1-7b-lora-passage is
    itself.spec.require(encoder.spec)
    np.testing.assert_array_equal(encode_matrix(itself, ITEMS, "document"), encode_matrix(encoder, ITEMS, "document"))


def test_an_adapter_of_another_base_is_refused(tiny_llm, tmp_path, llm_folder):
    where = adapter(tiny_llm, tmp_path / "adapter", True, "meta-llama/Llama-2-7b-hf")
    with pytest.raises(InputError, match=r"was trained on meta-llama/Llama-2-7b-hf, not on .*base="):
        load(tiny_llm, f"adapter={where}")
    assert load(where, f"base={tiny_llm}").spec.extra["adapter"]
    wider = llm_folder("Llama-2-7b-hf", hidden_size=64)  # the name is right, the shapes are not
    with pytest.raises(InputError, match="does not fit its base model"):
        load(wider, f"adapter={where}")
    with pytest.raises(InputError, match="there is no adapter"):
        load(tiny_llm, f"adapter={tmp_path}/nowhere")


def test_an_adapter_beside_is_found_again_from_elsewhere(tiny_llm, tmp_path, monkeypatch):
    where = adapter(tiny_llm, tmp_path / "adapter", False)
    monkeypatch.chdir(tmp_path)
    spec = load(tiny_llm, "adapter=adapter").spec
    monkeypatch.chdir("/")
    again = registry.load_encoder(spec.name, device="cpu")
    again.spec.require(spec)
    assert str(where) in spec.name


def test_a_pickled_adapter_is_refused_with_a_command_that_converts_it(tiny_llm, tmp_path, monkeypatch):
    """As castorini's RepLLaMA was published."""
    where = adapter(tiny_llm, tmp_path / "adapter", True)
    expected = encode_matrix(load(where), ITEMS, "document")
    torch.save(load_file(where / "adapter_model.safetensors"), where / "adapter_model.bin")
    (where / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pickled weights only \(adapter_model.bin\)") as refused:
        load(where)
    command = shlex.split(str(refused.value).partition("convert them once: ")[2])
    assert command[:2] == ["python", "-c"]
    monkeypatch.chdir(tmp_path)
    exec(command[2], {})
    np.testing.assert_array_equal(encode_matrix(load(tmp_path / "converted"), ITEMS, "document"), expected)
    (tmp_path / "converted/adapter_model.safetensors").unlink()
    (tmp_path / "converted/adapter_model.bin").unlink()
    with pytest.raises(InputError, match=r"the adapter .* has no weights \(adapter_model.safetensors\)"):
        load(tmp_path / "converted")


def test_an_adapter_has_its_own_pooling_and_prompts(tiny_llm, tmp_path):
    where = publish(adapter(tiny_llm, tmp_path / "adapter", False), "mean", prompts={"query": "Find: "})
    spec = load(tiny_llm, f"adapter={where}").spec
    assert (spec.pooling, spec.query_prompt) == ("mean", "Find: ")


# Bad checkpoints


def test_pickled_weights_are_refused_with_a_command_that_converts_them(tiny_llm, tmp_path, monkeypatch):
    copied = Path(shutil.copytree(tiny_llm, tmp_path / "pickled"))
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(weights, copied / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled weights only \(pytorch_model.bin\)") as refused:
        load(copied)
    assert "\n" not in str(refused.value)
    command = shlex.split(str(refused.value).partition("convert them once: ")[2])
    assert command[:2] == ["python", "-c"]
    monkeypatch.chdir(tmp_path)
    exec(command[2], {})
    np.testing.assert_array_equal(
        encode_matrix(load(tmp_path / "converted"), ITEMS, "document"), encode_matrix(load(tiny_llm), ITEMS, "document")
    )


def test_checkpoints_that_cannot_be_used(tiny_llm, tmp_path):
    copied = Path(shutil.copytree(tiny_llm, tmp_path / "copied"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).rename(tmp_path / name)
    with pytest.raises(InputError, match="has no tokenizer"):
        load(copied)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).rename(copied / name)
    config = json.loads((copied / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names no eos_token to append"):
        load(copied)
    with pytest.raises(InputError, match="there is no directory"):
        load(tmp_path / "nowhere")
    t5 = transformers.T5Config(vocab_size=700, d_model=32, num_layers=1, num_heads=2, d_kv=16, d_ff=32)
    transformers.T5ForConditionalGeneration(t5).save_pretrained(copied)
    with pytest.raises(InputError, match=r"is no decoder \(t5\); write hf: for llm:"):
        load(copied)
