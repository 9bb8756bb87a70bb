"""The parts of the prompt U-Net: prompts, history, the order of enlargement, the door for complex images."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from morelib.nn.prompt_unet import (
    ComplexPromptUNet,
    DecoderLevel,
    History,
    Prompt,
    PromptUNet,
    convolve_pixels,
    enlarge,
)
from morelib.routing.convolution import plainly


def _unet(history: int = 0, restore_mean: bool = False) -> PromptUNet:
    torch.manual_seed(0)
    return PromptUNet(
        4,
        4,
        widths=(4, 6, 8),
        prompt_widths=(2, 4),
        prompt_sizes=(6, 4),
        n_prompts=3,
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        bottleneck_blocks=1,
        history=history,
        learnable_prompts=False,
        zero_init=False,
        restore_mean=restore_mean,
    ).double()


def _input(channels: int = 4, size: tuple[int, int] = (16, 12)) -> Tensor:
    return torch.randn(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_prompt_is_a_mean_of_the_images_whose_weights_the_input_gives() -> None:
    prompt = Prompt(3, 2, n_prompts=4, size=5, learnable=False).double()
    prompt.images.copy_(torch.arange(4.0)[:, None, None, None].expand_as(prompt.images))  # image n holds n
    with torch.no_grad():
        prompt.smooth.weight.zero_()
        prompt.smooth.weight[[0, 1], [0, 1], 1, 1] = 1  # hands its input on
        prompt.choose.weight.zero_()
        prompt.choose.bias.copy_(torch.tensor([-1e3, -1e3, 0.0, 0.0]))
    torch.testing.assert_close(prompt(_input(3, (7, 9))), torch.full((2, 2, 7, 9), 2.5, dtype=torch.float64))


def test_a_prompt_depends_on_the_mean_of_the_features_alone() -> None:
    prompt, features = Prompt(3, 2, n_prompts=4, size=5, learnable=False).double(), _input(3)
    torch.testing.assert_close(prompt(features), prompt(features.flip(-1)))
    assert not torch.allclose(prompt(features), prompt(features + torch.arange(3)[:, None, None]))


def test_narrowing_before_enlarging_equals_the_published_order() -> None:
    level = DecoderLevel(6, 4, Prompt(6, 2, 3, 4, False), 2, n_blocks=1, history=0).double()
    features, skip = _input(6, (5, 7)), _input(4, (10, 14))
    x = level.blocks(torch.cat([features, level.prompt(features)], 1))
    x = F.interpolate(level.narrow[0](x), scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        level(features, [skip], ()), level.refine(level.narrow[1](x) + skip), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (1, 1)])
def test_enlarging_by_a_convolution_equals_interpolation(size: tuple[int, int]) -> None:
    maps = _input(6, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(enlarge(maps), expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad((weights * each).sum(), maps)[0] for each in (enlarge(maps), expected))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_images_may_come_one_by_one_or_joined() -> None:
    network, images = ComplexPromptUNet(_unet(restore_mean=True)), _complex((15, 12))
    torch.testing.assert_close(network([images])[0], network(images.split(1, 1))[0])


def test_history_holds_decoder_inputs_newest_first_coarsest_level_first() -> None:
    unet, x = _unet(history=2), _input()
    histories: list[History] = []
    read: list[Tensor] = []
    unet.decoder[0].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    for shift in range(4):
        _, history = unet([x.roll(shift, -1)], histories[-1] if histories else None)
        histories.append(history)
    assert [tuple(level[0].shape[1:]) for level in histories[0]] == [(8, 4, 3), (6, 8, 6)]
    # Before the first cascade there was nothing, so that its own features fill the places.
    assert [level[0] is level[1] for level in histories[0]] == [True, True]
    for index in range(1, 4):
        assert [feature is read[index - i] for i, feature in enumerate(histories[index][0])] == [True, True]


def test_without_history_nothing_is_kept() -> None:
    _, history = _unet()([_input()])
    assert history == ((), ())


def test_earlier_features_matter() -> None:
    unet, x = _unet(history=1), _input()
    first, history = unet([x])
    torch.testing.assert_close(unet([x], history)[0], first)  # the same features again
    _, other = unet([x.flip(-1)])
    assert not torch.allclose(unet([x], other)[0], first)


def test_a_1x1_convolution_of_maps_side_by_side_is_the_sum_of_one_each() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight = torch.randn(3, 20, 1, 1, dtype=torch.float64, requires_grad=True)
    again = [*maps, maps[-1], maps[-1]]
    results = []
    for output in (convolve_pixels(again, weight), F.conv2d(torch.cat(again, 1), weight)):
        results.append([output, *torch.autograd.grad(output.square().sum(), [*maps, weight])])
    for apart, joined in zip(*results, strict=True):
        torch.testing.assert_close(apart, joined, rtol=1e-11, atol=1e-11)


def test_operations_are_counted_as_written_down() -> None:
    maps, weight = [torch.randn(1, 4, 5, 6)] * 3, torch.randn(2, 12, 1, 1)
    with FlopCounterMode(display=False) as counter, plainly():
        convolve_pixels(maps, weight)
    assert counter.get_total_flops() == 2 * (5 * 6) * 12 * 2


def test_only_wanted_images_are_computed_and_the_weights_of_others_get_no_gradient() -> None:
    network, images = ComplexPromptUNet(_unet()), _complex((16, 12))
    every, _ = network([images])
    wanted, _ = network([images], wanted=[1])
    torch.testing.assert_close(wanted, every[:, [1]])
    wanted.abs().sum().backward()
    by_kernel = network.unet.last.weight.grad
    assert by_kernel is not None
    assert [bool(grad.any()) for grad in by_kernel] == [False, True, False, True]


def _complex(size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 2, *size, dtype=torch.complex128, generator=generator) + 3


@pytest.mark.parametrize("size", [(16, 12), (15, 13), (1, 1), (5, 30)])
def test_any_size_comes_back(size: tuple[int, int]) -> None:
    output, _ = ComplexPromptUNet(_unet(restore_mean=True))([_complex(size)])
    assert output.shape == (2, 2, *size) and output.is_complex() and output.isfinite().all()


def test_scale_and_mean_go_out_and_come_back() -> None:
    network, images = ComplexPromptUNet(_unet(restore_mean=True)), _complex((16, 12))
    output, _ = network([images])
    torch.testing.assert_close(network([1e-5 * images + 7 + 7j])[0], 1e-5 * output + 7 + 7j)
    without, _ = ComplexPromptUNet(_unet())([images])
    mean = torch.cat([images.real, images.imag], 1).mean((1, 2, 3))[:, None, None, None]
    torch.testing.assert_close(without, output - torch.complex(mean, mean))


def test_a_constant_sample_leaves_as_its_mean() -> None:
    images = torch.zeros(2, 2, 9, 8, dtype=torch.complex128)
    images[1] = 3 + 3j
    output, _ = ComplexPromptUNet(_unet(restore_mean=True))([images.requires_grad_()])
    torch.testing.assert_close(output, images)
    output.abs().sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()
