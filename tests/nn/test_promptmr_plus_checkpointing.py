"""Checkpointing changes memory and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from morelib.nn.promptmr_plus import promptmr_plus
from morelib.nn.unrolled import Unrolled
from morelib.physics.masks import acs_columns
from tests.nn.small import PROMPTMR_PLUS


def _model(**options: Any) -> Unrolled:
    torch.manual_seed(0)
    return promptmr_plus(**{**PROMPTMR_PLUS, "zero_init": False, **options}).double()


def _data(model: Unrolled) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    slices = (model.adjacent,) if model.adjacent > 1 else ()
    kspace = torch.randn(1, *slices, 4, 21, 18, dtype=torch.complex128, generator=generator)
    mask = torch.rand(1, 1, 1, 18, generator=generator) < 0.4
    mask |= acs_columns(18, torch.tensor([6]))
    return kspace * mask, mask


@contextmanager
def _kept_for_the_backward_pass() -> Iterator[dict[int, int]]:
    """Bytes of each block of memory that the forward pass keeps."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


@pytest.mark.parametrize("cascades", [2, 4])
@pytest.mark.parametrize(
    "options", [{}, {"adjacent": 3}, {"adaptive_input": False, "history": 0}, {"history": 2}], ids=str
)
def test_values_and_gradients_are_those_without(cascades: int, options: dict[str, Any]) -> None:
    """With history above all: the published network hands on a list that later cascades extend."""
    images, gradients = [], []
    for checkpointing in (False, True):
        model = _model(cascades=cascades, checkpointing=checkpointing, **options)
        images.append(model(*_data(model)).image)
        images[-1].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*images, rtol=1e-10, atol=1e-14)
    for name, expected in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], expected, rtol=1e-10, atol=1e-10 * expected.abs().max()
        )


def test_a_cascade_keeps_its_inputs_only() -> None:
    def kept(cascades: int, checkpointing: bool) -> int:
        model = _model(cascades=cascades, checkpointing=checkpointing)
        with _kept_for_the_backward_pass() as blocks:
            model(*_data(model))
        return sum(blocks.values())

    assert kept(4, True) < kept(4, False) / 4
    # What another four cascades cost: consistency keeps coil data in either case.
    assert kept(8, True) - kept(4, True) < (kept(8, False) - kept(4, False)) / 4


def test_without_gradients_nothing_changes() -> None:
    model = _model(cascades=2, checkpointing=True).eval()
    with torch.no_grad():
        image = model(*_data(model)).image
    assert not image.requires_grad
    torch.testing.assert_close(image, _model(cascades=2)(*_data(model)).image.detach())
