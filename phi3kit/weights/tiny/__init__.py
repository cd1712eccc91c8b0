"""The model called `tiny`: SmolLM2-135M-Instruct in the shape of Phi-3, taught Phi-3's chat format.

`build.build` makes the checkpoint. `MODEL_CARD.md` says what the model is, and how it was trained and scored.
"""
