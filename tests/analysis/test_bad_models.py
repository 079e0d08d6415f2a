"""Models that cannot be compared: one clear error each, and nothing false shown."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from lib_merge.analysis.distances import CompareOptions, compare_files
from lib_merge.analysis.histogram import difference_histogram
from lib_merge.engine.progress import NullProgress
from lib_merge.errors import CheckpointError, InputError, NonFiniteError
from tests.support.checkpoints import tiny_part, tiny_tensors, write_checkpoint

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"
BIG = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"


@pytest.fixture
def paths(tmp_path):
    return [
        write_checkpoint(tmp_path / f"{name}.safetensors", tiny_part(seed))
        for seed, name in enumerate("abc")
    ]


class Meddler(NullProgress):
    """Does something to a file while models are read."""

    def __init__(self, meddle) -> None:
        self._meddle = meddle

    def advance(self, amount: int) -> None:
        meddle, self._meddle = self._meddle, lambda: None
        meddle()


def test_single_model_is_refused(paths):
    with pytest.raises(InputError, match="1 model is too few to compare"):
        compare_files(paths[:1])
    with pytest.raises(InputError, match="No model is too few"):
        compare_files([])
    with pytest.raises(InputError, match="only model and the base"):
        compare_files(paths[:1], base=paths[0])
    with pytest.raises(InputError, match="Only a base is given"):
        compare_files([], base=paths[0])


def test_file_given_twice_is_refused(paths, tmp_path):
    with pytest.raises(InputError, match=r"b\.safetensors: the same file is given"):
        compare_files([*paths, paths[1]])
    link = tmp_path / "link.safetensors"
    link.symlink_to(paths[0])
    with pytest.raises(InputError, match=r"a\.safetensors and .*link\.safetensors"):
        compare_files([paths[0], link])


def test_copy_of_a_file_is_compared(paths, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copyfile(paths[0], copy)
    assert compare_files([paths[0], copy]).part("all").l2()[0, 1] == 0


def test_missing_base_is_named(paths, tmp_path):
    with pytest.raises(CheckpointError, match=r"The base .*gone\.saf.* does not exist"):
        compare_files(paths, base=tmp_path / "gone.safetensors")


def test_missing_model_is_named(paths, tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors does not exist"):
        compare_files([*paths, tmp_path / "gone.safetensors"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("place", [0, 2], ids=["base", "model"])
def test_model_with_a_bad_value_is_named(paths, bad, place):
    tensors = tiny_part(place)
    tensors[UNET_KEY][3] = bad
    write_checkpoint(paths[place], tensors)
    name = paths[place].name.replace(".", r"\.")
    with pytest.raises(NonFiniteError, match=rf"{name} holds NaN .*1 of the values"):
        compare_files(paths)


def test_values_beyond_float64_are_refused(tmp_path):
    paths = []
    for name, value in (("a", 1.0), ("b", 1e200)):
        tensors = tiny_part(1)
        tensors[UNET_KEY] = torch.full((4,), value, dtype=torch.float64)
        paths.append(write_checkpoint(tmp_path / f"{name}.safetensors", tensors))
    with pytest.raises(NonFiniteError, match="squares are beyond float64"):
        compare_files(paths)


def test_other_architecture_is_named(paths, tmp_path):
    other = write_checkpoint(tmp_path / "xl.safetensors", tiny_tensors("sdxl", 1))
    with pytest.raises(CheckpointError, match=r"xl\.safetensors is Stable .* XL; the"):
        compare_files([*paths, other])


def test_model_of_another_size_is_named(tmp_path):
    small = tiny_tensors("sd1", 1)
    large = {
        key: torch.cat((tensor, tensor)) if tensor.dim() else tensor
        for key, tensor in small.items()
    }
    paths = [
        write_checkpoint(tmp_path / "small.safetensors", small),
        write_checkpoint(tmp_path / "large.safetensors", large),
    ]
    with pytest.raises(CheckpointError, match=r"large\.saf.* is of another size than"):
        compare_files(paths)


def test_models_of_different_parts_are_refused(tmp_path):
    parts = {"text": "cond_stage_model.", "vae": "first_stage_model."}
    paths = [
        write_checkpoint(
            tmp_path / f"{name}.safetensors",
            {k: v for k, v in tiny_part(1).items() if k.startswith(prefix)},
        )
        for name, prefix in parts.items()
    ]
    with pytest.raises(CheckpointError, match="no tensor that all of them hold"):
        compare_files(paths)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_file_that_is_removed_while_it_is_read_is_named(paths, n_threads):
    with pytest.raises(CheckpointError, match=r"b\.safetensors went away while"):
        compare_files(
            paths,
            options=CompareOptions(n_threads=n_threads),
            progress=Meddler(paths[1].unlink),
        )


def test_file_that_changes_while_it_is_read_is_named(paths):
    def touch() -> None:
        os.utime(paths[2], ns=(1, 1))

    with pytest.raises(CheckpointError, match=r"c\.safetensors was changed while"):
        compare_files(paths, progress=Meddler(touch))


def test_file_that_is_cut_short_while_it_is_read_is_named(tmp_path):
    paths = []
    for name in "ab":
        tensors = tiny_part(1)
        tensors[BIG] = torch.zeros(3_000_000).half()
        paths.append(write_checkpoint(tmp_path / f"{name}.safetensors", tensors))
    with pytest.raises(CheckpointError, match=r"b\.safetensors"):
        compare_files(paths, progress=Meddler(lambda: os.truncate(paths[1], 5000)))


def test_bad_value_of_a_file_that_is_being_written_is_called_a_change(paths):
    tensors = tiny_part(2)
    tensors["first_stage_model.decoder.conv_in.weight"][:] = float("nan")

    def write() -> None:
        write_checkpoint(paths[2], tensors)
        os.utime(paths[2], ns=(1, 1))

    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        compare_files(paths, progress=Meddler(write))


def test_histogram_refuses_what_is_not_there(paths):
    with pytest.raises(InputError, match="no block or component 'IN99' in both"):
        difference_histogram(paths[0], paths[1], "IN99")


def test_histogram_names_models_with_bad_values(paths):
    tensors = tiny_part(1)
    tensors[UNET_KEY][0] = float("nan")
    write_checkpoint(paths[1], tensors)
    with pytest.raises(NonFiniteError, match=r"a\.safetensors or .*b\.safetensors"):
        difference_histogram(paths[0], paths[1], "IN04")
