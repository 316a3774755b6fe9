"""What stands between the prompt that a person writes and the caption that a model was trained on."""

from typing import Protocol


class Expander(Protocol):
    """Turns short prompts into the long captions that a model was trained on.

    A blank prompt lets the model choose, so every expander leaves it as it is. Where frames are given (image to video), what they show is
    not the expander's to make up: prompts that go with pictures are not expanded unless somebody asks for it.
    """

    def expand(self, prompt: str, seed: int) -> str:
        """The caption, a function of (prompt, seed) and of nothing else. Raises: ValueError if the prompt cannot be used."""
        ...


class AsWritten:
    """No expansion: prompts stay word for word."""

    def expand(self, prompt: str, seed: int) -> str:
        return prompt
