"""OpenAI's shapes: completions, chunks, usage and errors."""

import json

import pytest

from phi3kit.chat import completion, openai
from phi3kit.errors import InvalidRequest

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def whole() -> dict:
    return openai.chat_completion(model="tiny", text="Madrid.", finish_reason="stop", usage=openai.usage(9, 3))


def chunks() -> list[dict]:
    stream = openai.Chunks("tiny")
    return [stream.piece("Mad"), stream.piece("rid."), stream.end("stop", openai.usage(9, 3))]


def test_usage_has_a_total():
    assert openai.usage(9, 3) == USAGE


def test_a_completion_has_one_choice():
    answer = whole()
    assert answer.keys() == {"id", "object", "created", "model", "choices", "usage"}
    assert (answer["object"], answer["model"], answer["usage"]) == ("chat.completion", "tiny", USAGE)
    message = {"role": "assistant", "content": "Madrid."}
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "message": message}]


def test_a_completion_is_json():
    assert json.loads(json.dumps(whole())).keys() == whole().keys()


def test_each_completion_has_an_id_of_its_own():
    assert whole()["id"] != whole()["id"]


def test_chunks_share_id_time_and_model():
    heads = [{name: chunk[name] for name in ("id", "object", "created", "model")} for chunk in chunks()]
    assert heads == [heads[0] | {"object": "chat.completion.chunk", "model": "tiny"}] * 3


def test_the_first_chunk_names_the_role():
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks()]
    assert deltas == [{"role": "assistant", "content": "Mad"}, {"content": "rid."}, {}]


def test_the_last_chunk_has_reason_and_usage():
    ends = [(chunk["choices"][0]["finish_reason"], chunk.get("usage")) for chunk in chunks()]
    assert ends == [(None, None), (None, None), ("stop", USAGE)]


def test_gathered_chunks_are_the_completion():
    gathered, streamed = openai.Gathered(), chunks()
    pieces = [gathered.add(chunk) for chunk in streamed]
    assert pieces == ["Mad", "rid.", ""]
    head = {name: streamed[0][name] for name in ("id", "created")}
    assert gathered.completion() == whole() | head


def test_a_whole_completion_is_gathered_too():
    gathered, answer = openai.Gathered(), whole()
    gathered.add(answer)
    assert gathered.completion() == answer


def test_completion_takes_either_wrappers_result():
    answer = whole()
    assert [completion(answer), completion([answer])] == [answer, answer]


@pytest.mark.parametrize("result", [None, "text", [], {}, {"choices": []}, ["text"], [{"choices": [1]}] * 2, 7])
def test_completion_refuses_anything_else(result):
    with pytest.raises(InvalidRequest, match="one chat completion, or a list that holds one"):
        completion(result)


def test_an_error_has_all_four_fields():
    expected = {"message": "No.", "type": "invalid_request_error", "param": "n", "code": None}
    assert openai.error("No.", type="invalid_request_error", param="n") == {"error": expected}
