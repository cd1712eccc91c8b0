"""`phi3kit serve` as its clients see it: OpenAI's own client, MLflow's routes, hostile bodies, shut down, killed."""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import onnxruntime
import openai
import phi3_shape
import psutil
import pydantic
import pytest
from conftest import own_store
from hub_client import wait_until
from steps import POSIX

from phi3kit import tracking, weights
from phi3kit.errors import WeightsError
from phi3kit.serving.graph import Graph
from phi3kit.serving.served import Served
from phi3kit.system import folders

pytestmark = pytest.mark.tiny

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a long story about the sea."}]
UNKNOWN_TYPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "no"}}}
LONG = {"messages": STORY, "max_tokens": 400, "temperature": 1.5, "seed": 1, "repetition_penalty": 1.5}


class Server:
    """A server in a process of its own."""

    def __init__(self, *arguments: str, **env: str) -> None:
        command = [sys.executable, "-m", "phi3kit.cli", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | env)
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if address := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.url = address[0]
                threading.Thread(target=self.said.extend, args=[self.process.stderr], daemon=True).start()
                return
        raise AssertionError(f"the server did not start: {''.join(self.said)}")

    def client(self, key: str = "any", **options) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key, http_client=httpx.Client(trust_env=False), **options
        )

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=30)

    def post(self, body: object, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        return httpx.post(f"{self.url}{path}", content=content, headers=headers, trust_env=False, timeout=120)

    def metric(self, name: str) -> float:
        return float(re.search(rf"^{re.escape(name)} (\S+)", self.get("/metrics").text, re.MULTILINE)[1])

    def is_idle(self) -> bool:
        return self.metric("num_requests_running") + self.metric("num_requests_waiting") == 0

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextmanager
def serving(*arguments: str):
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def registered(logged, tmp_path_factory):
    """The store in which Phi3Chat is registered, as version 1 with an alias."""
    import mlflow

    folder = tmp_path_factory.mktemp("registry")
    with own_store(folder), pytest.MonkeyPatch.context() as patch:
        mlflow.create_experiment("serving", artifact_location=(folder / "artifacts").as_uri())
        client = mlflow.MlflowClient()
        client.create_registered_model("phi3-chat")
        client.create_model_version("phi3-chat", str(logged["Phi3Chat"]))
        client.set_registered_model_alias("phi3-chat", "candidate", "1")
        patch.setenv("MLFLOW_TRACKING_URI", tracking.sqlite_address(folder / "mlflow.db"))
        yield


@pytest.fixture(scope="module")
def server(registered):
    with serving("models:/phi3-chat@candidate", "--context", "2048") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return server.client()


@pytest.fixture(scope="module")
def narrow(logged):
    """A server with one slot and a queue of one, a key, and four seconds for each request."""
    keys = logged["Phi3Chat"].parent / "keys"
    keys.write_text("secret-one\nsecret-two\n", encoding="utf-8")
    options = ("--slots", "1", "--max-queue", "1", "--timeout", "4", "--context", "1024", "--api-key-file", str(keys))
    with serving(str(logged["Phi3Chat"]), *options) as server:
        yield server


def ask(client, messages=FRANCE, **options):
    return client.chat.completions.create(model="phi3-chat", messages=messages, **options)


# OpenAI's client, unchanged


def test_an_answer_names_the_version(client):
    completion = ask(client)
    assert (completion.model, completion.choices[0].finish_reason) == ("phi3-chat/1", "stop")
    assert "Paris" in completion.choices[0].message.content


def test_the_model_is_listed_with_its_origin(client):
    (model,) = client.models.list().data
    assert (model.id, model.version, model.aliases) == ("phi3-chat/1", "1", ["candidate"])
    assert model.uri == "models:/phi3-chat/1"


@pytest.mark.parametrize("name", ["phi3-chat/1", "phi3-chat@candidate", "models:/phi3-chat/1"])
def test_each_name_of_the_model_is_taken(client, name):
    assert client.chat.completions.create(model=name, messages=FRANCE, max_tokens=1).model == "phi3-chat/1"


def test_a_stream_gives_the_same_text_and_ends_with_the_usage(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    whole = ask(client)
    assert (text, chunks[-1].choices) == (whole.choices[0].message.content, [])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert (chunks[0].choices[0].delta.role, chunks[-2].choices[0].finish_reason) == ("assistant", "stop")


def test_a_stream_ends_with_done(server):
    assert server.post({"messages": FRANCE, "stream": True}).text.endswith("data: [DONE]\n\n")


def test_a_second_turn_reads_only_what_is_new(client):
    first = ask(client, max_tokens=8)
    history = [
        *FRANCE,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "user", "content": "And of Spain?"},
    ]
    usage = ask(client, history, max_tokens=1).usage
    assert usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens


class City(pydantic.BaseModel):
    name: str
    country: str
    is_capital: bool


def test_a_schema_is_followed(client):
    completion = client.chat.completions.parse(model="phi3-chat", messages=FRANCE, response_format=City, max_tokens=200)
    assert isinstance(completion.choices[0].message.parsed, City)


def test_a_json_object_is_one(client):
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=200, stop=None).choices[0]
    assert answer.finish_reason == "length" or isinstance(json.loads(answer.message.content), dict)


def test_logprobs_are_given_for_each_token(client):
    completion = ask(client, logprobs=True, top_logprobs=3)
    entries = completion.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries).strip() == completion.choices[0].message.content
    assert all(len(entry.top_logprobs) == 3 and entry.top_logprobs[0].logprob >= entry.logprob for entry in entries)


def test_a_seed_gives_the_same_answer(client):
    ask(client, STORY, max_tokens=1)  # a prompt that a slot holds is read by other kernels than a new one
    options = {"temperature": 1.2, "max_tokens": 20}
    texts = [ask(client, STORY, seed=seed, **options).choices[0].message.content for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"max_completion_tokens": 5000}, "max_completion_tokens"),
        ({"extra_body": {"mystery": 1}}, "mystery"),
        ({"response_format": UNKNOWN_TYPE}, "response_format"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **options)
    assert refused.value.param == param


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-4", messages=FRANCE)
    assert refused.value.code == "model_not_found"


# Against onnxruntime-genai


def test_greedy_answers_are_those_of_predict(client, models):
    questions = [f"What is the capital of {country}?" for country in ("Spain", "Italy", "Japan", "Egypt", "Peru")]
    requests = [{"messages": [{"role": "user", "content": question}], "max_tokens": 24} for question in questions]
    predicted = [models["Phi3Chat"].predict(request)[0]["choices"][0]["message"]["content"] for request in requests]
    served = [ask(client, **request).choices[0].message.content for request in requests]
    same = sum(one == other for one, other in zip(predicted, served, strict=True))
    assert same >= 4, list(zip(predicted, served, strict=True))  # a near tie may fall otherwise


# MLflow's routes


def test_invocations_answers_as_mlflow_does(server):
    (completion,) = server.post({"messages": FRANCE}, "/invocations").json()
    assert (completion["model"], "Paris" in completion["choices"][0]["message"]["content"]) == ("tiny", True)


def test_a_table_is_answered_in_order(server):
    countries = ["France", "Italy", "Spain", "Japan"]
    records = [{"messages": [{"role": "user", "content": f"What is the capital of {name}?"}]} for name in countries]
    answers = server.post({"dataframe_records": records}, "/invocations").json()["predictions"]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert [name in text for name, text in zip(countries, texts, strict=True)] == [True] * 4


def test_invocations_refuses_as_mlflow_does(server):
    response = server.post({"messages": FRANCE, "temperature": 9}, "/invocations")
    assert (response.status_code, "temperature" in response.json()["message"]) == (400, True)


def test_mlflows_other_routes_are_there(server):
    import mlflow

    assert (server.get("/ping").status_code, server.get("/version").text) == (200, mlflow.__version__)


# Health


def test_a_server_that_answers_is_alive_and_ready(server):
    assert (server.get("/health").status_code, server.get("/ready").status_code) == (200, 200)


def test_health_answers_while_a_long_prompt_is_read(server):
    prompt = {"messages": [{"role": "user", "content": "word " * 1900}], "max_tokens": 1}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reading = pool.submit(server.post, prompt)
        wait_until(lambda: server.metric("num_requests_running") == 1)
        assert (server.get("/health").status_code, reading.done()) == (200, False)
        assert reading.result().status_code == 200


def test_metrics_count_the_tokens(server):
    before = server.metric('gen_ai_client_token_usage_sum{token_type="output"}')
    tokens = server.post({"messages": FRANCE}).json()["usage"]["completion_tokens"]
    assert server.metric('gen_ai_client_token_usage_sum{token_type="output"}') == before + tokens


# Hostile requests


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff\xfe\x00", 400),
        (b"[" * 200_000, 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e999}', 400),
        (b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 4000 + b"}", 400),
        (json.dumps({"messages": [{"role": "user", "content": "x" * 1_000_000}]}).encode(), 400),
        (json.dumps({"messages": FRANCE, "stop": ["x" * 200_000], "max_tokens": 2}).encode(), 200),
        (b" " * 5_000_000, 413),
    ],
    ids=["no text", "deep", "half a pair", "infinite", "a long number", "1 MB", "a long stop", "5 MB"],
)
def test_a_hostile_body_gets_an_answer(server, body, status):
    response = server.post(body)
    assert (response.status_code, status == 200 or "message" in response.json()["error"]) == (status, True)


def test_a_length_that_is_no_number_does_no_harm(server):
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
        assert b" 400 " in connection.recv(100)


def test_clients_that_never_finish_hold_up_no_other(server):
    port = int(server.url.rsplit(":", 1)[1])
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for connection in slow:
        connection.sendall(head)
    assert server.post({"messages": FRANCE, "max_tokens": 1}).status_code == 200
    for connection in slow:
        connection.close()


def test_a_page_under_another_name_is_refused(server):
    assert server.post({"messages": FRANCE}, Host="evil.example").status_code == 400


def test_after_all_that_answers_are_right(client):
    assert "Paris" in ask(client).choices[0].message.content


def test_many_clients_get_their_own_answers(server):
    """Planted markers, some clients gone in mid-stream: none is lost, none is mixed."""
    countries = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"}

    def one(i: int) -> bool:
        country, capital = list(countries.items())[i % 4]
        messages = [{"role": "user", "content": f"What is the capital of {country}?"}]
        if i % 5 == 0:
            with ask(server.client(), STORY, stream=True, max_tokens=200) as stream:
                return bool(next(iter(stream)))
        return capital in ask(server.client(), messages).choices[0].message.content

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(60))) == [True] * 60
    wait_until(server.is_idle)


# Keys, the queue, the deadline: a server with one slot


KEY = {"Authorization": "Bearer secret-two"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/invocations"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer secret"}, {"Authorization": "secret-ones"}])
def test_without_its_key_nothing_is_answered(narrow, path, headers):
    assert narrow.post({"messages": FRANCE}, path, **headers).status_code == 401


def test_behind_a_proxy_a_key_is_enough(narrow):
    assert narrow.post({"messages": FRANCE, "max_tokens": 1}, Host="models.example", **KEY).status_code == 200


def test_openais_client_knows_a_wrong_key(narrow):
    with pytest.raises(openai.AuthenticationError):
        ask(narrow.client("wrong"))


def test_each_key_opens(narrow):
    for key in ("secret-one", "secret-two"):
        assert narrow.client(key).models.list().data


def test_a_supervisor_needs_no_key(narrow):
    assert [narrow.get(path).status_code for path in ("/health", "/ready", "/metrics", "/ping")] == [200] * 4


def test_keys_do_not_share_what_was_read(narrow):
    question = {"messages": [{"role": "user", "content": "A question of one's own, asked with one key."}]}

    def cached(key: str) -> int:
        answer = narrow.post(question | {"max_tokens": 1}, Authorization=f"Bearer secret-{key}").json()
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert (cached("one"), cached("two"), cached("two") > 0) == (0, 0, True)


def test_over_its_deadline_an_answer_ends(narrow):
    response = narrow.post(LONG | {"max_tokens": 900}, **KEY)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")


def test_over_its_deadline_a_stream_ends_with_an_error(narrow):
    client = narrow.client("secret-one")
    options = LONG | {"max_tokens": 900, "extra_body": {"repetition_penalty": 1.5}}
    del options["repetition_penalty"]
    with pytest.raises(openai.APIError, match="not complete"):
        list(client.chat.completions.create(model=client.models.list().data[0].id, stream=True, **options))


def test_over_the_queue_a_client_is_told_to_wait(narrow):
    wait_until(narrow.is_idle)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        taken = []
        for name in ("num_requests_running", "num_requests_waiting"):
            taken.append(pool.submit(narrow.post, LONG, **KEY))
            wait_until(lambda name=name: narrow.metric(name) == 1)
        refused = narrow.post({"messages": FRANCE}, **KEY)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert {one.result().status_code for one in taken} <= {200, 504}


def test_a_client_that_goes_away_frees_its_slot(narrow):
    wait_until(narrow.is_idle)
    with pytest.raises(httpx.ReadTimeout):
        headers = {"Content-Type": "application/json", **KEY}
        httpx.post(f"{narrow.url}/v1/chat/completions", json=LONG, headers=headers, timeout=0.5, trust_env=False)
    wait_until(narrow.is_idle)
    assert narrow.metric('gen_ai_server_request_duration_seconds_count{status="499"}') >= 1


def test_keys_and_prompts_are_not_logged(narrow):
    assert not any("secret" in line or "capital" in line or "story" in line for line in narrow.said)


# Its end


@POSIX
def test_sigterm_lets_answers_finish_and_exits_with_0(logged):
    with serving(str(logged["Phi3Chat"]), "--slots", "2", "--context", "1024") as server:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(server.post, LONG | {"max_tokens": 100})
            wait_until(lambda: server.metric("num_requests_running") == 1)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: server.get("/ready").status_code == 503 or running.done())
            late = server.post({"messages": FRANCE}) if not running.done() else None
            assert running.result().status_code == 200
        assert late is None or late.status_code == 503
        assert server.process.wait(timeout=30) == 0


@POSIX
def test_a_killed_server_leaves_nothing_running(logged):
    with serving(str(logged["Phi3Chat"]), "--slots", "1", "--context", "1024") as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(server.post, LONG)
            wait_until(lambda: server.metric("num_requests_running") == 1)
            server.process.kill()
            with pytest.raises(httpx.TransportError):
                running.result()
        assert not any(process.is_running() for process in family)


# The prompt wrapper and the pipeline behind the same API


def test_a_prompt_wrapper_chats_too(logged):
    with serving(str(logged["Phi3Model"]), "--slots", "1", "--context", "1024") as server:
        assert "Paris" in server.post({"messages": FRANCE}).json()["choices"][0]["message"]["content"]
        prompt = "<|user|>What is the capital of France?<|end|><|assistant|>"
        assert "Paris" in server.post({"inputs": {"prompt": prompt}}, "/invocations").json()["predictions"][0]


@pytest.fixture(scope="module")
def pipeline(logged):
    with serving(str(logged["pipeline"])) as server:
        yield server


def test_a_pipeline_answers(pipeline):
    answer = pipeline.post({"messages": FRANCE, "max_tokens": 12}).json()
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_a_pipelines_stream_is_one_piece(pipeline):
    client = pipeline.client()
    model = client.models.list().data[0].id
    chunks = list(client.chat.completions.create(model=model, messages=FRANCE, max_tokens=12, stream=True))
    assert [bool(chunk.choices[0].delta.content) for chunk in chunks] == [False, True, False]


def test_a_pipeline_has_mlflows_routes(pipeline):
    (completion,) = pipeline.post({"messages": FRANCE, "max_tokens": 12}, "/invocations").json()
    assert "Paris" in completion["choices"][0]["message"]["content"]


@pytest.mark.parametrize("options", [{"temperature": 1}, {"stop": ["a"]}, {"seed": 1}, {"logprobs": True}])
def test_what_a_pipeline_ignores_is_refused(pipeline, options):
    response = pipeline.post({"messages": FRANCE, **options})
    assert (response.status_code, response.json()["error"]["param"]) == (400, next(iter(options)))


# Addresses, and graphs of another form


@pytest.mark.parametrize("form", ["runs:/{info.run_id}/m", "models:/{info.model_id}", "{folder}"])
def test_a_logged_model_is_found_by_each_address(tmp_path, form):
    import mlflow

    (tmp_path / "m.py").write_text("import mlflow\nmlflow.models.set_model(mlflow.pyfunc.PythonModel())")
    with own_store(tmp_path):
        mlflow.create_experiment("a", artifact_location=(tmp_path / "artifacts").as_uri())
        mlflow.set_experiment("a")
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(name="m", python_model=tmp_path / "m.py", pip_requirements=[])
        uri = form.format(info=info, folder=mlflow.artifacts.download_artifacts(info.model_uri))
        found = Served.find(uri)
    assert (found.uri, found.run_id, found.version) == (uri, info.run_id, None)


def test_a_model_without_the_artifact_is_refused(logged):
    with pytest.raises(WeightsError, match="phi3-mini-onnx"):
        Served.find(str(logged["pipeline"])).onnx_folder()


def test_a_long_rope_model_gets_its_first_window(tmp_path):
    """Its graph switches tables for all rows at 4,096 tokens."""
    phi3_shape.write(tmp_path / "checkpoint", phi3_shape.SMALL)
    half = phi3_shape.SMALL["hidden_size"] // phi3_shape.SMALL["num_attention_heads"] // 2
    path = tmp_path / "checkpoint" / "config.json"
    config = json.loads(path.read_text()) | {"max_position_embeddings": 16_384}
    del config["rope_parameters"]  # Phi-3.5's own file has the older entry
    config["rope_scaling"] = {"type": "longrope", "short_factor": [1.0] * half, "long_factor": [4.0] * half}
    path.write_text(json.dumps(config))
    folder = weights.onnx(str(tmp_path / "checkpoint"))
    assert folders.GenaiConfig.read(folder).context_length == 16_384
    assert Graph.read(folder, onnxruntime.InferenceSession(folder / "model.onnx")).context_length == 4096


# What is refused at the start


def failed(*arguments: str) -> str:
    command = [sys.executable, "-m", "phi3kit.cli", "serve", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode in (1, 2)
    return result.stderr


def test_other_machines_need_a_key(logged):
    assert "--api-key-file" in failed(str(logged["Phi3Chat"]), "--host", "0.0.0.0")


def test_a_model_that_is_not_there_is_named(registered):
    assert "models:/nothing@here" in failed("models:/nothing@here")


def test_a_port_in_use_is_refused(server, logged):
    port = server.url.rsplit(":", 1)[1]
    assert f"port={port}" in failed(str(logged["Phi3Chat"]), "--port", port, "--context", "64")


def test_a_damaged_graph_is_named(logged, tmp_path):
    shutil.copytree(logged["Phi3Chat"], tmp_path / "model", copy_function=os.link)
    (manifest,) = tmp_path.rglob("manifest.json")
    manifest.unlink()
    (manifest.parent / "model.onnx").unlink()
    (manifest.parent / "model.onnx").write_bytes(b"no graph")
    assert "model.onnx" in failed(str(tmp_path / "model"))


def test_memory_for_no_slot_is_refused(logged):
    assert "--kv-memory" in failed(str(logged["Phi3Chat"]), "--kv-memory", "0.001")
