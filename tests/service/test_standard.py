"""The shapes of OpenAI, Cohere, Jina and TEI over a real server, by the clients' own packages as they are."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import cohere
import numpy as np
import openai
import pytest
from crosslens.encoders.base import EncoderSpec, encode_matrix, unit
from crosslens.items import Item
from crosslens.service.application import Access
from crosslens.service.metrics import Metrics
from crosslens.service.quotas import Busy, Quotas, Unknown
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from stand_ins.cheap_encoder import Cheap
from stand_ins.index_cases import png
from stand_ins.live import ENCODER, run_live
from stand_ins.table import table

PICTURE = b"\x89PNG, or what a client takes for it"
ENCODED = base64.b64encode(PICTURE).decode()
DOCUMENTS = ["a rose", "red roses", "tulips", "roses are red", "red roses"]  # by the letters r: 1, 2, 0, 3, 2


@dataclass
class StandInEngine:
    """Encoders by name, of vectors that texts decide, and one reranker that counts letters; `asked` is what came."""

    encoders: dict = field(default_factory=dict)
    rerankers: dict = field(default_factory=lambda: {"letters": None})
    asked: list = field(default_factory=list)
    full: bool = False
    limits: Quotas = field(default_factory=Quotas)
    metrics: Metrics = field(default_factory=Metrics)

    def close(self):
        """Nothing runs."""

    def choose_encoder(self, model):
        name = model or next(iter(self.encoders))
        if name not in self.encoders:
            raise Unknown(f"there is no encoder {name!r} here")
        return name, self.encoders[name]

    async def embed(self, model, items, role):
        if self.full:
            raise Busy("too much is under way: try again in a second")
        name, encoder = self.choose_encoder(model)
        self.asked.append((name, items, role))
        texts = [Item(item.id, f"{role} {item.text} {item.image}") for item in items]
        vectors = np.concatenate([batch.vectors for batch in encoder.encode(texts, role)])
        tokens = sum(len((item.text or "").split()) for item in items)
        return SimpleNamespace(vectors=vectors, tokens=tokens, model=name, spec=encoder.spec)

    async def score(self, model, query, documents):
        self.asked.append((model, query, documents))
        raw = [float((item.text or "").count("r")) for item in documents]
        return SimpleNamespace(scores=[min(score, 2) / 4 for score in raw], raw=raw, tokens=7, model="letters")


def cheap(**spec):
    encoder = Cheap(384)
    encoder.spec = replace(encoder.spec, **spec)
    return encoder


@pytest.fixture(scope="module")
def served():
    both = {"query_prompt": "query: ", "document_prompt": "passage: "}
    engine = StandInEngine({
        "cheap": cheap(modalities=("text", "image"), query_prompt="find: ", max_tokens=512, pooling="mean"),
        "e5": cheap(**both),
        "short": cheap(name="llm:me/Qwen3-Embedding-0.6B"),
    })  # fmt: skip
    with run_live(engine) as running:
        yield running


@pytest.fixture
def engine(served):
    served.engine.asked.clear()
    return served.engine


@pytest.fixture
def online(monkeypatch):
    """Lets Hugging Face's client speak to this machine; the tests are offline otherwise."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def client(served, engine):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(served, engine):
    return served.client


def embed(engine, texts, role="document", name="cheap"):
    items = [Item("", f"{role} {text} None") for text in texts]
    return np.concatenate([batch.vectors for batch in engine.encoders[name].encode(items, role)])


def test_openai_client_gets_the_vectors_of_the_encoder_to_the_bit(client, engine):
    """In base64, which the client asks for by itself, and in floats."""
    texts = [f"text {number} \u4e2d\u6587 \U0001f339 \0" for number in range(60)]
    wanted = embed(engine, texts)
    for more in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="cheap", input=texts, user="me", **more)
        assert [each.index for each in found.data] == list(range(60))
        assert (np.array([each.embedding for each in found.data], np.float32) == wanted).all()
        assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == ("cheap", 300, 300)
    raw = client.embeddings.create(model="cheap", input="one", encoding_format="base64").data[0].embedding
    assert (np.frombuffer(base64.b64decode(raw), "<f4") == embed(engine, ["one"])[0]).all()


def test_openai_client_lists_what_it_can_name(client):
    assert [model.id for model in client.models.list()] == ["cheap", "e5", "short", "letters"]


def test_dimensions_are_the_first_ones_at_length_1(client, engine):
    found = client.embeddings.create(model="short", input=["a", "b"], dimensions=32)
    wanted = unit(embed(engine, ["a", "b"], name="short")[:, :32])
    np.testing.assert_array_equal(np.array([each.embedding for each in found.data], np.float32), wanted)
    whole = client.embeddings.create(model="cheap", input="a", dimensions=384).data[0].embedding
    assert (np.float32(whole) == embed(engine, ["a"])[0]).all()


@table(
    ("path", "body", "role"),
    [
        ("/v1/embeddings", {"input": "a", "model": "cheap"}, "document"),
        ("/v1/embeddings", {"input": "a", "model": "e5"}, "query"),
        ("/v1/embeddings", {"input": "a", "model": "e5", "input_type": "document"}, "document"),
        ("/v1/embeddings", {"input": "a", "input_type": "search_query"}, "query"),
        ("/v1/embeddings", {"input": "a", "model": "e5", "input_type": "search_document"}, "document"),
        ("/v1/embeddings", {"input": "a", "task": "retrieval.query"}, "query"),
        ("/embed", {"inputs": "a"}, "document"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, "query"),
    ],
)
def test_roles_go_by_the_names_of_each_client(http, engine, path, body, role):
    assert http.post(path, json=body).status_code == 200
    assert engine.asked[-1][2] == role


def test_pictures_come_as_base64_and_as_data_urls(http, engine):
    url = f"data:image/png;base64,{ENCODED}"
    inputs = ["rose", {"text": "rose"}, {"image": ENCODED}, {"text": "rose", "image": url}]
    assert len(http.post("/v1/embeddings", json={"input": inputs}).json()["data"]) == 4
    items = engine.asked[-1][1]
    assert [(item.text, item.image) for item in items] == [
        ("rose", None), ("rose", None), (None, PICTURE), ("rose", PICTURE)
    ]  # fmt: skip
    documents = [{"image": url}, "rose"]
    found = http.post(
        "/v1/rerank", json={"query": {"image": ENCODED}, "documents": documents, "return_documents": True}
    )
    assert [each["document"] for each in found.json()["results"]] == [{"text": "rose"}, {"image": url}]
    assert (engine.asked[-1][1].image, engine.asked[-1][2][0].image) == (PICTURE, PICTURE)


BAD = [
    ({}, "input: field required"),
    ({"input": None}, "input[0] must be a string, or an object with text or image, not null"),
    ({"input": []}, "input is empty: send at least one text"),
    ({"input": "  "}, "input[0] is empty: leave it out"),
    ({"input": ["a", ""]}, "input[1] is empty: leave it out"),
    ({"input": ["a", 7]}, "input[1] must be a string, or an object with text or image, not a number"),
    ({"input": [{"image_url": "a"}]}, "input[0] must be a string, or an object with text or image, not another object"),
    ({"input": [101, 102]}, "input holds token ids"),
    ({"input": [[101], [102]]}, "input holds token ids"),
    ({"input": ["a"] * 2049}, "input has 2,049 elements, and at most 2,048 are taken"),
    ({"input": [{"image": "https://example.org/a.png"}]}, "input[0].image: pictures are not fetched from addresses"),
    ({"input": [{"image": "data:image/png,a"}]}, "input[0].image: a data: URL of a picture has ;base64"),
    ({"input": [{"image": "a picture!"}]}, "input[0].image: not base64"),
    ({"input": [{"image": 1}]}, "input[0].image must be a string, not a number"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format: input should be 'float' or 'base64'"),
    ({"input": "a", "dimensions": 0}, "dimensions: input should be greater than or equal to 1"),
    ({"input": "a", "dimensions": 100}, "dimensions must be 384, not 100: this model is not known"),
    ({"input": "a", "dimensions": 31, "model": "short"}, "dimensions must be in 32..384 for this model, not 31"),
    ({"input": "a", "input_type": "clustering"}, "input_type must be one of query, search_query,"),
    (b'{"input": ', "the body is not JSON: EOF while parsing a value"),
    (b'{"input": "\\ud800"}', "the body is not JSON: "),
    (b'{"input": "a\xff"}', "the body is not JSON: "),
]


@table(("body", "message"), BAD)
def test_what_is_wrong_is_named_in_one_line(http, engine, body, message):
    content = (
        {"content": body, "headers": {"Content-Type": "application/json"}}
        if isinstance(body, bytes)
        else {"json": body}
    )
    found = http.post("/v1/embeddings", **content)
    said = found.json()["error"]["message"]
    assert (found.status_code, said[: len(message)]) == (400, message)
    assert "\n" not in said
    assert engine.asked == []


def test_openai_client_raises_its_own_errors(client, engine):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="cheap", input=[""])
    assert caught.value.body["message"] == "input[0] is empty: leave it out"
    engine.full = True
    try:
        with pytest.raises(openai.RateLimitError):
            client.embeddings.create(model="cheap", input="a")
    finally:
        engine.full = False


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_clients_rerank(served, engine, version):
    kind = cohere.Client if version == 1 else cohere.ClientV2
    client = kind("none", base_url=served.url)
    found = client.rerank(model="letters", query="roses", documents=DOCUMENTS, top_n=3)
    assert [(each.index, each.relevance_score) for each in found.results] == [(3, 0.5), (1, 0.5), (4, 0.5)]
    assert found.meta.tokens.input_tokens == 7
    assert found.id
    if version == 1:
        documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}]
        found = client.rerank(query="roses", documents=documents, return_documents=True)
        assert [(each.index, each.document.text) for each in found.results] == [(1, DOCUMENTS[1]), (0, DOCUMENTS[0])]
        with pytest.raises(cohere.BadRequestError, match="rank_fields is not supported"):
            client.rerank(query="roses", documents=documents, rank_fields=["title"])
    with pytest.raises(cohere.BadRequestError, match="documents is empty"):
        client.rerank(model="letters", query="roses", documents=[])


def test_jina_reranks(http):
    found = http.post("/v1/rerank", json={"model": "letters", "query": "roses", "documents": DOCUMENTS}).json()
    assert [each["index"] for each in found["results"]] == [3, 1, 4, 0, 2]
    assert "document" not in found["results"][0]
    assert (found["model"], found["usage"]["total_tokens"]) == ("letters", 7)
    many = http.post("/v1/rerank", json={"query": "roses", "documents": ["a"] * 1001})
    assert many.json()["error"]["message"].startswith("documents has 1,001 elements, and at most 1,000 are taken")


def test_tei_embeds_reranks_and_describes_itself(http, engine):
    found = http.post("/embed", json={"inputs": ["a", "b"], "normalize": False, "truncate": True}).json()
    assert (np.array(found, np.float32) == embed(engine, ["a", "b"])).all()
    short = http.post("/embed", json={"inputs": "a", "dimensions": 384}).json()
    assert (np.array(short, np.float32) == embed(engine, ["a"])).all()
    body = {"query": "roses", "texts": DOCUMENTS[:2]}
    assert http.post("/rerank", json=body).json() == [{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}]
    found = http.post("/rerank", json={**body, "raw_scores": True, "return_text": True}).json()
    assert found[0] == {"index": 1, "score": 2.0, "text": "red roses"}
    info = http.get("/info").json()
    assert (info["model_id"], info["max_input_length"], info["model_type"]) == (
        "cheap", 512, {"embedding": {"pooling": "mean"}}
    )  # fmt: skip


def test_hugging_faces_client_embeds(served, engine, online):
    """By the address alone, as LangChain and Haystack give it."""
    client = InferenceClient(served.url)
    found = client.feature_extraction(["a", "b"], normalize=True, prompt_name="query", truncate=True)
    assert (found == embed(engine, ["a", "b"], "query")).all()
    with pytest.raises(HfHubHTTPError, match="inputs\\[0\\] is empty"):
        client.feature_extraction("")


def test_the_key_stands_before_all_shapes(online):
    engine = StandInEngine({"cheap": cheap()})
    with run_live(engine, Access(key="secret")) as running:
        for path in ("/", "/embed", "/v1/embeddings", "/v1/rerank"):
            assert running.client.post(path, json={"inputs": "a"}).status_code == 401
        assert engine.asked == []
        assert InferenceClient(running.url, token="secret").feature_extraction("a").shape == (1, 384)
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="secret") as client:
            assert client.embeddings.create(model="cheap", input="a").usage.prompt_tokens == 1


def test_tei_vectors_are_scaled_where_the_encoder_does_not(http, engine):
    first = engine.encoders["cheap"]
    engine.encoders["cheap"] = long = Long(first.spec)
    try:
        for normalize in (True, False):
            found = np.float32(http.post("/embed", json={"inputs": "a", "normalize": normalize}).json())
            np.testing.assert_allclose(np.linalg.norm(found), 1 if normalize else 3, rtol=1e-6)
    finally:
        engine.encoders["cheap"] = first
    assert not long.spec.normalized


class Long(Cheap):
    """Vectors of length 3."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = replace(spec, normalized=False, metric="dot")

    def encode(self, items, role):
        for batch in super().encode(items, role):
            yield replace(batch, vectors=3 * batch.vectors)


def test_tei_errors_have_its_body_and_the_applications_status(http, engine):
    found = http.post("/embed", json={"inputs": [""]})
    assert found.status_code == 400
    assert found.json() == {"error": "inputs[0] is empty: leave it out", "error_type": "Validation"}
    assert http.post("/rerank", json={"texts": ["a"]}).json()["error"] == "query: field required"
    engine.full = True
    try:
        found = http.post("/embed", json={"inputs": "a"})
    finally:
        engine.full = False
    assert (found.status_code, found.json()["error_type"], found.headers["retry-after"]) == (429, "Overloaded", "1")


def test_every_body_is_described(http):
    """In the OpenAPI description, and on the page made of it."""
    api = http.get("/openapi.json").json()
    for path, fields in {
        "/v1/embeddings": {"input", "encoding_format", "dimensions", "input_type"},
        "/v1/rerank": {"query", "documents", "top_n", "return_documents"},
        "/v2/rerank": {"query", "documents", "top_n"},
        "/embed": {"inputs", "normalize", "prompt_name"},
        "/rerank": {"query", "texts", "raw_scores", "return_text"},
    }.items():
        schema = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert fields <= set(api["components"]["schemas"][schema.rpartition("/")[2]]["properties"])
    assert "<h2>EmbeddingsRequest</h2>" in http.get("/docs").text


def test_a_real_engine_serves_its_clients(live):
    """Encoders of the indexes, and the judge of the first system."""
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        assert client.models.list().data[0].id == ENCODER
        encoder = live.engine.encoders[ENCODER]
        found = client.embeddings.create(model=ENCODER, input=["apple", "boat"])
        wanted = encode_matrix(encoder, [Item("0", "apple"), Item("1", "boat")], "document")
        np.testing.assert_array_equal(np.array([each.embedding for each in found.data], np.float32), wanted)
        picture = base64.b64encode(png(40)).decode()
        found = client.embeddings.create(model=ENCODER, input="", extra_body={"input": [{"image": picture}]})
        wanted = encode_matrix(encoder, [Item("0", image=png(40))], "document")
        np.testing.assert_array_equal(np.array([found.data[0].embedding], np.float32), wanted)
        with pytest.raises(openai.NotFoundError, match="there is no encoder 'gpt' here"):
            client.embeddings.create(model="gpt", input="a")
    documents = ["a boat", "an apple pie", "apple", "nothing"]
    found = cohere.ClientV2("none", base_url=live.url).rerank(model="", query="apple", documents=documents)
    scores = [each.relevance_score for each in found.results]
    assert sorted(each.index for each in found.results) == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    assert len(live.client.post("/embed", json={"inputs": ["apple", "boat"]}).json()) == 2
    assert len(live.client.post("/rerank", json={"query": "apple", "texts": documents}).json()) == 4
