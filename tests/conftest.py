"""Tiny checkpoints, built once a session (`tests/tiny`), and what all tests share."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from tiny import decoders, text, vision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A busy machine is no fault of a test.
settings.register_profile("crosslens", deadline=None, max_examples=50)
settings.load_profile("crosslens")

LONG = ("test_killed.py", "test_adapt.py")  # few tests, and each takes long


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes that share the files (`make test`) end at about one time: many and long tests come first."""
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, -sizes[item.path], str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def _vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The caches of vectors and texts of the tests: never the user's."""
    where = tmp_path_factory.mktemp("vectors")
    os.environ["CROSSLENS_VECTORS"] = str(where)
    os.environ["CROSSLENS_TEXTS"] = str(where / "texts")
    return where


@pytest.fixture(autouse=True)
def _fresh_vectors(_vectors: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test encodes what it indexes, and writes what it searches with, and finds neither in another test's cache."""
    own = _vectors / f"{abs(hash(request.node.nodeid)):x}"
    monkeypatch.setenv("CROSSLENS_VECTORS", str(own))
    monkeypatch.setenv("CROSSLENS_TEXTS", str(own / "texts"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose tokenizer adds [CLS] and [SEP]."""
    return text.save_bert(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def tiny_splade(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """`tiny_encoder` with the head of a masked language model."""
    return text.save_splade(tmp_path_factory.mktemp("tiny-splade"), tiny_encoder)


@pytest.fixture(scope="session")
def tiny_colbert(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """`tiny_encoder` with ColBERT's projection to 16 dimensions."""
    return text.save_colbert(tmp_path_factory.mktemp("tiny-colbert"), tiny_encoder)


@pytest.fixture(scope="session")
def tiny_xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-R as it is published, with the head of a masked language model."""
    return text.save_xlmr(tmp_path_factory.mktemp("tiny-xlmr"))


@pytest.fixture(scope="session")
def tiny_modernbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ModernBERT with the head of a masked language model, and spare tokens."""
    return text.save_modernbert(tmp_path_factory.mktemp("tiny-modernbert"))


@pytest.fixture(scope="session")
def tiny_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 without a chat template."""
    return decoders.save_gemma(tmp_path_factory.mktemp("tiny-gemma"))


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokenizer adds a beginning and no end, as Llama 2's does."""
    return decoders.save_llm(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def tiny_bidirectional_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 that attends both ways, with mean pooling, as EmbeddingGemma."""
    return decoders.save_embedding_gemma(tmp_path_factory.mktemp("tiny-embeddinggemma"))


@pytest.fixture
def llm_folder(tmp_path: Path) -> Callable[..., Path]:
    """`decoders.save_llm` into a directory of the name given, for a test that needs a model of its own."""
    return lambda name, *how, **config: decoders.save_llm(tmp_path / name, *how, **config)


@pytest.fixture
def clip_folder(tmp_path: Path) -> Callable[..., Path]:
    """`vision.save_clip` into a new directory, for a test that needs a model of its own."""

    def save(towers: dict[str, object], template: str | None = None, **model: object) -> Path:
        (where := tmp_path / "clip").mkdir()
        return vision.save_clip(where, towers, template, **model)

    return save


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain CLIP with open_clip's built-in BPE tokenizer."""
    towers = {"context_length": 24, "width": 32, "heads": 2, "layers": 1}
    return vision.save_clip(tmp_path_factory.mktemp("clip"), towers)


@pytest.fixture(scope="session")
def tiny_multilingual_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP whose text tower is an XLM-R."""
    return vision.save_multilingual_clip(tmp_path_factory.mktemp("clip-xlmr"))


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL."""
    return vision.save_qwen_vl(tmp_path_factory.mktemp("tiny-qwen-vl"))


@pytest.fixture(scope="session")
def tiny_colpali(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ColPali: a page is 16 patches."""
    return vision.save_colpali(tmp_path_factory.mktemp("tiny-colpali"))


@pytest.fixture(scope="session")
def tiny_colqwen(tmp_path_factory: pytest.TempPathFactory, tiny_vlm: Path) -> Path:
    """A ColQwen2 on the backbone of `tiny_vlm`: a page is as many vectors as it has squares of 8 pixels."""
    return vision.save_colqwen(tmp_path_factory.mktemp("tiny-colqwen"), tiny_vlm)


@pytest.fixture
def crosslens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the console script in this process: exit status, stdout, stderr."""
    from crosslens.commands import app as cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crosslens", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call
