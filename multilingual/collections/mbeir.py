"""M-BEIR (Wei et al., ECCV 2024): texts, pictures and both, searched with any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ...errors import InputError
from ...files import read_lines
from ...items import Item
from .files import DatasetFiles
from .published import PublishedCollection
from .records import parse_record, read_id, read_image, read_json_lines, read_text


class MBeir(PublishedCollection):
    """`mbeir:DIR?task=mscoco_task0[&split=test][&pool=global]`: the files of TIGER-Lab/M-BEIR, pictures unpacked.

    Queries `{"qid", "query_txt", "query_img_path", "query_modality", ...}` in query/SPLIT/mbeir_TASK_SPLIT.jsonl,
    candidates `{"did", "txt", "img_path", "modality", ...}` in cand_pool, judgements `qid 0 did grade task` in qrels.
    Paths of pictures are relative to DIR and may not leave it. The benchmark's instructions are not put before the
    queries: an encoder has its own.
    """

    usage = "write mbeir:DIR?task=mscoco_task0, where DIR holds query, cand_pool, qrels and mbeir_images"

    def __init__(
        self, where: str, *, task: str, split: Literal["train", "val", "test"] = "test",
        pool: Literal["local", "global"] = "local", sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        files = DatasetFiles(where, usage=self.usage)
        if files.root is None:
            raise InputError(
                f"M-BEIR's pictures come as one archive of many parts, download it first: {self.usage}"
            )
        self._task, self._split, self._pool, self._root = task, split, pool, files.root
        name = f"mbeir-{task}-{split}" + ("-global" if pool == "global" else "")
        super().__init__(name, files, frozenset(["eng"]), sample=sample, skip_bad=skip_bad)

    def _doc_rows(self) -> Iterator[tuple[str, bytes]]:
        if self._pool == "global":
            return read_json_lines(
                self.files.one(f"cand_pool/global/mbeir_union_{self._split}_cand_pool.jsonl")
            )
        return read_json_lines(
            self.files.one(
                f"cand_pool/local/mbeir_{self._task}_{self._split}_cand_pool.jsonl",
                f"cand_pool/local/mbeir_{self._task}_cand_pool.jsonl",
            )
        )

    def _document(self, row: Any) -> Item:
        return self._item(parse_record(row), "did", "txt", "img_path", "candidate")

    def _query_rows(self) -> Iterator[tuple[str, bytes]]:
        return read_json_lines(self.files.one(f"query/{self._split}/mbeir_{self._task}_{self._split}.jsonl"))

    def _query(self, row: Any) -> Item:
        return self._item(parse_record(row), "qid", "query_txt", "query_img_path", "query")

    def _item(self, record: dict[str, Any], id: str, text: str, image: str, what: str) -> Item:
        words = read_text(record, text) or None
        picture = read_image(record, image, self._root)
        item = Item(read_id(record, id), words, picture, "eng" if words else None)
        if not item.modalities:
            raise InputError(f"{what} {item.id!r} has neither text nor an image")
        return item

    def _judged(self) -> dict[str, dict[str, int]]:
        path = self.files.one(f"qrels/{self._split}/mbeir_{self._task}_{self._split}_qrels.txt")
        judged: dict[str, dict[str, int]] = {}
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            try:
                query, _, doc, grade, _task = line.split()
                judged.setdefault(query, {})[doc] = int(grade)
            except ValueError:
                raise InputError(
                    f"{path}:{number}: not a line `qid 0 did grade task`: {line.strip()[:80]!r}"
                ) from None
        return judged
