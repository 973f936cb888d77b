// SPDX-License-Identifier: Apache-2.0
#include "db/preload.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14; older ones refuse it
#endif

namespace fkdb {
namespace {

constexpr uintptr_t kPage = 4096, kChunk = uintptr_t{8} << 20;

// What the kernel could give without swapping, and this process is allowed.
uint64_t AvailableMemory() {
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string name, unit; meminfo >> name >> available; std::getline(meminfo, unit)) {
    if (name == "MemAvailable:") break;
    available = 0;
  }
  available *= 1024;
  uint64_t limit = std::numeric_limits<uint64_t>::max();
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    uint64_t bytes = 0;
    if (std::ifstream(path) >> bytes) limit = std::min(limit, bytes);  // "max" is no number
  }
  return std::min(available, limit);
}

void Advise(uintptr_t first, uintptr_t end, int advice) {
  if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, advice);
}

// The disk is asked for one chunk while the pages of the one before are put into the page table.
void Read(std::span<const std::byte> bytes, const std::stop_token& stop) {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()) / kPage * kPage;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size());
  Advise(begin, std::min(end, begin + kChunk), MADV_WILLNEED);
  for (uintptr_t at = begin; at < end && !stop.stop_requested(); at += kChunk) {
    const uintptr_t next = std::min(end, at + kChunk);
    Advise(next, std::min(end, next + kChunk), MADV_WILLNEED);
    Advise(at, next, MADV_POPULATE_READ);
  }
}

}  // namespace

Result<Preload> ParsePreload(std::string_view name) {
  if (name == "auto") return Preload::kAuto;
  if (name == "on") return Preload::kOn;
  if (name == "off") return Preload::kOff;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("preload '{}': expected auto, on or off", name));
}

Preloader::Preloader(const LabelSet& labels, Preload mode) {
  uint64_t bytes = 0;
  for (const LabelFile& file : labels.files()) bytes += file.mapped_blocks().size();
  if (mode == Preload::kOff || (mode == Preload::kAuto && bytes > AvailableMemory() / 2)) return;
  bytes_ = bytes;
  worker_ = std::jthread([&labels](const std::stop_token& stop) {
    for (const LabelFile& file : labels.files()) Read(file.mapped_blocks(), stop);
  });
}

void Preloader::Wait() {
  if (worker_.joinable()) worker_.join();
}

}  // namespace fkdb
