"""The hosts' sides: `comfyui` and `webui`, each importing what only its host has."""
