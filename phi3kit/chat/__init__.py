"""Chat messages to token ids, and answers in OpenAI's shapes.

It knows a model's tokenizer and template, and nothing of how tokens are generated.
"""

from phi3kit.chat.messages import check
from phi3kit.chat.openai import completion
from phi3kit.chat.template import ChatTemplate

__all__ = ["ChatTemplate", "check", "completion"]
