// SPDX-License-Identifier: Apache-2.0
#include "image/trigonometry.h"

#include <cmath>

namespace fkdb {

SineCosine PortableSineCosine(double x) {
  // Less the nearest multiple of a right angle, which three parts of it hold to 2^-118: n times the first two is exact.
  constexpr double kFirst = 0x1.921fb544p+0, kSecond = 0x1.0b4611a6p-34, kThird = 0x1.3198a2e037073p-69;
  const double n = std::nearbyint(x * 0x1.45f306dc9c883p-1);
  const double r = ((x - n * kFirst) - n * kSecond) - n * kThird;  // |r| <= pi / 4
  const double r2 = r * r;
  double s = 1, c = 1;  // Taylor's series, from the smallest term
  for (int i = 19; i >= 3; i -= 2) s = 1 - s * r2 / (i * (i - 1));
  for (int i = 20; i >= 2; i -= 2) c = 1 - c * r2 / (i * (i - 1));
  s *= r;
  switch (static_cast<long long>(n) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

double PortableArcTangent(double x) {
  const double x2 = x * x;
  double sum = 0;
  for (int i = 51; i >= 1; i -= 2) sum = 1.0 / i - sum * x2;
  return x * sum;
}

}  // namespace fkdb
