"""Reading files: wrappers of training code, and what is refused with a sentence and never unpickled."""

import argparse
import os
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from tests.checkpoints import made
from tubelet import CheckpointError, load_model
from tubelet.checkpoints.files import read_file, unwrap

ARGS = argparse.Namespace(model="vit_base_patch16_224", lr=1e-3, opt_betas=[0.9, 0.999])
STATE = {"epoch": 89, "optimizer": {"state": {0: torch.zeros(3)}}, "lr_scaler": {"scale": torch.ones(3)}, "args": ARGS}
DEEPSPEED = {"global_steps": 7, "ds_version": "0.14", "optimizer": None, "param_shapes": [{"a": torch.Size([3])}]}
WRAPPED = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, **STATE},
    "module": lambda state: {"module": state, **DEEPSPEED},
    "state_dict of Lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "loops": {}},
    "distributed and compiled": lambda state: {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}},
    "two wrappers": lambda state: {"model": {"module": state}, "loss": torch.tensor(0.3)},
}

UNPICKLED = Path(tempfile.gettempdir(), "tubelet-was-unpickled")  # what a malicious file would leave


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {UNPICKLED}",)


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers(tmp_path, wrapper, old_format):
    model, path = made.small(), tmp_path / "checkpoint.pth"
    torch.save(WRAPPED[wrapper](made.released(model)), path, _use_new_zipfile_serialization=not old_format)
    loaded = load_model(path, **made.UNSEEN)
    clip = torch.randn(1, 3, 4, 16, 16)
    assert torch.equal(loaded(clip), model(clip))
    assert sorted(loaded.report.unused) == sorted(set(WRAPPED[wrapper]({})) - {"model", "module", "state_dict"})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": {"a": torch.ones(1)}, "module": {"a": torch.ones(1)}}, "weights under model and module: keep one"),
        ({"model": {"a": torch.ones(1)}, "teacher": {"b": torch.ones(1)}}, "holds tensors under 'teacher'"),
        ({"weights": {"a": torch.ones(1)}}, "no weights; its entries are weights"),
        ({"a": torch.ones(1), "b": 3}, "no tensors among the weights: b"),
        ({}, "no weights; its entries are none"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
    ],
)
def test_what_cannot_be_unwrapped(content, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        unwrap(content, "file.pth")


def test_code_is_never_run(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "hook": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil.pth holds a pickled (posix|nt).system.* refused"):
        load_model(tmp_path / "evil.pth")
    assert not UNPICKLED.exists()


WHOLE = save({"head.weight": torch.randn(40, 40)})
FILES = {
    "empty": (b"", "is empty"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git-lfs pointer"),
    "web page": (b"\n <!DOCTYPE html><html>", "web page"),
    "web page without type": (b"<html><head>", "web page"),
    "text": (b"hello, these are no weights at all", "neither a safetensors nor a torch.save file"),
    "cut off": (WHOLE[:-100], "damaged or cut off safetensors"),
    "cut off in its header": (WHOLE[:30], "damaged or cut off safetensors"),
    "header too long": (struct.pack("<Q", 2**40) + b'{"a":', "damaged or cut off safetensors"),
    "cut off zip": (b"PK\x03\x04" + bytes(60), "damaged or cut off torch.save"),
    "cut off pickle": (b"\x80\x02}q", "damaged"),
    "zip of another kind": (b"PK\x05\x06" + bytes(18), "or is damaged: it is refused"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", FILES)
def test_files_without_weights(tmp_path, name, suffix):
    content, sentence = FILES[name]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("old_format", [False, True])
def test_cut_off_torch_files(tmp_path, share, old_format):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.randn(100, 100)}, path, _use_new_zipfile_serialization=not old_format)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)


def test_the_content_tells_the_kind_not_the_name(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.bin")
    assert read_file(tmp_path / "weights.bin").tensors.keys() == {"a"}
    torch.save({"b": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert read_file(tmp_path / "weights.safetensors").tensors.keys() == {"b"}


def test_a_file_that_may_not_be_read(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_file(tmp_path)


def test_a_cut_off_zip_says_so(tmp_path):
    torch.save({"a": torch.randn(100, 100)}, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="cut off torch.save file: its end is missing"):
        read_file(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_program_is_not_run(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program.*save the state_dict"):
        read_file(tmp_path / "w.pt")


@pytest.mark.parametrize("tensor", [torch.eye(5).to_sparse(), torch.zeros(5, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_values(tmp_path, tensor):
    torch.save({**made.released(made.small()), "head.bias": tensor}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds sparse tensors, or such without values: head.bias"):
        load_model(tmp_path / "w.pth", **made.UNSEEN)


def test_single_numbers_beside_the_weights_are_told_as_such():
    unused = unwrap({"model": {"a": torch.ones(1)}, "loss": torch.tensor(0.3)}, "file.pth").unused
    assert unused == {"loss": "beside the weights, holds no more than settings and single numbers"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    model = made.small()
    save_file({k: v.to(dtype) for k, v in made.released(model).items()}, tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors", **made.UNSEEN)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.allclose(loaded.head.weight, model.head.weight, rtol=1e-2)
