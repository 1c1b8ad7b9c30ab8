"""GGUF files in parts: their conversion against transformers' own, and what is wrong with them in one line."""

from __future__ import annotations

import hashlib
import os
import resource
import unicodedata
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.checkpoints.offline import gguf as offline_gguf
from crosslens.checkpoints.offline import packages as offline
from crosslens.checkpoints.offline.gemma import convert_gemma
from crosslens.checkpoints.offline.qwen import convert_qwen
from crosslens.errors import InputError
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.judges.messages import Message
from safetensors import safe_open
from tiny.gguf_files import cut_file, write_gemma, write_qwen
from tiny.packages import E5_IDS, join_files, make_or_skip
from transformers import AutoModelForCausalLM, AutoTokenizer

SLOW = pytest.mark.skipif(not os.environ.get("CROSSLENS_SLOW"), reason="takes minutes; set CROSSLENS_SLOW=1")
TURNS = [{"role": "system", "content": "Yes ab."}, {"role": "user", "content": "abc  ab?"}]


@pytest.mark.parametrize(
    ("write", "convert"),
    [(write_gemma, convert_gemma), (write_qwen, convert_qwen), (partial(write_qwen, tied=True), convert_qwen)],
    ids=["gemma", "qwen", "qwen tied"],
)
def test_conversion_equals_transformers(write, convert, tmp_path, monkeypatch):
    """Ids, turns, weights and, where the weights are rounded alike, logits; a few rows are read at a time."""
    monkeypatch.setattr(offline_gguf, "BLOCK", 640)
    write(tmp_path / "tiny.gguf")
    ours = tmp_path / "converted"
    ours.mkdir()
    convert(cut_file(tmp_path / "tiny.gguf", tmp_path, 5000, 100_001), ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    for parameter in theirs.parameters():
        parameter.data = parameter.data.bfloat16().float()
    model = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32)
    assert model.config.tie_word_embeddings == theirs.config.tie_word_embeddings
    assert model.config.layer_types == theirs.config.layer_types
    with safe_open(ours / "model.safetensors", "pt") as held:
        assert {held.get_tensor(name).dtype for name in held.keys()} == {torch.bfloat16}  # noqa: SIM118
    mine = model.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(mine[name], tensor), name
    tokenizer = AutoTokenizer.from_pretrained(ours)
    peer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    for text in ("", "abc ab", "  a   b", "aé中😀", "<bos>a<eos>", "ab\nc", "<|im_start|>Yes<tool_call>No<|im_end|>"):
        assert tokenizer(text).input_ids == peer(text).input_ids
    assert bool(tokenizer.chat_template) == bool(peer.chat_template)
    if peer.chat_template:
        rendered = [each.apply_chat_template(TURNS, tokenize=False) for each in (tokenizer, peer)]
        assert rendered[0] == rendered[1]
    ids = tokenizer("abc ab a bcab 中 abcabc", return_tensors="pt").input_ids
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_qwen_has_its_publishers_tokenizer(tmp_path):
    """Composed forms, no token before a text, none for the rows that fill the matrix up; turns and texts may end."""
    write_qwen(tmp_path / "tiny.gguf")
    convert_qwen([tmp_path / "tiny.gguf"], tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(unicodedata.normalize("NFD", "é")).input_ids == tokenizer("é").input_ids
    assert tokenizer.bos_token is None
    assert tokenizer.padding_side == "left"
    assert "[PAD1]" not in tokenizer.get_vocab()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) + 2
    names = ["<|im_end|>", "<|endoftext|>"]
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(names)


@pytest.mark.parametrize("convert", [convert_gemma, convert_qwen])
def test_a_file_of_another_kind_is_refused(convert, tmp_path):
    (tmp_path / "x").write_bytes(b"GGML" + bytes(60))
    with pytest.raises(InputError, match="not a GGUF file of version 3"):
        convert([tmp_path / "x"], tmp_path)
    {convert_gemma: write_qwen, convert_qwen: write_gemma}[convert](tmp_path / "other")
    with pytest.raises(InputError, match=r"of the architecture (gemma3|qwen2) is needed, not (qwen2|gemma3)"):
        convert([tmp_path / "other"], tmp_path)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """`offline:qwen-0.5b` from three packages of a tiny file's parts, whose own code must never run."""
    write_qwen(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    files = []
    for n, part in enumerate(cut_file(tmp_path / "tiny.gguf", tmp_path, 5000, len(whole) // 2), 1):
        package = tmp_path / "site" / f"tinyparts_{n}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('a package is not imported to find its files')")
        (package / "data" / f"part{n:02}.bin").write_bytes(part.read_bytes())
        sha256 = hashlib.sha256(part.read_bytes()).hexdigest()
        files.append(offline.SourceFile(package.name, f"data/part{n:02}.bin", sha256, n))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    entry = replace(
        offline.MODELS["qwen-0.5b"],
        package="tiny-parts-{n}",
        version="1.0",
        files=tuple(files),
        whole=hashlib.sha256(whole).hexdigest(),
    )
    monkeypatch.setitem(offline.MODELS, "qwen-0.5b", entry)
    return entry


def test_a_judge_from_parts(packaged):
    """Its chat template is used: an answer is as likely as after the turns that the tokenizer writes."""
    assert offline.is_available("qwen-0.5b")
    judge = load_judge("offline:qwen-0.5b?dtype=float32")
    assert judge.name == "offline:qwen-0.5b"
    assert judge.chats
    asked = Message(("ab abc?",), system="abc", chat="always")
    found = judge.likelihood([asked], ["Yes"])
    tokenizer = AutoTokenizer.from_pretrained(packaged.directory)
    turns = [{"role": "system", "content": "abc"}, {"role": "user", "content": "ab abc?"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model = AutoModelForCausalLM.from_pretrained(packaged.directory, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(**ids).logits[0, -1].log_softmax(-1)[tokenizer("Yes").input_ids]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_a_part_is_missing(packaged, tmp_path):
    (tmp_path / "site" / "tinyparts_2" / "data" / "part02.bin").unlink()
    assert not offline.is_available("qwen-0.5b")
    with pytest.raises(InputError) as caught:
        load_judge("offline:qwen-0.5b")
    assert str(caught.value) == (
        "offline:qwen-0.5b needs the package tiny-parts-2==1.0, which is not installed: pip install "
        "'crosslens[offline-llm]', or use hf:Qwen/Qwen2.5-Coder-0.5B-Instruct where a model hub can be reached"
    )
    (tmp_path / "site" / "tinyparts_3" / "data" / "part03.bin").unlink()
    with pytest.raises(InputError, match=r"tiny-parts-2==1\.0, which is not installed \(nor are 1 more\)"):
        load_judge("offline:qwen-0.5b")


def test_a_part_is_another(packaged, tmp_path):
    path = tmp_path / "site" / "tinyparts_3" / "data" / "part03.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"part03\.bin is not the file .* reinstall tiny-parts-3==1\.0"):
        load_judge("offline:qwen-0.5b")
    assert not (tmp_path / "cache").exists()


def test_the_parts_make_another_whole(packaged, tmp_path, monkeypatch):
    first, second, third = packaged.files
    monkeypatch.setitem(offline.MODELS, "qwen-0.5b", replace(packaged, files=(second, first, third)))
    with pytest.raises(InputError, match=r"the files of tiny-parts-\{1\.\.3\}==1\.0 do not join to the one that"):
        load_judge("offline:qwen-0.5b")
    assert not (tmp_path / "cache").exists()


def test_the_disk_is_full(packaged, tmp_path):
    """No file may grow beyond 50 kB, for as long as the conversion lasts: one line, and nothing is left."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write the checkpoint of offline:qwen-0\.5b \(1266 MB\)"):
            load_judge("offline:qwen-0.5b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list((tmp_path / "cache" / "offline").iterdir()) == []
    load_judge("offline:qwen-0.5b")


@SLOW
@pytest.mark.parametrize("name", offline.DECODERS)
def test_the_real_conversion_equals_transformers(name, tmp_path):
    """Ids on texts of every script, turns, and every weight."""
    path = make_or_skip(name)
    join_files(name, tmp_path / "whole.gguf")
    compare_with_transformers(path, tmp_path)


def compare_with_transformers(path: Path, folder: Path) -> None:
    peer = AutoTokenizer.from_pretrained(folder, gguf_file="whole.gguf")
    tokenizer = AutoTokenizer.from_pretrained(path)
    random = np.random.default_rng(0)
    starts = [0x20, 0xA0, 0x300, 0x400, 0x600, 0x900, 0xE00, 0x1E00, 0x3040, 0x4E00, 0xAC00, 0x1F300, 0x0, 0x10A0]
    mixed = ["".join(map(chr, (random.choice(starts, 40) + random.integers(0, 96, 40)).tolist())) for _ in range(5000)]
    for text in (*E5_IDS, *mixed):
        # transformers does not compose what Qwen's publisher has composed.
        composed = unicodedata.normalize("NFC", text)
        assert tokenizer(composed).input_ids == peer(composed).input_ids
    if peer.chat_template:
        for more in ({}, {"add_generation_prompt": True}, {"tools": [{"name": "x"}]}):
            rendered = [each.apply_chat_template(TURNS, tokenize=False, **more) for each in (tokenizer, peer)]
            assert rendered[0] == rendered[1]
    theirs = AutoModelForCausalLM.from_pretrained(folder, gguf_file="whole.gguf", dtype=torch.bfloat16).state_dict()
    with safe_open(path / "model.safetensors", "pt") as held:
        names = set(held.keys())
        assert names == {name for name in theirs if name in names or name != "lm_head.weight"}
        for name in names:
            assert torch.equal(held.get_tensor(name), theirs[name]), name
