"""Recipes: files of the fields of a dataclass, in which nothing is ignored."""

from dataclasses import replace
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.training.recipe import EncoderRecipe, list_recipes, read_recipe
from stand_ins.table import table


def test_a_file_is_read_and_what_is_given_wins(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('batch = 8\ndims = [64, 32]\nlearning_rate = 1\nlanguages = "apart"\n')
    made = read_recipe(EncoderRecipe, str(file), batch=4, steps=None)
    assert (made.batch, made.dims, made.learning_rate, made.languages) == (4, (64, 32), 1, "apart")
    assert read_recipe(EncoderRecipe, None, seed=3) == EncoderRecipe(seed=3)


def test_a_file_extends_a_ready_recipe_or_a_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "low.toml").write_text('extends = "repllama"\nmerge = false\nbatch = 8\n')
    (tmp_path / "mine.toml").write_text('extends = "sub/low.toml"\nbatch = 4\n')
    monkeypatch.chdir(tmp_path / "sub")  # files are relative to the one that names them
    expected = replace(read_recipe(EncoderRecipe, "repllama"), merge=False, batch=4)
    assert read_recipe(EncoderRecipe, str(tmp_path / "mine.toml")) == expected


@pytest.mark.parametrize(
    ("low", "said"),
    [
        ('extends = "mine.toml"', "mine.toml extends itself"),
        ("bach = 8", "low.toml: unknown key 'bach'"),
        ('extends = "e6"', "low.toml: there is no recipe"),
        ("extends = 3", "low.toml: extends must be the name"),
    ],
)
def test_what_is_wrong_in_an_extended_recipe_names_its_file(tmp_path: Path, low: str, said: str):
    (tmp_path / "low.toml").write_text(low)
    (tmp_path / "mine.toml").write_text('extends = "low.toml"\n')
    with pytest.raises(InputError) as error:
        read_recipe(EncoderRecipe, str(tmp_path / "mine.toml"))
    assert said in str(error.value)


@table(
    ("text", "said"),
    [
        ("bach = 8", "unknown key 'bach'; did you mean batch"),
        ("batch = 8.5", "batch is not of the type int"),
        ('batch = "8"', "batch is not of the type int"),
        ("batch = 0", "batch must be at least 1"),
        ('dims = ["a"]', "dims is not of the type tuple"),
        ('loss = "kll"', "unknown value of loss 'kll'; did you mean kl"),
        ("learning_rate = nan", "learning_rate must be above 0"),
        ("interpolate = 1", "interpolate must be from 0 to below 1"),
        ('anchor = "ewc"', "anchor ewc needs replay"),
        ("batch = ", "not TOML"),
        ("batch = 1000000000000", "batch must be below 1,000,000"),
        ("seed = 4294967296", "seed must be below 4,294,967,296"),
        ("lora = 2\nlora_alpha = -1", "lora_alpha must be above 0"),
        ("weight_decay = -1", "weight_decay must be a number from 0"),
        ("margin = -0.5", "margin must be a number from 0"),
        ("flops = nan", "flops must be a number from 0"),
        ("anchor_strength = inf", "anchor_strength must be a number from 0"),
        ("bias = nan", "bias must be a finite number"),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_key(tmp_path: Path, text: str, said: str):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match="mine.toml") as error:
        read_recipe(EncoderRecipe, str(file))
    assert said in str(error.value)


def test_an_unknown_recipe_lists_the_ready_ones():
    with pytest.raises(InputError, match=r"no recipe 'e6'.*e5"):
        read_recipe(EncoderRecipe, "e6")


@table("name", ["e5", "repllama", "drama", "translate-distill", "colbert-x-mtt", "lit", "lit-heads"])
def test_ready_recipes_can_be_read(name: str):
    assert name in list_recipes()
    assert read_recipe(EncoderRecipe, name) != EncoderRecipe()
