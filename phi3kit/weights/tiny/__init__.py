"""The model called `tiny`: SmolLM2-135M-Instruct in the shape of Phi-3, taught Phi-3's chat format.

`build.build` makes the checkpoint, `train` learned the few tensors it adds, `score` measures it; what it is
and is not stands in `MODEL_CARD.md`.
"""
