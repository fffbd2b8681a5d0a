"""The words users see, in the language the host is set to.

Not by the host's localizations/ folder: there A1111 takes one file a language, and ours would replace the user's.
"""

import json
from pathlib import Path

from modules import shared

_TRANSLATIONS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))


def say(text: str) -> str:
    """The text in the host's language, or as it is."""
    return _TRANSLATIONS.get(language(), {}).get(text, text)


def language() -> str:
    """"zh", "ja" or "en", by the name of the localization that is switched on, e.g. zh_CN or zh-Hans (Stable)."""
    name = str(getattr(shared.opts, "localization", "None")).lower()
    if name.startswith(("zh", "chinese", "简", "繁", "中")):
        return "zh"
    return "ja" if name.startswith(("ja", "日")) else "en"
