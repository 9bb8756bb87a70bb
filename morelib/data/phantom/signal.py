"""Signal equations: what a tissue's PD, T1 and T2 become under a protocol. Times in ms.

Steady state, perfect pulses, and T2* taken as T2 (echo times of the gradient echo are below 4 ms).
Source: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences (2004), chapters 14 (gradient echo, inversion
recovery) and 16 (echo trains).
"""

import numpy as np
from numpy.typing import NDArray

from morelib.data.phantom.protocol import Protocol
from morelib.data.phantom.tissue import Relaxation, Tissue, relaxation_table

# Magnetisation transfer: the refocusing pulses of other slices saturate white matter more than grey, by the
# 10 to 20 % usual in multislice fast spin echo (Melki and Mulkern, Magn. Reson. Med. 24 (1992) 184).
WHITE_MT_FLAIR = 0.80
# Fast blood leaves the slice between the pulses of a spin echo; this part of its signal is left. The head's
# vessels are fast, the knee's small veins are not.
FLOW_VOID = 0.25
# Water by mass, which fat suppression leaves, relaxing about like muscle's (Woodard and White, Br. J. Radiol. 59
# (1986) 1209: yellow marrow 15 %, red marrow 40 %, adipose tissue 11 to 30 %).
WATER_FRACTION = {Tissue.MARROW: 0.15, Tissue.RED_MARROW: 0.4, Tissue.FAT: 0.15}
# Contrast agent in mmol/L where it goes, at the usual single dose a few minutes after injection.
GADOLINIUM = {Tissue.BLOOD: 1.0, Tissue.DURA: 0.4, Tissue.CHOROID: 0.8, Tissue.ENHANCING: 0.4}


def spin_echo(tissue: Relaxation, tr: float, te: float) -> float:
    """Turbo spin echo with effective echo time: PD (1 - exp(-TR/T1)) exp(-TE/T2)."""
    return float(tissue.pd * (1 - np.exp(-tr / tissue.t1)) * np.exp(-te / tissue.t2))


def spoiled_gradient_echo(tissue: Relaxation, tr: float, te: float, flip_deg: float) -> float:
    """FLASH: PD sin a (1 - E1) / (1 - cos a E1) exp(-TE/T2), with E1 = exp(-TR/T1)."""
    flip, e1 = np.deg2rad(flip_deg), np.exp(-tr / tissue.t1)
    return float(tissue.pd * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-te / tissue.t2))


def inversion_recovery(tissue: Relaxation, tr: float, te: float, ti: float) -> float:
    """FLAIR, magnitude: PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2)."""
    recovery = 1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1)
    return float(tissue.pd * abs(recovery) * np.exp(-te / tissue.t2))


def with_gadolinium(tissue: Relaxation, concentration: float, field_t: float) -> Relaxation:
    """Shorten T1 by the agent: 1/T1' = 1/T1 + r1 C, r1 = 3.7 (3 T) or 4.1 (1.5 T) L/mmol/s, C in mmol/L."""
    r1_per_ms = (3.7 if field_t > 2 else 4.1) / 1000
    return tissue._replace(t1=1 / (1 / tissue.t1 + r1_per_ms * concentration))


def signals(protocol: Protocol, rng: np.random.Generator) -> NDArray[np.float32]:
    """Signals of every `Tissue` (water or lipid, tissue number), for one subject scanned with `protocol`.

    Their sum is a tissue's signal. `rng` draws the subject's jitter of the tissue values, and with fat
    suppression (CORPDFS_FBK) the part of the lipid signal that is left, 3 to 10 %. TI counts only in AXFLAIR:
    other rows have a TI that no inversion goes with.
    """
    table = relaxation_table(protocol.field_t, rng)
    residual_fat = rng.uniform(0.03, 0.10)
    water, lipid = np.zeros((2, len(Tissue)), np.float32)
    for tissue, values in table.items():
        if protocol.acquisition == "AXT1POST" and tissue in GADOLINIUM:
            values = with_gadolinium(values, GADOLINIUM[tissue], protocol.field_t)
        if protocol.acquisition == "AXFLAIR":
            signal = inversion_recovery(values, protocol.tr_ms, protocol.te_ms, protocol.ti_ms)
        elif protocol.sequence == "Flash":
            signal = spoiled_gradient_echo(values, protocol.tr_ms, protocol.te_ms, protocol.flip_deg)
        else:
            signal = spin_echo(values, protocol.tr_ms, protocol.te_ms)
        water[tissue] = signal
    if protocol.acquisition == "AXFLAIR":
        water[Tissue.WHITE] *= WHITE_MT_FLAIR
    if protocol.sequence != "Flash" and protocol.acquisition in ("AXT1", "AXT1PRE", "AXT2", "AXFLAIR"):
        water[Tissue.BLOOD] *= FLOW_VOID
    if protocol.acquisition == "CORPDFS_FBK":
        for tissue, part in WATER_FRACTION.items():
            lipid[tissue] = residual_fat * (1 - part) * water[tissue]
            water[tissue] = part * water[Tissue.MUSCLE] / table[Tissue.MUSCLE].pd
    return np.stack([water, lipid])
