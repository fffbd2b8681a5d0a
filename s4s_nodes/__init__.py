"""S4S: learned few-call solvers for diffusion models. `core` is pure; `comfyui` and `webui` are the hosts' doors."""
