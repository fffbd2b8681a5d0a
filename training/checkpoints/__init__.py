"""Real checkpoints as sources: one .safetensors file, or a folder in diffusers' layout, with a file of prompts.

diffusers and transformers are imported only when a checkpoint is opened.
"""
