"""Element types of checkpoint tensors, by their safetensors codes; no torch."""

from __future__ import annotations

from enum import Enum

from lib_merge.errors import InputError


class DType(Enum):
    """An element type: (safetensors code, torch name, bytes, is float, is integer)."""

    F64 = ("F64", "float64", 8, True)
    F32 = ("F32", "float32", 4, True)
    F16 = ("F16", "float16", 2, True)
    BF16 = ("BF16", "bfloat16", 2, True)
    F8_E4M3 = ("F8_E4M3", "float8_e4m3fn", 1, True)
    F8_E5M2 = ("F8_E5M2", "float8_e5m2", 1, True)
    I64 = ("I64", "int64", 8, False)
    I32 = ("I32", "int32", 4, False)
    I16 = ("I16", "int16", 2, False)
    I8 = ("I8", "int8", 1, False)
    U8 = ("U8", "uint8", 1, False)
    U16 = ("U16", "uint16", 2, False)
    U32 = ("U32", "uint32", 4, False)
    U64 = ("U64", "uint64", 8, False)
    BOOL = ("BOOL", "bool", 1, False)

    def __init__(self, code: str, torch_name: str, size: int, is_float: bool) -> None:
        self.code = code
        self.torch_name = torch_name
        self.size = size
        self.is_float = is_float

    @classmethod
    def from_code(cls, code: str) -> DType:
        """The type with this safetensors code.

        Raises:
            InputError: No such code.
        """
        if code in cls.__members__:
            return cls[code]
        known = ", ".join(cls.__members__)
        raise InputError(f"Unknown tensor dtype '{code}'; known: {known}.")

    @classmethod
    def from_name(cls, name: str) -> DType:
        """The type with this torch name ("float16") or a usual short form ("fp16").

        Raises:
            InputError: No such name.
        """
        wanted = _SHORT.get(name.lower(), name.lower())
        for dtype in cls:
            if dtype.torch_name == wanted:
                return dtype
        known = ", ".join(d.torch_name for d in cls if d.is_float)
        raise InputError(f"Unknown precision '{name}'; use one of: {known}.")


_SHORT = {
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fp8": "float8_e4m3fn",
    "fp8_e4m3fn": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}

COMPUTE_DTYPES = (DType.F32, DType.F64)
"""What a merge may compute in: float32 or wider, rounded once at the end."""

SAVE_DTYPES = tuple(dtype for dtype in DType if dtype.is_float)
"""What a merge may be saved in."""
