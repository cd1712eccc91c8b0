"""`serve`: a server that answers, and that ends with its block or its kernel."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import own_store

from phi3kit.chat import completion
from phi3kit.workbook.running.server import ServerFailed, serve

pytestmark = pytest.mark.tiny

SPAIN = {"messages": [{"role": "user", "content": "What is the capital of Spain?"}], "max_tokens": 12}


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def is_free(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) != 0


def ask(url: str, **body: object) -> httpx.Response:
    content = json.dumps(body)  # in ASCII: half a UTF-16 pair can be sent this way, and clients do
    headers = {"Content-Type": "application/json"}
    return httpx.post(f"{url}/invocations", content=content, headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory):
    with own_store(tmp_path_factory.mktemp("served")):
        yield


# Phi3Chat, served from a kernel whose PATH lacks its environment


@pytest.fixture(scope="module")
def chat(logged):
    before = descendants()
    environment = Path(sys.executable).parent
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != environment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join(others))
        with serve(str(logged["Phi3Chat"])) as url:
            yield url
    assert descendants() == before, "the server ends with its block"
    assert is_free(url)


def content(response: httpx.Response) -> str:
    return completion(response.json())["choices"][0]["message"]["content"]


def test_a_served_chat_model_answers_with_a_list_of_one(chat):
    response = ask(chat, **SPAIN)
    assert isinstance(response.json(), list)
    assert content(response) == "The capital of Spain is Madrid."


@pytest.mark.parametrize("count", [1, 2])
def test_records_are_answered_alike_however_many(chat, count):
    predictions = ask(chat, dataframe_records=[SPAIN] * count).json()["predictions"]
    assert [completion(one)["object"] for one in predictions] == ["chat.completion"] * count


def test_stop_reaches_a_served_model(chat):
    assert content(ask(chat, **SPAIN, stop=["Madrid"])).endswith("is ")


@pytest.mark.parametrize("options", [{"stop": " Spain"}, {"max_tokens": 3.0}, {"params": {"max_tokens": 3}}], ids=str)
def test_options_of_openais_forms_reach_a_served_model(chat, options):
    request = SPAIN if "stop" in options else {"messages": SPAIN["messages"]}
    assert content(ask(chat, **request | options)) == "The capital of"


def test_a_refusal_names_the_record(chat):
    response = ask(chat, dataframe_records=[SPAIN, SPAIN | {"max_tokens": 0}])
    assert "requests[1].max_tokens=0 is not allowed" in response.json()["message"]


def test_temperature_and_seed_reach_a_served_model(chat):
    one, same, other = (content(ask(chat, **SPAIN, temperature=2.0, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_served_model_takes_the_defaults_of_openai(chat):
    unset = dict.fromkeys(("top_k", "seed", "stop", "tools", "max_completion_tokens"))
    assert ask(chat, **SPAIN, temperature=0, n=1, stream=False, **unset).status_code == 200


def test_an_answer_may_be_sent_back_as_openais_client_keeps_it(chat):
    answer = {"role": "assistant", "content": "Madrid.", "refusal": None, "tool_calls": None, "annotations": []}
    messages = [*SPAIN["messages"], answer, {"role": "user", "content": "Thank you!"}]
    assert ask(chat, messages=messages, max_tokens=4).status_code == 200


WRONG = {
    "temperature=-1.0 is not allowed: give a number from 0 (greedy) to 2.": {"temperature": -1.0},
    "max_tokens=0 is not allowed: give a whole number from 1.": {"max_tokens": 0},
    "max_tokens=1000000 is not allowed: give at most": {"max_tokens": 10**6},
    "messages=[] is not allowed: give a list": {"messages": []},
    "surrogates not allowed": {"messages": [{"role": "user", "content": "half \ud83d"}]},
    "stream=True is not allowed": {"stream": True},
    "max_tokens": {"max_tokens": "many"},
    "tool_choice='required' is not allowed": {"tool_choice": "required"},
    "max_token=3 is not allowed": {"params": {"max_token": 3}},
}


@pytest.mark.parametrize(("message", "wrong"), WRONG.items(), ids=WRONG)
def test_a_bad_request_is_a_400_with_a_reason(chat, message, wrong):
    response = ask(chat, **SPAIN | wrong)
    assert (response.status_code, response.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert message in response.json()["message"]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_bad_request_shows_no_stack_trace(chat, wrong):
    response = ask(chat, **SPAIN | wrong)
    assert "stack_trace" not in response.json()
    assert not any(part in response.text for part in ("Traceback", 'File "'))


def test_after_a_bad_request_the_next_is_answered(chat):
    ask(chat, **SPAIN | {"temperature": -1.0})
    assert ask(chat, **SPAIN).status_code == 200


# Phi3Model, served from a kernel that is killed

KERNEL = """
import sys
from phi3kit.workbook.running.server import serve
with serve(sys.argv[1]) as url:
    print("URL", url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def kernel(logged, store):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", KERNEL, str(logged["Phi3Model"])], **pipes) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def prompt(kernel):
    return next(line.split()[1] for line in kernel.stdout if line.startswith("URL"))


def rows(*countries: str) -> list[dict[str, str]]:
    return [{"prompt": f"<|user|>What is the capital of {country}?<|end|><|assistant|>"} for country in countries]


def test_a_served_prompt_model_takes_rows_and_params(prompt):
    response = ask(prompt, dataframe_records=rows("Spain", "France"), params={"max_tokens": 12})
    assert response.json() == {"predictions": ["The capital of Spain is Madrid.", "The capital of France is Paris."]}


@pytest.mark.parametrize("own", [{"max_tokens": 3}, {"params": {"max_tokens": 3}}], ids=str)
def test_options_beside_a_served_prompt_count(prompt, own):
    assert ask(prompt, **rows("Spain")[0], **own).json() == ["The capital of"]


def test_a_served_prompt_model_refuses_a_bad_param(prompt):
    response = ask(prompt, dataframe_records=rows("Spain"), params={"temperature": -1.0})
    assert (response.status_code, "stack_trace" in response.json()) == (400, False)
    assert "temperature=-1.0 is not allowed" in response.json()["message"]


def test_a_killed_kernel_takes_its_server_along(kernel, prompt):
    server = psutil.Process(kernel.pid).children(recursive=True)
    assert not is_free(prompt)
    kernel.kill()  # as the system does when memory has run out
    kernel.wait()
    assert psutil.wait_procs(server, timeout=60)[1] == []
    assert is_free(prompt)


# Servers that do not start


def test_a_model_that_cannot_be_served_says_why(tmp_path):
    before = descendants()
    with pytest.raises(ServerFailed, match=r"ended with exit code (?s:.*)absent"), serve(str(tmp_path / "absent")):
        raise AssertionError("it cannot answer")
    assert descendants() == before


def test_a_server_that_is_too_slow_is_ended(logged):
    before = descendants()
    with pytest.raises(ServerFailed, match=r"no answer in 0\.2 s"), serve(str(logged["Phi3Chat"]), timeout=0.2):
        raise AssertionError("it cannot answer")
    assert descendants() == before
