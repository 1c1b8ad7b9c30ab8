"""What a checkpoint, an option or a machine lacks: for each family of encoders one clear line, with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from crosslens.encoders.base import Encoder
from crosslens.encoders.registry import FAMILIES, load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from safetensors.torch import load_file
from stand_ins.table import table

# family -> the fixture with its tiny checkpoint, and options that it takes to load it.
CHECKPOINTS = {
    "hf": ("tiny_encoder", ""),
    "llm": ("tiny_llm", ""),
    "st": ("tiny_encoder", ""),
    "clip": ("tiny_multilingual_clip", ""),
    "vlm": ("tiny_vlm", "format=gme"),
    "late": ("tiny_colbert", ""),
    "late pages": ("tiny_colpali", ""),
    "splade": ("tiny_splade", ""),
}
Broken = Callable[[str, Callable[[Path], object]], str]


@pytest.fixture
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Broken:
    """The line that a family says of its checkpoint once something has been done to a copy of it."""

    def said(family: str, spoil: Callable[[Path], object]) -> str:
        fixture, options = CHECKPOINTS[family]
        where = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "broken"))
        spoil(where)
        return refusal(lambda: load_encoder(f"{family.partition(' ')[0]}:{where}?{options}".rstrip("?"), device="cpu"))

    return said


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def without_tokenizer(where: Path) -> None:
    for path in [*where.glob("tokenizer*"), *where.glob("vocab*"), *where.glob("special_tokens_map.json")]:
        path.unlink()


def pickled(where: Path) -> None:
    path = next(where.glob("*.safetensors"))
    clip = path.name.startswith("open_clip")
    # A pickle that holds an object, as only those that may run code do: clip: reads tensors in .bin files safely.
    torch.save(
        {"state_dict": Path("x")} if clip else load_file(path),
        where / ("open_clip_pytorch_model.bin" if clip else "pytorch_model.bin"),
    )
    path.unlink()


def test_every_family_that_loads_a_checkpoint_is_tested() -> None:
    # An ensemble's checkpoints are its members'; what promptreps: refuses is in its own tests.
    assert {name.partition(" ")[0] for name in CHECKPOINTS} | {"ensemble", "promptreps"} == set(FAMILIES)


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_checkpoint_without_a_tokenizer(broken: Broken, family: str) -> None:
    assert "tokenizer" in broken(family, without_tokenizer)


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_pickled_weights_and_how_they_are_converted(broken: Broken, family: str) -> None:
    line = broken(family, pickled)
    assert "pickle" in line
    assert "safetensors" in line if family == "clip" else 'python -c "' in line


@pytest.mark.parametrize("family", ["vlm", "late pages"])
def test_a_processor_that_is_not_there_or_lacks_images(
    request: pytest.FixtureRequest, broken: Broken, tmp_path: Path, family: str
) -> None:
    import transformers

    def unprocessed(where: Path) -> None:
        for path in where.glob("*processor_config.json"):
            path.unlink()

    assert "has no processor (none of preprocessor_config.json, " in broken(family, unprocessed)
    # One that hears takes the place of the one that sees.
    where = tmp_path / "broken"
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    ears = transformers.Wav2Vec2FeatureExtractor()
    transformers.Wav2Vec2Processor(ears, tokenizer).save_pretrained(where)
    line = refusal(lambda: load_encoder(f"{family.partition(' ')[0]}:{where}", device="cpu"))
    assert "its processor (Wav2Vec2Processor) lacks images" in line


@pytest.mark.parametrize("family", ["llm", "vlm"])
def test_an_adapter_of_another_base(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_llm: Path, family: str
) -> None:
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": "meta-llama/Llama-2-7b-hf", "peft_type": "LORA"}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "adapter/adapter_model.safetensors")
    fixture, options = CHECKPOINTS[family]
    spec = f"{family}:{request.getfixturevalue(fixture)}?adapter={tmp_path}/adapter&{options}".rstrip("&")
    line = refusal(lambda: load_encoder(spec))
    assert "was trained on meta-llama/Llama-2-7b-hf, not on" in line
    assert "?base=" in line


def made(request: pytest.FixtureRequest, family: str, options: str, device: str = "cpu") -> Encoder:
    fixture, more = CHECKPOINTS[family]
    where = request.getfixturevalue(fixture)
    given = "&".join(each for each in (options, more) if each)
    return load_encoder(f"{family.partition(' ')[0]}:{where}?{given}".rstrip("?"), device=device)


@table("family", [name for name in CHECKPOINTS if name not in ("clip", "splade")])
def test_a_dim_larger_than_the_models(request: pytest.FixtureRequest, family: str) -> None:
    for dim in (0, 5000):
        line = refusal(lambda dim=dim: made(request, family, f"dim={dim}"))
        assert "dim must be in 1.." in line
        assert str(dim) in line


@pytest.mark.parametrize("family", ["llm", "vlm"])
def test_a_text_over_the_limit_with_truncation_off(request: pytest.FixtureRequest, family: str) -> None:
    encoder = made(request, family, "truncate=false&max_tokens=64")
    line = refusal(lambda: list(encoder.encode([Item("short", "a"), Item("long", "cats " * 300)], "document")))
    assert "'long' has" in line
    assert "64" in line


@table("family", CHECKPOINTS)
@table("device", ["cuda:99", "tpu"])
def test_a_device_that_is_not_there(request: pytest.FixtureRequest, family: str, device: str) -> None:
    line = refusal(lambda: made(request, family, "", device))
    assert repr(device) in line
    assert "auto" in line


@pytest.mark.parametrize("family", ["hf", "st", "late", "splade"])
def test_the_command_line_ends_with_status_2(
    crosslens: Callable[..., tuple[int, str, str]], request: pytest.FixtureRequest, tmp_path: Path, family: str
) -> None:
    where = Path(shutil.copytree(request.getfixturevalue(CHECKPOINTS[family][0]), tmp_path / "broken"))
    without_tokenizer(where)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "docs.jsonl").write_text('{"id": "cat", "text": "The cat sleeps."}\n')
    kind = {"late": "late", "splade": "sparse"}.get(family, "flat")
    made = (tmp_path / "c", tmp_path / "x", "--index", kind)
    status, out, err = crosslens("index", *made, "--encoder", f"{family}:{where}")
    assert (status, out) == (2, "")
    assert len([line for line in err.splitlines() if "tokenizer" in line]) == 1
