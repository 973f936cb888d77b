# SPDX-License-Identifier: Apache-2.0
"""The images that the golden pixels are made of."""

import numpy as np


def source(height, width, channels, seed):
    """Gradients with noise on top; tests/image/pillow_test.cc makes the same."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    state = (y * 7919 + x * 104729 + c * 1299709 + seed * 15485863).astype(np.uint32)
    state = state * np.uint32(2654435761)
    state ^= state >> np.uint32(15)
    noise = (state >> np.uint32(8)) & np.uint32(255)
    return ((x * 3 + y * 5 + c * 40 + noise * (1 + seed % 4)) & 255).astype(np.uint8)
