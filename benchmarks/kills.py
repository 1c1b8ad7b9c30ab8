"""Does anything that was finished get lost, or come out wrong, when a command is killed or the disk is full?

Each command runs once undisturbed, and then again and again from nothing with signals at seeded random moments between
the first sign of work and the end; the same command is run again after each, until it ends. Commands are forks of a
process that has loaded what they import. Encoders and judges are stand-ins that cost a little sleep. Prints a table of
counts on stderr and, with --json, one object on stdout; the exit status is 1 where a count is bad. Disks are small
tmpfs, which only root can mount; without, the sizes of files are limited.

A row counts kills, or full disks; `early`, those that came before the command could say anything (a disk that was
large enough); `survived`, those after which the same command
ended with the result of the undisturbed run, byte for byte; `repeated`, the share of questions or documents that were
worked on more than once, for each kill; `half`, outputs that were there and not whole; `leftovers`, files that no
later run took away; `wrong`, other results; `unclear`, ends without one clear line or with another exit status.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.app import main
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.items import Dense, Multi, Sparse
from crosslens.multilingual.judges import BaseJudge, Completion
from measurements import Table, add_save, save
from small_disks import disk, folder

SIGNALS = {"KILL": signal.SIGKILL, "INT": signal.SIGINT, "TERM": signal.SIGTERM}
STATUS = {"KILL": -signal.SIGKILL, "INT": 1, "TERM": 143}
BAD = ("half", "leftovers", "wrong", "unclear")
COUNTS = ("kills", "early", "survived", *BAD)
CHAIN = 5  # kills of one piece of work, before it is let end
TOPICS, DEPTH, DOCUMENTS = 20, 10, 400
PAUSE = 0.0015  # seconds that a question takes, or a document
LONGEST = 120.0  # seconds after which a command hangs
# What commands import that takes long, and starts no threads that a fork would miss.
LOADED = (
    "faiss", "ir_measures", "jinja2", "lancedb", "langcodes", "matplotlib.pyplot", "pyarrow.parquet", "rich.progress",
    "safetensors.numpy", "scipy.sparse", "sqlite3", "torch", "crosslens.evaluation.experiment",
    "crosslens.evaluation.report", "crosslens.indexes.index", "crosslens.systems.search",
    "crosslens.training.data.synthesize",
    *(f"crosslens.indexes.kinds.{each}" for each in ("faiss", "flat", "late", "sparse")),
)  # fmt: skip


def work(number: int = 1) -> None:
    """What a question or a document costs, counted in the file `KILLS_WORK`."""
    with open(os.environ["KILLS_WORK"], "ab") as out:
        out.write(b"." * number)
    time.sleep(PAUSE * number)


def draw(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))


class Judging(BaseJudge):
    """Answers by the text alone; one question after the other, handed over as they are answered."""

    can = frozenset({"choose", "likelihood", "generate"})
    fingerprint = "kills"
    streams = True

    def __init__(
        self, checkpoint: str = "", *, device: str = "auto", trust_remote_code: bool = False, streams: bool = True
    ) -> None:
        super().__init__("kills", "1")
        self.streams = streams

    def each(self, prompts: Any, answer: Callable[[np.random.Generator], Any]) -> list[Any]:
        answers = []
        for place, prompt in enumerate(prompts):
            work()
            answers.append(answer(draw(prompt.plain())))
            if self.streams:
                self.hand_over(place, answers[-1])
            else:
                self.count_answers(1)
        return answers

    def compute_likelihoods(self, prompts: Any, targets: Any) -> np.ndarray:
        return np.array(self.each(prompts, lambda drawn: -float(drawn.random())))

    def compute_choices(self, prompts: Any, labels: Any) -> np.ndarray:
        rows = self.each(prompts, lambda drawn: drawn.standard_normal(len(labels)))
        return np.array([row - np.logaddexp.reduce(row) for row in rows])

    def compute_completions(self, prompts: Any, sampling: Any) -> list[Completion]:
        return self.each(prompts, lambda drawn: Completion(f"слово {drawn.integers(10**9)}", 3))


class Encoding:
    """Vectors by the text alone, of one `kind`."""

    def __init__(self, *, kind: str = "dense") -> None:
        metric = "dot" if kind == "sparse" else "cosine"
        options: dict[str, Any] = {"kind": kind, "metric": metric, "normalized": kind != "sparse"}
        self.spec = EncoderSpec(f"py:kills:Encoding?kind={kind}", "1", ("text",), 32, **options)

    def encode(self, items: Any, role: str) -> Iterator[Any]:
        import scipy.sparse

        for item in items:
            work()
            drawn = draw(item.text or "")
            if self.spec.kind == "multi":
                yield Multi([item.id], [unit(drawn.standard_normal((4, 32)))])
            elif self.spec.kind == "sparse":
                yield Sparse(
                    [item.id], scipy.sparse.csr_matrix(np.maximum(drawn.standard_normal((1, 32)), 0), dtype="f")
                )
            else:
                yield Dense([item.id], unit(drawn.standard_normal((1, 32))))


def write_collection(where: Path) -> None:
    where.mkdir()
    docs = [{"id": f"d{n}", "lang": "eng", "text": f"text number {n} of many"} for n in range(DOCUMENTS)]
    topics = [{"id": f"t{n}", "lang": "eng", "text": f"about number {n}"} for n in range(TOPICS)]
    for name, rows in (("docs.jsonl", docs), ("topics.jsonl", topics)):
        (where / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = random.Random(1)
    hits = {n: drawn.sample(range(DOCUMENTS), DEPTH) for n in range(TOPICS)}
    (where / "qrels.txt").write_text("".join(f"t{n} 0 d{d} {d % 3}\n" for n, some in hits.items() for d in some))
    (where.parent / "first.trec").write_text(
        "".join(f"t{n} Q0 d{d} {r} {DEPTH - r} x\n" for n, some in hits.items() for r, d in enumerate(some, 1))
    )
    (where.parent / "graded.toml").write_text(
        'asks = "choose"\ntemplate = "Query: {query}\\nPassage: {passage}\\nGrade:"\n'
        'labels = ["0", "1", "2"]\nvalues = [0, 1, 2]\n'
    )
    (where.parent / "plan.toml").write_text(
        f'collections = ["{where}"]\nmeasures = ["nDCG@10"]\n[encoders]\nown = "py:kills:Encoding"\n[systems]\n'
        f'dense = "dense?encoder=own&index=flat"\n'
        f'reranked = "dense?encoder=own&index=flat % {DEPTH} >> likelihood@py:kills:Judging?depth={DEPTH}"\n'
    )


class Task:
    """A command, and what of its output must be the same."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self.collection = root / "collection"

    def arguments(self, out: Path) -> list[str]:
        where, first = str(self.collection), str(self.root / "first.trec")
        match self.name.split():
            case ["rerank", *how]:
                spec = f"likelihood@py:kills:Judging?depth={DEPTH}&streams={'false' if how else 'true'}"
                return ["rerank", first, where, "--rerank", spec, "-o", str(out / "out")]
            case ["judge"]:
                spec = f"{self.root / 'graded.toml'}@py:kills:Judging"
                return ["judge", where, "--run", first, "--judge", spec, "-o", str(out / "out")]
            case ["translate"]:
                return ["translate", where, "--to", "rus", "--with", "py:kills:Judging", "-o", str(out / "out")]
            case ["rewrite"]:
                os.environ["CROSSLENS_TEXTS"] = str(out / "kept")  # what the command goes on with
                spec = "decompose@py:kills:Judging?chat=auto&lang=rus,ukr,bul"
                return ["rewrite", where, "--with", spec, "-o", str(out / "out")]
            case ["synthesize"]:
                spec = "inpars@py:kills:Judging?chat=auto"
                return ["synthesize", where, "--langs", "rus", "--with", spec, "-o", str(out / "out")]
            case ["experiment"]:
                return ["experiment", str(self.root / "plan.toml"), "-o", str(out / "out")]
            case ["index", kind]:
                space = {"late": "multi", "sparse": "sparse"}.get(kind, "dense")
                named = "faiss:Flat" if kind == "faiss" else kind
                encoder = f"py:kills:Encoding?kind={space}"
                return ["index", where, str(out / "out"), "--encoder", encoder, "--index", named, "--no-cache",
                        *(["--no-lexical"] if kind != "lance" else [])]  # fmt: skip
        raise ValueError(self.name)

    def result(self, out: Path, run: Callable[..., tuple[int, str]]) -> bytes | None:
        """What the output says; None where there is none that says it is whole."""
        made = out / "out"
        if self.name.startswith("index"):
            if not made.exists():
                return None
            mode = [] if self.name == "index lance" else ["--mode", "dense"]
            status, said = run(["run", str(made), str(self.collection), "-o", str(out / "search"), "-k", "20", *mode])
            if status != 0:
                return None if "Traceback" not in said else said.encode()
            found = (out / "search").read_bytes()
            for each in out.glob("search*"):
                each.unlink()
            return found
        if self.name == "experiment":
            if not (made / "results.json").exists():
                return None
            files = sorted([*made.rglob("run.trec"), *made.rglob("measures.jsonl")])
            return b"".join(each.relative_to(made).as_posix().encode() + each.read_bytes() for each in files)
        if self.name == "synthesize":
            files = [made / name for name in ("docs.jsonl", "topics.jsonl", "qrels.txt", "card.json")]
            return b"".join(each.read_bytes() for each in files) if made.exists() else None
        return made.read_bytes() if made.exists() else None

    def leftovers(self, out: Path) -> list[str]:
        marks = (".partial", ".journal", ".tmp")
        return [
            str(each.relative_to(out))
            for each in out.rglob("*")
            if any(mark in each.name for mark in marks) and each.parent.name != "kept"
        ]


class Runner:
    """Runs the command line in forks of this process, whose modules are loaded already."""

    def __init__(self, root: Path) -> None:
        self.work, self.said = root / "work", root / "said"
        self.begun = 0  # work that was done when the last command started

    def start(self, arguments: list[str], limit: int | None = None, **environment: str) -> int:
        self.begun = self.work.stat().st_size if self.work.exists() else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lancedb resets itself in a fork, and says so
            child = os.fork()
        if child:
            return child
        status = 70
        try:
            opened = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, 1)
            os.dup2(opened, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            os.environ.update(environment, KILLS_WORK=str(self.work), HF_HUB_OFFLINE="1")
            sys.argv = ["crosslens", *arguments]
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, child: int, seconds: float, *, for_work: bool = False) -> int | None:
        """The exit status, negative for a signal; None where it runs longer than so many seconds, or `for_work` has begun."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if for_work and self.work.exists() and self.work.stat().st_size > self.begun:
                return None
            time.sleep(0.001)
        return None

    def end(self, child: int) -> int:
        """The exit status of what is about to end; killed where it hangs."""
        status = self.wait(child, LONGEST)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 124
        return status

    def run(self, arguments: list[str], **how: Any) -> tuple[int, str]:
        status = self.end(self.start(arguments, **how))
        return status, self.said.read_text(errors="replace")

    def count(self) -> int:
        """How much work was done since it was asked last."""
        done = self.work.stat().st_size if self.work.exists() else 0
        self.work.unlink(missing_ok=True)
        return done


def one_line(said: str) -> bool:
    """Whether an end was explained in one line, without a traceback."""
    lines = [line for line in said.splitlines() if line.startswith("crosslens: ") and "(kept" not in line]
    return "Traceback" not in said and len(lines) >= 1


def kill(task: Task, name: str, kills: int, runner: Runner, drawn: random.Random, whole: Whole) -> dict[str, Any]:
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    repeated = 0
    details: list[str] = []
    while counts["kills"] < kills:
        with folder(task.root) as out:
            arguments, chain, ended = task.arguments(out), 0, False
            while chain < min(CHAIN, kills - counts["kills"]):
                child = runner.start(arguments)
                status = runner.wait(child, whole.before, for_work=True)
                if status is None:
                    status = runner.wait(child, drawn.uniform(0.0, whole.working))
                said = runner.said.read_text(errors="replace")
                if status is not None:  # it came to its end before
                    ended = True
                    break
                os.kill(child, SIGNALS[name])
                status, said = runner.end(child), runner.said.read_text(errors="replace")
                chain += 1
                if status == 0:  # it was at its last step
                    ended = True
                    break
                late = "interrupted" in said or "terminated" in said
                if status != STATUS[name] or (name != "KILL" and not (late and one_line(said))):
                    if status == -SIGNALS[name]:
                        counts["early"] += 1  # before the command line had begun
                    else:
                        counts["unclear"] += 1
                        details.append(f"{status}: {said[-400:]}")
                found = task.result(out, runner.run) if chain in (1, CHAIN) else None
                if found is not None and found != whole.result:
                    counts["half"] += 1
            if not ended:
                status, said = runner.run(arguments)
            counts["kills"] += chain
            if status == 0 and task.result(out, runner.run) == whole.result:
                counts["survived"] += chain
            else:
                counts["wrong"] += 1
                details.append(f"{status}: {said[-400:]}")
            repeated += max(0, runner.count() - whole.work)
            if left := task.leftovers(out):
                counts["leftovers"] += len(left)
                details += left[:3]
    share = repeated / max(1, counts["kills"]) / max(1, whole.work)
    return {"command": task.name, "signal": name, **counts, "repeated": round(share, 4), "details": details[:5]}


def fill(task: Task, tries: int, runner: Runner, drawn: random.Random, whole: Whole) -> dict[str, Any]:
    """Disks of random sizes, too small for all of it; then the same command with room enough."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    details: list[str] = []
    for _ in range(tries):
        size = drawn.randrange(8, max(16, whole.bytes * 9 // 10 // 1024)) * 1024
        with folder(task.root) as out, disk(out, size) as (grow, limit):
            arguments = task.arguments(out)
            status, said = runner.run(arguments, limit=limit)
            counts["kills"] += 1
            if status == 0:
                counts["early"] += 1  # it was large enough
            elif status not in (1, 2) or not one_line(said):
                counts["unclear"] += 1
                details.append(f"{status}: {said[-400:]}")
            grow()
            found = task.result(out, runner.run)
            counts["half"] += found is not None and found != whole.result
            status, said = runner.run(arguments)
            if status == 0 and task.result(out, runner.run) == whole.result:
                counts["survived"] += 1
            else:
                counts["wrong"] += 1
                details.append(f"{status}: {said[-400:]}")
            if left := task.leftovers(out):
                counts["leftovers"] += len(left)
                details += left[:3]
    runner.count()
    return {"command": task.name, "signal": "full disk", **counts, "repeated": None, "details": details[:5]}


def fill_cache(root: Path, tries: int, runner: Runner, drawn: random.Random) -> dict[str, Any]:
    """A vector cache on a full disk costs a warning, never the index."""
    task = Task("index flat", root)
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    details: list[str] = []
    with folder(root) as out:
        assert runner.run(task.arguments(out))[0] == 0
        wanted = task.result(out, runner.run)
    for _ in range(tries):
        with folder(root) as out, folder(root) as cache, disk(cache, drawn.randrange(4, 64) * 1024) as (grow, limit):
            arguments = [each for each in task.arguments(out) if each != "--no-cache"]
            counts["kills"] += 1
            status, said = runner.run(arguments, limit=None if limit is None else 1 << 20, CROSSLENS_VECTORS=str(cache))
            right = status == 0 and task.result(out, runner.run) == wanted
            counts["survived" if right else "wrong"] += 1
            if not right or "Traceback" in said:
                details.append(f"{status}: {said[-400:]}")
            grow()
            shutil.rmtree(out / "out")
            status, said = runner.run(arguments, CROSSLENS_VECTORS=str(cache))  # what the full disk left is no harm
            counts["wrong"] += status != 0 or task.result(out, runner.run) != wanted
    runner.count()
    return {"command": CACHE, "signal": "full disk", **counts, "repeated": None, "details": details[:5]}


class Whole:
    """The undisturbed run: its result, seconds before it begins to work and after, work and bytes."""

    def __init__(self, task: Task, runner: Runner) -> None:
        with folder(task.root) as out:
            started = time.monotonic()
            runner.count()
            child = runner.start(task.arguments(out))
            runner.wait(child, LONGEST, for_work=True)
            begun = time.monotonic()
            status = runner.end(child)
            assert status == 0, runner.said.read_text()
            self.before, self.working = begun - started, time.monotonic() - begun
            self.work = runner.count()
            self.bytes = sum(each.stat().st_size for each in out.rglob("*") if each.is_file())
            result = task.result(out, runner.run)
            assert result, task.name
            self.result = result
            runner.count()


CACHE = "vector cache"
NAMES = ("rerank", "rerank whole", "judge", "translate", "rewrite", "synthesize", "experiment",
         *(f"index {kind}" for kind in ("flat", "late", "faiss", "lance", "sparse")), CACHE)  # fmt: skip


HEADER = ("command", "signal", "kills", "early", "survived", "repeated", *BAD)


def show(row: dict[str, Any]) -> None:
    print(*(f"{show_cell(row[each]):>13}" for each in HEADER), file=sys.stderr, flush=True)
    for line in row["details"]:
        print("    " + " ".join(line.split()), file=sys.stderr, flush=True)


def show_cell(value: object) -> str:
    """A share in percent, what there is none of as nothing, all else as it is."""
    return "" if value is None else f"{value:.1%}" if isinstance(value, float) else str(value)


def measure_task(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one command, or of the vector cache, in a directory of its own; shows each as it is there."""
    for module in LOADED:
        importlib.import_module(module)
    rows = []
    with tempfile.TemporaryDirectory(prefix="kills-") as made:
        root = Path(made)
        os.environ["CROSSLENS_VECTORS"] = str(root / "vectors")
        write_collection(root / "collection")
        runner, drawn = Runner(root), random.Random(f"{options.seed} {name}")
        rounds: list[Callable[[], dict[str, Any]]] = []
        if name == CACHE:
            rounds += [partial(fill_cache, root, options.disks, runner, drawn)]
        else:
            task = Task(name, root)
            whole = Whole(task, runner)
            signals = [each for each in options.signals.split(",") if each]
            rounds += [partial(kill, task, each, options.kills, runner, drawn, whole) for each in signals]
            rounds += [partial(fill, task, options.disks, runner, drawn, whole)]
        for measure in rounds[: None if options.disks else -1]:
            rows.append(row := measure())
            show(row)
    return rows


def measure_all() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=7, help="of each command by each signal")
    parser.add_argument("--disks", type=int, default=5, help="full disks for each command")
    parser.add_argument("--only", action="append", choices=NAMES, help="commands (default: all)")
    parser.add_argument("--signals", default="KILL,INT,TERM")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    add_save(parser)
    options = parser.parse_args()
    started = time.monotonic()
    print(*(f"{each:>13}" for each in HEADER), file=sys.stderr, flush=True)
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        found = pool.map(partial(measure_task, options=options), options.only or NAMES)
        rows = [row for some in found for row in some]
    everything: dict[str, Any] = {each: sum(row[each] for row in rows) for each in COUNTS}
    bad = sum(everything[each] for each in BAD) + everything["kills"] - everything["survived"]
    rows.append({"command": "all", "signal": "", "repeated": None, "details": [], **everything})
    show(rows[-1])
    report = {"seed": options.seed, "seconds": round(time.monotonic() - started), "bad": bad, "rows": rows}
    save(options.save, report, [Table(HEADER, [[show_cell(row[each]) for each in HEADER] for row in rows])])
    if options.json:
        print(json.dumps(report, indent=1))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(measure_all())
