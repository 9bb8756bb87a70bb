"""Loading weights of fastMRI's own VarNet, so that published results can be had with this library."""

from collections.abc import Mapping

from torch import Tensor

from morelib.nn.e2e_varnet import UNetDenoiser
from morelib.nn.sensitivity import SensitivityNetwork
from morelib.nn.unrolled import Unrolled


def load_fastmri_state(model: Unrolled, state: Mapping[str, Tensor]) -> None:
    """Copy a state dict of `fastmri.models.VarNet` into an `e2e_varnet` of the same widths.

    Args:
        model: for the published weights, `build_model("e2e_varnet", preset="fastmri")`.
        state: as saved by fastMRI. Keys of a Lightning checkpoint begin with `varnet.`; strip that first.

    Raises:
        TypeError: `model` is another network.
        RuntimeError: keys or shapes do not fit; PyTorch's message names them.
    """
    denoiser = model.cascades[0].denoiser if isinstance(model, Unrolled) else model
    if not isinstance(denoiser, UNetDenoiser):
        raise TypeError("fastMRI's VarNet has the weights of an e2e_varnet, not of another network")
    assert isinstance(model.sensitivity, SensitivityNetwork)
    levels = len(model.sensitivity.unet.decoder.up)
    cascade_levels = len(denoiser.unet.decoder.up)
    renamed = {}
    for key, value in state.items():
        if key.startswith("sens_net."):
            renamed["sensitivity.unet." + _unet_key(key.removeprefix("sens_net.norm_unet.unet."), levels)] = (
                value
            )
        elif key.endswith(".dc_weight"):
            renamed[key.replace(".dc_weight", ".eta")] = value
        elif key.startswith("cascades."):
            cascade, inner = key.split(".model.unet.")
            renamed[f"{cascade}.denoiser.unet.{_unet_key(inner, cascade_levels)}"] = value
        else:
            renamed[key] = value
    model.load_state_dict(renamed)


def _unet_key(key: str, levels: int) -> str:
    """fastMRI's name of a U-Net parameter in ours.

    There a block is Sequential(conv, norm, activation, dropout, conv, ...): its convolutions are layers 0 and 4. Ours
    has no dropout, and norm and activation are one: 0 and 2.
    """
    parts = key.split(".")
    if parts[0] == "down_sample_layers":
        return f"encoder.blocks.{parts[1]}.{_layer(parts[3])}.{parts[4]}"
    if parts[0] == "conv":
        return f"encoder.blocks.{levels}.{_layer(parts[2])}.{parts[3]}"
    if parts[0] == "up_transpose_conv":
        return f"decoder.up.{parts[1]}.{parts[3]}.{parts[4]}"
    # The last up block is Sequential(block, conv1x1), so its keys are one level deeper.
    if parts[0] == "up_conv" and parts[2] == "1":
        return f"decoder.last.{parts[3]}"
    if parts[0] == "up_conv":
        layer, name = parts[-2:]
        return f"decoder.blocks.{parts[1]}.{_layer(layer)}.{name}"
    return key


def _layer(index: str) -> str:
    return {"0": "0", "4": "2"}[index]
