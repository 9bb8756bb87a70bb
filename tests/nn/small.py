"""Networks at a size for tests."""

from typing import Any

PROMPTMR_PLUS: dict[str, Any] = {
    "widths": (4, 6, 8),
    "prompt_widths": (2, 4),
    "prompt_sizes": (6, 4),
    "n_prompts": 2,
    "encoder_blocks": (1, 1),
    "decoder_blocks": (1, 1),
    "bottleneck_blocks": 1,
}
