// SPDX-License-Identifier: Apache-2.0
// Sine, cosine and arc tangent from additions, multiplications and divisions only: the same bits on every
// machine, which the C library does not promise. Where a pixel of a rotated crop comes from depends on them.
#pragma once

namespace fkdb {

struct SineCosine {
  double sine, cosine;
};
// x in radians, at most 1e5 in size; error below 2^-52 of each.
SineCosine PortableSineCosine(double x);
// |x| <= 0.5.
double PortableArcTangent(double x);

// Degrees to radians and back, in Python's way.
inline double Radians(double degrees) { return degrees * (0x1.921fb54442d18p+1 / 180.0); }
inline double Degrees(double radians) { return radians * (180.0 / 0x1.921fb54442d18p+1); }

}  // namespace fkdb
