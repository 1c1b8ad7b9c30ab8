"""Made `before-rebuild.tar.xz`, run in a checkout of commit 8b5b450: what later versions must be able to read.

python make.py FOLDER; then, in FOLDER, `tar cJf before-rebuild.tar.xz *`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import crosslens
from PIL import Image
from toys import Toy

TEXTS = {
    "d1": ("eng", "A cat sleeps on the warm roof in the sun."),
    "d2": ("eng", "The river floods the valley every spring."),
    "d3": ("eng", "The baker sells fresh bread before dawn."),
    "d4": ("zho", "一只猫在温暖的屋顶上睡觉。"),
    "d5": ("zho", "每年春天河水淹没山谷。"),
    "d6": ("zho", "面包师在黎明前出售新鲜面包。"),
    "d7": ("rus", "Кошка спит на тёплой крыше под солнцем."),
    "d8": ("rus", "Река каждую весну затапливает долину."),
    "d9": ("rus", "Пекарь продаёт свежий хлеб до рассвета."),
}
QUERIES = {
    "q1": ("Where does the cat sleep?", "d1 d4 d7"),
    "q2": ("What floods the valley?", "d2 d5 d8"),
    "q3": ("Who sells bread early in the morning?", "d3 d6 d9"),
}
PLAN = """
collections = ["collection"]
k = 9
[systems]
dense = "dense"
lexical = "lexical"
fused = "rrf(dense, lexical) % 5"
hybrid = "hybrid"
added = "zscore(dense) + 0.5 * zscore(lexical)"
maxp = "dense?window=8&stride=4"
judged = "dense % 4 >> likelihood@offline:gemma?depth=3&k=3"
"""


def picture(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), colour).save(out, "PNG")
    return out.getvalue()


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chdir(folder)
    Path("collection").mkdir()
    docs = [{"id": id, "lang": lang, "text": text} for id, (lang, text) in TEXTS.items()]
    topics = [{"id": id, "text": text, "lang": "eng"} for id, (text, _) in QUERIES.items()]
    for name, rows in (("docs", docs), ("topics", topics)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        Path("collection", f"{name}.jsonl").write_text("".join(lines), "utf-8")
    judged = [f"{id} 0 {doc} 3\n" for id, (_, of) in QUERIES.items() for doc in of.split()]
    Path("collection", "qrels.txt").write_text("".join(judged))

    items = list(crosslens.collection("collection").docs())
    pictured = [
        crosslens.Item("red", image=picture((200, 30, 30)), meta={"shows": "colour", "year": 2020}),
        crosslens.Item("both", "A green square.", image=picture((30, 200, 30)), lang="eng"),
    ]
    expected: dict[str, object] = {}
    for kind, toys, more in (
        ("lance", [Toy("dense"), Toy("dense", ("text", "image"))], {}),
        ("flat", [Toy("dense")], {"lexical": False}),
        ("faiss:HNSW8,Flat", [Toy("dense")], {"lexical": False}),
        ("sparse", [Toy("sparse")], {"lexical": False}),
        ("late", [Toy("multi")], {"lexical": False}),
        ("lance", [Toy("dense")], {"passages": crosslens.Windows(4, 2)}),
    ):
        name = "passages" if "passages" in more else kind.partition(":")[0]
        index = crosslens.create_index(name, kind=kind, name=name, **more)
        index.add(items + (pictured if len(toys) > 1 else []), toys)
        index.build()
        found = {"fingerprint": index.fingerprint, "length": len(index)}
        for mode in ("dense", "lexical", "hybrid") if index.card.lexical else ("dense",):
            run = index.search([text for text, _ in QUERIES.values()], 5, mode=mode)
            found[mode] = {query.text: [list(hit) for hit in hits] for query, hits in run}
        expected[name] = found
    Path("expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False))

    os.environ["CROSSLENS_VECTORS"] = str(Path("vectors").resolve())
    Path("plan.toml").write_text(PLAN)
    subprocess.run(["crosslens", "experiment", "plan.toml", "-o", "experiment"], check=True)
    made = next(path for path in Path("experiment/indexes").iterdir() if path.is_dir())
    lexical = ("--mode", "lexical", "-k", "5", "-o", "run.trec")
    subprocess.run(["crosslens", "run", str(made), "collection", *lexical], check=True)
    for moments in Path("experiment/indexes").glob("*/moments_*"):
        moments.unlink()  # a megabyte each, read by no stage whose result is kept


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
