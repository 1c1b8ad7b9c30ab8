"""The page of one search: whole, escaped, with its pictures inside."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from crosslens.demo.pages import write_hits_page
from crosslens.items import Item
from crosslens.runs import Hit
from stand_ins.index_cases import png
from stand_ins.live import fill

ATTACK = '<script>alert("x")</script>'


def test_a_page_shows_hits_and_runs_nothing(tmp_path):
    items = [
        Item(f"a{ATTACK}", f"the cat {ATTACK} sleeps " + "and sleeps " * 200, lang="ara", meta={"shows": ATTACK}),
        Item("photo", image=png(40), meta={"shows": '" onerror="alert(1)'}),
        Item("gone", image=Path("/nowhere/photo.jpg")),
    ]
    found = [(Hit(item.id, 1.0 / rank), item) for rank, item in enumerate(items, 1)]
    query = Item("query", f"cats {ATTACK}", lang="eng")
    write_hits_page(tmp_path / "page.html", query, found, words="cat", system=f"dense?{ATTACK}")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in page
    assert 'onerror="' not in page
    assert "<mark>cat</mark>" in page
    assert 'dir="rtl"' in page
    (inside,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert base64.b64decode(inside).startswith(b"\xff\xd8")
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert len(page) < 20_000
    assert [part.strip() for part in re.findall(r'<span class="tag">(\d+) ·', page)] == ["1", "2", "3"]


def test_the_command_writes_it(crosslens, tmp_path):
    index = fill(tmp_path / "small.index")
    status, out, err = crosslens(
        "search", index, "picture", "-k", 3, "--where", "modality=image", "--html", tmp_path / "page.html"
    )
    assert (status, err) == (0, "")
    assert out.count("\n") == 3
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count('<li class="hit">') == 3
    assert "data:image/jpeg;base64," in page
    assert crosslens("search", index, "boat", "--html", tmp_path / "none" / "page.html")[0] == 2
    status, _, err = crosslens("search", index, "boat", "--html", tmp_path / "b.html", "--server", "http://localhost")
    assert status == 2
    assert "--html" in err
