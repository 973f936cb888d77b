# SPDX-License-Identifier: Apache-2.0
"""What a label map says of a crop, computed without haste from ReLabel's formula."""

import math
from fractions import Fraction

import numpy as np


def bilinear(scores, y, x):
    """Scores (C) of a map (C, H, W) at a point, as torchvision.ops.roi_align reads it."""
    _, height, width = scores.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(scores))
    y, x = max(y, 0), max(x, 0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = (y - top if top < height - 1 else 0), (x - left if left < width - 1 else 0)
    return ((1 - dy) * ((1 - dx) * scores[:, top, left] + dx * scores[:, top, right])
            + dy * ((1 - dx) * scores[:, bottom, left] + dx * scores[:, bottom, right]))


def pooled(label_map, size, box, num_classes):
    """ReLabel's label of a crop: label_map (2, K, H, W), size and box in pixels. Sides are exact numbers, all else float64."""
    values, classes = label_map[0].double().numpy(), label_map[1].long().numpy()
    _, rows, columns = values.shape
    scores = np.zeros((num_classes, rows, columns))
    np.put_along_axis(scores, classes, values, 0)
    y, x = (Fraction(box[0], size[0]) * rows - Fraction(1, 2), Fraction(box[1], size[1]) * columns - Fraction(1, 2))
    height, width = max(Fraction(box[2], size[0]) * rows, 1), max(Fraction(box[3], size[1]) * columns, 1)
    n, m = math.ceil(height), math.ceil(width)
    mean = sum(bilinear(scores, float(y + (i + Fraction(1, 2)) * height / n), float(x + (j + Fraction(1, 2)) * width / m))
               for i in range(n) for j in range(m)) / (n * m)
    e = np.exp(mean - mean.max())
    return e / e.sum()
