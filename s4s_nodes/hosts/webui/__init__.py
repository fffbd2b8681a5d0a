"""Everything that imports a WebUI host's `modules`. Opened by scripts/s4s_webui.py; nothing here runs at import."""
