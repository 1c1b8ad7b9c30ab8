"""M-BEIR (Wei et al., ECCV 2024): texts, pictures and both, searched with any of them."""

from __future__ import annotations

from typing import Literal

from ...items import Item
from .files import read_judgements, read_table
from .published import PublishedCollection, Reading
from .records import FileRow, make_item


class MBeir(PublishedCollection):
    """`mbeir:DIR?task=mscoco_task0[&split=test][&pool=global]`: the files of TIGER-Lab/M-BEIR, pictures unpacked.

    Queries `{"qid", "query_txt", "query_img_path", "query_modality", ...}` in query/SPLIT/mbeir_TASK_SPLIT.jsonl,
    candidates `{"did", "txt", "img_path", "modality", ...}` in cand_pool, judgements `qid 0 did grade task` in qrels.
    Paths of pictures are relative to DIR and may not leave it. The benchmark's instructions are not put before the
    queries: an encoder has its own.
    """

    usage = "write mbeir:DIR?task=mscoco_task0, where DIR holds query, cand_pool, qrels and mbeir_images"
    not_on_hub = "M-BEIR's pictures come as one archive of many parts, download it first"

    def __init__(
        self, where: str, *, reading: Reading, task: str, split: Literal["train", "val", "test"] = "test",
        pool: Literal["local", "global"] = "local",
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        self.name = f"mbeir-{task}-{split}" + ("-global" if pool == "global" else "")
        self.langs = frozenset(["eng"])
        stems = (
            (f"global/mbeir_union_{split}",)
            if pool == "global"
            else (f"local/mbeir_{task}_{split}", f"local/mbeir_{task}")
        )
        self.doc_files = tuple(f"cand_pool/{stem}_cand_pool.jsonl" for stem in stems)
        self.topic_files = (f"query/{split}/mbeir_{task}_{split}.jsonl",)
        self.qrels_files = (f"qrels/{split}/mbeir_{task}_{split}_qrels.txt",)

    def read_document(self, record: FileRow) -> Item:
        return self._read_item(record, "did", "txt", "img_path", "candidate")

    def read_query(self, record: FileRow) -> Item:
        return self._read_item(record, "qid", "query_txt", "query_img_path", "query")

    def published_qrels(self) -> dict[str, dict[str, int]]:
        columns = ("qid", "0", "did", "grade", "task")
        rows = read_table(self.files.get_one(*self.qrels_files), columns, tabs=False)
        return read_judgements(rows, "qid", "did", "grade")

    def _read_item(self, record: FileRow, id: str, text: str, image: str, what: str) -> Item:
        words = record.read_text(text) or None
        media = {"image": record.read_path(image, self.files.directory, "image")}
        return make_item(what, record.read_id(id), words, media, "eng" if words else None, {})
