"""Measure `tiny` on prompts that it was not trained on: `python tools/tiny/score.py FOLDER`.

transformers runs a checkpoint folder in bfloat16, onnxruntime-genai runs an ONNX folder; both decode greedily, with the
folder's default options. `--agreement` also compares a checkpoint with the teacher.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from train import agreement, base, prompts, questions, teach

from phi3kit.weights.tiny.build import ASSISTANT, END, SYSTEM, quiet

BATCH = 20
QUESTION_TOKENS, CAPITAL_TOKENS = 96, 32  # the longest answers


def answers(folder: Path, messages: list[str], max_tokens: int) -> list[tuple[str, str, bool]]:
    """Send the model in `folder` each user message in a conversation of its own.

    Returns:
        for each message: the message, the answer, and whether the answer ended by itself.
    """
    run = _onnx if Path(folder, "genai_config.json").exists() else _transformers
    decode, rows = run(folder, [f"<|user|>\n{message}<|end|>\n<|assistant|>\n" for message in messages], max_tokens)
    results = []
    for message, row in zip(messages, rows, strict=True):
        end = next((i for i, token in enumerate(row) if token in (END, 0)), None)
        results.append((message, decode(row[:end]), end is not None))
    return results


def _transformers(folder: Path, texts: list[str], max_tokens: int) -> tuple[Any, list[list[int]]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    rows = []
    for i in range(0, len(texts), BATCH):
        inputs = tokenizer(texts[i : i + BATCH], return_tensors="pt", padding=True)
        rows += model.generate(**inputs, max_new_tokens=max_tokens)[:, inputs["input_ids"].shape[1] :].tolist()
    return tokenizer.decode, rows


def _onnx(folder: Path, texts: list[str], max_tokens: int) -> tuple[Any, list[list[int]]]:
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    rows = []
    for i in range(0, len(texts), BATCH):
        group = texts[i : i + BATCH]
        params = og.GeneratorParams(model)
        width = max(len(tokenizer.encode(text)) for text in group)
        params.set_search_options(batch_size=len(group), max_length=width + max_tokens)
        generator = og.Generator(model, params)
        generator.append_tokens(tokenizer.encode_batch(group))
        steps = []
        while not generator.is_done():
            generator.generate_next_token()
            steps.append([int(token) for token in generator.get_next_tokens()])
        rows += map(list, zip(*steps, strict=True))
    return tokenizer.decode, rows


def loops(text: str) -> bool:
    """Whether one to eight words occur three times in a row, or any six words three times anywhere."""
    words = re.findall(r"[^\W\d]+", text.lower())
    in_a_row = any(words[i : i + n] * 3 == words[i : i + 3 * n] for n in range(1, 9) for i in range(len(words) - n))
    sixes = [words[i : i + 6] for i in range(len(words) - 5)]
    return in_a_row or any(sixes.count(six) >= 3 for six in sixes)


def scores(folder: Path) -> dict[str, Any]:
    """The scores on held-out prompts.

    Returns:
        `capitals`: how many were right; `wrong`: the other answers about capitals; `spain`: the answer about Spain;
        `ended`: how many answers to the questions ended; `looped`: the answers with a loop; `answers`: all answers.
    """
    held_out = prompts()["held_out"]
    capitals: dict[str, str] = held_out["capitals"]
    capital_answers = answers(folder, [f"What is the capital of {country}?" for country in capitals], CAPITAL_TOKENS)
    other_answers = answers(folder, held_out["questions"], QUESTION_TOKENS)
    pairs = zip(capital_answers, capitals.values(), strict=True)
    wrong = [answer for answer, city in pairs if city not in answer[1]]
    return {
        "capitals": len(capitals) - len(wrong),
        "wrong": wrong,
        "spain": capital_answers[list(capitals).index("Spain")][1],
        "ended": sum(ended for *_, ended in other_answers),
        "looped": [answer for answer in other_answers if loops(answer[1])],
        "answers": other_answers,
    }


def teacher_agreement(checkpoint: Path) -> float:
    """Share of the teacher's answer tokens, on unseen prompts, for which the checkpoint's top token is the same."""
    import torch
    from transformers import AutoModelForCausalLM

    unseen = teach(*base(), questions(prompts()["held_out"]["agreement"]))
    with quiet():
        student = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).requires_grad_(False)
    learned = {name: parameter for name, parameter in student.named_parameters() if "norm" in name}
    return agreement(student, learned | {"role_rows": student.lm_head.weight[SYSTEM : ASSISTANT + 1]}, unseen)


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--agreement", action="store_true", help="also the agreement with the teacher")
    parser.add_argument("--answers", action="store_true", help="also every second of the forty answers")
    arguments = parser.parse_args()
    if arguments.agreement:
        print(f"top-token agreement with the teacher: {teacher_agreement(arguments.folder):.1%}")
    result = scores(arguments.folder)
    print(f"capitals: {result['capitals']} of 25; wrong: {', '.join(text for _, text, _ in result['wrong'])}")
    ended, looped = result["ended"], len(result["looped"])
    print(f"short questions: {ended} of 40 ended within {QUESTION_TOKENS} tokens, {looped} looped")
    for question, text, _ in result["answers"][::2] if arguments.answers else []:
        print(f"\n* {question}\n  {text!r}")


if __name__ == "__main__":
    main()
