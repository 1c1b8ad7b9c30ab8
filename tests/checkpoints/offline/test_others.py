"""The Universal Sentence Encoder and EfficientNet-Lite2, as their packages have them."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.checkpoints.offline.packages import open_use_engine
from tiny.packages import make_or_skip


def test_use_alone_equals_in_a_mixed_batch():
    make_or_skip("use-m3")
    encode = open_use_engine()
    texts = ["The capital is Paris.", "北京是中国的首都", "Москва", "", "  ", "😀", "long " * 500, "a\x00b", "ไทย"]
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
