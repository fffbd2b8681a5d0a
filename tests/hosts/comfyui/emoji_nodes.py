"""A custom node of the tests: what the small emoji model is asked for, as CONDITIONING."""

from .conditions import CLASSES, condition


class Emoji:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"emoji": (["none", *CLASSES],)}}

    RETURN_TYPES, FUNCTION, CATEGORY, TITLE = ("CONDITIONING",), "make", "test", "Emoji Prompt"

    def make(self, emoji):
        context, pooled = condition(None if emoji == "none" else emoji)
        return ([[context, {"pooled_output": pooled}]],)


NODE_CLASS_MAPPINGS = {"TestEmoji": Emoji}
NODE_DISPLAY_NAME_MAPPINGS = {"TestEmoji": "Emoji Prompt"}
