"""A trained network for other programs: one ONNX file, image in; H, v, S out."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.engine.checkpoints import load_ssnet
from jsws_lib.ssnet import SSNet


class _Symbols(nn.Module):
    """SSNet as a function of the image alone that returns the paper's H, v and S."""

    def __init__(self, net: SSNet):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.net(image)
        return out.probs, out.class_saliency, out.sal_map


def export(checkpoint: Path | str, out: Path | str, *, half: bool = False) -> dict:
    """Write a network into one file that needs nothing of this repository.

    The file takes `image`, (B, 3, size, size) uint8 RGB, for any B, and gives `H`,
    (B, C+1, size, size), `v`, (B, C), and `S`, (B, size, size), float32 in [0, 1].

    Args:
        checkpoint: what `jsws train` wrote.
        out: `.onnx`.
        half: store the matrices in 16 bits; computed is in float32.

    Returns:
        what the file says of itself, as metadata: `size`, `categories` (C names),
        `setting` and `backbone`.

    Raises:
        JswsError: unreadable checkpoint, another suffix, or no package `onnxscript`.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise JswsError(f"{out}: name a file that ends in .onnx")
    net, story = load_ssnet(checkpoint)
    known = {k: story[k] for k in ("size", "categories", "setting", "backbone")}
    write_bytes(out, _onnx(net, known, half=half))
    return known


def _onnx(net: SSNet, known: dict, *, half: bool) -> bytes:
    """The network as ONNX, without the notes that PyTorch leaves on each node."""
    try:
        import onnx
        import onnxscript  # noqa: F401  PyTorch's exporter needs it
    except ImportError as error:
        raise JswsError(
            f"ONNX needs the package {error.name}: pip install 'ssnet-tutorial[export]'"
        ) from None
    image = torch.zeros(2, 3, net.size, net.size, dtype=torch.uint8)
    free = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(_Symbols(net).eval(), (image,), dynamic_shapes=free)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own insides
        names = {"input_names": ["image"], "output_names": ["H", "v", "S"]}
        made = torch.onnx.export(program, **names, dynamo=True, verbose=False)
    model = made.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    if half:
        for tensor in list(model.graph.initializer):
            _store_half(model.graph, tensor)
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in known.items()}
    onnx.helper.set_model_props(model, words)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _store_half(graph, tensor):
    """Store a float32 matrix in 16 bits, and turn it back where it is used.

    Whole numbers of steps, a step for each row, are more exact than float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
        name, values = tensor.name, numpy_helper.to_array(tensor)
        step = abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 32767
        step[step == 0] = 1
        whole = (values / step).round().astype("int16")
        tensor.CopyFrom(numpy_helper.from_array(whole, f"{name}.whole"))
        graph.initializer.append(numpy_helper.from_array(step, f"{name}.step"))
        back = {"inputs": [tensor.name], "outputs": [f"{name}.float"]}
        graph.node.insert(0, helper.make_node("Cast", **back, to=TensorProto.FLOAT))
        product = [f"{name}.float", f"{name}.step"]
        graph.node.insert(1, helper.make_node("Mul", product, [name]))
