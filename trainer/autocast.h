// SPDX-License-Identifier: Apache-2.0
// Includes Torch.
#pragma once

#include <ATen/autocast_mode.h>

#include <string>
#include <string_view>

namespace fkdb {

inline bool IsAutocastType(std::string_view type) { return type == "bf16" || type == "fp16"; }

// PyTorch's autocast on one kind of device, of the calling thread, while it lives. type: "bf16", "fp16"; empty: none.
class Autocast {
 public:
  Autocast(c10::DeviceType device, const std::string& type) : device_(device), on_(!type.empty()) {
    if (!on_) return;
    at::autocast::set_autocast_dtype(device_, type == "bf16" ? at::kBFloat16 : at::kHalf);
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::increment_nesting();
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
  ~Autocast() {
    if (!on_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, false);
  }

 private:
  const c10::DeviceType device_;
  const bool on_;
};

}  // namespace fkdb
