"""Styles: what is written around a prompt, and what the model is led away from."""

import re

PLACE = "{prompt}"


class Style:
    """A template around prompts and a negative prompt.

    Args:
        template: holds {prompt} once; all else is written as it stands. What a prompt holds (braces, commas, "{prompt}") is never read.
        negative: what clips shall not look like; guidance takes it in place of the empty text.
    Raises: ValueError if the template does not hold {prompt} once, or something else in braces.
    """

    def __init__(self, template: str = PLACE, negative: str = "") -> None:
        count, others = template.count(PLACE), re.findall(r"\{\w*\}", template.replace(PLACE, ""))
        if count != 1 or others:
            got = f"{others[0]}, which nothing is put in for" if others else f"{PLACE} {count} times"
            raise ValueError(f"template={template!r:.120} holds {got}: wanted {PLACE} once, where the prompt stands. Set style.template.")
        self.template, self.negative = template, negative.strip()

    def prompt(self, prompt: str) -> str:
        """The prompt in this style; a blank one, which lets the model choose, stays as it is."""
        return self.template.replace(PLACE, prompt) if prompt.strip() else prompt

    def negatives(self, own: str | None) -> str:
        """The negative prompt of a clip in this style.

        Args:
            own: what is asked for this clip: put before the style's; None: nothing, so the style's alone; "": that there be none at all.
        """
        if own is None:
            return self.negative
        return ", ".join(part for part in (own.strip(), self.negative) if part) if own.strip() else ""
