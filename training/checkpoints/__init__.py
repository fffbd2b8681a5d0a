"""Real checkpoints as sources: one .safetensors file, or a folder in diffusers' layout, with a file of prompts.

    opening     what the file is, read from its header          files.py
    loading     by diffusers, from this machine only            loading.py
    prompts     encoded once, text encoders freed               prompts.py
    clocks      levels and timesteps as the hosts have them     clocks.py
    network     (x, sigma, which) -> denoised, guided           network.py
    source      all of it as the trainer's Source               source.py

diffusers and transformers are imported only when a checkpoint is opened.
"""
