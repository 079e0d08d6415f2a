"""One small file of every format and dialect, by a name that says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import (
    LoraNode,
    MergeNode,
    ModelNode,
    Pick,
    Recipe,
    Rule,
    SelectNode,
    Setting,
)

DATA = Path(__file__).with_name("data")
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
HALVES_25 = [round(i / 24, 4) for i in range(25)]
HALVES_26 = [0.5, *HALVES_25]


def text(values: list[float]) -> str:
    return ",".join(map(str, values))


OWN = Recipe(
    (
        ModelNode("a.safetensors", A),
        ModelNode("b.safetensors"),
        MergeNode(
            "weighted_sum",
            (0, 1),
            (
                (
                    "alpha",
                    Setting(
                        0.5,
                        ((BlockId("IN04"), 0.25), (BlockId("OUT03-OUT05"), 0.75)),
                        (Rule(0.1, (BlockId("M00"),), "attn"), Rule(0.2, (), "norm")),
                    ),
                ),
            ),
        ),
        LoraNode("style.safetensors", 2, Setting(0.8)),
        SelectNode((3, 1), (Pick(1, (BlockId("VAE"),)),)),
    )
)

MECHA_A = """model "raw/base.safetensors"
model "raw/a.safetensors"
model "raw/b.safetensors"
call "subtract" &1 &0
call "subtract" &2 &0
call "ties_sum" &3 &4 alpha=1.0 k=1.0
call "add_difference" &0 &5 alpha=1.0
dict l14_txt_class_q=0.5 sd15_unet_block_in04=0.25 sd15_unet_default=0.75
call "weighted_sum" &6 &1 alpha=&7"""

MECHA_B = """model "raw/base.safetensors" "sdxl" "base"
model "raw/a.safetensors" "sdxl" "base"
merge "subtract" &1 &0
model "raw/b.safetensors" "sdxl" "base"
merge "subtract" &3 &0
merge "ties_sum_with_dropout" &2 &4 probability=0.1 seed=114514 k=1.0 vote_sgn=1.0
merge "add_difference" &0 &5 alpha=0.9
dict sdxl_txt_default=0.0 sdxl_txt2_default=0.0 sdxl_unet_block_in4=0.5
merge "weighted_sum" &6 &1 alpha=&7
model "raw/style.safetensors" "sdxl" "lora"
merge "add_difference" &8 &9 alpha=0.5"""

MECHA_C = (DATA / "x3a-NIL-AK-25082901-3e3aea3.mecha").read_text(encoding="utf-8")

MECHA_C_BLOCKS = """version 0.1.0
model "a.safetensors" model_config="sdxl-sgm" merge_space="weight"
model "b.safetensors" model_config="sdxl-sgm" merge_space="weight"
dict BASE=0.1 IN04=0.3 OUT08=0.9
literal &2 model_config="sdxl-supermerger_blocks" merge_space=null
merge "convert_sdxl_blocks_to_sgm" &3
merge "weighted_sum" &0 &1 alpha=&4
merge "slerp" &0 &5 0.25"""


def supermerger_step(**changes: Any) -> dict[str, Any]:
    step = {
        "type": "sd-webui-supermerger",
        "weights_alpha": HALVES_25,
        "weights_beta": None,
        "weights_alpha_orig": text(HALVES_25),
        "weights_beta_orig": "",
        "model_a": A,
        "model_b": B,
        "model_c": C,
        "base_alpha": 0.5,
        "base_beta": 0.25,
        "mode": "Weight sum",
        "mbw": True,
        "elemental_merge": "IN04 OUT03-OUT05:attn1 norm:0.4,NOT M00:bias:0.2",
        "calcmode": "normal",
        "Exclude": ["OUT11", "Adjust", "time_embed"],
    }
    return {**step, **changes}


def mixer_step(**changes: Any) -> dict[str, Any]:
    step = {
        "type": "sd-webui-model-mixer",
        "blocks": ["IN00"],
        "mbw": True,
        "weights_alpha": [HALVES_26, [0.0] * 26, [0.0] * 26],
        "weights_alpha_orig": [text(HALVES_26), "0.5", "0.5"],
        "alpha": [0.5, 0.25, 0.75],
        "model_a": "a.safetensors [aaaaaaaaaa]",
        "model_b": "b",
        "model_c": "c",
        "model_d": "a",
        "base_model": "c.safetensors",
        "mode": ["Sum", "Add-Diff", "TIES"],
        "calcmode": ["Normal", "Normal", "Normal"],
        "elemental": ["IN04:attn1:0.3", "", ""],
        "use_elemental": [True, False, False],
        "adjust": "",
        "uses": [True, True, True],
        "use_mbws": [True, False, False],
        "recipe": "a * (1 - alpha_0) + b * alpha_0",
    }
    return {**step, **changes}


LISTED = {
    A: {"name": "a.safetensors", "legacy_hash": "aa", "sd_merge_recipe": None},
    B: {"name": "b.safetensors", "legacy_hash": "bb"},
    C: {"name": "c.safetensors", "legacy_hash": "cc"},
}


def metadata(step: dict[str, Any], listed: dict[str, Any] | None = None) -> str:
    """Strings of JSON, as they are on disk."""
    return json.dumps(
        {
            "__metadata__": {
                "format": "pt",
                "sd_merge_recipe": json.dumps(step),
                "sd_merge_models": json.dumps(LISTED if listed is None else listed),
            }
        }
    )


SUPERMERGER_HISTORY = (
    '"ID","time","name","weights alpha","weights beta","model A","model B","model C",'
    '"alpha","beta","mode","use MBW","plus lora","custum name","save setting",'
    '"use ID"\n'
    f'1,2024.01.02 03.04.05,merged,"{text(HALVES_26)}","",0123456789,abcdefabcd,'
    "fedcba9876,0.5,0.25,Weight sum:A*(1-alpha)+B*alpha,True,,[],[],,normal,0,,0.3,Off,"
    "[],[]\n"
    "2,2024.01.02 03.04.06,second,,,0123456789,abcdefabcd,fedcba9876,0.3,0.2,"
    "Add difference:A+(B-C)*alpha,False,,[],[]\n"
)

TRIALS = (
    ",".join([*map(str, range(27)), "score", "eval_times", "iter_times"])
    + "\n"
    + text([round(i / 26, 3) for i in range(27)])
    + ",0.5,100.0,101.0\n"
    + text([round(1 - i / 26, 3) for i in range(27)])
    + ",0.625,100.0,101.0\n"
)

HISTORY_TSV = (
    "datetime\tcurrent_pass\tmodel_A\tmodel_B\tmodel_O\tweights\tclamp_lower\n"
    "2023-11-10 19:41:41\t0\ta.safetensors\tb.safetensors\tout\t"
    + text([round(i / 26, 3) for i in range(27)])
    + "\t0\n"
)

RECIPE_TXT = (
    "modelA=a.safetensors\nmodelB=b.safetensors\nmodelO=02b-out\n"
    "position_id_fix=Keep Original\noutput_mode=Max Precision\n"
    + text([round(i / 26, 3) for i in range(27)])
    + "\n\n   Best score: 0.5242  \n"
)

MBWRT = json.dumps(
    {
        "__metadata__": {
            "sd_mbwrt_recipe": {
                "type": "auto-mbw-rt",
                "modelA": "a.safetensors",
                "modelB": "b.safetensors",
                "modelO": "out",
                "position_id_fix": "Keep Original",
                "output_mode": "Max Precision",
                "mbwrt_weights": text([round(i / 26, 3) for i in range(27)]),
                "mbwrt_weights_seq": (
                    "[*sl_INPUT, *sl_MID, *sl_OUTPUT, sl_OUT, sl_TIME_EMBED]"
                ),
            },
            "format": "pt",
        }
    }
)

PRESETS = (
    "preset_name\tpreset_weights\n"
    f"GRAD_25\t{text(HALVES_25)}\nGRAD_26:{text(HALVES_26)}\n"
    f"XL\t{text(HALVES_26[:20])}\nLORA\t{text(HALVES_26[:17])}\n"
)

MERGEKIT = """# a recipe
models:
  - model: a.safetensors
    parameters:
      weight: 0.5
      density: 0.5
  - model: {path: b.safetensors}
    parameters:
      weight:
        - filter: attn
          value: 0.25
        - value: 0.5
      density: 0.5
merge_method: dare_linear
base_model: base.safetensors
parameters: {lambda: 0.9, rescale: true}
dtype: float32
out_dtype: float16
"""

SAMPLES = {
    "own.json": json.dumps(OWN.to_json()),
    "a.mecha": MECHA_A,
    "b.mecha": MECHA_B,
    "c.mecha": MECHA_C,
    "blocks.mecha": MECHA_C_BLOCKS,
    "webui.json": (DATA / "recipe-10a.json").read_text(encoding="utf-8"),
    "supermerger.json": metadata(supermerger_step()),
    "mixer.json": metadata(mixer_step()),
    "mergehistory.csv": SUPERMERGER_HISTORY,
    "trials.csv": TRIALS,
    "history.tsv": HISTORY_TSV,
    "out.recipe.txt": RECIPE_TXT,
    "mbwrt.json": MBWRT,
    "presets.tsv": PRESETS,
    "mergekit.yml": MERGEKIT,
}
