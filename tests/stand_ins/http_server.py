"""A real HTTP server on this machine that speaks OpenAI's protocol, with answers as a test wants them."""

from __future__ import annotations

import json
import math
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from crosslens.multilingual.judges.messages import Message

KEY = "sk-secret-0123456789"
LABELS = ["A", "B", "C"]


def chat_reply(text="", tops=None, finish="stop", usage=(10, 1), **message):
    """A chat completion; `tops` holds, for each place, tokens and their probabilities."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    if tops is not None:
        content = []
        for place in tops:
            shown = [{"token": token, "logprob": math.log(p)} for token, p in place.items()]
            content.append({**shown[0], "top_logprobs": shown})
        choice["logprobs"] = {"content": content}
    reply = {"model": "judge-v1", "system_fingerprint": "fp1", "choices": [choice]}
    if usage:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return reply


def error_reply(message, status=400, **more):
    return status, {"error": {"message": message, "type": "invalid_request_error", **more}}


class Served:
    """A server that answers each body by `answer(body, number)`: a reply, a status and reply, or raw bytes."""

    def __init__(self, answer):
        self.bodies, self.paths, self.keys, self.busy, self.most = [], [], [], 0, 0
        lock = threading.Lock()
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(served.bodies)
                    served.bodies.append(body)
                    served.paths.append(self.path)
                    served.keys.append(self.headers["Authorization"])
                    served.busy += 1
                    served.most = max(served.most, served.busy)
                try:
                    found = answer(body, number)
                finally:
                    with lock:
                        served.busy -= 1
                if found is None:  # dies without a word
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, reply, headers = (*found, {})[:3] if isinstance(found, tuple) else (200, found, {})
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):  # clients that gave up
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def completion_reply(text, tokens=(), values=(), tops=None, generated=1, finish="length"):
    """A completion of the older API."""
    shown = {"tokens": list(tokens), "token_logprobs": list(values), "top_logprobs": tops}
    usage = {"prompt_tokens": max(len(tokens) - generated, 1), "completion_tokens": generated}
    return {"choices": [{"text": text, "finish_reason": finish, "logprobs": shown if tokens else None}], "usage": usage}


def echo_replies(words, generated=(" x",)):
    """A vLLM that splits texts by `words` and gives token n the log-probability -n."""

    def answer(body, _):
        tokens = [*words(body["prompt"]), *generated]
        values = [None, *(-float(n) for n in range(1, len(tokens)))]
        return completion_reply(body["prompt"] + "".join(generated), tokens, values, generated=len(generated))

    return answer


def ask(text="which?", **more):
    return Message((text,), **({"chat": "auto"} | more))
