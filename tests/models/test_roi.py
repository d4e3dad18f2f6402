"""RoIAlign: a hand-made oracle, ONNX Runtime's kernel, gradients, and which level of a pyramid a box is pooled from."""

import math

import pytest
import torch

from tubelet.models.roi import levels_of, roi_align


def boxes_of_all_kinds(count, height, width, seed=0):
    """Inside, across each edge, far outside, thin, and a point: (count, 4)."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * 2 - 0.5
    side = torch.exp(2 * torch.randn(count, 2, generator=generator)) * 0.2
    boxes = torch.cat([centre - side / 2, centre + side / 2], dim=1) * torch.tensor([width, height, width, height])
    boxes[0] = torch.tensor([5.0, 5.0, 5.0, 5.0])
    boxes[1] = torch.tensor([-900.0, -900.0, -800.0, -850.0])
    return boxes


def oracle(map, box, stride, resolution, samples):
    """One box on one map (h, w, C), point by point."""
    height, width, channels = map.shape
    x1, y1, x2, y2 = (side / stride - 0.5 for side in box.tolist())
    out = torch.zeros(resolution, resolution, channels, dtype=map.dtype)
    for i in range(resolution):
        for j in range(resolution):
            for a in range(samples):
                for b in range(samples):
                    y = y1 + (y2 - y1) / resolution * (i + (a + 0.5) / samples)
                    x = x1 + (x2 - x1) / resolution * (j + (b + 0.5) / samples)
                    if not (-1 <= y <= height and -1 <= x <= width):
                        continue
                    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
                    top, left = math.floor(y), math.floor(x)
                    for row, of_row in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
                        for column, of_column in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
                            out[i, j] += of_row * of_column * map[row, column] / samples**2
    return out.flatten(0, 1)


@pytest.mark.parametrize(("resolution", "samples"), [(7, 2), (3, 1), (2, 3)])
def test_a_hand_made_oracle(resolution, samples):
    map = torch.randn(1, 5, 8, 3, dtype=torch.float64)
    boxes = boxes_of_all_kinds(12, 80, 128).double()
    ours = roi_align([map], boxes[None], (16,), resolution=resolution, samples=samples)[0]
    theirs = torch.stack([oracle(map[0], box, 16, resolution, samples) for box in boxes])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_the_kernel_of_onnx_runtime():
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    map = torch.randn(2, 9, 13, 4)
    boxes = torch.stack([boxes_of_all_kinds(40, 72, 104, seed) for seed in (1, 2)])
    node = helper.make_node(
        "RoiAlign", ["map", "boxes", "of"], ["out"], mode="avg", output_height=7, output_width=7, sampling_ratio=2,
        spatial_scale=1 / 8, coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, (2, 4, 9, 13)),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, (80, 4)),
        helper.make_tensor_value_info("of", TensorProto.INT64, (80,)),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, (80, 4, 7, 7))]
    graph = helper.make_graph([node], "roi", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {
        "map": map.permute(0, 3, 1, 2).numpy(),
        "boxes": boxes.flatten(0, 1).numpy(),
        "of": torch.tensor([0, 1]).repeat_interleave(40).numpy(),
    }
    theirs = torch.from_numpy(session.run(None, feed)[0]).flatten(2).transpose(1, 2)  # (80, 49, C)
    ours = roi_align([map], boxes, (8,)).flatten(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


def test_each_box_of_its_own_level_of_its_own_image():
    maps = [torch.randn(2, 16 // 2**i, 24 // 2**i, 3) for i in range(4)]
    strides = (4, 8, 16, 32)
    boxes = torch.stack([boxes_of_all_kinds(20, 64, 96, seed) for seed in (3, 4)])
    level = torch.arange(40).view(2, 20) % 4
    ours = roi_align(maps, boxes, strides, level)
    for image in range(2):
        for i in range(20):
            one = level[image, i]
            alone = roi_align([maps[one][image : image + 1]], boxes[image, i][None, None], (strides[one],))
            torch.testing.assert_close(ours[image, i], alone[0, 0], rtol=0, atol=1e-6)


def test_gradients_of_map_and_boxes():
    map = torch.randn(1, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[[9.3, 12.1, 40.7, 55.2], [-7.9, 3.3, 21.4, 30.6]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, b: roi_align([m], b, (16,), resolution=2, samples=1), (map, boxes))


def test_levels():
    sides = torch.tensor([1.0, 55, 57, 111, 113, 223, 224, 447, 449, 5000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    # a side of 224 lies on level 2 of 4, one of 112 on level 1
    assert levels_of(boxes, 4).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    backwards = torch.tensor([[50.0, 50, 10, 10]])
    assert levels_of(backwards, 4).tolist() == [0]
