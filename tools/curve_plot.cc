// SPDX-License-Identifier: Apache-2.0
#include "tools/curve_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "format/text.h"

namespace fkdb {
namespace {

constexpr double kWidth = 960, kHeight = 400, kLeft = 64, kRight = 16, kTop = 64, kBottom = 48;  // pixels; of the plot itself the margins
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"};  // told apart by the colour-blind, too

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : Printable(text)) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else out += c;
  }
  return out;
}

// 1, 2 or 5 times a power of ten, of which `range` has 4 to 10.
double TickStep(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 4)));
  for (const double times : {5.0, 2.0}) {
    if (range / (times * power) >= 4) return times * power;
  }
  return power;
}

std::string Text(double x, double y, const std::string& attributes, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\"{}>{}</text>\n", x, y, attributes, Escaped(text));
}

}  // namespace

std::string PlotCurves(const std::string& title, const std::string& x_label, const std::string& y_label, std::span<const Curve> curves) {
  size_t points = 1;
  double highest = 0;
  for (const Curve& curve : curves) {
    points = std::max(points, curve.y.size());
    for (const double y : curve.y) highest = std::max(highest, y);
  }
  if (highest <= 0) highest = 1;
  const double step = TickStep(highest), top = std::ceil(highest / step) * step;
  const double width = kWidth - kLeft - kRight, height = kHeight - kTop - kBottom;
  const auto x_at = [&](size_t i) { return kLeft + width * (points > 1 ? static_cast<double>(i) / static_cast<double>(points - 1) : 0.5); };
  const auto y_at = [&](double y) { return kTop + height * (1 - y / top); };

  std::string svg = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
                                "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n", kWidth, kHeight);
  svg += Text(kLeft, 22, " font-size=\"15\"", title);
  for (int tick = 0; tick * step <= top * 1.0001; ++tick) {
    const double y = y_at(tick * step);
    svg += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>\n", kLeft, kWidth - kRight, y, y);
    svg += Text(kLeft - 8, y + 4, " text-anchor=\"end\"", fmt::format("{:.4g}", tick * step));
  }
  const size_t every = std::max<size_t>(1, static_cast<size_t>(TickStep(static_cast<double>(std::max<size_t>(points, 8)))));
  for (size_t i = 0; i < points; i += every) svg += Text(x_at(i), kHeight - kBottom + 18, " text-anchor=\"middle\"", fmt::format("{}", i));
  svg += Text(kLeft + width / 2, kHeight - 8, " text-anchor=\"middle\"", x_label);
  svg += Text(16, kTop + height / 2, fmt::format(" text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1f})\"", kTop + height / 2), y_label);
  double legend = kLeft;
  for (size_t c = 0; c < curves.size(); ++c) {
    const char* const colour = kColours[c % std::size(kColours)];
    svg += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"", colour);
    for (size_t i = 0; i < curves[c].y.size(); ++i) svg += fmt::format("{}{:.1f},{:.1f}", i > 0 ? " " : "", x_at(i), y_at(curves[c].y[i]));
    svg += "\"/>\n";
    svg += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"42\" y2=\"42\" stroke=\"{}\" stroke-width=\"3\"/>\n", legend, legend + 20, colour);
    svg += Text(legend + 26, 46, "", curves[c].name);
    legend += 26 + 7.5 * static_cast<double>(curves[c].name.size()) + 24;
  }
  return svg + "</svg>\n";
}

}  // namespace fkdb
