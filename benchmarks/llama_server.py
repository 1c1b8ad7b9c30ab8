"""Does `openai:` keep its contract against a real llama-server? Starts one, asks it, kills it, starts it again.

    python benchmarks/llama_server.py PATH/TO/llama-server --model qwen-0.5b.gguf --save docs/measured/llama-server.json

Prints a table on stderr and one JSON object on stdout; exit status 1 where a check failed. The model should have a chat
template. On 2 cores with a model of half a billion parameters it takes two minutes.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.console import run_guarded
from crosslens.errors import CrosslensError, InputError
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.judges.base import Judge
from crosslens.multilingual.judges.messages import Message, Passage
from llama_process import LlamaServer
from measurements import Table, add_save, save, try_check

PASSAGES = (
    "The cat sleeps sixteen hours a day and hunts at night.",
    "Paris is the capital of France and lies on the Seine.",
    "猫整天睡觉，晚上捕猎。",
    "Поезд отправляется в девять часов утра.",
    "Bread is made of flour, water, salt and yeast.",
    "گربه تمام روز می‌خوابد.",
)
NEAR = 0.05  # nats: llama.cpp's products depend a little on what else is in its batch


def ask(text: str, answer: str = "", chat: Any = "auto") -> Message:
    asked = "\nIs this passage about cats? Answer Yes or No."
    return Message(("Passage: ", Passage(text), asked), answer=answer, chat=chat)


class Checks:
    """What is asked of one server; each method that begins with `check_` is a line of the report."""

    def __init__(self, server: LlamaServer) -> None:
        self.server = server

    def open(self, more: str = "", concurrency: int = 4) -> Judge:
        return load_judge(f"openai:model?url={self.server.url}&concurrency={concurrency}{more}")

    def check_labels_by_log_probabilities_through_the_chat(self) -> str:
        judge = self.open()
        rows = judge.choose([ask(each) for each in PASSAGES], ("Yes", "No"))
        require(not judge.usage["without_logprobs"], "answers were generated and read")
        require(np.allclose(np.exp(rows).sum(axis=1), 1), "probabilities do not sum to 1")
        require(rows[0, 0] > rows[1, 0], "a passage about cats is less likely about cats than one about Paris")
        return f"P(Yes) {np.exp(rows[:, 0]).round(2).tolist()}"

    def check_labels_by_log_probabilities_through_completions(self) -> str:
        judge = self.open("&api=completions")
        rows = judge.choose([ask(each, "\nAnswer:", "never") for each in PASSAGES], ("Yes", "No"))
        require(not judge.usage["without_logprobs"], "answers were generated and read")
        return f"P(Yes) {np.exp(rows[:, 0]).round(2).tolist()}"

    def check_alone_as_among_others(self) -> str:
        together = self.open().choose([ask(each) for each in PASSAGES], ("Yes", "No"))
        alone = np.concatenate([self.open(concurrency=1).choose([ask(each)], ("Yes", "No")) for each in PASSAGES])
        off = float(np.abs(np.exp(together) - np.exp(alone)).max())
        require(off < NEAR, f"probabilities differ by {off:.3f}")
        return f"probabilities differ by {off:.4f} at most"

    def check_a_begun_answer_is_continued(self) -> str:
        judge = self.open("&prefill=true")
        message = Message(("Count from one to ten in words.",), answer="One, two,", chat="auto")
        text = judge.generate([message], max_new_tokens=12)[0].text
        require(not text.lstrip().lower().startswith("one"), f"it begins again: {text!r}")
        return repr(text)

    def check_likelihood_is_echoed_or_refused(self) -> str:
        try:
            judge = self.open("&api=completions&retries=0")
            found = judge.likelihood([Message(("Paris is the capital of",), chat="never")] * 2, [" France", " Peru"])
        except InputError as error:
            require("\n" not in str(error) and "echo" in str(error), f"an unclear refusal: {error}")
            return "refused in one line"
        require(bool(found[0] > found[1]), "Peru is likelier than France")
        return "echoed"

    def check_generated_text_ends_where_it_should(self) -> str:
        message = Message(("Count from 1 to 20 with commas between the numbers, digits only.",), chat="auto")
        judge = self.open()
        short, stopped, whole = (
            judge.generate([message], max_new_tokens=4)[0],
            judge.generate([message], max_new_tokens=64, stop=("7",))[0],
            judge.generate([message], max_new_tokens=96)[0],
        )
        require(short.tokens <= 4 and not short.ended, f"4 tokens were wanted, {short}")
        require("8" not in stopped.text and stopped.ended, f"it did not stop at 7: {stopped}")
        require(whole.ended and whole.tokens > short.tokens, f"it did not end: {whole}")
        return f"{whole.tokens} tokens, stopped {stopped.text[-6:]!r}"

    def check_ctrl_c_ends_the_work_of_the_server(self) -> str:
        judge = self.open()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Timer(2.0, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        began = time.monotonic()
        timer.start()
        try:
            judge.generate([Message((f"Write a long story of {n} cats.",), chat="auto") for n in range(8)],
                           max_new_tokens=1500)  # fmt: skip
            raise CrosslensError("the stories ended before they were interrupted")
        except KeyboardInterrupt:
            ended = time.monotonic() - began
        finally:
            timer.cancel()
            signal.signal(signal.SIGINT, before)
        until = time.monotonic() + 20
        while busy := sum(slot["is_processing"] for slot in json.loads(self.server.read("/slots"))):
            require(time.monotonic() < until, f"{busy} slots still work 20 s later")
            time.sleep(0.1)
        idle = time.monotonic() - began - ended
        require(ended < 6, f"it took {ended:.1f} s to end")
        return f"ended after {ended - 2:.1f} s, the server idle {idle:.1f} s later"

    def check_a_server_that_dies_and_comes_back_loses_nothing(self) -> str:
        messages = [ask(f"{text} ({n})") for n in range(4) for text in PASSAGES]
        truth = self.open().choose(messages, ("Yes", "No"))
        judge = self.open("&retries=8")

        def restart() -> None:
            while judge.usage["calls"] < 4:
                time.sleep(0.02)
            self.server.stop(signal.SIGKILL)
            time.sleep(1)
            self.server.start(wait=False)

        killer = threading.Thread(target=restart)
        killer.start()
        found = judge.choose(messages, ("Yes", "No"))
        killer.join()
        require(judge.usage["retries"] > 0, "nothing was repeated: the server was gone too late")
        off = float(np.abs(np.exp(found) - np.exp(truth)).max())
        require(off < NEAR, f"probabilities differ by {off:.3f}")
        return f"{len(messages)} answers, {judge.usage['retries']} requests repeated"


def require(held: bool, why: str) -> None:
    if not held:
        raise CrosslensError(why)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", type=Path, help="the program llama-server")
    parser.add_argument("--model", type=Path, required=True, metavar="GGUF")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", metavar="WORD", help="checks that have this in their name")
    add_save(parser)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        log = Path(made) / "server.log"
        with LlamaServer(options.server, options.model, threads=options.threads, log=log) as server:
            checks = Checks(server)
            names = [name for name in vars(Checks) if name.startswith("check_") and options.only in name]
            for name in names:
                rows.append(try_check(name.removeprefix("check_").replace("_", " "), getattr(checks, name)))
                print(rows[-1], file=sys.stderr, flush=True)
            model = json.loads(server.read("/v1/models"))["data"][0].get("meta") or {}
            judge = checks.open()
            judge.choose([ask(PASSAGES[0])], ("Yes", "No"))
            version = judge.revision.rpartition("/")[2]
    table = Table(("check", "", "found", "s"), [[r["check"], r["state"], r["found"], str(r["seconds"])] for r in rows])
    print(table.markdown(), file=sys.stderr)
    report = {"model": options.model.name, "parameters": model.get("n_params"), "version": version, "checks": rows}
    save(options.save, report, [table], [f"llama-server {version}, {options.model.name}."])
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return int(any(row["state"] != "kept" for row in rows))


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: sys.exit(main())))
