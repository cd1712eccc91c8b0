"""`serve`: a server that answers, and of which nothing is left afterwards."""

import json
import os
import socket
import subprocess
import sys

import httpx
import psutil
import pytest
from conftest import own_store

from phi3kit.chat import completion
from phi3kit.workbook.serving import ServerFailed, serve

pytestmark = pytest.mark.tiny

SPAIN = {"messages": [{"role": "user", "content": "What is the capital of Spain?"}], "max_tokens": 12}


def family() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def is_free(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) != 0


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory):
    with own_store(tmp_path_factory.mktemp("served")):
        yield


@pytest.fixture(scope="module")
def chat(logged):
    with serve(str(logged["Phi3Chat"])) as url:
        yield f"{url}/invocations"


def ask(url: str, **body: object) -> httpx.Response:
    content = json.dumps(body)  # in ASCII: half a UTF-16 pair can be sent this way, and clients do
    headers = {"Content-Type": "application/json"}
    return httpx.post(url, content=content, headers=headers, timeout=60, trust_env=False)


def test_a_served_chat_model_answers_with_one_completion(chat):
    answer = ask(chat, **SPAIN)
    assert answer.status_code == 200
    found = answer.json()
    assert isinstance(found, dict)
    assert completion(found)["choices"][0]["message"]["content"] == "The capital of Spain is Madrid."


def test_every_option_reaches_a_served_model(chat):
    assert completion(ask(chat, **SPAIN, stop=["Madrid"]).json())["choices"][0]["message"]["content"].endswith("is ")
    hot = [ask(chat, **SPAIN, temperature=2.0, seed=seed).json()["choices"] for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    assert ask(chat, **SPAIN, temperature=0, n=1, stream=False).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 is not allowed: give a number from 0 (greedy) to 2."),
        ({"max_tokens": 0}, "max_tokens=0 is not allowed: give a whole number from 1."),
        ({"max_tokens": 10**6}, "max_tokens=1000000 is not allowed: give at most"),
        ({"messages": []}, "messages=[] is not allowed: give a list"),
        ({"messages": [{"role": "user", "content": "half \ud83d"}]}, "surrogates not allowed"),
        ({"stream": True}, "stream=True is not allowed"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
    ids=str,
)
def test_a_bad_request_is_a_400_with_a_reason_and_no_stack_trace(chat, wrong, message):
    answer = ask(chat, **SPAIN | wrong)
    assert answer.status_code == 400
    assert "stack_trace" not in answer.json()
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert message in answer.json()["message"]
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    assert ask(chat, **SPAIN).status_code == 200, "the next request is none the wiser"


def test_a_served_prompt_model_takes_rows_and_params_and_leaves_nothing_behind(logged):
    before = family()
    prompts = [f"<|user|>What is the capital of {country}?<|end|><|assistant|>" for country in ("Spain", "France")]
    with serve(str(logged["Phi3Model"])) as url:
        during = family() - before
        rows = [{"prompt": prompt} for prompt in prompts]
        answer = ask(f"{url}/invocations", dataframe_records=rows, params={"max_tokens": 12})
        assert answer.json() == {"predictions": ["The capital of Spain is Madrid.", "The capital of France is Paris."]}
        refused = ask(f"{url}/invocations", dataframe_records=rows, params={"temperature": -1.0})
        assert (refused.status_code, "stack_trace" in refused.json()) == (400, False)
        assert "temperature=-1.0 is not allowed" in refused.json()["message"]
    assert during
    assert not any(process.is_running() for process in during)
    assert is_free(url)


def test_an_exception_in_the_block_ends_the_server_too(logged):
    before = family()
    with pytest.raises(KeyboardInterrupt), serve(str(logged["Phi3Chat"])) as url:
        during = family() - before
        assert not is_free(url)
        raise KeyboardInterrupt
    assert not any(process.is_running() for process in during)
    assert is_free(url)


def test_a_kernel_that_is_killed_takes_its_server_along(logged, tmp_path):
    code = f"""
import mlflow, sys
from phi3kit.workbook.serving import serve
with serve({str(logged["Phi3Chat"])!r}) as url:
    print("here", url, flush=True)
    sys.stdin.read()
"""
    kernel = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'none.db'}"},
    )
    url = next(line.split()[1] for line in kernel.stdout if line.startswith("here"))
    left = psutil.Process(kernel.pid).children(recursive=True)
    assert left and not is_free(url)
    kernel.kill()  # as the system does when memory has run out
    kernel.wait()
    assert psutil.wait_procs(left, timeout=60)[1] == []
    assert is_free(url)


def test_a_model_that_cannot_be_served_says_why(logged):
    before = family()
    with pytest.raises(ServerFailed) as failed, serve("models:/there-is-none/1"):
        raise AssertionError("never here")
    assert "The server ended with exit code" in str(failed.value)
    assert "there-is-none" in str(failed.value), "the end of its log"
    assert family() == before


def test_a_server_that_is_too_slow_is_ended(logged):
    before = family()
    late = pytest.raises(ServerFailed, match=r"gave no answer in 0\.2 s")
    with late, serve(str(logged["Phi3Chat"]), timeout=0.2):
        raise AssertionError("never here")
    assert family() == before


def test_a_kernel_need_not_have_its_environment_in_path(logged, monkeypatch):
    here = os.path.dirname(sys.executable)  # noqa: PTH120
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != here]
    monkeypatch.setenv("PATH", os.pathsep.join(others))
    with serve(str(logged["Phi3Chat"])) as url:
        assert ask(f"{url}/invocations", **SPAIN).status_code == 200
