"""LoRA files: read, fitted to a model, turned into changes, joined and extracted."""
