"""A trained network for other programs: ONNX or `torch.export`, image in; H, v, S out."""

import io
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.engine.checkpoints import load_ssnet
from jsws_lib.ssnet import SSNet

FORMATS = (".onnx", ".pt2")
OUTPUTS = ("H", "v", "S")


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
        out: `.onnx`, or `.pt2` for `torch.export.load`.
        half: store the matrices of an ONNX file in 16 bits; computed is in float32.

    Returns:
        what the file says of itself: `size`, `categories` (C names), `setting` and
        `backbone`; in ONNX as metadata, in `.pt2` as the extra file `ssnet.json`.

    Raises:
        JswsError: unreadable checkpoint, unknown suffix, `half` with `.pt2`, or no
            package `onnxscript`.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise JswsError(f"{out}: name a file that ends in {' or '.join(FORMATS)}")
    if half and out.suffix == ".pt2":
        raise JswsError(f"{out}: half the size is for ONNX; leave --half out")
    net, story = load_ssnet(checkpoint)
    known = {k: story[k] for k in ("size", "categories", "setting", "backbone")}
    image = torch.zeros(2, 3, net.size, net.size, dtype=torch.uint8)
    free = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(_Symbols(net).eval(), (image,), dynamic_shapes=free)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # folders of this machine
    if out.suffix == ".pt2":
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={"ssnet.json": json.dumps(known)})
        write_bytes(out, file.getvalue())
    else:
        write_bytes(out, _onnx(program, known, half=half))
    return known


def _onnx(program: torch.export.ExportedProgram, known: dict, *, half: bool) -> bytes:
    """The program as ONNX, without the notes that PyTorch leaves on each node."""
    try:
        import onnx
        import onnxscript  # noqa: F401  PyTorch's exporter needs it
    except ImportError as error:
        raise JswsError(
            f"ONNX needs the package {error.name}: pip install 'ssnet-tutorial[export]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own insides
        made = torch.onnx.export(
            program, input_names=["image"], output_names=OUTPUTS, dynamo=True, verbose=False
        )
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
