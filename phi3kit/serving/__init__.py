"""OpenAI's API over a registered model: the slots in which requests are answered together, and the HTTP app.

It knows the ONNX form that the exporter writes, and nothing of notebooks. `phi3kit serve` starts it.
"""
