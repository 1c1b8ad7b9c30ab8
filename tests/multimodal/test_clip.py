"""`clip:` with tiny random checkpoints on disk, loaded through open_clip as real ones are."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multimodal.clip import ClipEncoder
from crosslens.multimodal.towers import fuse_vectors
from safetensors.torch import load_file
from stand_ins.table import table
from tiny.clips import TEXTS, items, picture


@pytest.fixture(scope="module")
def tiny_arch(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The plain tiny CLIP registered with open_clip as an architecture, for `ARCH/WEIGHTS`."""
    import open_clip.factory as factory

    path = tmp_path_factory.mktemp("arch") / "tiny-ViT.json"
    path.write_text(json.dumps(json.loads((tiny_clip / "open_clip_config.json").read_text())["model_cfg"]))
    factory.add_model_config(path)
    yield "tiny-ViT"
    factory._MODEL_CONFIG_PATHS.remove(path)  # noqa: SLF001 - open_clip has no way to forget one
    factory._MODEL_CONFIGS.pop("tiny-ViT")  # noqa: SLF001


def test_vectors_are_open_clips(tiny_clip: Path) -> None:
    import open_clip

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")
    image = picture(1)
    with torch.inference_mode():
        text = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
        pixels = model.encode_image(transform(image)[None], normalize=True).numpy()
    encoder = load_encoder(f"clip:{tiny_clip}?dtype=float32")
    np.testing.assert_allclose(encode_matrix(encoder, items(TEXTS), "query"), text, atol=1e-5)
    np.testing.assert_allclose(encode_matrix(encoder, [Item("p", image=image)], "document"), pixels, atol=1e-5)


def test_multilingual_tower_without_its_padding_is_open_clips(tiny_multilingual_clip: Path) -> None:
    encoder = load_encoder(f"clip:{tiny_multilingual_clip}?dtype=float32")
    assert isinstance(encoder, ClipEncoder)
    ids = encoder.token_ids(TEXTS)
    assert ids.shape == (len(TEXTS), 40)
    assert encoder.spec.special_tokens == "<s></s>"
    seen: list[int] = []
    encoder.model.text.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    short = encode_matrix(encoder, items(TEXTS[:1]), "query")
    assert seen == [int((ids[0] != encoder.padding).sum())]  # the padding is left off
    assert seen[0] < 12
    with torch.inference_mode():
        expected = encoder.model.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(encode_matrix(encoder, items(TEXTS), "query"), expected, atol=1e-5)
    np.testing.assert_allclose(short[0], expected[0], atol=1e-5)


def test_texts_are_padded_on_the_right_whatever_the_tokenizer_says(tiny_multilingual_clip, tmp_path) -> None:
    """As SigLIP 2's were in training: its tokenizer is of Gemma's class, which transformers 5 pads on the left."""
    expected = load_encoder(f"clip:{tiny_multilingual_clip}?dtype=float32").token_ids(TEXTS)  # type: ignore[attr-defined]
    left = shutil.copytree(tiny_multilingual_clip, tmp_path / "left")
    config = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    encoder = load_encoder(f"clip:{left}?dtype=float32")
    assert isinstance(encoder, ClipEncoder)
    assert torch.equal(encoder.token_ids(TEXTS), expected)
    assert expected[0, -1] == encoder.padding
    assert expected[0, 0] != encoder.padding


def test_spec_says_what_the_model_does(tiny_clip: Path) -> None:
    spec = load_encoder(f"clip:{tiny_clip}").spec
    assert (spec.dim, spec.max_tokens, spec.modalities) == (16, 24, ("text", "image"))
    assert spec.special_tokens == "<start_of_text><end_of_text>"
    assert spec.extra["preprocess"]["size"] == [32, 32] or spec.extra["preprocess"]["size"] == 32
    assert spec.extra["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert len(spec.revision) == 16


def test_revision_follows_weights_and_config(tiny_clip: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_clip, tmp_path / "copy"))
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bilinear"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    assert load_encoder(f"clip:{copy}").spec.revision != load_encoder(f"clip:{tiny_clip}").spec.revision


def test_text_and_image_are_fused_by_weight(tiny_clip: Path) -> None:
    image, text = picture(2), "a dog"
    for weight in (0.5, 0.8):
        encoder = load_encoder(f"clip:{tiny_clip}?dtype=float32&text_weight={weight}")
        found = encode_matrix(encoder, [Item("t", text), Item("i", image=image), Item("b", text, image)], "query")
        np.testing.assert_allclose(found[2], fuse_vectors(found[:1], found[1:2], weight)[0], atol=1e-6)
    assert found[2] @ found[0] > found[2] @ found[1]
    assert load_encoder(f"clip:{tiny_clip}").spec.fingerprint != encoder.spec.fingerprint
    with pytest.raises(InputError, match="text_weight must be in"):
        load_encoder(f"clip:{tiny_clip}?text_weight=1.5")


def test_max_pixels_is_applied_before_the_transform(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(f"clip:{tiny_clip}?max_pixels=500")
    assert isinstance(encoder, ClipEncoder)
    sizes: list[tuple[int, int]] = []
    transform = encoder.transform
    monkeypatch.setattr(encoder, "transform", lambda image: (sizes.append(image.size), transform(image))[1])
    encode_matrix(encoder, [Item("a", image=picture(3, (400, 300)))], "document")
    assert len(sizes) == 1
    assert 400 < sizes[0][0] * sizes[0][1] <= 500


def test_architecture_with_a_file_of_weights(tiny_arch: str, tiny_clip: Path, tmp_path: Path) -> None:
    expected = encode_matrix(load_encoder(f"clip:{tiny_clip}?dtype=float32"), items(TEXTS), "query")
    file = tiny_clip / "open_clip_model.safetensors"
    encoder = load_encoder(f"clip:{tiny_arch}/{file}?dtype=float32")
    np.testing.assert_allclose(encode_matrix(encoder, items(TEXTS), "query"), expected, atol=1e-6)
    torch.save({"state_dict": load_file(file)}, tmp_path / "weights.pt")
    encoder = load_encoder(f"clip:{tiny_arch}/{tmp_path}/weights.pt?dtype=float32")
    np.testing.assert_allclose(encode_matrix(encoder, items(TEXTS), "query"), expected, atol=1e-6)


class Evil:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.flag,)


def test_pickles_do_not_run(tiny_arch: str, tiny_clip: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    torch.save({"state_dict": Evil(flag)}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="pickle that may run code"):
        load_encoder(f"clip:{tiny_arch}/{tmp_path}/evil.pt")
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "folder"))
    (folder / "open_clip_model.safetensors").unlink()
    shutil.copy(tmp_path / "evil.pt", folder / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match="pickle that may run code"):
        load_encoder(f"clip:{folder}")
    assert not flag.exists()


def test_a_checkpoint_cannot_ask_for_its_own_code(
    clip_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    folder = clip_folder(
        {"context_length": 16, "width": 32, "heads": 2, "layers": 1, "tokenizer_kwargs": {"trust_remote_code": True}},
        "<s> $A </s>",
    )
    asked: list[object] = []
    genuine = AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer,
        "from_pretrained",
        lambda *given, **options: (asked.append(options["trust_remote_code"]), genuine(*given, **options))[1],
    )
    load_encoder(f"clip:{folder}")
    load_encoder(f"clip:{folder}", trust_remote_code=True)
    assert asked == [False, True]


def test_siglip_text_is_canonicalised(clip_folder: Callable[..., Path]) -> None:
    text = {"context_length": 64, "width": 32, "heads": 2, "layers": 1, "no_causal_mask": True, "pool_type": "last"}
    folder = clip_folder({**text, "tokenizer_kwargs": {"clean": "canonicalize"}}, "$A </s>", custom_text=True)
    encoder = load_encoder(f"clip:{folder}?dtype=float32")
    assert isinstance(encoder, ClipEncoder)
    ids = encoder.token_ids(["A photo, of a CAT!", "a photo of a cat"])
    assert ids.shape == (2, 64)
    assert torch.equal(ids[0], ids[1])
    assert encoder.spec.special_tokens == "</s>"
    assert encoder.spec.extra["tokenizer"] == {"clean": "canonicalize"}
    assert encode_matrix(encoder, items(["cat"]), "query").shape == (1, 16)


def test_nllb_tower_is_given_the_language(clip_folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import M2M100Config, NllbTokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyz猫"
    vocab = {piece: row for row, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    tokenizer = NllbTokenizer(vocab=vocab, merges=[])
    config = M2M100Config(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )
    config.save_pretrained(tmp_path / "text")
    folder = clip_folder(
        {
            "hf_model_name": str(tmp_path / "text"),
            "hf_tokenizer_name": "x",
            "hf_proj_type": "linear",
            "hf_pooler_type": "cls_pooler",
            "context_length": 20,
        }
    )
    tokenizer.save_pretrained(folder)
    encoder = load_encoder(f"clip:{folder}?dtype=float32")
    assert isinstance(encoder, ClipEncoder)
    ids = encoder.token_ids(["cat"] * 6, ["eng", None, "zho", "fas", "swa", "qaa"])
    firsts = encoder.tokenizer.tokenizer.convert_ids_to_tokens(ids[:, 0].tolist())
    assert firsts == ["eng_Latn", "eng_Latn", "zho_Hans", "pes_Arab", "swh_Latn", "eng_Latn"]
    found = encode_matrix(
        encoder, [Item("a", "cat", lang="eng"), Item("b", "cat", lang="zho"), Item("c", "cat")], "query"
    )
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_long_text_is_cut_quickly_and_alike(tiny_clip: Path) -> None:
    encoder = load_encoder(f"clip:{tiny_clip}?dtype=float32")
    assert isinstance(encoder, ClipEncoder)
    text = "one two three " * 20_000
    ids = encoder.token_ids([text, text[:2000]])
    assert torch.equal(ids[0], ids[1])
    assert ids[0, -1] == encoder.tokenizer.eot_token_id


@table(
    ("checkpoint", "message"),
    [
        ("ViT-B-33/openai", "unknown open_clip architecture 'ViT-B-33'.*ViT-B-32"),
        ("ViT-B-32", r"names no weights; write clip:ViT-B-32/TAG \(known: .*laion2b_s34b_b79k"),
        ("ViT-B-32/laion2b_s34b_b79", r"unknown weights of ViT-B-32 .*did you mean laion2b_s34b_b79k\?"),
        ("ViT-B-32//nowhere/w.safetensors", r"/nowhere/w\.safetensors: there is no such file of weights"),
        ("local-dir:/nowhere", r"/nowhere: no open_clip_config\.json there"),
    ],
)
def test_unknown_names(checkpoint: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_encoder(f"clip:{checkpoint}")
    assert "\n" not in str(error.value)


def test_broken_directories(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no open_clip_config\.json there"):
        load_encoder(f"clip:{tmp_path}")
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "folder"))
    weights = folder / "open_clip_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:5000])
    with pytest.raises(InputError, match="cannot load clip:"):
        load_encoder(f"clip:{folder}")
    weights.unlink()  # open_clip would go on with random weights
    with pytest.raises(InputError, match="cannot load clip:"):
        load_encoder(f"clip:{folder}")
    weights.write_bytes(data)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 24
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot load clip:") as error:
        load_encoder(f"clip:{folder}")
    assert "\n" not in str(error.value)
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match="cannot load clip:"):
        load_encoder(f"clip:{folder}")


def test_loading_leaves_logging_alone(tiny_clip: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    load_encoder(f"clip:{tiny_clip}")
    assert (root.level, list(root.handlers)) == before


def test_a_bad_image_is_named(tiny_clip: Path, tmp_path: Path) -> None:
    (path := tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    good = [Item(str(row), image=picture(row)) for row in range(40)]
    with pytest.raises(InputError, match=r"item 'bad' \(.*cut\.png\)"):
        encode_matrix(load_encoder(f"clip:{tiny_clip}"), [*good, Item("bad", image=path)], "document")


def test_queries_are_put_into_a_template(tiny_clip: Path) -> None:
    plain = load_encoder(f"clip:{tiny_clip}?dtype=float32")
    asked = [
        Item("a", "cat"),
        Item("b", "Katze", lang="deu"),
        Item("c", "猫", lang="zho"),
        Item("d", "猫", lang="cmn"),
        Item("e", "kissa", lang="fin"),
        Item("f", "paka", lang="swh"),
        Item("g", "katua", lang="eus"),
        Item("h", "x", lang="tlh"),
        Item("i", image=picture(3)),
    ]
    worded = [
        "a photo of cat",
        "ein Foto von Katze",
        "一张猫的照片",
        "一张猫的照片",
        "valokuva: kissa",
        "picha ya paka",
    ]
    expected = encode_matrix(plain, items([*worded, "katua", "x"]), "query")
    photo = load_encoder(f"clip:{tiny_clip}?dtype=float32&template=photo")
    found = encode_matrix(photo, asked, "query")
    np.testing.assert_allclose(found[:-1], expected, atol=1e-5)
    np.testing.assert_allclose(found[-1:], encode_matrix(plain, asked[-1:], "query"), atol=1e-6)
    # Documents are left as they are.
    np.testing.assert_allclose(
        encode_matrix(photo, asked, "document"), encode_matrix(plain, asked, "document"), atol=1e-6
    )
    one = load_encoder(f"clip:{tiny_clip}?dtype=float32&template=an icon of {{}}.&instruct=find")
    np.testing.assert_allclose(
        encode_matrix(one, asked[:2], "query"),
        encode_matrix(plain, items(["find an icon of cat.", "find an icon of Katze."]), "query"),
        atol=1e-5,
    )
    assert one.spec.query_prompt == "an icon of {}."
    assert load_encoder(one.spec.name).spec == one.spec
    assert len({each.spec.fingerprint for each in (plain, photo, one)}) == 3
    for bad in ("a photo", "{} and {}"):
        with pytest.raises(InputError, match=r"must have one \{\} where the text stands, or be photo"):
            load_encoder(f"clip:{tiny_clip}?template={bad}")


@pytest.mark.parametrize("checkpoint", ["ViT-B-16-SigLIP2-NaFlex/webli", "hf-hub:google/siglip2-base-patch16-naflex"])
def test_naflex_is_said_not_to_be_there(checkpoint: str) -> None:
    with pytest.raises(InputError, match=r"has no NaFlex towers .* take one of a fixed size"):
        load_encoder(f"clip:{checkpoint}")
