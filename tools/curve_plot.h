// SPDX-License-Identifier: Apache-2.0
// A line chart as SVG, without a library for it.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace fkdb {

struct Curve {
  std::string name;
  std::vector<double> y;  // at x = 0, 1, ..; finite
};

// Axes with labels, a legend, and the curves; y begins at 0. The names may be any text. At least one curve with at least one point.
std::string PlotCurves(const std::string& title, const std::string& x_label, const std::string& y_label, std::span<const Curve> curves);

}  // namespace fkdb
