"""Where the demo's models, judge, configs and payloads lie, and how it renders."""

from __future__ import annotations

from pathlib import Path

from lib_merge.core.ports import RenderRequest

_HERE = Path(__file__).resolve().parent

MODELS_DIR = _HERE / "models"
"""Folder with the two parents, demo_a.safetensors and demo_b.safetensors."""

MODEL_A = MODELS_DIR / "demo_a.safetensors"
MODEL_B = MODELS_DIR / "demo_b.safetensors"

PIPELINE_DIR = _HERE / "pipeline"
"""diffusers configs, scheduler and tokenizer that both parents load with."""

JUDGE_WEIGHTS = MODELS_DIR / "judge" / "judge.safetensors"
"""Small ImageReward-layout judge; its vocab.txt lies beside it."""

PAYLOADS_DIR = _HERE / "payloads"
"""One AutoMBW payload file a prompt."""

DEMO_PROMPTS = (
    "a red circle",
    "a red triangle",
    "a green square",
    "a green cross",
    "a blue circle",
    "a blue triangle",
    "a yellow square",
    "a yellow cross",
)
"""The prompts of the demo study, half of them A's strength, half of them B's."""

RENDER = RenderRequest(
    prompt="", steps=8, cfg_scale=3.0, width=64, height=64, sampler_name="Euler"
)
"""How every demo picture is rendered; prompt and seed are filled in."""
