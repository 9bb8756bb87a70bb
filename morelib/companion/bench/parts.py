"""Where the time of a reconstruction goes: coil maps, U-Nets, and all that lies between them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from morelib.companion.bench.network import OnPart, Runner, Setting, times
from morelib.companion.bench.result import Row
from morelib.nn.graphs import Replayed, recordable

MAPS, UNETS, REST = "sensitivity maps", "U-Nets of the cascades", "consistency and the rest"
THEIRS, OURS = "fastMRI's VarNet", "E2EVarNet"
OF_THEIRS = "of fastMRI's time"


def bench_parts(setting: Setting, on_part: OnPart = lambda part: None) -> Iterator[Row]:
    """The three parts of fastMRI's VarNet and of ours, in units of fastMRI's whole reconstruction.

    Maps and U-Nets are timed alone, on inputs of the same shape; the rest is what is left of the whole.
    """
    theirs = setting.fastmri()
    ours, batch, varnet = setting.same_as(theirs), setting.batch, theirs.varnet
    readout, phase, _ = setting.size
    channels = torch.randn(1, 2, -(-readout // 16) * 16, -(-phase // 16) * 16, device=setting.device)
    last = channels.contiguous(memory_format=torch.channels_last)
    real, mask = torch.view_as_real(batch.kspace), batch.mask[..., None]

    def without_gradient(work: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(work)

    def as_whole(work: Callable[[], object]) -> Callable[[], object]:
        """Ours, run as the whole network is: on a GPU by a recorded graph."""
        return without_gradient(Replayed(work) if recordable(ours, setting.device) else work)

    def each(unets: list[Any], x: Tensor) -> Callable[[], object]:
        return lambda: [unet(x) for unet in unets]

    works = {
        THEIRS: Runner(theirs, setting).forward,
        f"{THEIRS}, {MAPS}": without_gradient(lambda: varnet.sens_net(real, mask, batch.n_acs)),
        f"{THEIRS}, {UNETS}": without_gradient(
            each([cascade.model.unet for cascade in varnet.cascades], channels)
        ),
        OURS: Runner(ours, setting).forward,
        f"{OURS}, {MAPS}": as_whole(lambda: ours.sensitivity(batch.kspace, batch.mask, batch.n_acs)),
        f"{OURS}, {UNETS}": as_whole(each([cascade.denoiser.unet for cascade in ours.cascades], last)),
    }
    took = times(works, setting, on_part)
    for system in (THEIRS, OURS):
        maps, unets = took[f"{system}, {MAPS}"], took[f"{system}, {UNETS}"]
        for part, seconds in {MAPS: maps, UNETS: unets, REST: took[system] - maps - unets}.items():
            yield Row(part, system, OF_THEIRS, seconds / took[THEIRS], repeats=setting.repeats,
                      times=(seconds, took[THEIRS]))  # fmt: skip
