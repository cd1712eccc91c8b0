"""Measure `tiny` on prompts it never saw: `python -m phi3kit.weights.tiny.score FOLDER`.

A checkpoint folder is run by transformers in bfloat16, an ONNX folder by onnxruntime-genai; both greedily and with
the default options that the folder brings. For a checkpoint, `--agreement` also asks the teacher.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from phi3kit.weights.tiny.build import ASSISTANT, END, SYSTEM, quiet
from phi3kit.weights.tiny.train import agreement, base, prompts, questions, teach

BATCH = 20
QUESTION_TOKENS, CAPITAL_TOKENS = 96, 32  # how long an answer may become


def answers(folder: Path, asked: list[str], max_tokens: int) -> list[tuple[str, str, bool]]:
    """Ask the model in `folder` each question by itself; for each: the question, the answer, and whether it ended."""
    run = _onnx if Path(folder, "genai_config.json").exists() else _transformers
    decode, rows = run(folder, [f"<|user|>\n{question}<|end|>\n<|assistant|>\n" for question in asked], max_tokens)
    said = []
    for question, row in zip(asked, rows, strict=True):
        end = next((i for i, token in enumerate(row) if token in (END, 0)), None)
        said.append((question, decode(row[:end]), end is not None))
    return said


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
    """Whether the same one to eight words stand three times in a row, or any six words come three times at all."""
    words = re.findall(r"[^\W\d]+", text.lower())
    in_a_row = any(words[i : i + n] * 3 == words[i : i + 3 * n] for n in range(1, 9) for i in range(len(words) - n))
    sixes = [words[i : i + 6] for i in range(len(words) - 5)]
    return in_a_row or any(sixes.count(six) >= 3 for six in sixes)


def scores(folder: Path) -> dict[str, Any]:
    """Held-out scores: how many `capitals` are right and `questions` ended; what was wrong; and all that was said."""
    held_out = prompts()["held_out"]
    capitals: dict[str, str] = held_out["capitals"]
    named = answers(folder, [f"What is the capital of {country}?" for country in capitals], CAPITAL_TOKENS)
    said = answers(folder, held_out["questions"], QUESTION_TOKENS)
    wrong = [answer for answer, city in zip(named, capitals.values(), strict=True) if city not in answer[1]]
    return {
        "capitals": len(named) - len(wrong),
        "ended": sum(ended for *_, ended in said),
        "wrong": wrong,
        "looped": [answer for answer in said if loops(answer[1])],
        "spain": named[list(capitals).index("Spain")][1],
        "said": said,
    }


def teacher_agreement(checkpoint: Path) -> float:
    """Share of the teacher's answer tokens, on unseen prompts, that the checkpoint puts first as well."""
    import torch
    from transformers import AutoModelForCausalLM

    unseen = teach(*base(), questions(prompts()["held_out"]["agreement"]))
    with quiet():
        student = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).requires_grad_(False)
    learned = {name: parameter for name, parameter in student.named_parameters() if "norm" in name}
    return agreement(student, learned | {"role_rows": student.lm_head.weight[SYSTEM : ASSISTANT + 1]}, unseen)


def main() -> None:
    """Print the scores, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--agreement", action="store_true", help="also the agreement with the teacher")
    parser.add_argument("--answers", action="store_true", help="also every second of the forty answers")
    wish = parser.parse_args()
    if wish.agreement:
        print(f"top-token agreement with the teacher: {teacher_agreement(wish.folder):.1%}")
    got = scores(wish.folder)
    print(f"capitals: {got['capitals']} of 25; wrong: {', '.join(text for _, text, _ in got['wrong'])}")
    print(f"short questions: {got['ended']} of 40 ended within {QUESTION_TOKENS} tokens, {len(got['looped'])} looped")
    for question, text, _ in got["said"][::2] if wish.answers else []:
        print(f"\n* {question}\n  {text!r}")


if __name__ == "__main__":
    main()
