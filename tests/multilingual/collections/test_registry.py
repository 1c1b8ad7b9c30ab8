"""collections/registry.py: how a name becomes a collection."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.collections import registry
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases
from stand_ins.table import table


@pytest.mark.parametrize("name", ["bier:somewhere", "irdz:x", "neuclri?year=2022"])
def test_an_unknown_kind_of_collection_is_named(name):
    kind = name.partition(":")[0].partition("?")[0]
    with pytest.raises(InputError, match=f"unknown kind of collection '{kind}'; did you mean"):
        load_collection(name)


def test_a_blank_name_is_not_this_directory():
    for name in ("", " "):
        with pytest.raises(InputError, match="the collection has no name"):
            load_collection(name)


def test_a_directory_that_is_named_like_a_spec_is_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("beir", "neuclir:2023"):
        cases.put(tmp_path / name / "docs.jsonl", {"id": "good", "text": "fine"})
        assert load_collection(name).name == name
    with pytest.raises(InputError, match="does not exist"):
        load_collection("C")


@table("family", sorted(registry.FAMILIES.keys() - {"demo", "irds"}))
def test_every_family_can_be_loaded_and_says_how_it_is_named(family):
    module, _, kind = registry.FAMILIES[family].partition(":")
    adapter = getattr(import_module(f"crosslens.{module}"), kind)
    assert f"{family}:" in adapter.usage
    assert adapter.__doc__
    assert f"`{family}" in adapter.__doc__


def test_options_are_given_in_the_name_or_beside_it(tmp_path):
    root = tmp_path / "beir"
    cases.put(root / "corpus.jsonl", {"_id": "a", "text": "Hund"})
    assert load_collection(root, lang="de", split=None).langs == {"deu"}
    assert load_collection(f"beir:{root}", lang="de").langs == {"deu"}
    for name, options, part in (
        (root, {"long": True}, r"unknown option of beir 'long'.*known: .*lang"),
        (root, {"sample": "no"}, "'sample' must be bool, not 'no'"),
        (f"beir:{root}?lang=en", {"lang": "de"}, "says lang already"),
    ):
        with pytest.raises(InputError, match=part):
            load_collection(name, **options)


def test_demo_takes_no_place_and_is_itself_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases.put(tmp_path / "demo" / "docs.jsonl", {"id": "good", "text": "fine"})
    assert type(load_collection("demo")).__name__ == "Demo"
    assert load_collection("./demo").name == "demo"
    assert len(list(load_collection("./demo").docs())) == 1
    with pytest.raises(InputError, match="built in: write demo, not demo:here"):
        load_collection("demo:here")


def test_collections_of_other_packages(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(cases.install_lines(tmp_path)))
    lines = cases.put(tmp_path / "lines.txt", "one", "two")
    assert load_collection(f"py:my_lines:Lines:{lines}?lang=deu").name == "lines-deu"
    assert load_collection(f"lines:{lines}").name == "lines-eng"
    assert load_collection(f"lines:{lines}", skip_bad=True).check().documents == 2  # it has no such option
    with pytest.raises(InputError, match=r"unknown option of lines 'long'.*\(known: lang\)"):
        load_collection(f"lines:{lines}?long=true")
    with pytest.raises(InputError, match=r"unknown kind of collection 'line'; did you mean lines\?"):
        load_collection(f"line:{lines}")
    with pytest.raises(InputError, match="cannot import my_lines:Nothing"):
        load_collection("py:my_lines:Nothing")


def test_a_kind_is_imported_when_it_is_asked_for():
    code = (
        "import sys; from crosslens.multilingual.collections.registry import load_collection; "
        "sys.exit(any(m in sys.modules for m in ('pyarrow', 'ir_datasets', 'torch', 'PIL', 'crosslens.demo')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
